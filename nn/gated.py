"""Gated layers: one linear map, number by number times an activation of another one."""

from npopt import backend
from npopt.errors import UserError

from . import init, kernels
from .layer import Layer
from .linear import Linear

DEFAULT = init.PyTorchDefault()


class Gated(Layer):
    """y = f(a) b, a = x G' + g, b = x U' + u.   x: (..., in)   G, U: (out, in)   g, u: (out,)   y: (..., out)

    Dauphin et al., ICML 2017, arXiv:1612.08083; Shazeer 2020, arXiv:2002.05202, equations 5, 6. By the product rule

        da = f'(a) b dy,   db = f(a) dy,   dx = da G + db U;   dG = da' x, dU = db' x, dg = sum_n da_n, du = sum_n db_n

    The feed-forward part of a Transformer is Sequential(SwiGLU(D, F), Linear(F, D, bias=False)); it has as many
    parameters as one of width H without a gate where F = 2 H / 3.

    activation   f, one of "identity", "relu", "sigmoid", "silu", "gelu", "gelu-tanh": nn/kernels/reference_gates.py
    bias         whether there are g and u

    Kept: x, a, b.
    """

    reads_output, positionwise = False, True
    activation = "sigmoid"

    def __init__(self, inputs, outputs, activation="sigmoid", bias=False, init=DEFAULT, bias_init=DEFAULT):
        if activation not in kernels.reference_gates.KINDS:
            known = ", ".join(map(repr, kernels.reference_gates.KINDS))
            raise UserError(f"{type(self).__name__}: activation must be one of {known}, got {activation!r}")
        self.inputs, self.outputs, self.activation, self.bias = inputs, outputs, activation, bool(bias)
        self.gate, self.up = (Linear(inputs, outputs, bias, init, bias_init) for _ in range(2))

    def children(self):
        return [("gate", self.gate), ("up", self.up)]

    def output_shape(self, shape):
        return self.gate.output_shape(shape)

    def below(self, run):
        """What is asked of the two maps."""
        return (run.asking(run.backward and (run.dx or part.active), run.dx) for part in (self.gate, self.up))

    def forward(self, x, run):
        one, two = self.below(run)
        x = x if x.flags.c_contiguous else x.copy()
        a, first = self.gate.forward(x, one)
        b, second = self.up.forward(x, two)
        y = backend.empty(a.shape, a.dtype)
        kernels.gate(a, b, y, self.activation)
        return y, (a, b, first, second)

    def backward(self, dy, saved, run):
        a, b, first, second = saved  # forward was: y = f(a) b
        one, two = self.below(run)
        dy = dy if dy.flags.c_contiguous else dy.copy()
        da = backend.empty(a.shape, a.dtype)
        kernels.gate_backward(a, b, dy, da, dy, self.activation)
        dx = self.gate.backward(da, first, one)
        more = self.up.backward(dy, second, two)
        return backend.xp(dy).add(dx, more, out=dx) if run.dx else None

    def __repr__(self):
        own = "" if type(self) is not Gated else f", {self.activation!r}"
        return f"{type(self).__name__}({self.inputs}, {self.outputs}{own}{', bias=True' * self.bias})"


class SwiGLU(Gated):
    """Gated with f = SiLU: y = silu(x G') (x U'). Llama's; Shazeer 2020, equation 6."""

    def __init__(self, inputs, outputs, bias=False, init=DEFAULT, bias_init=DEFAULT):
        super().__init__(inputs, outputs, "silu", bias, init, bias_init)


class GEGLU(Gated):
    """Gated with f = GELU, exact or by tanh: y = gelu(x G') (x U').   Shazeer 2020, equation 6."""

    def __init__(self, inputs, outputs, form="erf", bias=False, init=DEFAULT, bias_init=DEFAULT):
        if form not in ("erf", "tanh"):
            raise UserError(f"GEGLU: form must be 'erf' or 'tanh', got {form!r}")
        super().__init__(inputs, outputs, "gelu" if form == "erf" else "gelu-tanh", bias, init, bias_init)

    def __repr__(self):
        form = ", 'tanh'" if self.activation == "gelu-tanh" else ""
        return f"GEGLU({self.inputs}, {self.outputs}{form}{', bias=True' * self.bias})"


class ReGLU(Gated):
    """Gated with f = max(., 0): y = max(x G', 0) (x U').   Shazeer 2020, equation 6."""

    def __init__(self, inputs, outputs, bias=False, init=DEFAULT, bias_init=DEFAULT):
        super().__init__(inputs, outputs, "relu", bias, init, bias_init)
