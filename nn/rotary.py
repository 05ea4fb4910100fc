"""What attention itself does with positions: values, MultiHeadAttention(..., positions=Rotary())."""

import functools

from npopt import backend
from npopt.errors import UserError
from npopt.values import Value, number, whole

from . import kernels


def angles(m, start, length, pairs, base, features):
    """(length, pairs): t / base^(2 i / features) for t = start, start + 1, ..., in float64."""
    rates = base ** (-2 * m.arange(pairs, dtype="float64") / features)
    return m.arange(start, start + length, dtype="float64").reshape(-1, 1) * rates.reshape(1, -1)


def rounded(length, least=64):
    """The power of two that is at least `length`: tables of so many positions serve a text that grows."""
    return max(least, 1 << (length - 1).bit_length())


class Rotary(Value):
    """Rotary positions: pairs of numbers of a query and a key at position t are turned by t w_i, w_i = theta^(-2i/d).

        (u, v) -> (u cos - v sin, u sin + v cos)                     Su et al. 2021, arXiv:2104.09864, equation 15

    A turned query times a turned key depends on positions by their difference alone. Backward turns by -t w_i.

    theta       the base; 10,000 in the paper and in Llama
    pairing     "adjacent": (x_2i, x_2i+1), as in the paper, Meta's and llama2.c's files
                "half": (x_i, x_(i + d/2)), as in Hugging Face's and GPT-NeoX's. The two are equal after rows of the
                maps to queries and keys are exchanged: permutation(d) says how
    features    d, how many numbers of a head are turned, its first ones; None: all
    """

    def __init__(self, theta=10000.0, pairing="half", features=None):
        self.theta = number("Rotary", "theta", theta, low=0, open_low=True)
        if pairing not in ("half", "adjacent"):
            raise UserError(f"Rotary: pairing must be 'half' or 'adjacent', got {pairing!r}")
        if features is not None and whole("Rotary", "features", features) % 2:
            raise UserError(f"Rotary: features must be even, got {features}")
        self.pairing, self.features = pairing, features

    def check(self, owner, width):
        """An error where this does not fit heads of `width` numbers."""
        turned = width if self.features is None else self.features
        if turned % 2 or turned > width:
            raise UserError(f"{owner}: rotary positions need an even number of at most {width} features, got {turned}")

    def turn(self, x, start=0, back=False, depths=None):
        """Turn x, (B, T, H, D), contiguous, in place; its first position is `start`. back: by the angles' negatives.
        depths: (T,) whole numbers, positions less `start`, where they do not follow each other."""
        length = x.shape[1] if depths is None else int(depths.max()) + 1
        cos, sin = self.table(backend.owner(x), start, length, x.shape[3], x.dtype.name)
        if depths is not None:
            depths = backend.asarray(depths)
            cos, sin = cos[depths], sin[depths]
        kernels.rotate(x, cos, -sin if back else sin, self.pairing == "adjacent")

    def table(self, owner, start, length, width, dtype):
        """(cos, sin) of the positions from `start` on for heads of `width` numbers, (length, pairs) each."""
        d = width if self.features is None else self.features
        if not start:
            return turns(owner, 0, length, d, self.theta, dtype)
        whole_table = turns(owner, 0, rounded(start + length), d, self.theta, dtype)
        return tuple(part[start : start + length] for part in whole_table)

    def permutation(self, features):
        """[j]: pairing "half" on x[..., permutation] is pairing "adjacent" on x, permuted in the same way."""
        return [*range(0, features, 2), *range(1, features, 2)]


@functools.lru_cache(maxsize=64)
def turns(owner, start, length, features, theta, dtype):
    """(cos, sin) of Rotary's angles, (length, features / 2) each, on a device."""
    turned = angles(owner.module, start, length, features // 2, theta, features)
    return owner.module.cos(turned).astype(dtype), owner.module.sin(turned).astype(dtype)


class Alibi(Value):
    """Attention with linear biases: m_h |i - j| is taken from the score of query i and key j.

    Press, Smith & Lewis, ICLR 2022, section 3: head h of H = 2^n heads has m_h = 2^(-8 h / H), h = 1, ..., H. Other H:
    the slopes of the largest power of two below, then every second one of twice as many heads, as in their code.
    """

    def slopes(self, heads):
        """[m_h], H numbers."""
        power = 1 << (heads.bit_length() - 1)
        found = [2.0 ** (-8 * h / power) for h in range(1, power + 1)]
        return found + [2.0 ** (-4 * h / power) for h in range(1, 2 * (heads - power) + 1, 2)]


class Relative(Value):
    """Relative positions: vectors of the clipped difference c(i, j) = max(-k, min(k, j - i)) join keys and values,

        score_ij = scale q_i . (k_j + K_c(i,j)),    y_i = sum_j p_ij (v_j + V_c(i,j))          K, V: (2k + 1, D)

    Shaw, Uszkoreit & Vaswani, NAACL 2018, equations 3 and 4. Heads share the tables, which are parameters of the layer.

    distance    k
    values      whether there is V
    """

    def __init__(self, distance=16, values=True):
        self.distance, self.values = whole("Relative", "distance", distance), bool(values)
