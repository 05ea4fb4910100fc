"""A checkpoint is held to the data, the problem and the code that it was made with, and its counters to each other."""

import importlib
import sys

from nn import ReLU, Tanh, networks
from nn.losses import SoftmaxCrossEntropy
from npopt import (
    Accumulated,
    Adam,
    Events,
    HeavyBall,
    Minibatch,
    RandomReshuffling,
    Stop,
    checkpoint,
    code,
    identity,
    minimize,
)
from problems import LeastSquares, Neural, Quadratic, datasets
from problems.feeds import Images
from problems.tokens import Windows

import numpy as np
import pytest

A = np.random.default_rng(3).standard_normal((24, 5))
DIGITS = datasets.load("digits")


def network(dropout=0.0, smoothing=0.0, data=DIGITS, l2=0.0, activation=ReLU):
    net = networks.mlp((64, 6, 10), activation, dropout=dropout)
    return Neural(net, Images(data), SoftmaxCrossEntropy(smoothing), l2=l2, metrics_rows=40, name="net")


def squares(X=A, y=A[:, 0], l2=0.1, name="squares"):
    return LeastSquares(X, y, l2=l2, name=name)


PAIRS = {  # two problems of one name and one dimension
    "other rows": (squares(), squares(A + 1)),
    "one other label": (squares(), squares(y=A[:, 0] + np.eye(24)[3])),
    "other l2": (squares(), squares(l2=0.2)),
    "other noise": tuple(Quadratic(np.ones(3), n=8, noise=v, name="bowl") for v in (0.1, 0.2)),
    "other pixels": (network(), network(data=datasets.load("digits", validation=0.01).part(1400, seed=1))),
    "dropout": (network(), network(dropout=0.1)),
    "another loss": (network(), network(smoothing=0.1)),
    "other l2 of a network": (network(), network(l2=0.1)),
    "another activation": (network(), network(activation=Tanh)),
}


def run(problem, path, steps, method=None, **more):
    sampler = RandomReshuffling(6)
    return minimize(problem, method or HeavyBall(0.9), sampler, 0.01, stop=Stop(steps=steps),
                    events=Events(metrics=None, checkpoint=path), **more)  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS)
def test_a_checkpoint_of_another_problem_of_that_name_is_refused(pair, tmp_path):
    one, other = PAIRS[pair]
    assert (one.name, one.dim) == (other.name, other.dim)
    run(one, tmp_path / "c.npz", 3)
    with pytest.raises(
        checkpoint.Foreign, match="other data, network or settings of the problem there[;)].*; remove it"
    ):
        run(other, tmp_path / "c.npz", 6)
    assert run(one, tmp_path / "c.npz", 6).columns["step"][-1] == 6  # the problem that was used, with what it keeps


def test_a_checkpoint_from_another_start_is_refused(tmp_path):
    path = tmp_path / "c.npz"
    run(squares(), path, 3, x=np.ones(5))
    for start in (None, np.arange(5.0)):
        with pytest.raises(checkpoint.Foreign, match="another run .another start x there.; remove it"):
            run(squares(), path, 6, x=start)
    assert run(squares(), path, 6, x=np.ones(5)).columns["step"][-1] == 6


OWN = '''
from npopt.backend import elementwise
from npopt.optimizers import Optimizer


@elementwise
def move(x, g, lr):
    x = x - 2 * lr * g
    return x


class Own(Optimizer):
    """Moves."""

    def update(self, x, g, lr):
        move(x, g, lr)
'''


def test_a_checkpoint_under_other_code_is_refused(tmp_path, monkeypatch):
    path, file = tmp_path / "c.npz", tmp_path / "own_method.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def own(text):
        file.write_text(text)
        for found in (code.definitions, code.step, code.closure, code.path_of):
            found.cache_clear()
        sys.modules.pop("own_method", None)
        importlib.invalidate_caches()
        return importlib.import_module("own_method").Own()

    run(squares(), path, 3, own(OWN))
    run(squares(), path, 4, own(OWN.replace("Moves.", "Moves twice as far.").replace("    return x", "\n    return x")))
    with pytest.raises(checkpoint.Foreign, match="other code, of npopt or your own, there"):
        run(squares(), path, 6, own(OWN.replace("2 * lr", "3 * lr")))
    assert run(squares(), path, 6, own(OWN)).columns["step"][-1] == 6


@pytest.mark.parametrize("estimator", [Minibatch(), Accumulated(12)])
def test_a_step_that_does_not_agree_with_the_counters_is_refused(tmp_path, estimator):
    path = tmp_path / "c.npz"
    run(network(), path, 7, Adam(), estimator=estimator)
    state = checkpoint.load(path)

    def refused(words, **changes):
        checkpoint.save(path, {**state, **changes})
        with pytest.raises(checkpoint.Damaged, match=f"c.npz does not fit this run: {words}; remove it"):
            run(network(), path, 9, Adam(), estimator=estimator)

    columns, other = state["columns"], {**state["optimizer"], "t": 5}
    refused("t is 5, but its optimizer has made 7 steps", t=5)
    refused("t is 5, but its columns and losses end at step 7", t=5, optimizer=other)
    refused("t is 7, but its columns and losses end at step 9", columns={**columns, "step": [2]})
    refused("t is 7, but its columns and losses end at step 3", loss=[1.0, 3, 0.5])
    refused("t is 7, but its sampler has handed out 3 batches", sampler={"taken": 3})
    refused("seconds is 0.5, but its columns end at 1.0", columns={**columns, "seconds": [1.0]}, seconds=0.5)
    refused("gradients is .*, but its columns end at 9000", columns={**columns, "gradients": [9000]})
    checkpoint.save(path, state)
    assert run(network(), path, 9, Adam(), estimator=estimator).columns["step"][-1] == 9


def test_a_text_is_known_by_its_numbers():
    text = np.arange(60) % 7
    one, same, other = (identity.described(Windows(t, 5)) for t in (text, text.copy(), text[::-1].copy()))
    assert one == same != other


class Ring:
    def __init__(self, other=None):
        self.other = other


def test_what_is_reached_twice_is_seen_once_and_the_text_is_that_of_the_plain_recursion():
    """Layers are arguments and children: a way to a deep one forks at each level, and there are 2^levels of them."""

    def slow(thing):
        inside = identity.parts(thing)
        if inside is None:
            return identity.described(thing)
        return f"{type(thing).__name__}({', '.join(f'{name}={slow(value)}' for name, value in inside.items())})"

    problem = network()
    assert identity.described(problem) == slow(problem)
    deep = [A, 3]
    for _ in range(200):
        deep = [deep, deep]
    assert len(list(identity.members(deep))) == 203
    assert identity.roots(deep) == [list, np.ndarray, int]
    one, two = Ring(), Ring()
    one.other, two.other = two, one  # where a ring is cut depends on where it is entered: no text to keep
    assert identity.described([one, two, one]) == "list({})".format(
        ", ".join(f"{i}=Ring(other=Ring(other=Ring))" for i in range(3))
    )
