"""Caches: what leaves words out is attention that is told to, what rounds keeps to its bound, what shares is Full."""

import nn
from nn.decoding import H2O, KIVI, Decoder, Full, Greedy, Paged, SnapKV, Streaming, Window, beam, generate
from nn.decoding.kivi import Packed
from nn.language import gpt2, llama
from nn.layer import Run
from npopt import backend
from npopt.errors import UserError

import numpy as np
import pytest

V, D, T = 11, 16, 40


def network(kind="llama"):
    """Heads of 4 numbers, those of gpt2 of 8, of which 8^-0.5 and 1 / sqrt(8) differ in the last bit."""
    if kind == "llama":
        return llama(V, T, D, 2, 4, 24, kv_heads=2)
    if kind == "Alibi":
        parts = [nn.EncoderLayer(D, 4, 12, causal=True, norm="rms", positions=nn.Alibi()) for _ in range(2)]
        return nn.Network(nn.Sequential(nn.Embedding(V, D), *parts, nn.Linear(D, V)), (T,))
    return gpt2(V, T, D, 2, 2)


def parameters(made, seed=0, dtype="float64"):
    return backend.asarray((np.random.default_rng(seed).standard_normal(made.dim) * 0.5).astype(dtype))


def texts(rows=2, length=T, seed=1):
    return np.random.default_rng(seed).integers(0, V, (rows, length))


def logits(made, x, tokens, cache, cuts):
    """Logits behind each word, (B, T, V), of a text in pieces, and the state."""
    state = Decoder(made, x, cache).start(len(tokens))
    found = [backend.to_host(state.append(part, every=True)) for part in np.split(tokens, cuts, axis=1)]
    return np.concatenate(found, axis=1), state


WORD_BY_WORD = list(range(1, T))
WHOLE = [Window(T), Streaming(3, T), Streaming(0, T), H2O(8, T), H2O(T, 1), SnapKV(T, 4), KIVI(2, 8, 64), Paged(5)]


@pytest.mark.parametrize("cache", WHOLE, ids=repr)
@pytest.mark.parametrize("kind", ["llama", "gpt2", "Alibi"])
@pytest.mark.parametrize("cuts", [WORD_BY_WORD, [7, 8, 30], []], ids=["words", "pieces", "whole"])
def test_a_cache_that_holds_the_text_is_full(cache, kind, cuts, device):
    made = network(kind)
    x, tokens = parameters(made), texts()
    found, state = logits(made, x, tokens, cache, cuts)
    expected, _ = logits(made, x, tokens, Full(), [])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())
    assert state.length == T and state.nbytes > 0


def slow_attention(layer, x, positions, shown):
    """Attention of the last row of x, (n, D), over the rows `shown`, with these positions for rotary angles."""
    maps = {name: getattr(layer, name) for name in ("query", "key", "value", "out")}
    q, k, v = (x[rows] @ maps[name].W.T for name, rows in (("query", [-1]), ("key", shown), ("value", shown)))
    H, G, d = layer.heads, layer.kv_heads, layer.width
    q, k, v = q.reshape(1, H, d), k.reshape(-1, G, d), v.reshape(-1, G, d)

    def turned(a, at):
        half = d // 2
        angle = np.asarray(at)[:, None] * layer.positions.theta ** (-2 * np.arange(half) / d)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        return np.concatenate(
            [a[..., :half] * cos - a[..., half:] * sin, a[..., :half] * sin + a[..., half:] * cos], -1
        )

    q, k = turned(q, positions[-1:]), turned(k, positions)
    out = np.empty((H, d))
    for h in range(H):
        g = h // (H // G)
        score = k[:, g] @ q[0, h] / np.sqrt(d)
        p = np.exp(score - score.max())
        out[h] = p / p.sum() @ v[:, g]
    return out.reshape(1, -1) @ maps["out"].W.T


def slow_text(made, x, tokens, rule):
    """Logits word by word of a text, (T, V): each word sees, in each layer, the rows rule(t) with these positions."""
    made.bind(x)
    embed, *layers, norm, head = made.layer.layers
    streams, rows = [[] for _ in layers], []
    for t, word in enumerate(tokens):
        h = embed.W[word][None]
        for i, layer in enumerate(layers):
            one, two = layer.parts
            streams[i].append(one.norm.forward(h, Run())[0][0])
            shown, positions = rule(t)
            h = h + slow_attention(one.f, np.array(streams[i]), positions, shown)
            h = h + two.f.forward(two.norm.forward(h, Run())[0], Run())[0]
        rows.append(head.forward(norm.forward(h, Run())[0], Run())[0][0])
    return np.array(rows)


def window(recent):
    return lambda t: (range(max(0, t - recent), t + 1),) * 2


def streaming(sinks, recent):
    def rule(t):
        shown = [s for s in range(t + 1) if s < sinks or s >= t - recent]
        return shown, range(len(shown))

    return rule


@pytest.mark.parametrize(
    "cache, rule",
    [
        (Window(6), window(6)),
        (Window(5, slack=0), window(5)),
        (Streaming(4, 5), streaming(4, 5)),
        (Streaming(2, 7, slack=0), streaming(2, 7)),
        (Streaming(0, 6), streaming(0, 6)),
        (Streaming(1, 1), streaming(1, 1)),
    ],
    ids=lambda value: "rule" if callable(value) else repr(value),
)
def test_what_leaves_is_left_out(cache, rule):
    made = network()
    x, tokens = parameters(made), texts(1)
    found, state = logits(made, x, tokens, cache, WORD_BY_WORD)
    np.testing.assert_allclose(found[0], slow_text(made, x, tokens[0], rule), rtol=0, atol=1e-10)
    most = getattr(cache, "sinks", 0) + 2 * cache.recent + cache.slack + 1
    assert state.nbytes <= 2 * 2 * 2 * 4 * most * 8


def test_a_window_is_attention_with_a_window():
    parts = {
        w: [nn.EncoderLayer(D, 4, 12, causal=True, positions=nn.Rotary(), window=w) for _ in range(2)] for w in (0, 7)
    }
    nets = {w: nn.Network(nn.Sequential(nn.Embedding(V, D), *p, nn.Linear(D, V)), (T,)) for w, p in parts.items()}
    x, tokens = parameters(nets[0]), texts()
    found, _ = logits(nets[0], x, tokens, Window(6), WORD_BY_WORD)
    nets[7].bind(x)
    expected = nets[7].layer.forward(tokens, Run())[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)
    with pytest.raises(UserError, match="leaves words out, and so does"):
        Decoder(nets[7], x, Window(6))


def test_streaming_goes_on_beyond_the_positions_that_a_model_has():
    made = gpt2(V, 12, D, 2, 4)
    x, tokens = parameters(made), texts(1, 60)
    found, state = logits(made, x, tokens, Streaming(2, 8), list(range(1, 60)))
    assert np.isfinite(found).all() and state.position == 10
    with pytest.raises(UserError, match="there are 12 positions"):
        logits(made, x, tokens, Window(8), list(range(1, 60)))
    size = state.nbytes
    state.append(texts(1, 1))
    assert state.nbytes == size


def slow_heavy(q, k, heavy, recent):
    """Places that H2O keeps of a text, for one head: q, k (T, d)."""
    kept, sums = [], {}
    for t in range(len(q)):
        kept.append(t)
        sums[t] = 0.0
        score = np.array([q[t] @ k[s] for s in kept]) / np.sqrt(q.shape[1])
        p = np.exp(score - score.max())
        for s, share in zip(kept, p / p.sum(), strict=True):
            sums[s] += share
        while len(kept) > heavy + recent:
            kept.remove(min(kept[:-recent], key=lambda s: (sums[s], -s)))
    return kept


def test_h2o_keeps_what_the_loop_of_the_paper_keeps():
    rng = np.random.default_rng(3)
    for heavy, recent in ((3, 4), (1, 6), (0, 5)):
        memory = H2O(heavy, recent).start([(2, 6)], 1, np.dtype("float64"))
        q, k = rng.standard_normal((2, 1, 25, 2, 6))
        q *= 2
        v = np.broadcast_to(np.arange(25.0)[None, :, None, None], k.shape)  # a value says where it stood
        for t in range(25):
            memory.extend(0, *(a[:, t : t + 1].copy() for a in (q, k, v)), None, t)
        for head in range(2):
            found = memory.values[0][0, head, :, 0].astype(int).tolist()
            assert found == slow_heavy(q[0, :, head], k[0, :, head], heavy, recent)


def test_snapkv_keeps_the_last_words_of_a_prompt_and_those_they_look_at():
    rng = np.random.default_rng(4)
    q, k = rng.standard_normal((2, 1, 30, 1, 6))
    k[0, 11, 0] = 6 * q[0, -4:, 0].mean(0)  # what the last words look at
    v = np.broadcast_to(np.arange(30.0)[None, :, None, None], k.shape)
    memory = SnapKV(5, window=4, kernel=3).start([(1, 6)], 1, np.dtype("float64"))
    memory.extend(0, q.copy(), k.copy(), v.copy(), None, 0)
    found = memory.values[0][0, 0, :, 0].astype(int).tolist()
    scores = np.where(
        np.arange(30)[None] > 26 + np.arange(4)[:, None], -np.inf, q[0, -4:, 0] @ k[0, :, 0].T / np.sqrt(6)
    )
    p = np.exp(scores - scores.max(1, keepdims=True))
    votes = (p / p.sum(1, keepdims=True)).sum(0)
    near = [max(votes[max(0, t - 1) : t + 2]) for t in range(30)]
    best = sorted(sorted(range(26), key=lambda t: (-near[t], t))[:5])
    assert found == [*best, 26, 27, 28, 29] and {10, 11, 12} <= set(found)
    memory.extend(0, *(a[:, :1].copy() for a in (q, k, v)), None, 30)
    assert memory.keys[0].shape[2] == 10


# ------------------------------------------------------------------------------------------------------------- KIVI
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_codes_keep_to_their_bound(bits, dtype, rng):
    x = (rng.standard_normal((3, 5, 64)) * np.geomspace(0.01, 100, 5)[:, None] + 3).astype(dtype)
    x[0, 0] = 2.5  # a group without a range
    packed = Packed(x, bits, 16)
    grouped = x.reshape(3, 5, 4, 16)
    low, span = grouped.min(-1), np.ptp(grouped, -1)
    bound = span / 2 / (2**bits - 1) + 2.0**-10 * (np.abs(low) + span)
    wrong = np.abs(packed.numbers(bits, dtype).reshape(grouped.shape) - grouped).max(-1)
    assert (wrong <= bound).all() and packed.codes.dtype == np.uint8
    assert packed.nbytes == x.size * bits // 8 + 2 * 2 * x.size // 16
    np.testing.assert_array_equal(packed.numbers(bits, dtype)[0, 0], np.float16(2.5))


def test_codes_are_those_of_a_loop(rng):
    x = rng.standard_normal(32)
    for bits in (2, 4, 8):
        packed, codes = Packed(x, bits, 32), []
        low = float(np.float16(x.min()))
        step = float(np.float16((x.max() - low) / (2**bits - 1)))
        for value in x:
            codes.append(min(max(round((value - low) / step), 0), 2**bits - 1))
        found = [int(byte) >> bits * place & 2**bits - 1 for place in range(8 // bits) for byte in packed.codes[0]]
        assert found == codes
        np.testing.assert_allclose(packed.numbers(bits, "float64"), low + step * np.array(codes), rtol=1e-15)


@pytest.mark.parametrize("by", ["channel and token", "token and channel", "token and token"])
def test_what_is_rounded_is_old_and_by_its_axis(by):
    """A memory that is given one word at a time: how many are rounded, and in which groups."""
    rng = np.random.default_rng(5)
    cache, d = KIVI(4, 8, 16, by), 8
    memory, first = cache.start([(2, d)], 1, np.dtype("float64")), rng.standard_normal((2, 1, 60, 2, d))
    for t in range(60):
        q, keys, values, at = memory.extend(0, *(first[i % 2][:, t : t + 1].copy() for i in range(3)), None, t)
        assert at == t and keys.shape[1] == t + 1
    key, value = memory.parts[0]
    axes = by.split(" and ")
    assert key.count == 48 and value.count == (43 if axes[1] == "token" else 48)  # behind 59
    for part, axis, given in ((key, axes[0], first[1]), (value, axes[1], first[0])):
        found, old = part.numbers(), given[0, : part.count].transpose(1, 0, 2)[None]
        groups = old.reshape(1, 2, -1, 8, d).swapaxes(3, 4) if axis == "channel" else old.reshape(1, 2, -1, 1, d)
        expected = Packed(np.ascontiguousarray(groups), 4, 8).numbers(4, "float64")
        expected = expected.swapaxes(3, 4) if axis == "channel" else expected
        np.testing.assert_array_equal(found, expected.reshape(old.shape))
    np.testing.assert_array_equal(key.new[0], first[1][0, 48:].transpose(1, 0, 2))


def test_rounded_keys_change_logits_little_and_less_with_more_bits():
    made = network()
    x, tokens = parameters(made), texts()
    expected, _ = logits(made, x, tokens, Full(), [])
    wrong = []
    for bits in (2, 4, 8):
        found, state = logits(made, x, tokens, KIVI(bits, 4, 8), WORD_BY_WORD)
        wrong.append(np.abs(found - expected).max())
        old, new = 31, 9  # of values, when the 40th came: 39 - 8; of keys 39 // 8 * 8
        bits_a_number = bits + 2 * 16 / 4
        keys, values = (32, 8), (old, new)
        assert state.nbytes == sum(2 * 2 * 2 * 4 * (o * bits_a_number / 8 + n * 8) for o, n in (keys, values))
    assert wrong[0] > 3 * wrong[1] > 30 * wrong[2] > 0


@pytest.mark.parametrize("bits", [2, *(pytest.param(bits, marks=pytest.mark.slow) for bits in (4, 8))])
@pytest.mark.parametrize("group, residual", [(8, 16), (32, 32)])
def test_codes_are_read_as_they_are(bits, group, residual):
    """The compiled way, in float32, is the plain one: every word, also while texts are rolled back and branch."""
    made = llama(V, 4 * T, 128, 2, 4, 24, kv_heads=2)
    x, tokens, found = parameters(made, dtype="float32"), texts(2, 84), {}
    x *= 0.3
    for way in ("fast", "reference"):
        nn.kernels.use(way)
        try:
            state, rows = Decoder(made, x, KIVI(bits, group, residual)).start(2), []
            rows += [state.append(tokens[:, t : t + 1]) for t in range(60)]
            rows.append(state.append(tokens[:, 60:68]))
            state.rollback(66)
            state = state.branch([1, 0])
            rows += [state.append(tokens[::-1, t : t + 1]) for t in range(66, 84)]
            found[way] = np.array(rows)
        finally:
            nn.kernels.use("fast")
    np.testing.assert_allclose(found["fast"], found["reference"], atol=2e-4 * np.abs(found["reference"]).max())


# --------------------------------------------------------------------------------------------- rollback, branch, pages
@pytest.mark.parametrize("cache", [*WHOLE, Streaming(2, 8), Window(9), KIVI(4, 8, 32)], ids=repr)
def test_rollback_and_branch(cache):
    made = network()
    x, tokens = parameters(made), texts(3)
    state = Decoder(made, x, cache).start(3)
    state.append(tokens[:, :20], every=True)
    again = Decoder(made, x, cache).start(3)
    again.append(tokens[:, :20], every=True)
    state.append(texts(3, 5, 9))
    state.rollback(20)
    other = state.branch([2, 0, 0, 1])
    expected = backend.to_host(again.append(tokens[:, 20:24]))
    found = backend.to_host(state.append(tokens[:, 20:24]))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)
    found = backend.to_host(other.append(tokens[[2, 0, 0, 1], 20:24]))
    np.testing.assert_allclose(found, expected[[2, 0, 0, 1]], rtol=0, atol=1e-11)
    other.append(texts(4, 3))  # does not touch the first
    np.testing.assert_allclose(
        backend.to_host(state.append(tokens[:, 24:26])), backend.to_host(again.append(tokens[:, 24:26])), atol=1e-11
    )


@pytest.mark.parametrize(
    "cache, says",
    [
        (Window(4, slack=2), "can be rolled back by 2 words"),
        (Streaming(2, 4, slack=3), "can be rolled back by 3 words"),
        (H2O(2, 3), "some words are gone"),
        (SnapKV(2, 3), "some words are gone"),
        (KIVI(2, 4, 4), "are rounded"),
    ],
    ids=lambda v: repr(v)[:20],
)
def test_what_is_gone_cannot_come_back(cache, says):
    made = network()
    state = Decoder(made, parameters(made), cache).start(1)
    for part in np.split(texts(1, 150), range(20, 150), axis=1):
        state.append(part)
    with pytest.raises(UserError, match=says):
        state.rollback(100)


def test_pages_are_shared_until_they_differ():
    made = network()
    x, tokens = parameters(made), texts(1)
    state = Decoder(made, x, Paged(8)).start(1)
    state.append(tokens[:, :20])
    pages = state.cache.pages
    assert pages.used == 3 and state.nbytes == 3 * 2 * 2 * 2 * 4 * 8 * 8
    beams = state.branch([0, 0, 0])
    assert pages.used == 3
    beams.append(np.array([[1], [2], [3]]))
    assert pages.used == 3 + 3  # each took a copy of the third page; the first text still has its own
    del state
    assert pages.used == 2 + 3
    beams.append(texts(3, 4))
    assert pages.used == 2 + 6
    beams.rollback(16)
    assert pages.used == 2
    del beams
    assert pages.used == 0


@pytest.mark.parametrize("cache", [Paged(4), KIVI(8, 8, 64), Streaming(4, 60)], ids=repr)
def test_texts_are_generated_with_every_cache(cache):
    made = network()
    x = parameters(made)
    full = generate(Decoder(made, x), [[1, 2, 3]], 30, Greedy())
    found = generate(Decoder(made, x, cache), [[1, 2, 3]], 30, Greedy())
    assert [list(map(int, row)) for row in found] == [list(map(int, row)) for row in full]
    if isinstance(cache, Paged):
        one, two = (beam(Decoder(made, x, c), [1, 2], 12, width=3) for c in (Full(), cache))
        assert [list(map(int, text)) for text, _ in one] == [list(map(int, text)) for text, _ in two]


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda: Window(0), "recent"),
        (lambda: Streaming(-1), "sinks"),
        (lambda: KIVI(3), "bits must be one of"),
        (lambda: KIVI(2, 32, 100), "multiple of the group"),
        (lambda: KIVI(by="row and column"), "such as 'channel and token'"),
        (lambda: SnapKV(4, kernel=4), "kernel must be odd"),
        (lambda: KIVI(2, 3, 6), "whole bytes"),
        (lambda: H2O(-1, 3), "heavy"),
        (lambda: Paged(0), "page"),
    ],
)
def test_wrong_arguments(wrong, says):
    with pytest.raises(UserError, match=says):
        wrong()
