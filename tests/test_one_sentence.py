"""What a newcomer gets wrong is answered by one sentence that says what it is and what to write."""

from types import SimpleNamespace

import nn
from npopt import SGD, Constant, Cyclical, Events, HeavyBall, Linear, Nesterov, Stop, minimize
from problems import LeastSquares, Logistic, Neural, standardise
from problems.feeds import Images
from problems.linear import data

import numpy as np
import pytest
import scipy.sparse

A = np.random.default_rng(0).standard_normal((20, 3))
B, SIGNS = A[:, 0] + 1, np.sign(A[:, 0])


def problem():
    return LeastSquares(A, B)


def refused(sentence, function, *arguments, **named):
    with pytest.raises(ValueError) as caught:
        function(*arguments, **named)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def large(value, kind=np.asarray, dtype="float64"):
    X = A.astype(dtype)
    X[3, 1] = value
    return kind(X)


@pytest.mark.parametrize("name", ["epochs", "seconds", "evaluations"])
def test_stop_takes_no_text(name):
    refused(f"Stop: {name} must be a number, got '3'", Stop, **{name: "3"})
    refused("Stop: the target's value must be a number", Stop, target=("loss", "0.1"))
    refused("HeavyBall: beta must be a number, got '0.5'", HeavyBall, "0.5")


def test_a_checkpoint_is_the_path_of_a_file(tmp_path):
    refused("checkpoint must be a file's path, such as \"run.npz\", got ''", Events, checkpoint="")
    refused("checkpoint must be a file's path", Events, checkpoint=3)
    for folder in (tmp_path, str(tmp_path)):
        refused(
            "is a folder; a checkpoint is a file, such as",
            minimize,
            problem(),
            SGD(),
            stop=Stop(steps=3),
            events=Events(checkpoint=folder),
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [None, A, LeastSquares, "a9a"])
def test_a_problem_is_a_problem(wrong):
    refused("minimize: problem must be a problem such as LeastSquares(X, y), got ", minimize, wrong, SGD())


@pytest.mark.parametrize("X", [np.zeros((0, 3)), np.zeros((3, 0)), [], scipy.sparse.csr_matrix((0, 3)), None])
def test_empty_rows(X):
    refused("none of them 0", LeastSquares, X, np.zeros(0))


def test_a_start_is_an_array():
    sentence = "minimize: x must be a float32 or float64 array of shape (3,) for LeastSquares(20x3, l2=0), got "
    for x, got in (([0, 0, 0], "list"), (np.zeros(4), "float64 (4,)"), (np.zeros(3, int), "int64 (3,)")):
        refused(sentence + got, minimize, problem(), SGD(), x=x)


def test_logistic_takes_0_and_1_and_says_so():
    for labels, named in ((SIGNS > 0).astype(int), (0, 1)), (SIGNS > 0, (0, 1)), (SIGNS, (-1, 1)):
        run = minimize(Logistic(A, labels), SGD(), stop=Stop(steps=5))
        np.testing.assert_array_equal(run.x, minimize(Logistic(A, SIGNS), SGD(), stop=Stop(steps=5)).x)
        assert set(Logistic(A, labels).predict(run.x, A)) == set(named)
    refused(
        "must be labelled -1 and +1 or 0 and 1, got 1 and 3; use numpy.where(y == 3, 1, -1)", Logistic, A, SIGNS + 2
    )
    assert "labels -1 and +1, or 0 (taken as -1) and 1" in Logistic.__doc__


def test_a_network_and_a_feed_are_what_they_are_called():
    refused("network must be a Network such as nn.mlp", lambda: Neural(None, None))
    refused("feed must be a Feed such as Images", lambda: Neural(nn.mlp((2, 2)), np.zeros((3, 2))))


def test_empty_images():
    rows = SimpleNamespace(
        name="nothing",
        x_train=np.zeros((0, 8, 8, 1), "uint8"),
        y_train=np.zeros(0, int),
        x_test=None,
        y_test=None,
        mean=[0.0],
        std=[1.0],
        scale=255.0,
    )
    refused("nothing: x_train has no rows", lambda: Neural(nn.lenet5(input_shape=(8, 8, 1)), Images(rows)))


@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_matrix, scipy.sparse.coo_matrix])
def test_numbers_whose_squares_overflow(kind):
    sentence = "row 3 of X holds {}, whose square is beyond {}; scale the columns, as problems.standardise does"
    refused(sentence.format("1e+200", "float64"), Logistic, large(1e200, kind), SIGNS)
    refused(sentence.format("-1e+200", "float32"), Logistic, large(-1e200, kind), SIGNS, dtype="float32")
    refused(sentence.format("1e+30", "float32"), Logistic, large(1e30, kind, "float32"), SIGNS)
    refused("row 3 of X holds NaN or inf", Logistic, large(np.nan, kind), SIGNS)
    for bad in (-np.inf, np.inf):
        refused("row 3 of X holds NaN or inf", Logistic, large(bad, kind), SIGNS)
        refused("row 3 of X holds NaN or inf", Logistic, large(bad, kind, "float32"), SIGNS, dtype="float64")
    refused("label 0 is 1.12573e+200, whose square is beyond float64; scale y", LeastSquares, kind(A), B * 1e200)
    kept = data.design("X", large(1e150, kind))
    assert abs(kept).max() == 1e150 and kept.dtype == np.float64
    assert callable(standardise)  # what the sentence names is there


@pytest.mark.parametrize(
    "X, some",
    [
        (A + 1j, "complex128"),
        (scipy.sparse.csr_matrix(A + 1j), "complex128"),
        (A.astype(str), "<U"),
        (A.astype(bytes), "|S"),
        (np.array([["a", "b"]] * 20, object), "object, such as 'a'"),
        (np.array([["1", "2"]] * 20, object), "object, such as '1'"),
        (np.zeros((20, 2), "M8[s]"), "datetime64"),
        (np.array([[1 + 1j, 2]] * 20, object), "object"),
    ],
)
def test_what_is_no_real_number(X, some):
    refused(some, LeastSquares, X, B)
    refused("X must hold real numbers", LeastSquares, X, B)


def test_rows_of_unequal_length_and_complex_labels():
    refused("the rows of X differ in length", LeastSquares, [[1, 2], [3]], [1, 2])
    refused("the labels must be numbers, got complex128", LeastSquares, A, B + 1j)


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint16", "bool", "object"])
def test_other_numbers_become_float64(dtype):
    X = (A > 0).astype(dtype)
    for given in (X, X.tolist()):
        np.testing.assert_array_equal(data.design("X", given), (A > 0).astype(float))


@pytest.mark.parametrize(
    "schedule, value",
    [
        (Linear(0.9, 1.2), "1.1"),
        (Cyclical(0.5, 1.5, 7), "1.5"),
        (Constant(1.5), "1.5"),
    ],
)
def test_vary_is_looked_at_over_the_whole_run(schedule, value):
    refused(
        f"HeavyBall: beta must lie in [0, 1), got {value}",
        minimize,
        problem(),
        HeavyBall(0.5),
        vary={"beta": schedule},
        stop=Stop(steps=30),
    )
    refused("to which vary leads at step", minimize, problem(), HeavyBall(0.5), vary={"beta": schedule})


def test_vary_within_its_range_and_what_is_no_dict():
    run = minimize(problem(), Nesterov(0.5), vary={"beta": Linear(0.9, 0.2)}, stop=Stop(steps=30))
    assert run.reason == "steps"
    refused("vary must be a dict", minimize, problem(), Nesterov(0.5), vary=0.9)


def test_networks_take_an_activations_class():
    refused(
        "lenet5: activation must be a layer's class, such as nn.ReLU, got (8, 8, 1); the shape of an image is "
        "input_shape=(8, 8, 1)",
        nn.lenet5,
        (8, 8, 1),
    )
    refused("input_shape must be (height, width, channels), got (8, 8)", nn.lenet5, input_shape=(8, 8))
    refused("mlp: activation must be", nn.mlp, (3, 2), "relu")
    refused("mlp: sizes must name", nn.mlp, 10)
    refused("resnet18: activation must be", nn.resnet18, activation="relu")
    refused("vgg: activation must be", nn.vgg, activation=nn.ReLU())
    refused("basic_block: activation must be", nn.basic_block, 3, 4, activation="relu")
