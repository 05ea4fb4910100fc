"""FLoRA of a convolution: Si et al. 2024, arXiv:2405.14739, a change of an N-dimensional weight in Tucker's form."""

from npopt import backend
from npopt.backend import xp
from npopt.values import number, whole

from . import init, kernels
from .convolution import Conv2d

DEFAULT = init.PyTorchDefault()


class FLoRA2d(Conv2d):
    """Conv2d with the weight W + dW,   dW = s G x_1 B x_2 U x_3 V x_4 A,   s = alpha / rank:

        dW_oijc = s sum_{p,t,e,q} G_pteq B_op U_it V_je A_qc

    B: (out, rank)   U: (kh, kh)   V: (kw, kw)   A: (rank, in)   G: (rank, kh, kw, rank): the rank is that of channels,
    and full in space. With T = G x_2 U x_3 V x_4 A, so that dW = s T x_1 B, and E the gradient with respect to W + dW:

        dB = s E_(1) T_(1)',   dT = s E x_1 B',   and backwards through x_4, x_3, x_2 in the same way.

    G starts at 0, the others as weights, U and V as orthogonal ones: y is Conv2d's at first, and dG alone is not 0.
    W + dW and E are as large as W for the time of a pass. Kept: x.
    """

    replaces = Conv2d

    def __init__(
        self,
        inputs,
        outputs,
        kernel,
        rank,
        alpha=None,
        stride=1,
        padding=0,
        *,
        bias=True,
        init=DEFAULT,
        bias_init=DEFAULT,
    ):
        super().__init__(inputs, outputs, kernel, stride, padding, bias, init, bias_init)
        self.rank = whole("FLoRA2d", "rank", rank)
        self.alpha = rank if alpha is None else number("FLoRA2d", "alpha", alpha, low=0, open_low=True)
        self.scale, (kh, kw) = self.alpha / self.rank, self.kernel
        added = {"A": (rank, inputs), "B": (outputs, rank), "U": (kh, kh), "V": (kw, kw), "G": (rank, kh, kw, rank)}
        self.shapes |= {name: (shape, "conv" if name == "G" else "matrix") for name, shape in added.items()}
        self.init |= STARTS
        self.dA = self.dB = self.dU = self.dV = self.dG = None

    @classmethod
    def of(cls, layer, **options):
        """One in the place of a Conv2d, which starts as that does."""
        more = dict(stride=layer.stride, padding=layer.padding, bias=layer.bias, init=layer.init["W"])
        more["bias_init"] = layer.init.get("b", DEFAULT)
        return cls(layer.inputs, layer.outputs, layer.kernel, **more, **options)

    def fans(self, name):
        return {"A": (self.inputs, self.rank), "B": (self.rank, self.outputs)}.get(name, super().fans(name))

    def inner(self):
        """G x_2 U, that x_3 V, and that x_4 A: (rank, kh, kw, rank), the same, and (rank, kh, kw, in)."""
        m = xp(self.G)
        one = m.einsum("pteq,it->pieq", self.G, self.U)
        two = m.einsum("pieq,je->pijq", one, self.V)
        return one, two, two @ self.A

    def change(self):
        """dW, (out, kh, kw, in)."""
        T = self.inner()[2]
        return (self.scale * (self.B @ T.reshape(self.rank, -1))).reshape(self.W.shape)

    def weight(self):
        """The weight of the Conv2d that is this layer."""
        return self.W + self.change()

    def forward(self, x, run):
        y = backend.empty((x.shape[0], *self.output_shape(x.shape[1:])), x.dtype)
        kernels.convolve(x, self.weight(), self.b if self.bias else None, y, self.stride, self.padding)
        return y, (x,)

    def backward(self, dy, saved, run):
        (x,) = saved
        if any(d is not None for d in (self.dW, self.dA, self.dB, self.dU, self.dV, self.dG)):
            E = backend.empty(self.W.shape, dy.dtype)
            kernels.convolve_weights(x, dy, E, self.stride, self.padding)
            if self.dW is not None:
                self.dW[...] = E
            self.factors(E.reshape(self.outputs, -1))
        if self.db is not None:
            kernels.sum_rows(dy.reshape(-1, self.outputs), self.db)
        if not run.dx:
            return None
        dx = backend.empty(x.shape, dy.dtype)
        kernels.convolve_inputs(dy, self.weight(), dx, self.stride, self.padding)
        return dx

    def factors(self, E):
        """Write the gradients of the five factors, from that of the weight, (out, kh kw in)."""
        m, (one, two, T) = xp(E), self.inner()
        if self.dB is not None:
            self.dB[...] = self.scale * (E @ T.reshape(self.rank, -1).T)
        d = (self.scale * (self.B.T @ E)).reshape(T.shape)  # T = two x_4 A
        if self.dA is not None:
            self.dA[...] = two.reshape(-1, self.rank).T @ d.reshape(-1, self.inputs)
        d = d @ self.A.T  # two = one x_3 V
        if self.dV is not None:
            self.dV[...] = m.einsum("pijq,pieq->je", d, one)
        d = m.einsum("pijq,je->pieq", d, self.V)  # one = G x_2 U
        if self.dU is not None:
            self.dU[...] = m.einsum("pieq,pteq->it", d, self.G)
        if self.dG is not None:
            self.dG[...] = m.einsum("pieq,it->pteq", d, self.U)

    def __repr__(self):
        return f"FLoRA2d{super().__repr__()[6:-1]}, rank={self.rank}, alpha={self.alpha:g})"


STARTS = {"A": DEFAULT, "B": DEFAULT, "U": init.Orthogonal(), "V": init.Orthogonal(), "G": init.Zeros()}
