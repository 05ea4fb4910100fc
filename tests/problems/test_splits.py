"""Splits and standardisation."""

from problems import split, standardise
from problems.splits import channel_statistics

import numpy as np
import pytest
import scipy.sparse as sp


def test_a_split_is_a_partition_of_the_asked_size_and_a_function_of_the_seed():
    kept, held = split(1000, 0.2, seed=5)
    assert len(held) == 200
    np.testing.assert_array_equal(np.sort(np.r_[kept, held]), np.arange(1000))
    np.testing.assert_array_equal(split(1000, 0.2, seed=5)[1], held)
    assert not np.array_equal(split(1000, 0.2, seed=6)[1], held)
    assert [len(part) for part in split(2, 0.01)] == [1, 1] == [len(part) for part in split(2, 0.99)]


def test_the_default_split_is_the_recorded_one_for_ever():
    """These rows are part of every number on sets without test rows; NumPy froze the stream that they come from."""
    assert split(20)[1].tolist() == [1, 8, 18, 19]


@pytest.mark.parametrize("n, fraction", [(1, 0.5), (10, 0.0), (10, 1.0), (10, np.nan)])
def test_a_split_that_cannot_be_is_an_error(n, fraction):
    with pytest.raises(ValueError, match="split: (n|fraction) must"):
        split(n, fraction)


def test_standardisation_sees_the_training_rows_alone():
    rng = np.random.default_rng(0)
    train = rng.normal([3, -1e6, 0, 1e-9], [2, 10, 1, 1e-10], (50, 4))
    train = np.c_[train, np.full(50, 0.1)]  # a constant column whose mean is not exact
    test = np.c_[rng.standard_normal((5, 4)), np.full(5, 7.0)]
    a, b, mean, std = standardise(train, test)
    np.testing.assert_allclose(a[:, :4].mean(0), 0, atol=1e-9)  # the mean of the second column is known to 1e-10 of 1e6
    np.testing.assert_allclose(a[:, :4].std(0), 1, rtol=1e-9)
    np.testing.assert_allclose(b, (test - mean) / std)
    np.testing.assert_allclose(mean, train.mean(0))
    np.testing.assert_allclose(a[:, 4], 0, atol=1e-15)
    assert std[4] == 1.0 and b[0, 4] == pytest.approx(6.9)
    assert standardise(train.astype(np.float32))[0].dtype == np.float32
    with pytest.raises(ValueError, match="sparse"):
        standardise(train, sp.csr_matrix(test))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_channel_statistics_are_those_of_all_pixels(dtype):
    images = np.random.default_rng(0).integers(0, 256, (1000, 12, 10, 3)).astype(dtype)
    images[..., 1] = 9
    mean, std = channel_statistics(images)
    pixels = images.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, [pixels[:, 0].std(), 1.0, pixels[:, 2].std()], rtol=1e-6)
