"""Initialisers, as values: init(rng, shape, fan_in, fan_out, dtype) -> NumPy array.

The first axis of a weight is the output unit: Linear (out, in), Conv (out, kh, kw, in). So the fan-in of a convolution
is in kh kw and its fan-out out kh kw. Draws are made in float64 and rounded: float32 and float64 start alike.
"""

from math import prod, sqrt

from npopt.values import Value, number

import numpy as np


def normal(rng, shape, std, dtype):
    return (std * rng.standard_normal(shape)).astype(dtype)


def uniform(rng, shape, bound, dtype):
    return rng.uniform(-bound, bound, shape).astype(dtype)


class Zeros(Value):
    """0."""

    def __call__(self, rng, shape, fan_in, fan_out, dtype):
        return np.zeros(shape, dtype)


class Ones(Value):
    """1."""

    def __call__(self, rng, shape, fan_in, fan_out, dtype):
        return np.ones(shape, dtype)


class Constant(Value):
    """c."""

    def __init__(self, c):
        self.c = number("Constant", "c", c)

    def __call__(self, rng, shape, fan_in, fan_out, dtype):
        return np.full(shape, self.c, dtype)


class Normal(Value):
    """N(0, std^2)."""

    def __init__(self, std=0.01):
        self.std = number("Normal", "std", std, low=0)

    def __call__(self, rng, shape, fan_in, fan_out, dtype):
        return normal(rng, shape, self.std, dtype)


class Uniform(Value):
    """U(-bound, bound)."""

    def __init__(self, bound=0.1):
        self.bound = number("Uniform", "bound", bound, low=0)

    def __call__(self, rng, shape, fan_in, fan_out, dtype):
        return uniform(rng, shape, self.bound, dtype)


class LeCun(Value):
    """N(0, 1/fan_in) keeps a linear layer's variance.   LeCun, Bottou, Orr & Müller 1998, Efficient BackProp, 4.6."""

    def __call__(self, rng, shape, fan_in, fan_out, dtype):
        return normal(rng, shape, sqrt(1 / fan_in), dtype)


class XavierNormal(Value):
    """N(0, 2/(fan_in + fan_out)).   Glorot & Bengio, AISTATS 2010, equation 12."""

    def __call__(self, rng, shape, fan_in, fan_out, dtype):
        return normal(rng, shape, sqrt(2 / (fan_in + fan_out)), dtype)


class XavierUniform(Value):
    """U(-b, b), b = sqrt(6/(fan_in + fan_out)), of the same variance.   Glorot & Bengio, AISTATS 2010, equation 16."""

    def __call__(self, rng, shape, fan_in, fan_out, dtype):
        return uniform(rng, shape, sqrt(6 / (fan_in + fan_out)), dtype)


class KaimingNormal(Value):
    """N(0, 2/((1 + a^2) fan_in)), a the activation's slope on the negative side.   He et al., ICCV 2015, eq. 15."""

    def __init__(self, a=0.0):
        self.a = number("KaimingNormal", "a", a)

    def __call__(self, rng, shape, fan_in, fan_out, dtype):
        return normal(rng, shape, sqrt(2 / ((1 + self.a**2) * fan_in)), dtype)


class KaimingUniform(Value):
    """U(-b, b), b = sqrt(6/((1 + a^2) fan_in)), of the same variance as KaimingNormal."""

    def __init__(self, a=0.0):
        self.a = number("KaimingUniform", "a", a)

    def __call__(self, rng, shape, fan_in, fan_out, dtype):
        return uniform(rng, shape, sqrt(6 / ((1 + self.a**2) * fan_in)), dtype)


class Orthogonal(Value):
    """gain Q: orthonormal rows if out <= fan_in, else orthonormal columns.   Saxe, McClelland & Ganguli, ICLR 2014.

    Q is the QR factor of a Gaussian matrix, its columns multiplied by sign(diag R). Without these signs the law is not
    uniform over orthogonal matrices (Mezzadri, Notices of the AMS 54, 2007). gain sqrt(2) suits ReLU.
    """

    def __init__(self, gain=1.0):
        self.gain = number("Orthogonal", "gain", gain)

    def __call__(self, rng, shape, fan_in, fan_out, dtype):
        out, inputs = shape[0], prod(shape[1:])
        q, r = np.linalg.qr(rng.standard_normal((max(out, inputs), min(out, inputs))))
        q *= np.where(np.diag(r) < 0, -1.0, 1.0)
        return (self.gain * (q.T if out < inputs else q)).reshape(shape).astype(dtype)


class ScaledOrthogonal(Orthogonal):
    """sqrt(2/fan_in) Q, as the course book prints it.

    A layer then shrinks its input by sqrt(2/fan_in), and in a deep network the signal fades. Kaiming's variance,
    2/fan_in, is that of sqrt(2) Q with a square Q, Orthogonal(gain=sqrt(2)).
    """

    def __init__(self):
        super().__init__(1.0)

    def __call__(self, rng, shape, fan_in, fan_out, dtype):
        return (sqrt(2 / fan_in) * super().__call__(rng, shape, fan_in, fan_out, "float64")).astype(dtype)


class LMomentum(Value):
    """sqrt(alpha / Var W) W, W from U(-b, b), b = sqrt(6/fan_in), Var W its sample variance: the book's "L-momentum".

    Every layer gets the variance alpha = 0.81 whatever its size. So each layer lets activations grow by
    sqrt(alpha fan_in). The book's source for it could not be verified.
    """

    def __init__(self, alpha=0.81):
        self.alpha = number("LMomentum", "alpha", alpha, low=0, open_low=True)

    def __call__(self, rng, shape, fan_in, fan_out, dtype):
        w = uniform(rng, shape, sqrt(6 / fan_in), "float64")
        return (w * sqrt(self.alpha / w.var())).astype(dtype)


class SpectralNormalised(Value):
    """gain W / s_max(W), W from `inner`, as a matrix (out, rest).   After Miyato et al., ICLR 2018, section 2.1."""

    def __init__(self, inner, gain=1.0):
        self.inner, self.gain = inner, number("SpectralNormalised", "gain", gain)

    def __call__(self, rng, shape, fan_in, fan_out, dtype):
        w = self.inner(rng, shape, fan_in, fan_out, "float64")
        return (w * (self.gain / np.linalg.norm(w.reshape(shape[0], -1), 2))).astype(dtype)


class PyTorchDefault(Value):
    """U(-b, b), b = 1/sqrt(fan_in), for weights and biases of linear and convolutional layers alike.

    torch.nn.Linear and Conv2d ask for kaiming_uniform with a = sqrt(5). Its bound sqrt(6/(6 fan_in)) is the same.
    """

    def __call__(self, rng, shape, fan_in, fan_out, dtype):
        return uniform(rng, shape, sqrt(1 / fan_in), dtype)


class ZeroRow(Value):
    """What another initialiser gives, but 0 in one row: the vector of padding in an Embedding."""

    def __init__(self, inner, row):
        self.inner, self.row = inner, row

    def __call__(self, rng, shape, fan_in, fan_out, dtype):
        W = self.inner(rng, shape, fan_in, fan_out, dtype)
        W[self.row] = 0
        return W
