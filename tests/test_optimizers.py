"""Trajectories against slow loops written from the papers, no hyper-parameter at its default; then identities."""

from npopt import SGD, Adam, AdamW, HeavyBall, Nesterov, backend

import numpy as np
import pytest

ALL = [SGD(), HeavyBall(0.7), Nesterov(0.7), Adam(0.7, 0.95, 1e-2), AdamW(0.7, 0.95, 1e-2, 0.2)]


def slow_sgd(x, gradients, lr):
    for g in gradients:
        x = x - lr * g
        yield x


def slow_heavy_ball(x, gradients, lr, beta):
    previous = x                                                # the position form
    for g in gradients:
        x, previous = x - lr * g + beta * (x - previous), x
        yield x


def slow_nesterov(x, gradients, lr, beta):
    """Sutskever's equations in w and v; gradients are those at the look-ahead point, which is what x holds."""
    w, v = x, 0 * x
    for g in gradients:
        v = beta * v - lr * g
        w = w + v
        yield w + beta * v


def slow_adam(x, gradients, lr, b1, b2, eps, decay=0.0):
    m = v = 0 * x
    for t, g in enumerate(gradients, 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        x = x - lr * (m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps) + decay * x)
        yield x


SLOW = {SGD: slow_sgd, HeavyBall: slow_heavy_ball, Nesterov: slow_nesterov, Adam: slow_adam, AdamW: slow_adam}


@pytest.mark.parametrize("optimizer", ALL, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 2e-5)])
def test_trajectory(optimizer, dtype, tolerance, rng, device):
    x, gradients, lr = rng.standard_normal(6), rng.standard_normal((30, 6)), 0.03
    moving = backend.asarray(x.astype(dtype))
    optimizer.start(moving)
    slow = SLOW[type(optimizer)](x, gradients, lr, *optimizer.arguments().values())
    for g, expected in zip(gradients, slow, strict=True):
        given = backend.asarray(g.astype(dtype))
        optimizer.step(moving, given, lr)
        np.testing.assert_allclose(backend.to_host(moving), expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(backend.to_host(given), g.astype(dtype))         # g is only read
    assert optimizer.t == 30


@pytest.mark.parametrize("optimizer", ALL, ids=lambda o: type(o).__name__)
def test_pieces_of_the_gradient_give_the_step_of_the_whole(optimizer, rng):
    import copy

    whole, pieces = copy.deepcopy(optimizer), copy.deepcopy(optimizer)
    x = rng.standard_normal(10)
    y = x.copy()
    whole.start(x)
    pieces.start(y)
    for _ in range(5):
        g = rng.standard_normal(10)
        whole.step(x, g, 0.1)
        pieces.step(y, ((slice(a, b), g[a:b]) for a, b in ((0, 3), (3, 4), (4, 10))), 0.1)
    np.testing.assert_array_equal(x, y)
    assert whole.t == pieces.t == 5


@pytest.mark.parametrize("optimizer", ALL, ids=lambda o: type(o).__name__)
def test_saved_and_loaded_state_continues_bitwise(optimizer, rng, tmp_path):
    import copy

    from npopt import checkpoint

    gradients = rng.standard_normal((8, 5)).astype("float32")
    straight = copy.deepcopy(optimizer)
    x = np.ones(5, "float32")
    straight.start(x)
    for g in gradients:
        straight.step(x, g, 0.1)
    first, y = copy.deepcopy(optimizer), np.ones(5, "float32")
    first.start(y)
    for g in gradients[:4]:
        first.step(y, g, 0.1)
    checkpoint.save(tmp_path / "o.npz", first.state())
    second = copy.deepcopy(optimizer)
    second.start(y)
    second.load_state(checkpoint.load(tmp_path / "o.npz"))
    for g in gradients[4:]:
        second.step(y, g, 0.1)
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("optimizer, copies", [
    (SGD(), 0), (HeavyBall(), 1), (Nesterov(), 1), (Adam(), 2), (AdamW(), 2),
], ids=lambda v: type(v).__name__)
def test_state_takes_as_many_copies_of_x_as_the_method_says(optimizer, copies):
    x = np.zeros(1000, "float32")
    optimizer.start(x)
    state = [v for v in optimizer.state().values() if isinstance(v, np.ndarray)]
    assert sum(v.nbytes for v in state) == copies * x.nbytes and len(optimizer.arrays) == copies


def test_a_reused_gradient_array_is_never_kept(rng):
    for optimizer in ALL:
        fresh, reused = np.ones(4), np.ones(4)
        gradients, buffer = rng.standard_normal((5, 4)), np.empty(4)
        optimizer.start(fresh)
        for g in gradients:
            optimizer.step(fresh, g.copy(), 0.1)
        optimizer.start(reused)
        for g in gradients:
            buffer[...] = g
            optimizer.step(reused, buffer, 0.1)
            buffer[...] = np.nan
        np.testing.assert_array_equal(fresh, reused)


def test_first_steps():
    g = np.array([3.0, -0.2, 1e-3])
    for optimizer in (Adam(eps=0.0), AdamW(eps=0.0, weight_decay=0.0)):
        x = np.zeros(3)
        optimizer.start(x)
        optimizer.step(x, g, 0.1)
        np.testing.assert_allclose(x, -0.1 * np.sign(g), rtol=1e-12)                  # lr sign(g)
    x = np.zeros(3)
    nesterov = Nesterov(0.9)
    nesterov.start(x)
    nesterov.step(x, g, 0.1)
    np.testing.assert_allclose(x, -0.1 * 1.9 * g)


def test_equal_gradients_move_heavy_ball_by_lr_over_one_minus_beta():
    x, g = np.zeros(1), np.ones(1)
    optimizer = HeavyBall(0.9)
    optimizer.start(x)
    for _ in range(400):
        before = x[0]
        optimizer.step(x, g, 0.01)
    assert abs((before - x[0]) - 0.1) < 1e-12


def test_heavy_ball_is_stable_up_to_its_bound_and_not_beyond():
    for factor, bounded in ((0.99, True), (1.01, False)):
        x, lam, optimizer = np.ones(1), 2.0, HeavyBall(0.6)
        optimizer.start(x)
        for _ in range(3000):
            optimizer.step(x, lam * x, factor * 2 * 1.6 / lam)
        assert (abs(x[0]) < 10) == bounded


def test_beta_zero_is_sgd_and_no_decay_is_adam(rng):
    for a, b in ((HeavyBall(0.0), SGD()), (Nesterov(0.0), SGD()), (AdamW(weight_decay=0.0), Adam())):
        x, y = np.ones(4), np.ones(4)
        a.start(x)
        b.start(y)
        for _ in range(6):
            g = rng.standard_normal(4)
            a.step(x, g, 0.05)
            b.step(y, g, 0.05)
        np.testing.assert_allclose(x, y, rtol=1e-14)


def test_decay_shrinks_x_at_zero_gradient_and_only_where_it_is_asked_for():
    x, decay = np.ones(4), np.array([0.0, 0.1, 0.2, 0.5])
    optimizer = AdamW(weight_decay=decay)
    optimizer.start(x)
    optimizer.step(x, np.zeros(4), 0.5)
    np.testing.assert_allclose(x, 1 - 0.5 * decay, rtol=1e-15)
    y = np.ones(4)
    pieces = AdamW(weight_decay=decay)
    pieces.start(y)
    pieces.step(y, ((slice(a, a + 2), np.zeros(2)) for a in (0, 2)), 0.5)
    np.testing.assert_array_equal(x, y)
    with pytest.raises(ValueError, match="weight_decay has shape"):
        AdamW(weight_decay=np.zeros(3)).start(x)


def test_a_zero_gradient_in_float32_leaves_adam_where_it_is():
    x = np.ones(3, "float32")
    optimizer = Adam()
    optimizer.start(x)
    optimizer.step(x, np.zeros(3, "float32"), 0.1)
    np.testing.assert_array_equal(x, 1)


@pytest.mark.parametrize("wrong", [
    lambda: HeavyBall(1.0), lambda: HeavyBall(1.5), lambda: HeavyBall(-0.1), lambda: Nesterov(1), lambda: Adam(b1=1.0),
    lambda: Adam(b2=float("nan")), lambda: Adam(eps=-1e-8), lambda: AdamW(weight_decay=-0.1),
])
def test_hyper_parameters_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=r"(HeavyBall|Nesterov|Adam|AdamW): \w+ must lie in"):
        wrong()
