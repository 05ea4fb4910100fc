"""Scores of a network's rows: the definition, the bound of a gradient that they are, and draws by them."""

import nn
from npopt import AdaptiveImportance, backend
from problems.datasets import shared
from problems.feeds import Images
from problems.scored import Scored

import numpy as np
import pytest


def made(loss=None, **more):
    d = shared("digits", rows=40)
    return Scored(nn.mlp((64, 7, 10), nn.Tanh), Images(d), loss, **more)


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("weighted", [False, True])
def test_scores_are_the_norms_of_softmax_minus_onehot(weighted, rng, device):
    problem = made(dtype="float64")
    x, rows = problem.x0(rng), np.array([3, 8, 8, 21, 30])
    weights = 0.2 + rng.random(5) if weighted else None
    g = backend.empty((problem.dim,), "float64")
    problem.value_and_gradient(x, backend.asarray(rows), None if weights is None else backend.asarray(weights), g)
    found = backend.to_host(problem.row_norms())
    p = softmax(problem.outputs(x, "train", rows))
    p[np.arange(5), problem.targets()[rows]] -= 1
    np.testing.assert_allclose(found, np.linalg.norm(p, axis=1), rtol=1e-10)


def test_a_rows_gradient_is_its_jacobian_times_what_the_score_measures(rng):
    problem = made(nn.SoftmaxCrossEntropy(0.2), dtype="float64")
    x, g = problem.x0(rng), np.empty(problem.dim)
    head = next(s for s in problem.segments if s.name == "fc2.b")
    for row in (0, 17, 39):  # the Jacobian of the outputs in the last bias is the identity
        problem.value_and_gradient(x, np.array([row]), None, g)
        (score,) = problem.row_norms()
        np.testing.assert_allclose(np.linalg.norm(g[head.slice]), score, rtol=1e-12)
        assert score <= np.linalg.norm(g)


def test_rows_with_a_large_score_are_drawn_more_often():
    problem, sampler = made(), AdaptiveImportance(8, a=1.0, c=0.1)
    sampler.start(problem, 3)
    x, g = problem.x0(np.random.default_rng(3)), np.empty(problem.dim, "float32")
    for batch in sampler.take(sampler.steps_per_epoch):
        problem.value_and_gradient(x, batch.rows, batch.weights, g)
        sampler.observe(batch, problem)
    drawn = [batch.rows for batch in sampler.take(400 * 5)]
    z = softmax(problem.outputs(x, "train", np.arange(40)).astype(float))
    z[np.arange(40), problem.targets()] -= 1
    score = np.linalg.norm(z, axis=1)
    expected = 0.9 * score / score.sum() + 0.1 / 40
    share = np.bincount(np.concatenate(drawn), minlength=40) / (400 * 5 * 8)
    assert np.abs(share - expected).max() < 5 * np.sqrt(expected.max() / (400 * 5 * 8))
