"""Transformer layers as composites: attention and feed-forward parts, each with its sum and its norm.

    place "post"    y = N(x + D(f(x)))          Vaswani et al., NeurIPS 2017; BERT, RoBERTa
    place "pre"     y = x + D(f(N(x)))          Xiong et al., ICML 2020; GPT-2, Llama. A norm follows the last layer

f is attention or the feed-forward part, N LayerNorm or RMSNorm, D dropout. With s = x + D(f(x)) and ds = N' dy:

    post    dx = ds + f' D' ds              pre     dx = dy + N' f' D' dy
"""

from npopt import backend
from npopt.errors import UserError

from . import init as initialisers
from .activations import GELU, ReLU, SiLU
from .attention import MultiHeadAttention
from .composites import Sequential
from .dropout import Dropout
from .gated import GEGLU, ReGLU, SwiGLU
from .layer import Layer
from .layer_norm import LayerNorm, RMSNorm
from .linear import Linear

ACTIVATIONS = {"relu": ReLU, "gelu": GELU, "gelu-tanh": lambda: GELU("tanh"), "silu": SiLU}
GATES = {"swiglu": SwiGLU, "geglu": GEGLU, "reglu": ReGLU}
NORMS = {"layer": LayerNorm, "rms": RMSNorm}
DEFAULT = initialisers.PyTorchDefault()


def feed_forward(features, hidden, activation="gelu", bias=True, init=DEFAULT, bias_init=DEFAULT):
    """Linear - activation - Linear, or a gated layer and a Linear: (..., features) -> (..., features).

    activation  "relu", "gelu", "gelu-tanh" or "silu"; or gated, "swiglu", "geglu" or "reglu"
    """
    starts = dict(bias=bias, init=init, bias_init=bias_init)
    down = Linear(hidden, features, **starts)
    if activation in GATES:
        return Sequential(gated=GATES[activation](features, hidden, **starts), down=down)
    if activation not in ACTIVATIONS:
        known = ", ".join(map(repr, (*ACTIVATIONS, *GATES)))
        raise UserError(f"feed_forward: activation must be one of {known}, got {activation!r}")
    return Sequential(up=Linear(features, hidden, **starts), act=ACTIVATIONS[activation](), down=down)


class Part(Layer):
    """One part of a layer with its sum and its norm, as above. f may take others beside x: f((x, *others))."""

    reads_output = False

    def __init__(self, name, f, norm, place, dropout):
        self.name, self.f, self.norm, self.place, self.drop = name, f, norm, place, Dropout(dropout)

    def children(self):
        return [(self.name, self.f), (f"{self.name}_norm", self.norm), (f"{self.name}_drop", self.drop)]

    def asked(self, run):
        """What is asked of f, of the norm and of the dropout."""
        if self.place == "post":
            inner = run.dx or self.f.active
            of_f, of_norm = run.asking(run.backward and inner, run.dx), run.asking(run.backward, inner)
        else:
            below = run.dx or self.norm.active
            of_f = run.asking(run.backward and (below or self.f.active), below)
            of_norm = run.asking(run.backward and below, run.dx)
        return of_f, of_norm, run.asking(of_f.backward, True)

    def join(self, x, others, run):
        """(y, saved)"""
        of_f, of_norm, of_drop = self.asked(run)
        h, first = self.norm.forward(x, of_norm) if self.place == "pre" else (x, None)
        h, inner = self.f.forward((h, *others) if others else h, of_f)
        h, mask = self.drop.forward(h, of_drop)
        y = backend.xp(x).add(x, h)
        if self.place == "post":
            y, first = self.norm.forward(y, of_norm)
        return y, (first, inner, mask)

    def split(self, dy, saved, run):
        """(dx, dmemory), None where they are not wanted or where there is no memory."""
        first, inner, mask = saved
        of_f, of_norm, of_drop = self.asked(run)
        ds = self.norm.backward(dy, first, of_norm) if self.place == "post" else dy
        if not of_f.backward:
            return (ds if run.dx else None), None
        d = self.f.backward(self.drop.backward(ds.copy(), mask, of_drop), inner, of_f)
        d, dmemory = d if isinstance(d, tuple) else (d, None)
        if self.place == "pre" and of_norm.backward:
            d = self.norm.backward(d, first, of_norm)
        return (backend.xp(ds).add(ds, d, out=ds) if run.dx else None), dmemory

    def extend(self, x, past):
        h = self.norm.extend(x, past) if self.place == "pre" else x
        y = x + self.f.extend(h, past)
        return self.norm.extend(y, past) if self.place == "post" else y

    def extendable(self):
        for layer in (self.norm, self.f):
            layer.extendable()


def asked_of(parts, run, below):
    """[what is asked of each part]: backward and dx where a part below it is trained, or where `below` says so."""
    found = []
    for part in parts:
        found.append(run.asking(run.backward and (below or part.active), below))
        below = below or part.active
    return found


class Stack(Layer):
    """Parts one after the other. A subclass says which others a part gets."""

    is_block, reads_output = True, False

    def children(self):
        return [("", part) for part in self.parts]

    def through(self, x, others, run):
        kept = []
        for part, more, asked in zip(self.parts, others, asked_of(self.parts, run, run.dx), strict=True):
            x, saved = part.join(x, more, asked)
            kept.append(saved if asked.backward else None)
        return x, tuple(kept)

    def back(self, dy, saved, run):
        """(dx, the sum of the gradients of memory), None where they are not wanted."""
        stack, total = list(saved), None
        del saved
        for part, asked in zip(self.parts[::-1], asked_of(self.parts, run, run.dx)[::-1], strict=True):
            if not asked.backward:
                break
            dy, more = part.split(dy, stack.pop(), asked)
            total = more if total is None else total if more is None else total + more
        return dy, total

    def extend(self, x, past):
        """As forward at further positions, without dropout; a memory and its keep are those of `past`."""
        for part in self.parts:
            if part not in past.skipped:
                x = part.extend(x, past)
        return x

    def extendable(self):
        for part in self.parts:
            part.extendable()


def made(features, name, f, norm, place, dropout):
    """A Part; norm "layer", "rms", or a function of the number of features."""
    if place not in ("pre", "post"):
        raise UserError(f"a Transformer's layer: place must be 'pre' or 'post', got {place!r}")
    if isinstance(norm, str) and norm not in NORMS:
        raise UserError(f"a Transformer's layer: norm must be 'layer' or 'rms', got {norm!r}")
    return Part(
        name, f, (NORMS.get(norm) or norm)(features) if isinstance(norm, str) else norm(features), place, dropout
    )


class EncoderLayer(Stack):
    """Self-attention, then the feed-forward part.   x or (x, keep) -> y, x, y: (B, T, D), keep as in MultiHeadAttention

    With causal=True it is the layer of a decoder without an encoder, such as GPT-2's or Llama's.

    features, heads     D, H
    hidden              width of the feed-forward part; None: 4 D
    activation          see feed_forward
    place, norm         "pre" or "post"; "layer", "rms" or a function that makes a norm of D features
    dropout             behind both parts
    bias, init, bias_init   of all Linear layers
    attention           more arguments of MultiHeadAttention: causal, kv_heads, positions, ...
    """

    def __init__(
        self,
        features,
        heads,
        hidden=None,
        activation="gelu",
        *,
        place="pre",
        norm="layer",
        dropout=0.0,
        bias=True,
        init=DEFAULT,
        bias_init=DEFAULT,
        **attention,
    ):
        starts, around = dict(bias=bias, init=init, bias_init=bias_init), (norm, place, dropout)
        self.parts = [
            made(features, "attention", MultiHeadAttention(features, heads, **starts, **attention), *around),
            made(features, "feed", feed_forward(features, hidden or 4 * features, activation, **starts), *around),
        ]

    def output_shape(self, shape):
        return self.parts[1].f.output_shape(self.parts[0].f.output_shape(shape))

    def forward(self, x, run):
        x, keep = x if isinstance(x, tuple) else (x, None)
        return self.through(x, (() if keep is None else (keep,), ()), run)

    def backward(self, dy, saved, run):
        return self.back(dy, saved, run)[0]

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(repr(part.f) for part in self.parts)}, place={self.parts[0].place!r})"


class DecoderLayer(Stack):
    """Causal self-attention, cross-attention to the encoder's output, then the feed-forward part.

    (x, memory) or (x, memory, keep) -> y.   x, y: (B, T, D)   memory: (B, S, M)   keep: which of the S are there

    backward returns (dx, dmemory): all layers of a decoder share one memory, and their dmemory are summed.

    memory_features is M, None: D. The other arguments are EncoderLayer's, `attention` being the self-attention's.
    """

    def __init__(
        self,
        features,
        heads,
        hidden=None,
        activation="gelu",
        *,
        memory_features=None,
        place="pre",
        norm="layer",
        dropout=0.0,
        bias=True,
        init=DEFAULT,
        bias_init=DEFAULT,
        **attention,
    ):
        starts, around = dict(bias=bias, init=init, bias_init=bias_init), (norm, place, dropout)
        attention = {"causal": True, **attention}
        cross = MultiHeadAttention(features, heads, cross=True, memory=memory_features, **starts)
        self.parts = [
            made(features, "attention", MultiHeadAttention(features, heads, **starts, **attention), *around),
            made(features, "cross", cross, *around),
            made(features, "feed", feed_forward(features, hidden or 4 * features, activation, **starts), *around),
        ]

    def output_shape(self, shape):
        if not isinstance(shape[0], tuple):
            raise UserError(
                f"DecoderLayer: a row must be (x, memory) or (x, memory, keep), got the shape {tuple(shape)}"
            )
        inner = self.parts[0].f.output_shape(shape[0])
        return self.parts[2].f.output_shape(self.parts[1].f.output_shape((inner, *shape[1:])))

    def forward(self, x, run):
        x, *others = x
        return self.through(x, ((), tuple(others), ()), run)

    def backward(self, dy, saved, run):
        dx, dmemory = self.back(dy, saved, run)
        return (dx, dmemory) if run.dx else None

    __repr__ = EncoderLayer.__repr__
