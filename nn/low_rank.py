"""Linear layers whose weight is small by its form: two factors, with or without a few numbers of full rank beside them.

LowRank    W = B A
SLTrain    W = s B A + S, S sparse: Han et al., NeurIPS 2024, arXiv:2406.02214
"""

from math import prod

from npopt import backend
from npopt.errors import UserError
from npopt.values import number, whole

from . import init, kernels
from .layer import Layer
from .linear import Linear

DEFAULT = init.PyTorchDefault()


class LowRank(Layer):
    """y = s (x A') B' + b.   x: (..., in)   A: (rank, in)   B: (out, rank)   b: (out,)   y: (..., out)

    With u = s x A' and h = s dy B:   dB = dy' u,   dA = h' x,   dx = h A,   db = sum_n dy_n.   Kept: x, u.

    s = 1, A starts as a Linear's weight and B with N(0, 1/rank): B A has the variance of a Linear's weight.
    """

    reads_output, positionwise, replaces = False, True, Linear

    def __init__(self, inputs, outputs, rank, bias=True, bias_init=DEFAULT):
        name = type(self).__name__
        self.inputs, self.outputs = whole(name, "inputs", inputs), whole(name, "outputs", outputs)
        self.rank, self.bias, self.scale = whole(name, "rank", rank), bool(bias), 1.0
        self.shapes = {"A": ((rank, inputs), "matrix"), "B": ((outputs, rank), "matrix")}
        self.init = {"A": DEFAULT, "B": init.Normal(rank**-0.5)}
        if bias:
            self.shapes["b"], self.init["b"] = ((outputs,), "bias"), bias_init
        self.dA = self.dB = self.db = None

    @classmethod
    def of(cls, layer, **options):
        """One in the place of a Linear."""
        return cls(layer.inputs, layer.outputs, bias=layer.bias, bias_init=layer.init.get("b", DEFAULT), **options)

    def output_shape(self, shape):
        if shape[-1] != self.inputs:
            raise UserError(f"{type(self).__name__}: x has {shape[-1]} features, the weight expects {self.inputs}")
        return (*shape[:-1], self.outputs)

    def fans(self, name):
        return self.inputs, self.outputs

    def forward(self, x, run):
        rows = x.reshape(-1, self.inputs)
        u = backend.empty((len(rows), self.rank), x.dtype)
        kernels.linear(rows, self.A, None, u)
        u *= self.scale
        y = backend.empty((*x.shape[:-1], self.outputs), x.dtype)
        kernels.linear(u, self.B, self.b if self.bias else None, y.reshape(-1, self.outputs))  # y = s (x A') B' + b
        return y, (rows, x.shape, u)

    def backward(self, dy, saved, run):
        x, shape, u = saved
        dy = dy.reshape(-1, self.outputs)
        if self.dB is not None:
            kernels.linear_weights(u, dy, self.dB)
        if self.db is not None:
            kernels.sum_rows(dy, self.db)
        if self.dA is None and not run.dx:
            return None
        h = backend.empty(u.shape, dy.dtype)
        kernels.linear_inputs(dy, self.B, h)
        h *= self.scale
        if self.dA is not None:
            kernels.linear_weights(x, h, self.dA)
        if not run.dx:
            return None
        dx = backend.empty(x.shape, dy.dtype)
        kernels.linear_inputs(h, self.A, dx)
        return dx.reshape(shape)

    def weight(self):
        """(out, in): that of the Linear that is this layer."""
        return self.scale * (self.B @ self.A)

    def __repr__(self):
        return f"{type(self).__name__}({self.inputs}, {self.outputs}, {self.rank}, bias={self.bias})"


class SLTrain(LowRank):
    """y = s (x A') B' + x S' + b, s = alpha / rank.   S: sparse, (out, in), `density` of its places hold numbers

    The places are drawn once, uniformly, by (seed, shape) and never change; v are the numbers there, in their order.
    Beside what LowRank has:

        dv_k = sum_n dy_{n, row of k} x_{n, column of k},        dx = h A + dy S.

    v starts uniformly in +-1/sqrt(in), A as a Linear's weight, B at 0. The authors' densities are 0.03 to 0.1, their
    alpha 16 and 32; alpha, None: rank. A place costs 4 bytes, v as much as any parameter. nn/kernels/sparse.py has the
    products. Kept: x, u.
    """

    density = None

    def __init__(self, inputs, outputs, rank, alpha=None, density=0.03, seed=0, bias=True, bias_init=DEFAULT):
        super().__init__(inputs, outputs, rank, bias, bias_init)
        self.alpha = rank if alpha is None else number("SLTrain", "alpha", alpha, low=0, open_low=True)
        self.density = number("SLTrain", "density", density, low=0, high=1, open_low=True)
        self.scale, self.seed = self.alpha / self.rank, whole("SLTrain", "seed", seed, 0)
        size = inputs * outputs
        count = max(1, round(density * size))
        drawn = backend.generator(self.seed, f"support {outputs} x {inputs}").choice(size, count, replace=False)
        drawn.sort()
        self.places = drawn.astype("int32" if size < 2**31 else "int64")  # in the flat S, ascending
        self.starts = drawn.searchsorted(range(0, size + 1, inputs)).astype("int64")  # where rows begin
        self.shapes["v"] = ((count,), "vector")
        self.init |= {"B": init.Zeros(), "v": DEFAULT}
        self.dv, self.there = None, {}

    def support(self, x):
        """(places, starts) where x is."""
        owner = backend.owner(x)
        if owner.name == "cpu":
            return self.places, self.starts
        if owner.name not in self.there:
            self.there[owner.name] = owner.asarray(self.places), owner.asarray(self.starts)
        return self.there[owner.name]

    def forward(self, x, run):
        y, saved = super().forward(x, run)
        kernels.sparse_linear(saved[0], self.v, *self.support(x), y.reshape(-1, self.outputs))
        return y, saved

    def backward(self, dy, saved, run):
        x, dy = saved[0], dy.reshape(-1, self.outputs)
        dx = super().backward(dy, saved, run)
        if self.dv is not None:
            kernels.sparse_values(x, dy, *self.support(x), self.dv)
        if run.dx:
            kernels.sparse_inputs(dy, self.v, *self.support(x), dx.reshape(-1, self.inputs))
        return dx

    def weight(self):
        W = super().weight()
        W.reshape(-1)[self.support(W)[0]] += self.v
        return W

    def __repr__(self):
        size = prod((self.inputs, self.outputs))
        return (
            f"SLTrain({self.inputs}, {self.outputs}, {self.rank}, {self.alpha:g}, density={self.density:g}, "
            f"{len(self.places)} of {size}, bias={self.bias})"
        )
