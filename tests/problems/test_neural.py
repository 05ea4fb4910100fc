"""A network as a problem: gradients, steps, statistics, augmentation, restriction, attacks, metrics."""

from types import SimpleNamespace

import nn
from npopt import backend, gradcheck
from problems.feeds import CropFlip, Images, Table
from problems.neural import Neural

import numpy as np
import pytest


def images(n=30, size=6, channels=2, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 256, (n + 8, size, size, channels)).astype("uint8"), rng.integers(0, classes, n + 8)
    train = x[:n].reshape(-1, channels) / 1.0
    return SimpleNamespace(
        name="noise",
        x_train=x[:n],
        y_train=y[:n],
        x_test=x[n:],
        y_test=y[n:],
        classes=("a", "b", "c"),
        mean=train.mean(0),
        std=train.std(0),
        scale=255.0,
        sha256="0",
    )


def vectors(n=20, d=5, seed=0, outputs=None):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n + 5, d))
    y = rng.standard_normal(n + 5 if outputs is None else (n + 5, outputs))
    return SimpleNamespace(
        name="rows",
        x_train=x[:n],
        y_train=y[:n],
        x_test=x[n:],
        y_test=y[n:],
        classes=None,
        mean=x.mean(0),
        std=x.std(0),
        sha256="0",
    )


def network(size=6, channels=2, norm=True, dropout=0.25, classes=3):
    layers = dict(conv1=nn.Conv2d(channels, 4, 3, padding=1))
    if norm:
        layers.update(bn1=nn.BatchNorm(4))
    layers.update(
        act1=nn.Tanh(),
        pool=nn.AvgPool2d(2),
        flat=nn.Flatten(),
        fc1=nn.Linear(4 * (size // 2) ** 2, 6),
        act2=nn.Tanh(),
        drop=nn.Dropout(dropout),
        fc2=nn.Linear(6, classes),
    )
    return nn.Network(nn.Sequential(**layers), (size, size, channels), "tiny")


def make(dtype="float64", norm=True, **options):
    return Neural(network(norm=norm), Images(images(), CropFlip(2)), dtype=dtype, **{"l2": 0.01, **options})


ROWS = np.array([3, 17, 3, 29, 0, 8, 11])


def test_the_problem_says_what_it_is():
    problem = make()
    assert problem.name == f"tiny on noise, {problem.feed.augment!r}, l2={problem.l2:g}"
    assert problem.n == 30 and problem.dim == problem.network.dim
    assert problem.dtype == np.float64 and problem.segments is problem.network.segments


@pytest.mark.parametrize("loss", [nn.SoftmaxCrossEntropy(0.1), nn.SoftmaxCrossEntropy()])
def test_gradient_of_everything_at_once(loss, rng):
    problem = make(loss=loss)
    x = problem.x0(rng)
    problem.begin(5)
    report = gradcheck(problem, x, ROWS)
    assert report.ok, str(report)


def test_value_is_the_loss_of_value_and_gradient_and_writes_all_of_out(rng):
    problem, w = make(), rng.random(7)
    x, g = problem.x0(rng), np.full(problem.dim, np.nan)
    loss = problem.value_and_gradient(x, ROWS, w, out=g)
    assert isinstance(loss, float) and np.isfinite(g).all()
    assert problem.value(x, ROWS, w) == loss
    assert problem.value_and_gradient(x, ROWS, w) == pytest.approx(loss, rel=1e-14)
    before = x.copy()
    shifted = problem.value(x, ROWS, w, shift=(0.1, 99))
    z = np.empty(problem.dim)
    backend.normals(99, z)
    assert shifted == pytest.approx(problem.value(x + 0.1 * z, ROWS, w), rel=1e-12)
    np.testing.assert_array_equal(x, before)


def test_weights_multiply_rows_and_all_rows_is_rows_none(rng):
    problem = make(norm=False, l2=0.3)
    x, g, total = problem.x0(rng), np.empty(problem.dim), np.zeros(problem.dim)
    w, value = rng.random(7), 0.0
    for row, weight in zip(ROWS, w, strict=True):
        value += weight * problem.value_and_gradient(x, np.array([row]), out=g) / 7
        total += weight * g / 7
    assert problem.value_and_gradient(x, ROWS, w, out=g) == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(g, total, rtol=1e-9, atol=1e-13)
    assert problem.value(x) == pytest.approx(problem.value(x, np.arange(30)), rel=1e-14)
    assert problem.value(x, [1, 2]) == problem.value(x, np.array([1, 2]))


def test_a_step_is_one_fixed_function_and_another_step_another(rng):
    problem = make()
    x, g, h = problem.x0(rng), np.empty(problem.dim), np.empty(problem.dim)
    problem.begin(4)
    loss = problem.value_and_gradient(x, ROWS, out=g)
    problem.value_and_gradient(x + 1, ROWS[:3], out=h)
    problem.metrics(x)
    assert problem.value_and_gradient(x, ROWS, out=h) == loss
    np.testing.assert_array_equal(g, h)
    problem.begin(5)
    assert problem.value(x, ROWS) != loss
    problem.begin(4)
    assert problem.value(x, ROWS) == loss
    assert Neural(network(), Images(images(), CropFlip(2)), dtype="float64", l2=0.01, seed=1).value(x, ROWS) != loss


def test_the_first_pass_of_a_committed_step_moves_the_statistics_once(rng):
    problem = make()
    x, other = problem.x0(rng), problem.x0(rng)
    layer = problem.network.keepers[0]

    def statistics():
        return np.concatenate(list(problem.state()["statistics"]["bn1"].values()))

    start = statistics()
    problem.begin(0)
    problem.value(x, ROWS)
    problem.begin(1)  # the step was not taken
    problem.commit()
    np.testing.assert_array_equal(statistics(), start)
    problem.value(x, ROWS)
    batch_mean = problem.network.pending[layer][1].copy()
    problem.value(other, ROWS)
    problem.value_and_gradient(other, ROWS[:2], out=np.empty(problem.dim))
    problem.metrics(x)
    problem.commit()
    np.testing.assert_allclose(layer.mean, 0.1 * batch_mean, rtol=1e-14)
    once = statistics()
    problem.commit()
    np.testing.assert_array_equal(statistics(), once)


def test_metrics_are_in_evaluation_mode_and_change_nothing(rng):
    problem = make(metrics_rows=11, metrics_batch=4)
    x, g = problem.x0(rng), np.empty(problem.dim)
    problem.begin(0)
    problem.value(x, ROWS)
    problem.commit()
    found = problem.metrics(x)
    assert list(found) == ["train_loss", "train_accuracy", "test_loss", "test_accuracy"]
    for part, rows in (("train", np.arange(11)), ("test", None)):
        z = problem.outputs(x, part, rows)
        y = getattr(problem.feed.data, f"y_{part}")[: len(z)]
        logp = z - np.log(np.exp(z).sum(1, keepdims=True))
        assert found[f"{part}_loss"] == pytest.approx(-logp[np.arange(len(y)), y].mean(), rel=1e-12)
        assert found[f"{part}_accuracy"] == pytest.approx((z.argmax(1) == y).mean())
    assert problem.metrics(x) == found
    problem.begin(1)
    first = problem.value_and_gradient(x, ROWS, out=g)
    before = problem.state()
    problem.metrics(x + 1)
    after = problem.state()
    np.testing.assert_array_equal(before["statistics"]["bn1"]["mean"], after["statistics"]["bn1"]["mean"])
    assert problem.value_and_gradient(x, ROWS, out=g) == first


def test_held_out_rows_have_metrics_of_their_own(rng):
    data = images()
    held = SimpleNamespace(**vars(data), x_validation=data.x_test[:3], y_validation=data.y_test[:3])
    problem = Neural(network(), Images(held), dtype="float64")
    x = problem.x0(rng)
    found = problem.metrics(x)
    only = SimpleNamespace(**{**vars(data), "x_test": data.x_test[:3], "y_test": data.y_test[:3]})
    assert found["validation_loss"] == Neural(network(), Images(only), dtype="float64").metrics(x)["test_loss"]
    assert {"validation_accuracy", "train_loss", "test_accuracy"} <= found.keys()


def test_inputs_are_normalised_and_crops_are_padded_with_black():
    problem = Neural(network(), Images(images(), CropFlip(pad=2, flip=True)), dtype="float64", seed=3)
    data, rows = problem.feed.data, np.array([5, 2, 9])
    plain = problem.inputs(rows)
    np.testing.assert_allclose(plain, (data.x_train[rows] - data.mean) / data.std, rtol=1e-12, atol=1e-13)
    problem.begin(8)
    moved = problem.inputs(rows, augmented=True)
    black = np.pad(data.x_train[rows].astype(float), ((0, 0), (2, 2), (2, 2), (0, 0)))
    crops = [(black[:, i : i + 6, j : j + 6] - data.mean) / data.std for i in range(5) for j in range(5)]
    crops += [crop[:, :, ::-1] for crop in crops]
    for b in range(3):
        assert any(np.allclose(moved[b], crop[b], rtol=1e-12, atol=1e-13) for crop in crops)
    np.testing.assert_array_equal(problem.inputs(rows[::-1], augmented=True), moved[::-1])


def test_moves_cover_all_crops_evenly(rng):
    moves = CropFlip(pad=1)(rng.random((20000, 3)))
    counts = np.unique(moves, axis=0, return_counts=True)[1]
    assert len(counts) == 18
    assert abs(counts / (20000 / 18) - 1).max() < 0.15  # deviation of a cell 3 %, five of them
    assert not CropFlip(pad=1, flip=False)(rng.random((50, 3)))[:, 2].any()


def test_attacks_replace_inputs_and_receive_their_gradient(rng):
    problem = make(norm=False, l2=0.0)
    x, g = problem.x0(rng), np.empty(problem.dim)
    a = problem.inputs(ROWS)
    da = np.empty_like(a)
    loss = problem.value_and_gradient(x, ROWS, out=g, inputs=a, dinputs=da)
    d, h = rng.standard_normal(a.shape), 1e-5
    up, down = (problem.value_and_gradient(x, ROWS, inputs=a + s * h * d) for s in (1, -1))
    assert (up - down) / (2 * h) == pytest.approx(np.sum(da * d), rel=1e-7)
    only = np.empty_like(a)
    assert problem.value_and_gradient(x, ROWS, inputs=a, dinputs=only) == loss  # out None: inputs alone
    np.testing.assert_array_equal(only, da)
    same = np.empty(problem.dim)
    problem.value_and_gradient(x, ROWS, out=same, inputs=a)
    np.testing.assert_array_equal(same, g)


@pytest.mark.parametrize("names", [["fc2"], ["conv1.W", "fc1.b"], ["bn1", "fc2.W"]])
def test_restriction_is_the_same_function_in_fewer_coordinates(names, rng):
    problem = make()
    x, g = problem.x0(rng), np.empty(problem.dim)
    problem.begin(2)
    sub = problem.restrict(x, names)
    y, h = sub.gather(x), np.full(sub.dim, np.nan)
    y += 0.1 * rng.standard_normal(sub.dim)
    moved = sub.scatter(y, x.copy())
    loss = problem.value_and_gradient(moved, ROWS, out=g)
    assert sub.value_and_gradient(y, ROWS, out=h) == pytest.approx(loss, rel=1e-13)
    np.testing.assert_allclose(h, sub.gather(g), rtol=1e-12, atol=1e-15)
    assert sub.value(y, ROWS) == pytest.approx(loss, rel=1e-13)
    assert sub.metrics(y) == problem.metrics(moved)
    np.testing.assert_array_equal(sub.place(y), moved)
    report = gradcheck(sub, y, ROWS)
    assert report.ok, str(report)
    sub.begin(3)
    assert problem.t == 3
    again = sub.restrict(y, sub.segments.names[:1])
    assert again.segments.names == sub.segments.names[:1]
    assert again.value(again.gather(moved), ROWS) == pytest.approx(sub.value(y, ROWS), rel=1e-13)


def test_state_returns_to_the_same_function(rng):
    problem, x = make(), None
    x = problem.x0(rng)
    for t in range(3):
        problem.begin(t)
        problem.value(x, (ROWS + t) % 30)
        problem.commit()
    saved, metrics = problem.state(), problem.metrics(x)
    other = make()
    other.load_state(saved)
    assert other.metrics(x) == metrics and other.t == 2
    assert other.value(x, ROWS) == problem.value(x, ROWS)
    problem.commit()  # saved is a copy, and stays
    assert other.metrics(x) == metrics


def test_recalibration_takes_the_statistics_of_all_rows(rng):
    problem = make()
    x = problem.x0(rng)
    problem.recalibrate(x, batch=7)
    layer = problem.network.keepers[0]
    layer_inputs = nn.Network(nn.Sequential(conv1=nn.Conv2d(2, 4, 3, padding=1)), (6, 6, 2))
    layer_inputs.bind(x[: layer_inputs.dim].copy())
    y = layer_inputs.forward(problem.inputs(), nn.Run())[0].reshape(-1, 4)
    np.testing.assert_allclose(layer.mean, y.mean(0), rtol=1e-12)
    np.testing.assert_allclose(layer.variance, y.var(0, ddof=1), rtol=1e-12)


def test_micro_batches_add_up(rng):
    problem = make(norm=False)
    x, g, total = problem.x0(rng), np.empty(problem.dim), np.zeros(problem.dim)
    for part in (slice(0, 2), slice(2, 7)):
        problem.value_and_gradient(x, ROWS[part], out=g)
        total += g * len(ROWS[part]) / 7
    problem.value_and_gradient(x, ROWS, out=g)
    np.testing.assert_allclose(total, g, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("outputs", [None, 2])
def test_regression_has_losses_and_no_accuracy(outputs, rng):
    problem = Neural(
        nn.mlp((5, 4, outputs or 1), nn.Tanh), Table(vectors(outputs=outputs)), nn.SquaredError(), dtype="float64"
    )
    x = problem.x0(rng)
    assert list(problem.metrics(x)) == ["train_loss", "test_loss"]
    z = problem.outputs(x, "train").reshape(problem.feed.data.y_train.shape)
    residual = ((z - problem.feed.data.y_train).reshape(20, -1) ** 2).sum(1) / 2
    assert problem.metrics(x)["train_loss"] == pytest.approx(residual.mean(), rel=1e-12)
    assert gradcheck(problem, x, ROWS % 20).ok


@pytest.mark.parametrize("loss, outputs", [(nn.BinaryCrossEntropy(), 1), (nn.SoftmaxCrossEntropy(), 2)])
def test_labels_of_plus_and_minus_one_are_two_classes(loss, outputs, rng):
    data = vectors()
    data.y_train, data.y_test = np.sign(data.y_train), np.sign(data.y_test)
    problem = Neural(nn.mlp((5, 4, outputs)), Table(data), loss, dtype="float64")
    x = problem.x0(rng)
    z = problem.outputs(x, "train")
    margin = z[:, 0] if outputs == 1 else z[:, 1] - z[:, 0]
    found = problem.metrics(x)
    assert found["train_loss"] == pytest.approx(np.log1p(np.exp(-margin * data.y_train)).mean(), rel=1e-12)
    assert found["train_accuracy"] == pytest.approx((np.sign(margin) == data.y_train).mean())


def test_images_are_flattened_for_an_mlp(rng):
    problem = Neural(nn.mlp((72, 5, 3)), Images(images(), CropFlip(1)), dtype="float64")
    x = problem.x0(rng)
    expected = (problem.feed.data.x_train[:4] - problem.feed.data.mean) / problem.feed.data.std
    np.testing.assert_allclose(problem.inputs(np.arange(4)), expected.reshape(4, 72), rtol=1e-12, atol=1e-13)
    assert gradcheck(problem, x, ROWS).ok


def test_a_whole_step_never_touches_the_host(device):
    found = []
    for where in ("cpu", device):
        backend.use(where)
        problem = make()
        x = problem.x0(np.random.default_rng(0))
        g, rows = backend.zeros((problem.dim,), "float64"), backend.asarray(ROWS)
        w = backend.asarray(np.linspace(0.5, 1.5, 7))
        problem.begin(3)
        loss = problem.value_and_gradient(x, rows, w, out=g)
        if where != "cpu":
            assert not isinstance(loss, float) and loss.ndim == 0
        value = problem.value(x, rows, w, shift=(0.01, 5))
        problem.commit()
        a = problem.inputs(rows)
        da = backend.zeros(a.shape, "float64")
        problem.value_and_gradient(x, rows, inputs=a, dinputs=da)
        sub = problem.restrict(x, ["fc1"])
        h = backend.zeros((sub.dim,), "float64")
        sub.value_and_gradient(sub.gather(x), rows, out=h)
        problem.recalibrate(x)
        metrics = problem.metrics(x)
        state = problem.state()["statistics"]["bn1"]
        problem.load_state(problem.state())
        found.append([backend.to_host(v) for v in (loss, g, value, da, h)] + [*metrics.values(), *state.values()])
    for ours, theirs in zip(*found, strict=True):  # sums in another order, float64
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-13)


def test_training_fits_the_rows(rng):
    """Plain gradient descent to the bottom of a small net: everything above acts together."""
    problem = Neural(nn.mlp((72, 16, 3), nn.Tanh, norm="batch"), Images(images()), metrics_batch=7)
    x, g = problem.x0(rng), np.empty(problem.dim, "float32")
    for t in range(60):
        problem.begin(t)
        problem.value_and_gradient(x, None, out=g)
        x -= 0.5 * g
        problem.commit()
    found = problem.metrics(x)
    assert found["train_accuracy"] == 1 and found["train_loss"] < 0.1


def test_what_does_not_fit_gets_one_sentence(rng):
    with pytest.raises(ValueError, match="labels run from 0 to 2, but the network has 2 outputs"):
        Neural(network(classes=2), Images(images()))
    with pytest.raises(ValueError, match="the network expects"):
        Neural(network(size=8), Images(images()))
    with pytest.raises(ValueError, match="rows of numbers go into a Table"):
        Images(vectors())
    with pytest.raises(ValueError, match="l2 must lie in"):
        make(l2=-1)
    with pytest.raises(ValueError, match="float32 or float64"):
        make(dtype="float16")
    sparse = vectors()
    import scipy.sparse

    sparse.x_train = scipy.sparse.csr_matrix(sparse.x_train)
    with pytest.raises(ValueError, match="needs dense rows"):
        Neural(nn.mlp((5, 1)), Table(sparse), nn.SquaredError())
    problem = make()
    with pytest.raises(ValueError, match="contiguous vector"):
        problem.value(np.zeros(3))
    with pytest.raises(ValueError, match="contiguous vector"):
        problem.value(np.zeros(problem.dim, "float32"))
    with pytest.raises(ValueError, match=r"rows must lie in 0\.\.29"):
        problem.value(problem.x0(rng), np.array([30]))
    with pytest.raises(ValueError, match="rows must be a vector"):
        problem.value(problem.x0(rng), np.array([], int))
    with pytest.raises(ValueError, match="no segment or block is named"):
        problem.restrict(problem.x0(rng), ["fc9"])
