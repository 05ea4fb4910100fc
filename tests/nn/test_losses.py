"""Losses: values against formulas, gradients against differences, weights, stability, and targets that do not fit."""

import nn
from npopt import backend

import numpy as np
import pytest
import scipy.special

CASES = {
    "cross-entropy": (nn.SoftmaxCrossEntropy(), "classes", 4),
    "smoothed cross-entropy": (nn.SoftmaxCrossEntropy(label_smoothing=0.2), "classes", 4),
    "squared error": (nn.SquaredError(), "numbers", 3),
    "squared error, one output": (nn.SquaredError(), "column", 1),
    "binary cross-entropy": (nn.BinaryCrossEntropy(), "shares", 3),
    "binary cross-entropy, one output": (nn.BinaryCrossEntropy(), "column", 1),
    "binary cross-entropy, positives weighted": (nn.BinaryCrossEntropy(pos_weight=2.5), "shares", 3),
    "binary cross-entropy, mean": (nn.BinaryCrossEntropy(2.5, mean=True), "shares", 3),
    "divergence": (nn.KLDivergence(), "logits", 4),
    "cross-entropy of sequences": (nn.SoftmaxCrossEntropy(0.1), "words", (5, 4)),
    "cross-entropy of positions": (nn.SoftmaxCrossEntropy(0.1, over="positions"), "words", (5, 4)),
    "squared error of sequences": (nn.SquaredError(), "series", (5, 2)),
    "binary cross-entropy of sequences": (nn.BinaryCrossEntropy(), "marks", (5, 2)),
}


def targets(kind, rng, rows=6):
    return {
        "classes": rng.integers(0, 4, rows),
        "numbers": rng.standard_normal((rows, 3)),
        "shares": rng.random((rows, 3)),
        "column": rng.random(rows),
        "logits": rng.standard_normal((rows, 4)),
        "words": np.where(rng.random((rows, 5)) < 0.3, -1, rng.integers(0, 4, (rows, 5))),
        "series": rng.standard_normal((rows, 5, 2)),
        "marks": rng.integers(0, 2, (rows, 5, 2)).astype(float),
    }[kind]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_is_the_derivative_of_the_weighted_mean(name, weighted, rng):
    loss, kind, outputs = CASES[name]
    z, t = rng.standard_normal((6, *np.atleast_1d(outputs))), targets(kind, rng)
    w = 3 * rng.random(6) if weighted else None
    value, dz = loss.value_and_gradient(z, t, w)
    dz = dz.copy()
    rows = loss.rows(z, t)
    assert value == loss.value(z, t, w) and isinstance(value, float)
    assert value == pytest.approx(np.mean(rows if w is None else w * rows), rel=1e-13)
    d, h = rng.standard_normal(z.shape), 1e-5
    numeric = (loss.value(z + h * d, t, w) - loss.value(z - h * d, t, w)) / (2 * h)
    assert numeric == pytest.approx(np.sum(dz * d), rel=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_losses_never_touch_the_host(name, device, rng):
    loss, kind, outputs = CASES[name]
    z, t = rng.standard_normal((6, *np.atleast_1d(outputs))), targets(kind, rng)
    w, found = rng.random(6), []
    for where in ("cpu", device):
        backend.use(where)
        on = [backend.asarray(v) for v in (z, t, w)]
        found.append([backend.to_host(v) for v in loss.value_and_gradient(*on)])
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-14)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-13)


def test_cross_entropy_is_minus_the_log_of_the_softmax(rng):
    z, t = rng.standard_normal((5, 4)), np.array([0, 3, 1, 1, 2])
    logp = scipy.special.log_softmax(z, axis=1)
    np.testing.assert_allclose(nn.SoftmaxCrossEntropy().rows(z, t), -logp[np.arange(5), t], rtol=1e-13)
    smoothed = -(0.9 * logp[np.arange(5), t] + 0.1 * logp.mean(axis=1))
    np.testing.assert_allclose(nn.SoftmaxCrossEntropy(0.1).rows(z, t), smoothed, rtol=1e-13)


def test_a_sequence_weighs_as_much_as_another_and_ignored_positions_nothing(rng):
    z, t = rng.standard_normal((3, 4, 5)), np.array([[1, -1, 2, 0], [-1, -1, 3, -1], [-1] * 4])
    logp = scipy.special.log_softmax(z, axis=2)
    expected = [-(logp[0, 0, 1] + logp[0, 2, 2] + logp[0, 3, 0]) / 3, -logp[1, 2, 3], 0]
    loss = nn.SoftmaxCrossEntropy()
    np.testing.assert_allclose(loss.rows(z, t), expected, rtol=1e-13)
    assert not loss.value_and_gradient(z, t)[1][t == -1].any()
    best = z.argmax(2) == t
    np.testing.assert_allclose(loss.right(z, t), [best[0, [0, 2, 3]].mean(), best[1, 2], 0])


def test_positives_weigh_as_often_as_pos_weight_says(rng):
    z, t, p = 2 * rng.standard_normal((5, 3)), rng.random((5, 3)), 2.5
    s = scipy.special.expit(z)
    expected = -(p * t * np.log(s) + (1 - t) * np.log(1 - s)).sum(1)
    np.testing.assert_allclose(nn.BinaryCrossEntropy(p).rows(z, t), expected, rtol=1e-12)


def test_squared_error_has_the_half_and_sums_over_outputs():
    rows = nn.SquaredError().rows(np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[0.0, 4.0], [3.0, 4.0]]))
    np.testing.assert_array_equal(rows, [2.5, 12.5])


def test_binary_cross_entropy_is_its_definition(rng):
    z, t = rng.standard_normal((5, 2)), rng.integers(0, 2, (5, 2)).astype(float)
    p = scipy.special.expit(z)
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(1)
    np.testing.assert_allclose(nn.BinaryCrossEntropy().rows(z, t), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_huge_outputs_stay_finite(dtype):
    z = np.array([[1e4, -1e4], [-1e4, 1e4]], dtype)
    value, dz = nn.SoftmaxCrossEntropy().value_and_gradient(z, np.array([0, 0]), None)
    assert value == 1e4 and dz.dtype == dtype
    np.testing.assert_array_equal(dz, [[0, 0], [-0.5, 0.5]])
    value, dz = nn.BinaryCrossEntropy().value_and_gradient(z, np.array([[1, 0], [1, 0]], dtype), None)
    assert value == 1e4
    np.testing.assert_array_equal(dz, [[0, 0], [-0.5, 0.5]])


@pytest.mark.parametrize(
    "loss, outputs, t, words",
    [
        (nn.SoftmaxCrossEntropy(), (3,), np.array([0, 3]), "labels run from 0 to 3, but the network has 3 outputs"),
        (nn.SoftmaxCrossEntropy(), (3,), np.array([-1, 2]), "labels run from -1 to 2"),
        (nn.SoftmaxCrossEntropy(), (3,), np.array([0.5, 2]), "targets must be class numbers"),
        (nn.SoftmaxCrossEntropy(), (3, 2), np.array([0, 1]), r"must be \(classes,\)"),
        (nn.SquaredError(), (3,), np.zeros((4, 2)), "a row of targets has 2 numbers"),
        (nn.BinaryCrossEntropy(), (1,), np.array([0, 2]), r"must lie in \[0, 1\]"),
        (nn.BinaryCrossEntropy(), (10,), np.array([0, 1]), "belong to SoftmaxCrossEntropy"),
    ],
)
def test_targets_that_do_not_fit_get_one_sentence(loss, outputs, t, words):
    with pytest.raises(ValueError, match=words):
        loss.targets(outputs, t, "float64")


def test_losses_are_values():
    assert nn.SoftmaxCrossEntropy() == nn.SoftmaxCrossEntropy(label_smoothing=0.0)
    assert repr(nn.SoftmaxCrossEntropy(0.1)) == "SoftmaxCrossEntropy(label_smoothing=0.1, over='rows')"
    with pytest.raises(ValueError, match="label_smoothing must lie in"):
        nn.SoftmaxCrossEntropy(1.5)


def test_the_accuracy_of_several_binary_outputs_is_a_share():
    z, t = np.array([[2.0, -1.0, 3.0], [1.0, 1.0, 1.0]]), np.array([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(nn.BinaryCrossEntropy().right(z, t), [1.0, 1 / 3])


def test_over_positions_the_mean_is_that_of_all_labels_that_count(rng):
    """(1/n) sum of the n unmasked labels' losses; dz is (p - e)/n there and exactly 0 elsewhere."""
    loss, z = nn.SoftmaxCrossEntropy(over="positions"), rng.standard_normal((3, 4, 5))
    t = np.array([[1, -1, 4, 0], [-1, -1, -1, -1], [2, -1, -1, -1]])
    value, dz = loss.value_and_gradient(z, t)
    p, counts = scipy.special.softmax(z, axis=2), t != -1
    chosen = np.take_along_axis(p, np.maximum(t, 0)[..., None], 2)[..., 0]
    assert value == pytest.approx(-np.log(chosen[counts]).mean(), rel=1e-13)
    expected = (p - np.eye(5)[np.maximum(t, 0)]) / 4
    np.testing.assert_allclose(dz[counts], expected[counts], rtol=1e-12)
    np.testing.assert_array_equal(dz[~counts], 0)
    right = (z.argmax(2) == t)[counts].mean()
    assert loss.right(z, t).mean() == pytest.approx(right, rel=1e-14)
    nothing = np.full((3, 4), -1)
    value, dz = loss.value_and_gradient(z, nothing)
    assert value == 0 and not dz.any()
    with pytest.raises(ValueError, match="over must be"):
        nn.SoftmaxCrossEntropy(over="batches")
