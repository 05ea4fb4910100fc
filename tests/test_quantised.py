"""State in 8 bits: the paper's loop written out, every method through codes on two devices, what is kept and saved."""

import copy
from types import SimpleNamespace

from nn import networks
from nn.language import gpt2
from npopt import (
    EMA,
    SGD,
    Adam,
    AdamW,
    AMSGrad,
    HeavyBall,
    Lion,
    Muon,
    Quantised,
    RandomReshuffling,
    SophiaG,
    Stop,
    backend,
    minimize,
    optimizers,
)
from npopt.codes import Coded
from npopt.segments import Segments
from problems import Neural, datasets
from problems.feeds import Images

import numpy as np
import pytest
from methods import ELEMENTWISE, ORACLE, TABLE, short

WIDE = Segments.of(
    ("a.W", (12, 11), "matrix", "a"),
    ("a.b", (12,), "bias", "a"),
    ("table.W", (20, 5), "embedding", "table"),
    ("c.W", (37, 3), "matrix", "c"),
)
THERE = SimpleNamespace(problem=SimpleNamespace(segments=WIDE), seed=3)


def published(signed):
    found = [0.0, 1.0]
    for i in range(7):
        ends = np.linspace(0.1, 1, (2**i if signed else 2 ** (i + 1)) + 1)
        for middle in (ends[:-1] + ends[1:]) / 2 * 10.0 ** (i - 6):
            found += [middle, -middle] if signed else [middle]
    return np.sort(found)


def there_and_back(numbers, signed, block):
    """What is left of the numbers of a segment, by the paper: a block, a number at a time."""
    values, out = published(signed), []
    for lo in range(0, len(numbers), block):
        part = numbers[lo : lo + block]
        scale = np.abs(part).max()
        for x in part:
            c = int(np.argmin(np.abs(values - x / scale))) if scale else 127 * signed
            if signed and scale and x < 0 and values[c] >= 0:
                c -= 1
            out.append(values[c] * scale)
    return np.array(out)


def slow_adamw(x, gradients, rates, o, block, small):
    """AdamW with 8-bit m and v, moved by the moments of 32 bits; `small`: names of segments that keep them."""
    m, v, found = np.zeros(WIDE.dim), np.zeros(WIDE.dim), []
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        m, v = o.b1 * m + (1 - o.b1) * g, o.b2 * v + (1 - o.b2) * g**2
        bad = ~np.isfinite(m)
        m[bad], v[bad] = 0, 0
        step = m / (1 - o.b1**t) / (np.sqrt(v / (1 - o.b2**t)) + o.eps) + o.weight_decay * x
        x = x - lr * np.where(bad, 0, step)
        for s in WIDE:
            if s.name not in small:
                m[s.slice], v[s.slice] = (there_and_back(a[s.slice], a is m, block) for a in (m, v))
        found.append(x)
    return found


@pytest.mark.parametrize("block", [16, 256])
def test_adamw_is_the_loop_of_the_paper(block, rng, device):
    """No hyper-parameter at its default, a rate that changes, coordinates of all sizes, a gradient that overflows."""
    inner, size = AdamW(0.7, 0.95, 1e-2, 0.2), 10.0 ** rng.uniform(-3, 1, WIDE.dim)
    x, gradients = rng.standard_normal(WIDE.dim), rng.standard_normal((12, WIDE.dim)) * size
    gradients[4, 7], gradients[6, 150], gradients[6, 160] = np.inf, np.nan, -np.inf
    rates = 0.03 * rng.uniform(0.5, 1.5, 12)
    o = Quantised(inner, block, smallest=20, whole=("embedding",))
    moving = backend.asarray(x.astype(np.float32))
    o.start(moving, THERE)
    gradients[6, WIDE.find("table.W").slice] = 1.0  # what is kept in 32 bits has no rule for infinities
    slow = slow_adamw(x, gradients, rates, inner, block, ("a.b", "table.W"))
    for g, lr, expected in zip(gradients, rates, slow, strict=True):
        o.step(moving, backend.asarray(g.astype(np.float32)), float(lr))
        np.testing.assert_allclose(backend.to_host(moving), expected, rtol=2e-5, atol=2e-6)
    assert o.t == o.inner.t == 12
    shelf = o.inner.slot("m")
    sizes = {s.name: type(shelf[s.slice]) for s in WIDE}
    assert [name for name, kind in sizes.items() if kind is Coded] == ["a.W", "c.W"]
    state = o.state()["inner"]["m"]
    assert state["codes"].dtype == np.uint8 and state["scales"].dtype == np.float32


FITTING = [o for o in ELEMENTWISE if type(o).answer is optimizers.Optimizer.answer and not isinstance(o, SGD)]


@pytest.mark.parametrize("inner", [*FITTING, Muon(0.7, True, 3, "original", 0.2, adam_rate=0.4)], ids=short)
def test_every_method_goes_on_from_what_its_codes_stand_for(inner, rng, device):
    """A step of the codes is a step of the method from their values, and the codes are those of what it then keeps."""
    o, plain = Quantised(copy.deepcopy(inner), 8, smallest=5, whole=()), copy.deepcopy(inner)
    x = backend.asarray(rng.standard_normal(TABLE.dim).astype(np.float32))
    y = x.copy()
    o.start(x, ORACLE)
    plain.start(y, ORACLE)
    for _ in range(3):
        g = backend.asarray(rng.standard_normal(TABLE.dim).astype(np.float32))
        for name, shelf in o.shelves.items():
            plain.slot(name)[...] = shelf.read()
        y[...] = x
        o.step(x, g, 0.1)
        plain.step(y, g, 0.1)
        tolerance = 1e-6 if isinstance(inner, Muon) else 0
        np.testing.assert_allclose(backend.to_host(x), backend.to_host(y), rtol=tolerance, atol=tolerance)
        for name, shelf in o.shelves.items():
            kept = backend.to_host(shelf.read()).copy()
            shelf[...] = plain.slot(name)
            np.testing.assert_allclose(backend.to_host(shelf.read()), kept, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("inner", FITTING, ids=short)
def test_arrays_are_negative_only_where_the_method_does_not_say_that_they_never_are(inner, rng):
    o = copy.deepcopy(inner)
    x = rng.standard_normal(TABLE.dim)
    o.start(x, ORACLE)
    least = dict.fromkeys(o._slots, 0.0)
    for _ in range(20):
        o.step(x, rng.standard_normal(TABLE.dim), 0.1)
        least = {name: min(least[name], slot.min()) for name, slot in o._slots.items()}
    assert {name for name, value in least.items() if value >= 0} == set(o.never_negative) & set(o._slots)


def network():
    """(oracle, x) of a small GPT: tables, matrices and short vectors."""
    made = gpt2(65, 32, 64, 2, 4)
    return SimpleNamespace(problem=SimpleNamespace(segments=made.segments), seed=0), np.zeros(made.dim, np.float32)


@pytest.mark.parametrize(
    "bits, block, nominal", [(8, 256, 2 + 8 / 256), (8, 2048, 2 + 8 / 2048), (4, 128, 1 + 8 / 128)]
)
def test_bytes_of_state_are_those_that_are_there(bits, block, nominal):
    oracle, x = network()
    o = Quantised(AdamW(), block, bits=bits)
    o.start(x, oracle)
    coded = [s for s in oracle.problem.segments if s.size >= 4096 and s.kind != "embedding"]
    many = sum(s.size for s in coded)
    assert many > 0.85 * x.size
    blocks = sum(-(-s.size // block) for s in coded)
    assert o.bytes() == 2 * (many * bits // 8 + 4 * blocks) + 8 * (x.size - many)
    every = Quantised(AdamW(), block, bits=bits, smallest=0, whole=())
    every.start(x, oracle)
    assert 8 * x.size / every.bytes() > (3.9 if bits == 8 else 7.4)
    assert every.bytes() / x.size == pytest.approx(nominal, rel=0.01)
    resnet = networks.resnet18()
    x = np.zeros(resnet.dim, np.float32)
    o.start(x, SimpleNamespace(problem=SimpleNamespace(segments=resnet.segments)))
    assert o.bytes() / x.size == pytest.approx(nominal, rel=0.02)


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("block, code, bits", [(16, "dynamic", 8), (None, "linear", 8), (8, ("dynamic",) * 2, 4)])
def test_a_state_is_saved_and_goes_on_bit_for_bit(block, code, bits, stochastic, rng):
    def made():
        return Quantised(AdamW(0.7, 0.95, 1e-2, 0.2), block, code, bits, stochastic, 20)

    x, gradients, whole, half = rng.standard_normal(WIDE.dim), rng.standard_normal((8, WIDE.dim)), made(), made()
    y = x.copy()
    whole.start(x, THERE)
    half.start(y, THERE)
    for g in gradients[:5]:
        whole.step(x, g, 0.1)
        half.step(y, g, 0.1)
    state, again = copy.deepcopy(half.state()), made()
    again.start(y, THERE)
    again.load_state(state)
    for g in gradients[5:]:
        whole.step(x, g, 0.1)
        again.step(y, g, 0.1)
    np.testing.assert_array_equal(x, y)
    other = made()
    other.start(np.zeros(7), None)
    with pytest.raises(ValueError, match="state is another's"):
        other.load_state(state)


def test_pieces_of_whole_segments_give_the_step_of_the_whole(rng):
    x = rng.standard_normal(WIDE.dim)
    y, one, two = x.copy(), *(Quantised(Adam(), 16, stochastic=True, smallest=20) for _ in range(2))
    one.start(x, THERE)
    two.start(y, THERE)
    cuts = [0, WIDE.find("a.b").stop, WIDE.dim]
    for _ in range(3):
        g = rng.standard_normal(WIDE.dim)
        one.step(x, g, 0.1)
        two.step(y, ((slice(a, b), g[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)), 0.1)
    np.testing.assert_array_equal(x, y)
    with pytest.raises(ValueError, match="cuts a segment in two"):
        two.step(y, iter([(slice(0, 5), g[:5])]), 0.1)


def test_where_everything_is_small_nothing_changes_bit_for_bit(rng):
    for inner in (HeavyBall(0.7), Lion(0.7, 0.95, 0.2), AMSGrad(0.7, 0.8, 1e-2)):
        x = rng.standard_normal(WIDE.dim)
        y, o, plain = x.copy(), Quantised(copy.deepcopy(inner)), copy.deepcopy(inner)
        o.start(x, THERE)
        plain.start(y, THERE)
        for _ in range(3):
            g = rng.standard_normal(WIDE.dim)
            o.step(x, g, 0.1)
            plain.step(y, g, 0.1)
        np.testing.assert_array_equal(x, y)


def test_a_constant_gradient_gives_a_moment_of_one_number_which_is_kept_exactly(rng):
    """Every block's largest number is exact, so where all are equal nothing is lost."""
    x = rng.standard_normal(WIDE.dim).astype(np.float32)
    y, o, plain = x.copy(), Quantised(Adam(), 16, smallest=0, whole=()), Adam()
    o.start(x, THERE)
    plain.start(y, THERE)
    for _ in range(10):
        g = np.full(WIDE.dim, 0.37, np.float32)
        o.step(x, g, 0.1)
        plain.step(y, g, 0.1)
    np.testing.assert_array_equal(x, y)


def test_a_method_that_asks_for_second_gradients_keeps_them_in_8_bits():
    """Its h is written as a whole, through the formula of the estimate; on a device nothing is read."""
    problem = Neural(networks.mlp((64, 6, 10)), Images(datasets.load("digits")), metrics_rows=40)
    start = problem.x0(backend.generator(1, "x0"))
    one, two = (
        minimize(problem, o, RandomReshuffling(32), 0.02, stop=Stop(steps=12), seed=1)
        for o in (SophiaG(every=3), Quantised(SophiaG(every=3), 64, smallest=60))
    )
    assert 0 < np.abs(two.x - one.x).mean() < 0.1 * np.abs(one.x - start).mean()


def test_what_does_not_fit_is_refused_in_a_sentence(rng):
    for inner, words in ((SGD(), "keeps no array"), (EMA(SGD(), 0.9), "point of its own"), (3, "must be an optimizer")):
        with pytest.raises(ValueError, match=words):
            Quantised(inner).start(np.zeros(3))
    for wrong, words in (
        (dict(block=3), "even"),
        (dict(code="cubic"), "kind"),
        (dict(code=("linear",) * 3), "two names"),
        (dict(bits=6), "8 or 4"),
        (dict(code="positive"), "without a sign"),
        (dict(whole=("tables",)), "kinds"),
    ):
        with pytest.raises(ValueError, match=words):
            Quantised(Adam(), **wrong)

    class Halved(optimizers.Optimizer):
        arrays = ("m",)

        def update(self, x, g, lr, m):
            m *= 0.5

    o = Quantised(Halved(), smallest=0)
    o.start(np.zeros(8))
    with pytest.raises(ValueError, match="no arithmetic"):
        o.step(np.zeros(8), np.ones(8), 0.1)
