"""Trajectories against slow loops written from the papers, no hyper-parameter at its default; then identities."""

import copy

from npopt import (
    ASGD,
    EMA,
    SGD,
    SWA,
    SWATS,
    AdaBound,
    Adadelta,
    AdaGrad,
    Adam,
    Adamax,
    AdamW,
    AMSBound,
    AMSGrad,
    HeavyBall,
    Lion,
    Lookahead,
    MixedClipping,
    NAdam,
    Nesterov,
    NormalisedMomentum,
    RAdam,
    RMSProp,
    Rounded,
    Rprop,
    backend,
)
from npopt.optimizers import Optimizer

import ml_dtypes
import numpy as np
import pytest
from methods import ELEMENTWISE, WHOLE, short

# lr: the rates of the steps, none like the one before: the place of the rate in a formula shows only so


def slow_sgd(x, gradients, lr):
    for g, s in zip(gradients, lr, strict=True):
        x = x - s * g
        yield x


def slow_heavy_ball(x, gradients, lr, beta):
    for t in range(len(gradients)):  # the buffer from its definition; the rate outside
        x = x - lr[t] * sum(beta ** (t - i) * gradients[i] for i in range(t + 1))
        yield x


def slow_nesterov(x, gradients, lr, beta):
    for t, g in enumerate(gradients):
        x = x - lr[t] * (g + beta * sum(beta ** (t - i) * gradients[i] for i in range(t + 1)))
        yield x


def slow_adam(x, gradients, rates, b1, b2, eps, l2=0.0):
    m = v = 0 * x
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        g = g + l2 * x
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        x = x - lr * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        yield x


def slow_adamw(x, gradients, rates, b1, b2, eps, decay):
    m = v = 0 * x
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        x = (1 - lr * decay) * x - lr * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        yield x


def slow_adagrad(x, gradients, lr, eps, initial):
    for t in range(1, len(gradients) + 1):
        x = x - lr[t - 1] * gradients[t - 1] / (np.sqrt(initial + np.sum(np.square(gradients[:t]), axis=0)) + eps)
        yield x


def weighted(gradients, t, a, power):
    """The moving average (1-a) sum_i a^(t-i) g_i^power, i from 1 to t, from its definition."""
    return (1 - a) * sum(a ** (t - i) * gradients[i - 1] ** power for i in range(1, t + 1))


def slow_rmsprop(x, gradients, lr, a, eps, centred, momentum, inside):
    buffer = 0 * x
    for t, g in enumerate(gradients, 1):
        v = weighted(gradients, t, a, 2) - (weighted(gradients, t, a, 1) ** 2 if centred else 0)
        buffer = momentum * buffer + g / (np.sqrt(v + eps) if inside else np.sqrt(v) + eps)
        x = x - lr[t - 1] * buffer
        yield x


def slow_adadelta(x, gradients, lr, rho, eps):
    moved = []
    for t, g in enumerate(gradients, 1):
        u = (1 - rho) * sum(rho ** (t - 1 - i) * moved[i - 1] ** 2 for i in range(1, t))
        moved.append(np.sqrt(u + eps) / np.sqrt(weighted(gradients, t, rho, 2) + eps) * g)
        x = x - lr[t - 1] * moved[-1]
        yield x


def slow_amsgrad(x, gradients, lr, b1, b2, eps, variant):
    largest = 0 * x
    for t in range(1, len(gradients) + 1):
        m, v = weighted(gradients, t, b1, 1), weighted(gradients, t, b2, 2)
        largest = np.maximum(largest, v / (1 - b2**t) if variant == "corrected" else v)
        mh = m if variant == "original" else m / (1 - b1**t)
        x = x - lr[t - 1] * mh / (np.sqrt(largest / (1 - b2**t) if variant == "raw" else largest) + eps)
        yield x


def slow_nadam(x, gradients, lr, b1, b2, eps, decay):
    mu = [b1 if decay is None else b1 * (1 - 0.5 * 0.96 ** (t * decay)) for t in range(len(gradients) + 3)]
    for t, g in enumerate(gradients, 1):
        m, v = weighted(gradients, t, b1, 1), weighted(gradients, t, b2, 2) / (1 - b2**t)
        mh = mu[t + 1] * m / (1 - np.prod(mu[1 : t + 2])) + (1 - mu[t]) * g / (1 - np.prod(mu[1 : t + 1]))
        x = x - lr[t - 1] * mh / (np.sqrt(v) + eps)
        yield x


def slow_radam(x, gradients, lr, b1, b2, eps, threshold):
    longest = 2 / (1 - b2) - 1
    for t in range(1, len(gradients) + 1):
        m, v = weighted(gradients, t, b1, 1) / (1 - b1**t), weighted(gradients, t, b2, 2)
        length = longest - 2 * t * b2**t / (1 - b2**t)
        if (length > 4) if threshold == 4 else (length >= 5):
            l = np.sqrt((1 - b2**t) / v)  # noqa: E741
            r = np.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
            x = x - lr[t - 1] * m * r / (1 / l + eps)
        else:
            x = x - lr[t - 1] * m
        yield x


def slow_adabound(x, gradients, lr, b1, b2, eps, final_lr, gamma, base_lr, largest=False):
    w = 0 * x
    for t in range(1, len(gradients) + 1):
        final = final_lr * lr[t - 1] / (lr[0] if base_lr is None else base_lr)
        v = weighted(gradients, t, b2, 2)
        w = np.maximum(w, v) if largest else v
        rate = lr[t - 1] * np.sqrt(1 - b2**t) / (1 - b1**t) / (np.sqrt(w) + eps)
        rate = np.clip(rate, final * (1 - 1 / (gamma * t + 1)), final * (1 + 1 / (gamma * t)))
        x = x - rate * weighted(gradients, t, b1, 1)
        yield x


def slow_lion(x, gradients, lr, b1, b2, decay):
    for t, g in enumerate(gradients, 1):
        m = weighted(gradients, t - 1, b2, 1) if t > 1 else 0
        x = x - lr[t - 1] * (np.sign(b1 * m + (1 - b1) * g) + decay * x)
        yield x


def slow_lookahead(x, gradients, lr, inner, k, alpha, reset):
    slow, gradients = x, list(gradients)
    if reset:
        for i in range(0, len(gradients), k):
            fast = list(SLOW[type(inner)](slow, gradients[i : i + k], lr[i : i + k], *inner.arguments().values()))
            if len(fast) == k:
                slow = fast[-1] = slow + alpha * (fast[-1] - slow)
            yield from fast
        return
    assert isinstance(inner, Adam)  # the moments run on
    b1, b2, eps, _ = inner.arguments().values()
    for t in range(1, len(gradients) + 1):
        m, v = weighted(gradients, t, b1, 1) / (1 - b1**t), weighted(gradients, t, b2, 2) / (1 - b2**t)
        x = x - lr[t - 1] * m / (np.sqrt(v) + eps)
        if t % k == 0:
            x = slow = slow + alpha * (x - slow)
        yield x


def slow_around(x, gradients, lr, inner, *_):
    return SLOW[type(inner)](x, gradients, lr, *inner.arguments().values())


def slow_swats(x, gradients, lr, b1, b2, eps, tolerance, relative):
    average, momentum, rate = 0.0, None, None
    for t, g in enumerate(gradients, 1):
        if rate is None:
            p = -lr[t - 1] * weighted(gradients, t, b1, 1) / (1 - b1**t)
            p = p / (np.sqrt(weighted(gradients, t, b2, 2) / (1 - b2**t)) + eps)
            x = x + p
            if p @ g != 0:
                s = p @ p / -(p @ g)
                average = b2 * average + (1 - b2) * s
                settled = average / (1 - b2**t)
                if t > 1 and settled > 0 and abs(settled - s) < tolerance * (settled if relative else 1):
                    rate, momentum = settled / lr[t - 1], 0 * x
        else:
            momentum = b1 * momentum + g
            x = x - (1 - b1) * rate * lr[t - 1] * momentum
        yield x


def slow_mixed_clipping(x, gradients, lr, gamma, beta, nu, soft):
    for t, g in enumerate(gradients, 1):
        m, parts = weighted(gradients, t, beta, 1), []
        for v in (m, g):
            size = np.sqrt(np.sum(v * v))
            parts.append((lr[t - 1] / (1 + lr[t - 1] * size / gamma) if soft else min(lr[t - 1], gamma / size)) * v)
        x = x - nu * parts[0] - (1 - nu) * parts[1]
        yield x


def slow_normalised_momentum(x, gradients, lr, beta):
    for t in range(1, len(gradients) + 1):
        m = weighted(gradients, t, beta, 1)
        x = x - lr[t - 1] * m / np.sqrt(np.sum(m * m))
        yield x


def slow_adamax(x, gradients, lr, b1, b2, eps, outside):
    for t in range(1, len(gradients) + 1):
        sizes = np.abs(gradients[:t]) + (0.0 if outside else eps)
        u = np.max([b2 ** (t - i) * sizes[i - 1] for i in range(1, t + 1)], axis=0)
        x = x - lr[t - 1] / (1 - b1**t) * weighted(gradients, t, b1, 1) / (u + (eps if outside else 0.0))
        yield x


def slow_rprop(x, gradients, lr, down, up, low, high, variant):
    x, step, before, move = x.copy(), [1.0] * len(x), [0.0] * len(x), [0.0] * len(x)
    for g, rate in zip(gradients, lr, strict=True):
        for i in range(len(x)):
            now, turned = g[i], before[i] * g[i] < 0
            if before[i] * now > 0:
                step[i] = min(step[i] * up, high)
            if turned:
                step[i] = max(step[i] * down, low)
            if turned and variant != "rprop-":
                move[i] = -move[i] if variant == "rprop+" else 0.0
                now = 0.0
            else:
                move[i] = -np.sign(now) * step[i] * rate
            x[i], before[i] = x[i] + move[i], now
        yield x.copy()


def slow_asgd(x, gradients, lr, lam, alpha, begin):
    for t, g in enumerate(gradients, 1):
        eta = lr[t - 1] * (1 + lam * lr[t - 1] * (t - 1)) ** -alpha
        x = (1 - eta * lam) * x - eta * g
        yield x


def slow_rounded(x, gradients, lr, inner, format, stochastic):
    """By the types of ml_dtypes and the neighbours they know; of two the one that the draw is below."""
    kind = {"bfloat16": ml_dtypes.bfloat16, "float8_e4m3": ml_dtypes.float8_e4m3fn}[format]
    for t in range(1, len(gradients) + 1):
        x = x - lr[t - 1] * sum(inner.beta ** (t - i) * gradients[i - 1] for i in range(1, t + 1))
        near = x.astype(kind)
        if stochastic:
            beyond = np.abs(near.astype(float)) > np.abs(x)
            low = np.where(beyond, np.nextafter(near, np.zeros_like(near)), near)
            high = np.nextafter(low, np.copysign(np.full_like(low, 100), x.astype(kind))).astype(float)
            draws = backend.uniforms(backend.key(0, "rounded", t), np.empty(x.shape))
            share = (x - low.astype(float)) / (high - low.astype(float))
            near = np.where(share + draws >= 1, high, low.astype(float))
        x = near.astype(float)
        yield x


SLOW = {
    Rounded: slow_rounded,
    Adamax: slow_adamax,
    Rprop: slow_rprop,
    ASGD: slow_asgd,
    SGD: slow_sgd,
    HeavyBall: slow_heavy_ball,
    Nesterov: slow_nesterov,
    Adam: slow_adam,
    AdamW: slow_adamw,
    AdaGrad: slow_adagrad,
    RMSProp: slow_rmsprop,
    Adadelta: slow_adadelta,
    AMSGrad: slow_amsgrad,
    NAdam: slow_nadam,
    RAdam: slow_radam,
    AdaBound: slow_adabound,
    Lion: slow_lion,
    Lookahead: slow_lookahead,
    EMA: slow_around,
    SWA: slow_around,
    SWATS: slow_swats,
    MixedClipping: slow_mixed_clipping,
    NormalisedMomentum: slow_normalised_momentum,
    AMSBound: lambda *arguments: slow_adabound(*arguments, largest=True),
}


@pytest.mark.parametrize("optimizer", ELEMENTWISE + WHOLE, ids=short)
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 1e-4)])
def test_trajectory(optimizer, dtype, tolerance, rng, device):
    x, gradients, rates = rng.standard_normal(6), rng.standard_normal((30, 6)), 0.03 * rng.uniform(0.5, 1.5, 30)
    moving = backend.asarray(x.astype(dtype))
    optimizer.start(moving)
    slow = SLOW[type(optimizer)](x, gradients, rates, *optimizer.arguments().values())
    for g, lr, expected in zip(gradients, rates, slow, strict=True):
        given = backend.asarray(g.astype(dtype))
        optimizer.step(moving, given, float(lr))
        np.testing.assert_allclose(backend.to_host(moving), expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(backend.to_host(given), g.astype(dtype))  # g is only read
    assert optimizer.t == 30


@pytest.mark.parametrize("optimizer", ELEMENTWISE, ids=short)
def test_pieces_of_the_gradient_give_the_step_of_the_whole(optimizer, rng):
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


@pytest.mark.parametrize(
    "optimizer, copies",
    [
        (SGD(), 0),
        (HeavyBall(), 1),
        (Nesterov(), 1),
        (Adam(), 2),
        (AdamW(), 2),
        (AdaGrad(), 1),
        (RMSProp(), 1),
        (RMSProp(centred=True), 2),
        (RMSProp(momentum=0.5), 2),
        (RMSProp(centred=True, momentum=0.5), 3),
        (Adadelta(), 2),
        (AMSGrad(), 3),
        (NAdam(), 2),
        (RAdam(), 2),
        (AdaBound(), 2),
        (AMSBound(), 3),
        (Lion(), 1),
        (SWATS(), 2),
        (MixedClipping(1.0), 1),
        (NormalisedMomentum(), 1),
        (Adamax(), 2),
        (Rprop(), 2),
        (Rprop(variant="rprop+"), 3),
        (ASGD(), 1),
        (Rounded(SGD()), 0),
    ],
    ids=lambda v: type(v).__name__,
)
def test_state_takes_as_many_copies_of_x_as_the_method_says(optimizer, copies):
    x = np.zeros(1000, "float32")
    optimizer.start(x)
    assert optimizer.bytes() == copies * x.nbytes and len(optimizer.arrays) == copies
    for around in (Lookahead(optimizer, 3), EMA(optimizer), SWA(optimizer, 1)):  # one more each
        around.start(x)
        assert around.bytes() == (copies + 1) * x.nbytes


def test_a_reused_gradient_array_is_never_kept(rng):
    for optimizer in ELEMENTWISE + WHOLE:
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
    signs = (
        Adam(eps=0.0),
        Adamax(eps=0.0),
        Rprop(),
        AdamW(eps=0.0, weight_decay=0.0),
        AdaGrad(eps=0.0),
        Lion(),
        NAdam(eps=0.0, decay=None, b1=0.0),
        AMSGrad(eps=0.0),
        AMSGrad(eps=0.0, variant="corrected"),
        SWATS(eps=0.0),
    )
    for optimizer in signs:
        x = np.zeros(3)
        optimizer.start(x)
        optimizer.step(x, g, 0.1)
        np.testing.assert_allclose(x, -0.1 * np.sign(g), rtol=1e-12)  # lr sign(g)
    for optimizer, factor in (
        (RMSProp(0.99, eps=0.0), 10.0),
        (RMSProp(0.9, eps=0.0), 10**0.5),
        (AMSGrad(0.9, 0.999, 0.0, "original"), 0.1 / 0.001**0.5),
    ):
        x = np.zeros(3)
        optimizer.start(x)
        optimizer.step(x, g, 0.1)
        np.testing.assert_allclose(x, -0.1 * factor * np.sign(g), rtol=1e-10)
    x = np.zeros(3)
    radam = RAdam()
    radam.start(x)
    radam.step(x, g, 0.1)
    np.testing.assert_allclose(x, -0.1 * g)  # momentum alone, corrected
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


def test_the_forms_of_heavy_ball_are_one_under_its_maps(rng):
    H, x, lr, beta = np.diag([1.0, 3.0, 0.2]), rng.standard_normal(3), 0.13, 0.7
    average, inside, position, before = x.copy(), x.copy(), x.copy(), x.copy()
    m, v, optimizer = np.zeros(3), np.zeros(3), HeavyBall(beta)
    optimizer.start(x)
    for _ in range(12):
        m = beta * m + (1 - beta) * (H @ average)
        average = average - lr / (1 - beta) * m
        v = beta * v - lr * (H @ inside)
        inside = inside + v
        position, before = position - lr * (H @ position) + beta * (position - before), position
        optimizer.step(x, H @ x, lr)
        np.testing.assert_allclose(-lr * optimizer.slot("m"), v, rtol=1e-12, atol=1e-15)
        for other in (average, inside, position):
            np.testing.assert_allclose(x, other, rtol=1e-12, atol=1e-15)


def test_nesterov_is_the_method_of_sutskever_et_al_at_another_point(rng):
    H, x, lr, beta = np.diag([1.0, 3.0, 0.2]), rng.standard_normal(3), 0.13, 0.7
    w, v, optimizer = x.copy(), np.zeros(3), Nesterov(beta)  # equations 3 and 4
    optimizer.start(x)
    for _ in range(12):
        v = beta * v - lr * (H @ (w + beta * v))
        w = w + v
        optimizer.step(x, H @ x, lr)
        np.testing.assert_allclose(x + lr * beta * optimizer.slot("m"), w, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(x, w + beta * v, rtol=1e-12, atol=1e-15)


def test_heavy_ball_is_stable_up_to_its_bound_and_not_beyond():
    for factor, bounded in ((0.99, True), (1.01, False)):
        x, lam, optimizer = np.ones(1), 2.0, HeavyBall(0.6)
        optimizer.start(x)
        for _ in range(3000):
            optimizer.step(x, lam * x, factor * 2 * 1.6 / lam)
        assert (abs(x[0]) < 10) == bounded


def test_beta_zero_is_sgd_and_no_decay_is_adam(rng):
    for a, b in (
        (HeavyBall(0.0), SGD()),
        (Nesterov(0.0), SGD()),
        (AdamW(weight_decay=0.0), Adam()),
        (Adam(l2=0.0), Adam()),
        (RMSProp(0.9, 1e-3, momentum=0.0), RMSProp(0.9, 1e-3)),
        (Lookahead(Adam(), 5, 1.0), Adam()),
        (EMA(Adam()), Adam()),
        (SWA(HeavyBall(0.5), 2), HeavyBall(0.5)),
        (NAdam(0.0, decay=None), Adam(0.0)),
    ):
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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adam_without_memory_is_sign_descent_exactly(dtype, rng):
    x = rng.standard_normal(1000).astype(dtype)
    y, optimizer = x.copy(), Adam(0.0, 0.0, 0.0)
    optimizer.start(x)
    for lr in (0.1, 0.03, 0.007):
        g = rng.standard_normal(1000).astype(dtype)
        optimizer.step(x, g, lr)
        y -= x.dtype.type(lr) * np.sign(g)
        np.testing.assert_array_equal(x, y)


def test_adabound_takes_a_first_rate_of_zero_and_arrays_with_a_base_rate(rng):
    g = rng.standard_normal((6, 3))
    late, never = AdaBound(), AdaBound()
    x, y = np.ones(3), np.ones(3)
    late.start(x)
    for gradient, lr in zip(g, (0.0, 0.1, 0.1, 0.05, 0.1, 0.1), strict=True):
        late.step(x, gradient, lr)
    assert late.first == 0.1 and np.isfinite(x).all() and (x != 1).all()
    array = AdaBound(base_lr=0.1)
    never.base_lr = 0.1
    array.start(y)
    z = np.ones(3)
    never.start(z)
    for gradient in g:
        array.step(y, gradient, np.full(3, 0.05))
        never.step(z, gradient, 0.05)
    np.testing.assert_allclose(y, z, rtol=1e-14)
    fresh = AdaBound()
    fresh.start(y)
    with pytest.raises(ValueError, match="give base_lr"):
        fresh.step(y, g[0], np.full(3, 0.1))
    swats = SWATS()
    swats.start(y)
    with pytest.raises(ValueError, match="SWATS: .* one number"):
        swats.step(y, g[0], np.full(3, 0.1))


def test_the_momentum_of_rmsprop_may_vary_but_not_rise_from_zero(rng):
    g, optimizer, x = rng.standard_normal((4, 3)), RMSProp(momentum=0.9), np.ones(3)
    optimizer.start(x)
    optimizer.step(x, g[0], 0.1)
    optimizer.momentum = 0.0
    before, m = x.copy(), g[1]
    v = 0.99 * 0.01 * g[0] ** 2 + 0.01 * g[1] ** 2
    optimizer.step(x, g[1], 0.1)
    np.testing.assert_allclose(x, before - 0.1 * m / (np.sqrt(v) + 1e-8), rtol=1e-12)
    assert set(optimizer.state()) == {"t", "v", "m"}
    still = RMSProp()
    still.start(x)
    still.momentum = 0.5
    with pytest.raises(ValueError, match="RMSProp: momentum rises from 0"):
        still.step(x, g[2], 0.1)


def test_start_leaves_the_value_as_it_is():
    decay = np.linspace(0, 0.5, 4)
    optimizer, same = AdamW(weight_decay=decay), AdamW(weight_decay=decay)
    x = np.ones(4, "float32")
    optimizer.start(x)
    assert optimizer == same and optimizer.weight_decay is decay
    optimizer.step(x, np.zeros(4, "float32"), 0.5)
    np.testing.assert_allclose(x, 1 - 0.5 * decay, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adamw_without_decay_is_adam_bit_for_bit(dtype, rng):
    x = rng.standard_normal(1000).astype(dtype)
    y, one, two = x.copy(), AdamW(0.8, 0.99, 1e-6, weight_decay=0.0), Adam(0.8, 0.99, 1e-6)
    one.start(x)
    two.start(y)
    for t in range(30):
        g = rng.standard_normal(1000).astype(dtype)
        one.step(x, g, 0.1 / (t + 1))
        two.step(y, g, 0.1 / (t + 1))
    np.testing.assert_array_equal(x, y)


def test_a_zero_gradient_in_float32_leaves_adam_where_it_is():
    x = np.ones(3, "float32")
    optimizer = Adam()
    optimizer.start(x)
    optimizer.step(x, np.zeros(3, "float32"), 0.1)
    np.testing.assert_array_equal(x, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: HeavyBall(1.0),
        lambda: HeavyBall(1.5),
        lambda: HeavyBall(-0.1),
        lambda: Nesterov(1),
        lambda: Adam(b1=1.0),
        lambda: Adam(b2=float("nan")),
        lambda: Adam(eps=-1e-8),
        lambda: AdamW(weight_decay=-0.1),
        lambda: Adam(l2=-1),
        lambda: AdaGrad(eps=-1),
        lambda: RMSProp(1.0),
        lambda: Adadelta(eps=0.0),
        lambda: NAdam(b1=1.0),
        lambda: AdaBound(final_lr=0),
        lambda: Lion(b2=1.0),
        lambda: MixedClipping(0.0),
        lambda: MixedClipping(1.0, 1.0),
        lambda: MixedClipping(1.0, nu=1.5),
        lambda: NormalisedMomentum(1.0),
        lambda: EMA(SGD(), 1.0),
        lambda: Lookahead(SGD(), alpha=0.0),
    ],
)
def test_hyper_parameters_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=r"\w+: \w+ must lie in"):
        wrong()


def test_names_that_are_not_there_get_one_sentence():
    for wrong, words in (
        (lambda: AMSGrad(variant="keras"), "AMSGrad: variant must be one of original, raw, corrected"),
        (lambda: RAdam(threshold=6), "RAdam: threshold must be 4"),
        (lambda: Lookahead("Adam"), "Lookahead: inner must be an optimizer"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()
    swats, x = SWATS(), np.ones(4)
    swats.start(x)
    with pytest.raises(ValueError, match="whole gradient"):
        swats.step(x, iter([(slice(0, 4), x)]), 0.1)


def moved(optimizer, gradients, lr=1.0):
    """The steps of a scalar."""
    x, found = np.zeros(1), []
    optimizer.start(x)
    for g in gradients:
        before = x[0]
        optimizer.step(x, np.array([float(g)]), lr)
        found.append(x[0] - before)
    return np.array(found)


def test_the_memory_of_adam_and_of_amsgrad_after_a_spike():
    spike = [1.0] * 3000 + [1e5] + [1.0] * 20
    adam = -moved(Adam(0.0, 0.999, 0.0), spike)
    np.testing.assert_allclose(adam[:3000], 1)
    assert adam[3000] == pytest.approx(1000**0.5 * 0.97, rel=0.01)  # the cap sqrt(1/(1-b2)), at t = 3001
    np.testing.assert_allclose(adam[3001:], 1000**0.5 / 1e5, rtol=0.05)
    for variant in AMSGrad.VARIANTS:
        ams = -moved(AMSGrad(0.0, 0.999, 0.0, variant), spike)
        assert ams[-1] <= ams[3001] * 1.001 and ams[-1] == pytest.approx(10**-3.5, rel=0.06)
    many = -moved(AMSGrad(0.0, 0.9, 0.0, "original"), [1.0, 5.0] + [1.0] * 50)
    assert (np.diff(many[2:]) <= 1e-12).all()


def test_adam_goes_the_wrong_way_on_the_example_of_reddi_and_amsgrad_does_not():
    big, found = 3.0, {}
    for name, optimizer in (
        ("adam", Adam(0.0, 1 / (1 + big**2), 0.0)),
        ("amsgrad", AMSGrad(0.0, 1 / (1 + big**2), 0.0, "original")),
    ):
        x = np.zeros(1)
        optimizer.start(x)
        for t in range(1, 30_001):
            optimizer.step(x, np.array([big if t % 3 == 1 else -1.0]), 0.5 / t**0.5)
            np.clip(x, -1, 1, out=x)
        found[name] = x[0]
    assert found["adam"] > 0.95 and found["amsgrad"] < -0.95


def test_the_first_rectified_step_of_radam_and_its_factors():
    assert RAdam() == RAdam(threshold=4)  # the rule that the docstring displays
    first = {k: min(t for t in range(1, 20) if RAdam(threshold=k).rectifier(t) is not None) for k in (4, 5)}
    assert first == {4: 5, 5: 6}
    factors = {t: RAdam(threshold=4).rectifier(t) for t in (5, 100, 200, 1000, 5000)}
    expected = {5: 0.017, 100: 0.215, 200: 0.307, 1000: 0.645, 5000: 0.983}
    assert all(abs(factors[t] - expected[t]) < 6e-4 for t in expected), factors
    assert all(RAdam(b2=0.5, threshold=k).rectifier(t) is None for k in (4, 5) for t in range(1, 50))


def test_the_bounds_of_adabound_close_on_the_final_rate():
    optimizer = AdaBound(final_lr=0.1, gamma=1e-3)
    optimizer.start(np.zeros(1))
    optimizer.first = 1e-3
    np.testing.assert_allclose(optimizer.bounds(1e-3, 1000), (0.05, 0.2), rtol=1e-12)
    np.testing.assert_allclose(optimizer.bounds(1e-3, 10**9), (0.1, 0.1), rtol=1e-5)
    np.testing.assert_allclose(optimizer.bounds(1e-4, 1000), (0.005, 0.02), rtol=1e-12)  # a schedule scales them


def test_adadelta_starts_by_its_eps():
    found = moved(Adadelta(0.9, 1e-6), [2.0])
    assert found[0] == pytest.approx(-2 * (1e-6 / (0.1 * 4 + 1e-6)) ** 0.5, rel=1e-12)


def test_swats_switches_on_a_quadratic_and_then_is_sgd(rng):
    optimizer, x = SWATS(b2=0.9, tolerance=0.2, relative=True), np.array([1.0, -2.0, 3.0])
    optimizer.start(x)
    for _ in range(300):
        optimizer.step(x, x.copy(), 0.01)
        if optimizer.switched:
            break
    assert 1 < optimizer.switched < 300 and optimizer.rate > 0
    before, lr = x.copy(), 0.01
    g = rng.standard_normal(3)
    optimizer.step(x, g, lr)
    np.testing.assert_allclose(x, before - (1 - 0.9) * optimizer.rate * lr * g, rtol=1e-12)


def test_lookahead_ema_and_swa_report_their_own_point(rng):
    gradients, lr = rng.standard_normal((12, 3)), 0.1
    path = [np.zeros(3), *slow_sgd(np.zeros(3), gradients, [lr] * 12)]
    for optimizer, expected in (
        (EMA(SGD(), 0.7), 0.7**12 * path[0] + sum(0.3 * 0.7 ** (12 - t) * path[t] for t in range(1, 13))),
        (SWA(SGD(), 4, 3), np.mean([path[t] for t in (4, 7, 10)], axis=0)),
        (SWA(SGD(), 13), path[12]),
    ):
        x = np.zeros(3)
        optimizer.start(x)
        for g in gradients:
            optimizer.step(x, g, lr)
        np.testing.assert_allclose(x, path[12], rtol=1e-12)
        np.testing.assert_allclose(optimizer.answer(x), expected, rtol=1e-12)
    x, optimizer = np.zeros(3), Lookahead(SGD(), 5, 0.5)
    optimizer.start(x)
    for g in gradients[:7]:
        optimizer.step(x, g, lr)
    np.testing.assert_allclose(optimizer.answer(x), 0.5 * path[5], rtol=1e-12)
    np.testing.assert_allclose(x, 0.5 * path[5] + path[7] - path[5], rtol=1e-12)


def test_coupled_and_decoupled_decay_differ_unless_there_is_none(rng):
    gradients = rng.standard_normal((20, 4))

    def end(optimizer):
        x = np.ones(4)
        optimizer.start(x)
        for g in gradients:
            optimizer.step(x, g, 0.05)
        return x

    np.testing.assert_array_equal(end(Adam(l2=0.0)), end(AdamW(weight_decay=0.0)))
    assert np.abs(end(Adam(l2=0.1)) - end(AdamW(weight_decay=0.1))).max() > 1e-3
    some = np.array([0.0, 0.1, 0.0, 0.1])
    np.testing.assert_allclose(end(Adam(l2=some))[::2], end(Adam())[::2])
    np.testing.assert_allclose(end(Adam(l2=some))[1::2], end(Adam(l2=0.1))[1::2])


def test_asgd_answers_with_the_mean_of_its_iterates_from_a_step_on(rng):
    """PyTorch's ax: mu = 1 / max(1, t - 1 - t0) with t0 = begin - 2."""
    gradients, x = rng.standard_normal((9, 3)), np.ones(3)
    for begin in (1, 4):
        optimizer, points, ax, t0 = ASGD(0.2, 0.7, begin), [], 0.0, begin - 2
        moving = x.copy()
        optimizer.start(moving)
        assert optimizer.answer(moving) is moving
        for t, g in enumerate(gradients, 1):
            optimizer.step(moving, g, 0.1)
            points.append(moving.copy())
            ax = ax + (moving - ax) / max(1, t - 1 - t0)
            answer = optimizer.answer(moving)
            if t < begin:
                assert answer is moving
            else:
                np.testing.assert_allclose(answer, np.mean(points[begin - 1 :], axis=0), rtol=1e-12)
                np.testing.assert_allclose(answer, ax, rtol=1e-12)


def test_the_steps_of_rprop_keep_to_their_bounds_and_gradients_that_underflow_count():
    for g, expected in ((1e-30, [1, 1.2, 1.44, 1.5, 1.5]), (0.0, [0, 0, 0, 0, 0])):
        x, optimizer = np.zeros(1, "float32"), Rprop(high=1.5)
        optimizer.start(x)
        for size in expected:
            before = x.copy()
            optimizer.step(x, np.full(1, g, "float32"), 0.5)
            assert before[0] - x[0] == pytest.approx(0.5 * size)
    x, optimizer = np.zeros(1), Rprop(low=0.3, variant="rprop-")
    optimizer.start(x)
    for t in range(6):
        optimizer.step(x, np.array([(-1.0) ** t]), 1.0)
    assert optimizer.slot("d")[0] == 0.3


@pytest.mark.parametrize("optimizer", [Adamax(eps=0.0), Adamax(eps=0.0, eps_outside=True)], ids=repr)
def test_adamax_without_eps_stays_where_there_never_was_a_gradient(optimizer):
    x = np.ones(2)
    optimizer.start(x)
    for _ in range(3):
        optimizer.step(x, np.array([0.0, 2.0]), 0.1)
    np.testing.assert_allclose(x, [1.0, 0.7])


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: Rprop(down=1.5), "Rprop: down must lie in"),
        (lambda: Rprop(up=1.0), "Rprop: up must lie in"),
        (lambda: Rprop(low=2.0, high=1.0), "Rprop: high must lie in"),
        (lambda: Rprop(variant="+"), "variant must be one"),
        (lambda: ASGD(lam=-1.0), "ASGD: lam must lie in"),
        (lambda: ASGD(begin=0), "ASGD: begin must be a whole number"),
        (lambda: Adamax(b1=1.0), "Adamax: b1 must lie in"),
    ],
)
def test_arguments_of_adamax_rprop_and_asgd(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


@pytest.mark.parametrize("arrays, numbers", [(("m", "m"), {}), (("m",), {"m": 0.0}), (("t",), {})])
def test_a_name_that_stands_for_two_things_is_refused(arrays, numbers):
    """Only one of them would be saved."""
    method = type("Twice", (Optimizer,), {"arrays": arrays, "numbers": numbers})()
    with pytest.raises(ValueError, match="stands for two things"):
        method.start(np.zeros(3))


def test_weights_without_masters_stand_still_unless_they_are_rounded_at_random(rng):
    """w = 1, bfloat16: a step of less than 2^-9 is lost downwards (2^-8 upwards); drawn, the mean arrives."""
    for format, unit in (("bfloat16", 2.0**-8), ("float16", 2.0**-11)):
        for step, moves in ((0.49 * unit / 1, False), (-0.98 * unit, False), (0.51 * unit, True), (-1.02 * unit, True)):
            x, optimizer = np.ones(5, "float32"), Rounded(SGD(), format)
            optimizer.start(x)
            for _ in range(100):
                optimizer.step(x, np.full(5, step, "float32"), 1.0)
                assert (x == 1).all() != moves
                x[...] = 1
    x, optimizer = np.ones(20_000, "float32"), Rounded(SGD(), "bfloat16", True)
    optimizer.start(x)
    for _ in range(100):
        optimizer.step(x, np.full(x.size, -1e-4, "float32"), 1.0)
    assert abs(x.mean(dtype=float) - 1.01) < 1e-3 and len(set(x)) > 3
