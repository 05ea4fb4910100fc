"""Arrays with gaps, layers in two places, passes that a new binding overtook: what a reader of the contract may try."""

import gc
import weakref

import nn
from npopt import backend
from problems import Neural
from problems.feeds import Images
from problems.tokens import Sentences

import numpy as np
import pytest
from test_layers import LAYERS

RUN = nn.Run(training=True, dx=True, seed=7)


@pytest.fixture(params=["fast", "accurate", "reference"])
def path(request):
    nn.kernels.use(request.param)
    yield request.param
    nn.kernels.use("fast")


def gappy(a):
    """The same numbers, every second place of a larger array, axes turned round."""
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]))[..., ::2]
    wide = np.asfortranarray(a) if a.ndim > 1 else wide
    wide[...] = a
    return wide


@pytest.mark.parametrize("name", LAYERS)
def test_inputs_and_upstream_gradients_with_gaps(name, path, rng):
    make, shape = LAYERS[name]
    network = nn.Network(nn.Sequential(make()), shape)
    x, g, found = rng.standard_normal(network.dim), np.empty(network.dim), []
    a, c = rng.standard_normal((3, *shape)), rng.standard_normal((3, *network.output_shape))
    network.bind(x, g)
    for turn in (np.copy, gappy):
        given = turn(a)
        y, saved = network.forward(given, RUN)
        dx = network.backward(turn(c), saved, RUN)
        network.begin()
        found.append([y.copy(), dx.copy(), g.copy()])
        np.testing.assert_array_equal(given, a)
    for whole, gaps in zip(*found, strict=True):
        np.testing.assert_allclose(gaps, whole, rtol=1e-10, atol=1e-12)


class Turn(nn.Layer):
    """A view with its axes exchanged: the next layer sees gaps, and on the way back the layer before."""

    view = True

    def output_shape(self, shape):
        return shape[::-1]

    def forward(self, x, run):
        return x.transpose(0, *range(x.ndim - 1, 0, -1)), ()

    def backward(self, dy, saved, run):
        return dy.transpose(0, *range(dy.ndim - 1, 0, -1)) if run.dx else None


@pytest.mark.parametrize("training", [True, False])
def test_views_that_turn_axes(training, path):
    block = nn.Residual(nn.Sequential(nn.Linear(5, 5), nn.BatchNorm(5)), activation=nn.ReLU())
    layers = [
        nn.Linear(3, 4),
        Turn(),
        nn.LayerNorm(5),
        nn.ReLU(),
        block,
        Turn(),
        nn.BatchNorm(4),
        nn.ReLU(),
        nn.Linear(4, 2),
    ]
    report = nn.gradcheck_layer(nn.Sequential(*layers), (5, 3), training=training, seed=2)
    assert report.ok, str(report)


def test_a_layer_in_two_places_overwrites_nobodys_input(rng):
    relu = nn.ReLU()
    first = nn.Network(nn.Sequential(nn.Linear(3, 3), relu), (3,))
    second = nn.Network(nn.Sequential(relu, nn.Linear(3, 3)), (3,))
    a = rng.standard_normal((4, 3))
    before = a.copy()
    for network in (first, second):
        network.bind(rng.standard_normal(network.dim))
        network.forward(a, RUN)
    np.testing.assert_array_equal(a, before)


def test_two_networks_may_take_turns_with_one_layer(rng):
    layer = nn.Linear(3, 3)
    networks = [nn.Network(nn.Sequential(layer), (3,)) for _ in range(2)]
    points, a = [rng.standard_normal(12) for _ in range(2)], rng.standard_normal((2, 3))
    for i in (0, 1, 0, 1):
        networks[i].bind(points[i])
        y, _ = networks[i].forward(a, nn.Run())
        np.testing.assert_allclose(y, a @ points[i][:9].reshape(3, 3).T + points[i][9:], rtol=1e-13)


def test_a_pass_that_a_binding_overtook_is_refused(rng):
    network = nn.Network(nn.Sequential(nn.Linear(3, 2)), (3,))
    x, g, run = rng.standard_normal(network.dim), np.empty(network.dim), nn.Run(backward=True)
    network.bind(x, g)
    y, saved = network.forward(rng.standard_normal((4, 3)), run)
    network.bind(x)
    with pytest.raises(ValueError, match="bind it to x and g again"):
        network.backward(y.copy(), saved, run)
    network.bind(x, g)
    network.backward(y, saved, run)
    with pytest.raises(ValueError, match="no segment is named 'nope'"):
        network.bind(x, g, ["nope"])


def test_a_failed_pass_leaves_the_step_to_the_next(rng):
    network = nn.Network(nn.BatchNorm(3), (3,))
    network.bind(np.ones(6))
    with pytest.raises(ValueError, match="needs more than one value"):
        network.forward(np.ones((1, 3)), RUN)
    network.forward(5 + rng.standard_normal((9, 3)), RUN)
    network.commit()
    assert (network.layer.mean > 0.3).all()


def test_what_a_run_holds_goes_with_it():
    gc.disable()
    try:
        rows = np.arange(3)
        run = nn.Run(training=True, rows=rows)
        run.asking(True, False).asking(True, True, inplace=True)
        gone = weakref.ref(run)
        del run
        assert gone() is None
    finally:
        gc.enable()


def images(n=8):
    rng = np.random.default_rng(0)
    return type(
        "D",
        (),
        {
            "name": "noise",
            "x_train": rng.integers(0, 256, (n, 4, 4, 1)).astype("u1"),
            "y_train": rng.integers(0, 3, n),
            "mean": None,
            "scale": 255.0,
        },
    )


def test_inputs_of_another_number_or_dtype_are_refused(rng):
    problem = Neural(nn.mlp((16, 5, 3), norm="batch"), Images(images()), dtype="float32")
    x, g = problem.x0(rng), np.empty(problem.dim, "float32")
    a = problem.inputs(np.arange(4))
    for wrong in (a[:3], np.concatenate([a, a]), a.astype("float64")):
        with pytest.raises(ValueError, match=r"inputs= must be float32 of shape \(4, 16\)"):
            problem.value_and_gradient(x, np.arange(4), out=g, inputs=wrong)


def test_drawn_labels_leave_out_what_does_not_count(rng):
    """(1/B) sum_b |J_b'(p - e)|^2 on average is the Gauss-Newton diagonal of the same weighting."""

    class Ids(nn.Layer):
        def __init__(self):
            self.table = nn.Embedding(4, 4)

        def children(self):
            return [("table", self.table)]

        def output_shape(self, shape):
            return self.table.output_shape(shape[0])

        def forward(self, x, run):
            return self.table.forward(x[0], run)

        def backward(self, dy, saved, run):
            return self.table.backward(dy, saved, run)

    problem = Neural(nn.Network(nn.Sequential(Ids()), ((6,), (6,))), Sentences([[1, 2]], 6), dtype="float64")
    x, g, total = rng.standard_normal(16), np.empty(16), np.zeros(16)
    for seed in range(3000):
        problem.sampled_gradient(x, np.array([0]), g, backend.key(seed, "labels"))
        total += g**2 / 3000
    p = np.exp(x[4:8]) / np.exp(x[4:8]).sum()  # one position counts, that of word 1
    np.testing.assert_allclose(total[4:8], p * (1 - p), rtol=0.15)
    assert not total[:4].any() and not total[8:].any()


def test_binary_targets_and_the_mark_of_what_does_not_count_are_not_confused():
    problem = Neural(nn.Network(nn.Sequential(nn.Embedding(3, 3)), (2,)), _ones(), dtype="float64")
    np.testing.assert_array_equal(problem.feed.batch("train")[1], [[1, 1], [1, -1]])


def _ones():
    class Feed(Sentences):
        def place(self, network, loss, dtype):
            self.parts = {
                "train": [self.tables["train"][0], loss.targets(network.output_shape, self.tables["train"][-1], dtype)]
            }
            self.n = 2

        def batch(self, part, rows=None, draw=None):
            return self.parts["train"]

    return Feed([[1, 1, 1], [1, 1]], 2)


def test_strange_dtypes_do_not_switch_compiled_loops_off(rng):
    for kind in ("float16", ">f4", "longdouble"):
        x, w = rng.standard_normal((4, 3)).astype(kind), rng.standard_normal((2, 3)).astype(kind)
        y = np.empty((4, 2), kind)
        nn.kernels.linear(x, w, None, y)
        np.testing.assert_allclose(y.astype(float), x.astype(float) @ w.T.astype(float), rtol=0.02, atol=0.02)
    assert nn.kernels.linear.fast["cpu"] is not None


def test_the_accurate_path_rounds_less(rng):
    x, w = rng.standard_normal((2, 16, 16, 64)).astype("f4"), rng.standard_normal((64, 3, 3, 64)).astype("f4")
    found, exact = {}, np.empty((2, 16, 16, 64))
    nn.kernels.reference.convolve(x.astype("f8"), w.astype("f8"), None, exact, (1, 1), (1, 1))
    for which in ("fast", "accurate"):
        y = np.empty(exact.shape, "f4")
        nn.kernels.use(which)
        nn.kernels.convolve(x, w, None, y, (1, 1), (1, 1))
        found[which] = np.linalg.norm(y - exact) / np.linalg.norm(exact)
    nn.kernels.use("fast")
    assert found["accurate"] < 0.5 * found["fast"] < 1e-6
