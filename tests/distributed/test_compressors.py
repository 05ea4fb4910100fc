"""Compressors keep their promise, and cost the bytes that they say."""

from npopt import backend
from npopt.distributed import QSGD, Compressor, Identity, RandK, Sign, TopK
from npopt.errors import UserError

import numpy as np
import pytest

ALL = [Identity(), TopK(3), RandK(3), RandK(3, scaled=False), Sign(), QSGD(1), QSGD(4), QSGD(7)]
DRAWS = 4000


def size(message):
    return sum(a.nbytes for a in message)


@pytest.mark.parametrize(
    "compressor, numbers, bytes_",
    [
        (Identity(), 20, 80),
        (TopK(3), 20, 3 * 8),
        (RandK(3), 20, 3 * 4 + 8),
        (Sign(), 20, 3 + 4),
        (QSGD(1), 20, 5 + 4),  # 3 values, 2 bits
        (QSGD(4), 20, 10 + 4),  # 9 values, 4 bits
        (QSGD(7), 20, 10 + 4),  # 15 values, 4 bits
        (QSGD(8), 20, 13 + 4),  # 17 values, 5 bits
    ],
)
def test_bytes_of_a_message(compressor, numbers, bytes_, rng):
    assert size(compressor.encode(rng.standard_normal(numbers).astype(np.float32), 5)) == bytes_


def test_values_are_the_definitions(rng):
    v = rng.standard_normal(11)
    np.testing.assert_array_equal(Identity()(v), v)
    order = np.argsort(-np.abs(v))
    np.testing.assert_array_equal(TopK(4)(v), np.where(np.isin(np.arange(11), order[:4]), v, 0))
    np.testing.assert_allclose(Sign()(v), np.abs(v).mean() * np.sign(v), rtol=1e-15)
    kept = RandK(4, scaled=False)(v, 9)
    assert (kept != 0).sum() == 4 and set(kept[kept != 0]) <= set(v)
    np.testing.assert_allclose(RandK(4)(v, 9), kept * 11 / 4, rtol=1e-15)
    np.testing.assert_array_equal(TopK(11)(v), v)
    np.testing.assert_array_equal(RandK(11)(v, 2), v)
    steps = QSGD(5)(v, 3) / np.linalg.norm(v) * 5
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-12)
    assert (np.abs(steps - v / np.linalg.norm(v) * 5) < 1).all()


@pytest.mark.parametrize("compressor", ALL, ids=str)
def test_a_message_is_in_memory_of_its_own(compressor, rng):
    v = rng.standard_normal(9)
    message = compressor.encode(v, 3)
    before = [a.copy() for a in message]
    v[:] = 0
    for a, b in zip(message, before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("compressor", ALL, ids=str)
def test_promises(compressor, rng):
    """Means and squared errors over draws, against alpha and omega; those of RandK are exact in the mean."""
    v = rng.standard_normal(9) * np.array([5, 1, 1, 1, 0, 1, 0.1, 1, 2])
    draws = np.array([compressor(v, backend.key(1, "draw", k)) for k in range(DRAWS)])
    errors = ((draws - v) ** 2).sum(1) / (v @ v)
    noise = 4 * errors.std() / DRAWS**0.5 + 1e-12
    if compressor.omega(9) is not None:
        np.testing.assert_allclose(draws.mean(0), v, atol=4.5 * draws.std(0).max() / DRAWS**0.5 + 1e-12)
        assert errors.mean() <= compressor.omega(9) + noise
    if compressor.alpha(9) is not None:
        assert errors.mean() <= 1 - compressor.alpha(9) + noise
    assert compressor.omega(9) is not None or compressor.alpha(9) is not None
    if isinstance(compressor, RandK):
        expected = 9 / 3 - 1 if compressor.scaled else 1 - 3 / 9
        assert errors.mean() == pytest.approx(expected, abs=noise)


def test_the_alpha_of_sign_is_attained_and_that_of_top_k_too():
    one = np.zeros(8)
    one[3] = 2.0  # |v|_1^2 / (d |v|^2) = 1/8
    assert ((Sign()(one) - one) ** 2).sum() == pytest.approx((1 - 1 / 8) * 4)
    flat = np.ones(8)
    assert ((TopK(3)(flat) - flat) ** 2).sum() == pytest.approx((1 - 3 / 8) * 8)


@pytest.mark.parametrize("compressor", ALL, ids=str)
def test_zeros_stay_zero_and_a_message_is_all_that_is_needed(compressor, rng, device):
    for dtype in (np.float32, np.float64):
        zero = backend.zeros((9,), dtype)
        found = compressor(zero, 7)
        assert found.dtype == dtype and (backend.to_host(found) == 0).all()
        v = rng.standard_normal(9).astype(dtype)
        message = compressor.encode(backend.asarray(v), 7)
        decoded = backend.to_host(compressor.decode(message, zero))
        backend.use("cpu")
        np.testing.assert_allclose(decoded, compressor(v, 7), rtol=1e-6)
        backend.use(device)


def test_arguments():
    for make in (lambda: TopK(0), lambda: RandK(1.5), lambda: QSGD(0)):
        with pytest.raises(UserError):
            make()
    with pytest.raises(UserError, match="k = 4 numbers of a vector of 3"):
        TopK(4)(np.ones(3))
    with pytest.raises(UserError, match="defines no encode"):
        Compressor()(np.ones(3))
    with pytest.raises(UserError, match="defines no decode"):
        Compressor().decode((), np.ones(3))
    assert repr(TopK(3)) == "TopK(k=3)" and Sign().alpha(4) == 0.25 and Compressor().omega(3) is None
