"""Adapters: a layer's weight W stays, and what is learned is a small change of it.

    LoRA     Hu et al., ICLR 2022, arXiv:2106.09685         W + s B A
    FLoRA    Si et al. 2024, arXiv:2405.14739               W + s B G A in matrices; convolutions: nn/tucker.py

`adapted` puts them (or the layers of nn/low_rank.py) in the place of a network's layers, `merged` takes them out again.
That W is frozen is not their affair: `problem.restrict(x, free(network))` leaves W out, with its gradient.
"""

import copy

from npopt import backend
from npopt.errors import UserError
from npopt.values import number, whole

from . import init, kernels
from .dropout import Dropout
from .linear import Linear
from .network import Network

DEFAULT = init.PyTorchDefault()


class LoRA(Linear):
    """y = x W' + b + s (D x A') B',   s = alpha / rank.   A: (rank, in)   B: (out, rank)   D: dropout

    With z = D x, u = s z A', h = s dy B:

        dB = dy' u,   dA = h' z,   dx = dy W + D' (h A),   dW and db as in Linear.

    A starts as a Linear's weight, B at 0: y is Linear's, and the first dA is 0. alpha, None: rank, so that s = 1. Kept:
    x, u, and with dropout z and its mask.
    """

    core = False

    def __init__(self, inputs, outputs, rank, alpha=None, dropout=0.0, *, bias=True, init=DEFAULT, bias_init=DEFAULT):
        super().__init__(inputs, outputs, bias, init, bias_init)
        name = type(self).__name__
        self.rank = whole(name, "rank", rank)
        self.alpha = rank if alpha is None else number(name, "alpha", alpha, low=0, open_low=True)
        self.scale, self.dropout = self.alpha / self.rank, dropout
        self.drop = Dropout(dropout)
        self.shapes |= self.added()
        self.init |= dict(zip(self.added(), self.starts(), strict=True))
        self.dA = self.dB = self.dG = None

    @classmethod
    def of(cls, layer, **options):
        """One in the place of a Linear, which starts as that does."""
        return cls(
            layer.inputs,
            layer.outputs,
            bias=layer.bias,
            init=layer.init["W"],
            bias_init=layer.init.get("b", DEFAULT),
            **options,
        )

    replaces = Linear

    def added(self):
        """Shapes and kinds of what is learned."""
        return {"A": ((self.rank, self.inputs), "matrix"), "B": ((self.outputs, self.rank), "matrix")}

    def starts(self):
        return DEFAULT, init.Zeros()

    def fans(self, name):
        return {"A": (self.inputs, self.rank), "B": (self.rank, self.outputs), "G": (self.rank, self.rank)}.get(
            name, (self.inputs, self.outputs)
        )

    def children(self):
        return [("drop", self.drop)]

    def forward(self, x, run):
        y, (rows, shape) = super().forward(x, run)
        z, mask = self.drop.forward(x, run)
        z = z.reshape(rows.shape)
        a = backend.empty((len(rows), self.rank), x.dtype)
        kernels.linear(z, self.A, None, a)
        u = self.through(a)
        u *= self.scale
        more = backend.workspace((len(rows), self.outputs), x.dtype)
        kernels.linear(u, self.B, None, more)  # y = x W' + b + s (D x A') B'
        flat = y.reshape(more.shape)
        flat += more
        return y, (rows, shape, z, mask, a, u)

    def through(self, a):
        return a

    def back_through(self, h, a):
        """What reaches z A' from s dy B."""
        return h

    def backward(self, dy, saved, run):
        rows, shape, z, mask, a, u = saved
        dy = dy.reshape(-1, self.outputs)
        if self.dB is not None:
            kernels.linear_weights(u, dy, self.dB)
        h = None
        if self.dA is not None or self.dG is not None or run.dx:
            h = backend.empty(u.shape, dy.dtype)
            kernels.linear_inputs(dy, self.B, h)
            h *= self.scale
            h = self.back_through(h, a)
        if self.dA is not None:
            kernels.linear_weights(z, h, self.dA)
        dx = super().backward(dy, (rows, shape), run)
        if not run.dx:
            return None
        more = backend.empty(rows.shape, dy.dtype)
        kernels.linear_inputs(h, self.A, more)
        dx += self.drop.backward(more.reshape(shape), mask, run)
        return dx

    def change(self):
        """s B A, (out, in): what is added to W."""
        return self.scale * (self.B @ self.A)

    def weight(self):
        """The weight of the Linear that is this layer without dropout."""
        return self.W + self.change()

    def merge(self, key):
        """W <- W + s B A, B <- 0, A drawn anew by the key as at the start; y stays what it is. Returns the names of
        the parameters that are new. ReLoRA's restart."""
        self.W[...] = self.weight()
        self.B[...] = 0
        backend.row_uniform(key, None, self.A)
        self.A *= 2 * self.inputs**-0.5
        self.A -= self.inputs**-0.5
        return ["A", "B"]

    def __repr__(self):
        more = f", dropout={self.dropout:g}" * bool(self.dropout)
        name = type(self).__name__
        return f"{name}({self.inputs}, {self.outputs}, {self.rank}, {self.alpha:g}{more}, bias={self.bias})"


class FLoRA(LoRA):
    """y = x W' + b + s ((D x A') G') B': Tucker's form of a change, dW = s G x_1 B x_2 A, for a matrix.

    Si et al. 2024, arXiv:2405.14739.   A: (rank, in)   G: (rank, rank)   B: (out, rank).   With a = z A', u = s a G',
    h = s dy B:

        dB = dy' u,   dG = h' a,   k = h G,   dA = k' z,   dx = dy W + D' (k A).

    The core G starts at 0, A and B as weights: the first dA and dB are 0. (That one part starts at 0 is the paper's;
    which one is ours to say.) Flora, an optimizer, has nothing to do with it: npopt/optimizers/flora.py.
    """

    core = True

    def added(self):
        return super().added() | {"G": ((self.rank, self.rank), "matrix")}

    def starts(self):
        return DEFAULT, DEFAULT, init.Zeros()

    def through(self, a):
        u = backend.empty(a.shape, a.dtype)
        kernels.linear(a, self.G, None, u)
        return u

    def back_through(self, h, a):
        if self.dG is not None:
            kernels.linear_weights(a, h, self.dG)
        k = backend.empty(h.shape, h.dtype)
        kernels.linear_inputs(h, self.G, k)
        return k

    def change(self):
        return self.scale * (self.B @ self.G @ self.A)

    merge = None


class Adapted(Network):
    """A network some of whose layers were replaced. x0 draws what `source`, the network before, draws in the same
    order, and the new parameters behind it: with a seed W is the same with and without adapters."""

    def __init__(self, layer, input_shape, name=None, share=None, source=None):
        super().__init__(layer, input_shape, name, share)
        self.source = source

    def x0(self, rng, dtype="float32"):
        before = self.source.x0(rng, dtype)
        x = super().x0(rng, dtype)
        return carried(self.source, before, self, x)


def carried(source, x, network, y):
    """y, a vector of `network`, in which all segments that `source` has, too, are those of x."""
    names = set(source.segments.names)
    for segment in network.segments:
        if segment.name in names:
            y[segment.slice] = x[source.segments.find(segment.name).slice]
    return y


def adapted(network, kind=LoRA, where=None, **options):
    """The network with layers of `kind` in the place of those that these replace (kind.replaces). It is a new one, and
    the one that was given stays as it is.

    where     words; only layers in whose name one of them occurs: ("query", "value"). None: all of them
    options   of kind: LoRA(rank=, alpha=, dropout=), FLoRA, LowRank(rank=), SLTrain(rank=, alpha=, density=, seed=)

    Layers that share a parameter with others (a tied head) are left as they are.
    """
    shared = {name for pair in network.share.items() for name in pair}
    memo, words = {}, (where,) if isinstance(where, str) else where
    for leaf in network.layer.leaves():
        path = leaf.path
        chosen = type(leaf) is kind.replaces and f"{path}.W" not in shared
        if chosen and (words is None or any(word in path for word in words)):
            more = {"seed": options.get("seed", 0) + len(memo)} if hasattr(kind, "density") else {}
            memo[id(leaf)] = kind.of(leaf, **options | more)
    if not memo:
        raise UserError(f"adapted: {network.name} has no {kind.replaces.__name__} to replace, where={where!r}")
    layer = copy.deepcopy(network.layer, memo)
    return Adapted(layer, network.input_shape, f"{network.name}, {kind.__name__}", network.share, network)


def adapters(network):
    """The layers that were put in by `adapted`."""
    return [leaf for leaf in network.layer.leaves() if hasattr(leaf, "weight")]


def free(network, held=()):
    """Names of all segments but the W of adapters, what ReLoRA and GaLore's baseline of LoRA train from scratch. held:
    words; of what is no adapter's own, A, B or G, segments stay out in whose names one of them occurs."""
    found = adapters(network)
    under = {f"{leaf.path}.W" for leaf in found}
    own = {f"{leaf.path}.{name}" for leaf in found for name in set(leaf.shapes) - {"W", "b"}}
    kept = {name for name in network.segments.names if any(word in name for word in held)} - own
    return [name for name in network.segments.names if name not in under | kept]


def merged(network, x):
    """(network, x) without adapters, whose outputs are the same in evaluation; x: (dim,), is not changed."""
    source = network.source
    y = carried(network, x, source, backend.xp(x).empty((source.dim,), dtype=x.dtype))
    network.bind(x)
    for leaf in adapters(network):
        y[source.segments.find(f"{leaf.path}.W").slice] = leaf.weight().reshape(-1)
    return source, y


def restarted(network, x, key):
    """Merge all adapters of x in place (LoRA.merge). Returns the names of the segments that are new."""
    network.bind(x)
    found = [leaf for leaf in adapters(network) if getattr(leaf, "merge", None) is not None]
    return [f"{leaf.path}.{name}" for leaf in found for name in leaf.merge(backend.key(key, f"restart {leaf.path}"))]
