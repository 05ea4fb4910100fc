"""Attention: every query takes a mean of values, weighed by how well their keys fit."""

import functools
from math import sqrt

from npopt import backend
from npopt.errors import UserError
from npopt.values import number, whole

from . import init, kernels
from .kernels.reference_attention import How
from .layer import Layer
from .linear import Linear
from .rotary import Alibi, Relative, Rotary

DEFAULT, TABLE = init.PyTorchDefault(), init.Normal(0.02)
PATTERNS = {"strided": 1, "fixed": 2}  # name: how many numbers follow


class MultiHeadAttention(Layer):
    """y_i = O (o_i1, ..., o_iH) + b,   o_ih = sum_j p_ijh v_jg,   p_ijh = softmax_j(scale q_ih . k_jg)

    Vaswani et al., NeurIPS 2017, section 3.2.   x, y: (B, T, D)   q = Q x + b: (B, T, H, d)   k, v: (B, S, G, d)
    H heads of queries, G of keys and values; g = h // (H/G): neighbouring heads share (Ainslie et al., EMNLP 2023).

    Inputs      x                       tokens of x see one another
                (x, keep)               keep: (B, S) bool, or (B,) whole numbers: the keys that are there, or how many
                (x, memory[, keep])     with `cross`: queries of x see keys and values of memory, (B, S, M), keep's S

    kv_heads    G; None: H. 1: multi-query attention (Shazeer 2019)
    width       d; None: D/H
    causal      i sees j <= i alone
    cross       whether keys and values come from another sequence; memory: its number of features M, None: D
    window      i sees |i - j| < window alone; 0: all
    pattern     Child et al. 2019, arXiv:1904.10509, section 4.2, beside `causal`:
                ("strided", l)      |i - j| < l or (i - j) mod l = 0
                ("fixed", l, c)     floor(i/l) = floor(j/l) or j mod l >= l - c
    positions   Rotary(...), Alibi(), Relative(...) of nn/rotary.py, or None
    dropout     of the p_ijh in training, a function of (seed, step, layer name, row, h, i, j); what stays is divided
                by 1 - dropout
    scale       None: 1/sqrt(d)

    Backward, head by head (nn/kernels/reference_attention.py derives it, also in blocks):

        dv_j = sum_i p_ij do_i,   ds_ij = p_ij (do_i . v_j - do_i . o_i),
        dq_i = scale sum_j ds_ij k_j,   dk_j = scale sum_i ds_ij q_i,    dk, dv summed over the heads that share them;
        dx = dq Q + dk K + dv V (in cross attention dx = dq Q, dmemory = dk K + dv V).

    The fast paths keep no array of T x S numbers. Where a query may see no key, o = 0 and all its gradients are 0.
    Kept: q, k, v, o and the logarithms of the softmax's sums, (B, H, T). Relative's tables are the parameters K, V.
    """

    reads_output, two_bytes = False, False

    def __init__(
        self,
        features,
        heads,
        kv_heads=None,
        *,
        width=None,
        causal=False,
        cross=False,
        memory=None,
        window=0,
        pattern=(),
        positions=None,
        dropout=0.0,
        scale=None,
        bias=True,
        init=DEFAULT,
        bias_init=DEFAULT,
    ):
        self.features, self.heads = whole("MultiHeadAttention", "features", features), heads
        self.kv_heads = heads if kv_heads is None else kv_heads
        self.causal, self.cross, self.positions, self.pattern = bool(causal), bool(cross), positions, tuple(pattern)
        self.window = whole("MultiHeadAttention", "window", window, 0)
        self.dropout = number("MultiHeadAttention", "dropout", dropout, low=0, high=1, open_high=True)
        self.width = self.checked(width)
        self.scale = (
            1 / sqrt(self.width)
            if scale is None
            else number("MultiHeadAttention", "scale", scale, low=0, open_low=True)
        )
        others, inner = features if memory is None else memory, self.kv_heads * self.width
        starts = bias, init, bias_init
        self.query = Linear(features, heads * self.width, *starts)
        self.key, self.value = Linear(others, inner, *starts), Linear(others, inner, *starts)
        self.out = Linear(heads * self.width, features, *starts)
        self.dK = self.dV = None
        if isinstance(positions, Relative):
            names = ("K", "V") if positions.values else ("K",)
            rows = 2 * positions.distance + 1
            self.shapes, self.init = {n: ((rows, self.width), "embedding") for n in names}, dict.fromkeys(names, TABLE)

    def checked(self, width):
        """The width of a head; a UserError where the arguments do not go together."""
        name = "MultiHeadAttention"
        heads, shared = whole(name, "heads", self.heads), whole(name, "kv_heads", self.kv_heads)
        if heads % shared:
            raise UserError(f"{name}: kv_heads must divide the {heads} heads, got {shared}")
        if width is None and self.features % heads:
            raise UserError(f"{name}: {self.features} features cannot be cut into {heads} heads; give width=")
        width = self.features // heads if width is None else whole(name, "width", width)
        if self.pattern and PATTERNS.get(self.pattern[0]) != len(self.pattern) - 1:
            raise UserError(f'{name}: pattern must be ("strided", l) or ("fixed", l, c), got {self.pattern!r}')
        for part in self.pattern[1:]:
            whole(name, "the numbers of pattern", part)
        if self.positions is not None and not isinstance(self.positions, (Rotary, Alibi, Relative)):
            raise UserError(f"{name}: positions must be Rotary, Alibi or Relative, got {self.positions!r}")
        if isinstance(self.positions, Rotary):
            self.positions.check(name, width)
        if self.cross and (self.causal or self.window or self.pattern or self.positions is not None):
            raise UserError(f"{name}: in cross attention there are no positions, windows, patterns and causal masks")
        return width

    def children(self):
        return [("query", self.query), ("key", self.key), ("value", self.value), ("out", self.out)]

    def fans(self, name):
        return self.width, self.width

    def output_shape(self, shape):
        parts = tuple(shape) if isinstance(shape[0], tuple) else (tuple(shape),)
        if len(parts[0]) != 2 or len(parts) > 2 + self.cross or self.cross and len(parts) < 2:
            wanted = "(x, memory) or (x, memory, keep)" if self.cross else "x or (x, keep)"
            raise UserError(f"MultiHeadAttention: a row must be {wanted}, x being (T, features); got {shape}")
        if self.cross:
            self.key.output_shape(parts[1])
        return self.query.output_shape(parts[0])[:1] + (self.features,)

    # --- a pass ------------------------------------------------------------------------------------------------------

    def forward(self, x, run):
        x, memory, keep = self.parts(x)
        return self.attend(x, memory, keep, run)

    def backward(self, dy, saved, run):
        dx, dmemory = self.back(dy, saved, run)
        return (dx, dmemory) if self.cross and run.dx else dx

    def parts(self, x):
        """(x, memory or None, keep or None) of what forward was given."""
        if not isinstance(x, tuple):
            return x, None, None
        given, memory = list(x), None
        first = given.pop(0)
        if self.cross:
            memory = given.pop(0)
        return first, memory, given[0] if given else None

    def asked(self, run):
        """What is asked of the maps to q, k and v, of the attention between, and of the map behind it."""
        maps = [run.asking(run.backward and (run.dx or m.active), run.dx) for m in (self.query, self.key, self.value)]
        own = self.dK is not None or self.dV is not None
        between = run.backward and (run.dx or own or any(part.backward for part in maps))
        return maps, between, run.asking(run.backward, between)

    def attend(self, x, memory, keep, run):
        """(y, saved): queries of x see keys and values of memory (None: of x)."""
        maps, between, behind = self.asked(run)
        x = x if x.flags.c_contiguous else x.copy()
        other = x if memory is None else memory if memory.flags.c_contiguous else memory.copy()
        layers = zip((self.query, self.key, self.value), (x, other, other), maps, strict=True)
        made = [m.forward(a, r) for m, a, r in layers]
        sizes = (self.heads, self.kv_heads, self.kv_heads)
        q, k, v = (y.reshape(*y.shape[:2], n, self.width) for (y, _), n in zip(made, sizes, strict=True))
        if isinstance(self.positions, Rotary):
            self.positions.turn(q)
            self.positions.turn(k)
        how = self.how(q, k, keep, run)
        o, lse = backend.empty(q.shape, q.dtype), backend.empty((len(q), self.heads, q.shape[1]), q.dtype)
        kernels.attention(q, k, v, o, lse, how)
        y, last = self.out.forward(o.reshape(*q.shape[:2], -1), behind)
        return y, ([saved for _, saved in made], (q, k, v, o, lse, how) if between else None, last)

    def extend(self, x, past):
        """As forward at further positions; they see the keys and values that `past` has, or those of its memory."""
        q = self.headed(self.query, x, past)
        maps = lambda a: (self.headed(self.key, a, past), self.headed(self.value, a, past))  # noqa: E731
        if self.cross:
            (k, v), first, keep = past.of_memory(self, maps), 0, past.keep
        else:
            turn = past.turning(self.positions) if isinstance(self.positions, Rotary) else None
            k, v = maps(x)
            if isinstance(self.positions, (Rotary, type(None))):
                y = past.attended(self, q, k, v, turn)
                if y is not None:
                    return self.out.extend(y.reshape(*x.shape[:2], -1), past)
            (q, k, v, first), keep = past.seen(self, q, k, v, turn), None
            if past.tree is not None:
                hidden = past.tree.hidden(q, first)
                p = probabilities(q, k.transpose(0, 2, 1, 3), hidden, self.scale)
                return self.out.extend(mixed(p, v, q.shape).reshape(*x.shape[:2], -1), past)
        o, lse = backend.empty(q.shape, q.dtype), backend.empty((len(q), self.heads, q.shape[1]), q.dtype)
        kernels.attention(q, k, v, o, lse, self.how(q, k, keep, past.run)._replace(first=first))
        return self.out.extend(o.reshape(*x.shape[:2], -1), past)

    def extendable(self):
        if not self.cross and not self.causal:
            raise UserError(
                f"{self!r} cannot extend a text: without causal=True, what it made of earlier positions would change"
            )

    def headed(self, layer, x, past):
        """(B, T, H, D): x through one of the maps, without gaps."""
        x = x if x.flags.c_contiguous else x.copy()
        y = layer.extend(x, past)
        return y.reshape(*y.shape[:2], -1, self.width)

    def how(self, q, k, keep, run):
        """What the kernels are told besides q, k and v."""
        slopes = tables = dropout = None
        if keep is not None:
            keep = whether(keep, k)
        if isinstance(self.positions, Alibi):
            slopes = slopes_of(backend.owner(q), self.heads, q.dtype.name)
        if isinstance(self.positions, Relative):
            tables = self.K, self.V if self.positions.values else None
        if run.training and self.dropout:
            dropout = self.dropout, backend.key(run.seed, f"attention {self.path}", run.step), run.rows
        return How(self.scale, self.causal, self.window, self.pattern, 0, keep, slopes, tables, dropout)

    def back(self, dy, saved, run):
        """(dx, dmemory), None where they are not wanted or belong to no memory."""
        kept, passed, last = saved
        maps, between, behind = self.asked(run)
        do = self.out.backward(dy, last, behind)
        if not between:
            return None, None
        q, k, v, o, lse, how = passed
        do = do.reshape(o.shape)
        grads = tuple(backend.empty(a.shape, a.dtype) for a in (q, k, v))
        kernels.attention_backward(q, k, v, o, lse, do, (*grads, self.dK, self.dV), how)
        if isinstance(self.positions, Rotary):
            for d in grads[:2]:
                self.positions.turn(d, back=True)  # forward was: q, k <- R q, R k; the transpose of R turns back
        wanted = []
        for layer, d, part, r in zip((self.query, self.key, self.value), grads, kept, maps, strict=True):
            wanted.append(layer.backward(d.reshape(*d.shape[:2], -1), part, r) if r.backward else None)
        if not run.dx:
            return None, None
        dq, dk, dv = wanted
        m = backend.xp(dq)
        dk = m.add(dk, dv, out=dk)
        return (dq, dk) if self.cross else (m.add(dq, dk, out=dq), None)

    def __repr__(self):
        parts = [f"{self.features}, {self.heads}"]
        parts += [f"kv_heads={self.kv_heads}"] * (self.kv_heads != self.heads) + ["causal=True"] * self.causal
        parts += ["cross=True"] * self.cross + [f"window={self.window}"] * bool(self.window)
        parts += [f"pattern={self.pattern}"] * bool(self.pattern) + [f"dropout={self.dropout:g}"] * bool(self.dropout)
        parts += [f"positions={self.positions!r}"] * (self.positions is not None)
        return f"MultiHeadAttention({', '.join(parts)})"


def whether(keep, k):
    """keep as (B, S) bool: whether each key is there, from that or from how many there are, (B,)."""
    m = backend.xp(k)
    if keep.shape == k.shape[:1] and keep.dtype.kind in "iu":
        return m.arange(k.shape[1]).reshape(1, -1) < keep.reshape(-1, 1)
    if keep.shape != k.shape[:2] or keep.dtype.kind != "b":
        raise UserError(
            f"MultiHeadAttention: keep must be bool of shape {tuple(k.shape[:2])} or whole numbers of shape "
            f"({k.shape[0]},), got {keep.dtype} {tuple(keep.shape)}"
        )
    keep = m.ascontiguousarray(keep)
    return keep if getattr(keep.flags, "writeable", True) else keep.copy()  # compiled loops take what can be written


@functools.lru_cache(maxsize=64)
def slopes_of(owner, heads, dtype):
    """Alibi's m_h, (heads,), on a device."""
    return owner.asarray(Alibi().slopes(heads), dtype)


def probabilities(q, keys, hidden, scale=None):
    """softmax(scale q k') over the keys that are not hidden, (B, G, H/G n, S), by heads of keys; scale None: d^-1/2.

    q: (B, n, H, d)   keys: (B, G, S, d)   hidden: (n, S) bool. All of it at once: for a few queries.
    """
    m, (B, n, H, d), G = backend.xp(q), q.shape, keys.shape[1]
    grouped = q.reshape(B, n, G, H // G, d).transpose(0, 2, 3, 1, 4).reshape(B, G, -1, d)
    scores = grouped @ keys.swapaxes(2, 3) * (d**-0.5 if scale is None else scale)
    scores = m.where(m.concatenate([hidden] * (H // G), axis=0), -m.inf, scores)
    p = m.exp(scores - scores.max(axis=-1, keepdims=True))
    return (p / p.sum(axis=-1, keepdims=True)).astype(q.dtype)


def mixed(p, values, shape):
    """Values, (B, S, G, d), mixed by such probabilities: of the shape of the queries, (B, n, H, d)."""
    (B, n, H, d), G = shape, values.shape[2]
    y = (p @ values.transpose(0, 2, 1, 3)).reshape(B, G, H // G, n, d)
    return y.transpose(0, 3, 1, 2, 4).reshape(B, n, H, d)
