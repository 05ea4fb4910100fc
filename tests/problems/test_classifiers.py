"""The course's classifiers: their sizes, their rows, their pixels."""

from npopt import SGD, Events, RandomReshuffling, Stop, minimize
from problems import Neural
from problems.classifiers import Remembering, book_cnn, halved, lenet, padded, perceptron, residual, resnet
from problems.datasets import shared

import numpy as np
import pytest


@pytest.mark.parametrize(
    "build, more, name, shape",
    [
        (perceptron, {"hidden": (9, 5)}, "mlp-64-9-5-10", (64,)),
        (lenet, {}, "lenet5", (8, 8, 1)),
        (resnet, {"width": 2}, "resnet18-w2", (8, 8, 1)),
    ],
    ids=["perceptron", "lenet", "resnet"],
)
def test_rows_are_kept_held_out_and_cut(build, more, name, shape):
    problem = build("digits", rows=60, validation=1 / 6, test_rows=7, l2=0.5, **more)
    assert (problem.network.name, problem.network.input_shape, problem.network.output_shape) == (name, shape, (10,))
    assert (problem.n, problem.l2) == (50, 0.5)
    assert {part: problem.feed.count(part) for part in problem.feed.parts} == {"train": 50, "validation": 10, "test": 7}
    assert {"validation_accuracy", "test_loss"} <= problem.metrics(problem.x0(np.random.default_rng(0))).keys()


def test_pixels_go_from_low_to_high():
    d = shared("digits")
    for low, high in ((0, 1), (-1, 1)):
        found = perceptron("digits", pixels=(low, high), dtype="float64").inputs(np.arange(5)).reshape(5, -1)
        expected = low + (high - low) * d.x_train[:5].reshape(5, -1) / 16
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_padded_images_have_zeros_around_them():
    d = shared("digits")
    found = padded(d, 13)
    assert found.x_train.shape == (len(d.x_train), 13, 13, 1) and found.x_train.dtype == d.x_train.dtype
    for part in ("x_train", "x_test"):
        images, wide = getattr(d, part), getattr(found, part)
        np.testing.assert_array_equal(wide[:, 2:10, 2:10], images)
        assert wide.sum() == images.sum()


def test_the_books_convolutional_network_has_its_number_of_weights():
    problem = book_cnn("digits", rows=40, test_rows=7)
    sizes = {s.name: s.size for s in problem.network.segments}
    # on 32x32x3 with 100 classes: conv 3 to 32, 2048 to 512 after three pools, 512 to 100; here 8x8x1, 128 and 10
    other = 9 * (3 - 1) * 32 + (4 * 4 - 1) * 128 * 512 + (100 - 10) * (512 + 1)
    assert sum(sizes.values()) + other == 1_194_084
    assert problem.metrics(problem.x0(np.random.default_rng(0))).keys() >= {"train_loss", "test_accuracy"}
    x = problem.inputs(np.arange(5))
    assert x.min() == -1 and x.max() == 1


@pytest.fixture
def moved():
    """A small ResNet-18 after six steps with a rate that moves it fast."""
    problem = resnet("digits", width=2, rows=120, test_rows=50)
    run = minimize(problem, SGD(), RandomReshuffling(20), 0.1, stop=Stop(steps=6), events=Events(None))
    return problem, run.x


def test_metrics_of_a_resnet_have_the_statistics_of_its_weights(moved):
    problem, x = moved
    before, found = problem.network.state(), problem.metrics(x)
    for name, state in problem.network.state().items():
        for key, array in state.items():
            np.testing.assert_array_equal(array, before[name][key])
    lagging = Neural.metrics(problem, x)
    problem.recalibrate(x)
    assert found == Neural.metrics(problem, x)
    assert abs(lagging["train_loss"] / found["train_loss"] - 1) > 0.01
    batch = problem.value(x, np.arange(problem.n))  # its own statistics, with n for n - 1 below the variance
    assert found["train_loss"] == pytest.approx(float(batch), rel=0.02)


def test_steps_see_nothing_of_the_metrics():
    ends = []
    for every in (1, None):
        problem = resnet("digits", width=2, rows=120, test_rows=20)
        run = minimize(problem, SGD(), RandomReshuffling(20), 0.1, stop=Stop(steps=5), events=Events(every, "step"))
        ends.append((run.x, problem.network.state()))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    for name, state in ends[0][1].items():
        for key, array in state.items():
            np.testing.assert_array_equal(array, ends[1][1][name][key])


def test_one_set_is_loaded_once():
    assert shared("digits") is shared("digits")
    assert lenet("digits").feed.data is shared("digits", validation=0.0, rows=None)


def test_halved_images_are_means_of_four():
    d = shared("digits")
    found = halved(d)
    assert found.x_train.shape == (len(d.x_train), 4, 4, 1) and found.x_train.dtype == d.x_train.dtype
    for i, j in ((0, 0), (3, 1)):
        block = d.x_train[7, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 0].astype(float)
        assert abs(found.x_train[7, i, j, 0] - block.mean()) <= 0.5
    assert found.mean[0] == pytest.approx(found.x_train.mean(), rel=1e-6)
    with pytest.raises(ValueError, match="cannot be halved"):
        halved(padded(d, 9))


@pytest.mark.parametrize("skip", [True, False])
def test_residual_networks_by_depth(skip):
    problem = residual("digits", width=2, blocks=2, skip=skip, rows=40, test_rows=10, halves=False)
    assert problem.network.name == "resnet14-w2" + "-noskip" * (not skip) and problem.n == 40
    assert any("shortcut" in name for name in problem.segments.names) == skip
    assert problem.metrics(problem.x0(np.random.default_rng(0)))["train_loss"] > 0


def test_a_remembering_network_keeps_where_its_metrics_were_taken():
    problem = perceptron("digits", hidden=(4,), rows=40, test_rows=10, kind=Remembering)
    run = minimize(problem, SGD(), RandomReshuffling(20), 0.1, stop=Stop(epochs=2), events=Events(metrics=1 / 2))
    assert len(problem.path) == len(run.columns["step"]) == 5
    np.testing.assert_array_equal(problem.path[-1], run.x)
    assert all((a != b).any() for a, b in zip(problem.path[:-1], problem.path[1:], strict=True))
