"""npopt.gradcheck: it accepts what is right, finds what is wrong, and says where."""

from types import SimpleNamespace

import nn
from npopt import gradcheck
from npopt.segments import Segments

import numpy as np
import pytest


def bowl(n=6, wrong=0.0, kink=False):
    """f = 1/2 x'Ax + sum sin x (+ sum |x|), with an error in the last component's derivative."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((n, n))
    A = A + A.T

    def value(x, rows=None):
        return 0.5 * x @ A @ x + np.sin(x).sum() + (np.abs(x).sum() if kink else 0)

    def value_and_gradient(x, rows=None, out=None):
        out[...] = A @ x + np.cos(x) + (np.sign(x) if kink else 0)
        out[-1] += wrong
        return value(x)

    table = Segments.of(("head", (n - 2,), "vector", "a"), ("tail", (2,), "vector", "b"))
    return SimpleNamespace(value=value, value_and_gradient=value_and_gradient, name="bowl", segments=table)


def test_a_right_gradient_passes_far_below_the_tolerance(rng):
    report = gradcheck(bowl(), rng.standard_normal(6))
    assert report.ok and report.worst < 1e-9
    assert [line.where for line in report.lines] == ["all 1", "all 2", "all 3", "head", "tail"]
    assert "bowl: ok" in str(report)


@pytest.mark.parametrize("wrong", [1e-6, 1.0, np.nan])
def test_a_wrong_component_is_found_and_its_segment_named(rng, wrong):
    report = gradcheck(bowl(wrong=wrong), rng.standard_normal(6))
    assert not report.ok
    marked = [line for line in str(report).splitlines() if line.endswith("<-")]
    assert any("tail" in line for line in marked) and not any("head" in line for line in marked)


def test_a_kink_close_by_does_not_fail_a_right_gradient():
    x = np.array([1.0, -2.0, 3e-5, 0.5, -1e-4, 2.0])
    assert gradcheck(bowl(kink=True), x).ok
    assert not gradcheck(bowl(kink=True), x, h=1e-3).ok  # that step crosses it


def test_x_is_not_changed_and_float32_is_refused(rng):
    x = rng.standard_normal(6)
    before = x.copy()
    gradcheck(bowl(), x)
    np.testing.assert_array_equal(x, before)
    with pytest.raises(ValueError, match="x must be float64"):
        gradcheck(bowl(), x.astype("float32"))


def test_a_function_that_differs_between_passes_is_refused(rng):
    problem = bowl()
    problem.value = lambda x, rows=None: rng.standard_normal()
    with pytest.raises(ValueError, match="must be the same in both passes"):
        gradcheck(problem, np.ones(6))


def test_layers_with_a_wrong_backward_fail():
    class Forgetful(nn.BatchNorm):
        """Leaves the mean of dy in dx: invisible with an upstream gradient of ones."""

        def backward(self, dy, saved, run):
            mean = dy.mean(0)
            return super().backward(dy, saved, run) + 1e-5 * mean

    assert not nn.gradcheck_layer(Forgetful(4), (4,)).ok
    assert nn.gradcheck_layer(nn.BatchNorm(4), (4,)).ok
