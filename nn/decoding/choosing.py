"""Which word comes next: values that choose from logits.

    words = choose(logits, u, allowed)      (B,) int64, from logits, (B, V), on the host

u, (B,), are numbers in (0, 1), one for each text, and `allowed`, (V,) or (B, V) bool, says which words may come; None:
all. Probabilities are reckoned in float64. Of equal logits the word with the lower number comes first.
"""

from npopt.errors import UserError
from npopt.values import Value, number, whole

import numpy as np


def masked(logits, allowed, owner):
    """Logits, (B, V), -inf where a word is not allowed."""
    if allowed is None:
        return logits
    allowed = np.asarray(allowed)
    if allowed.dtype != bool or allowed.shape not in (logits.shape, logits.shape[1:]):
        raise UserError(
            f"{owner}: allowed must be bool of shape {logits.shape[1:]} or {logits.shape}, got {allowed.dtype} "
            f"{allowed.shape}"
        )
    return np.where(allowed, logits, -np.inf)


def found(top, owner):
    """The largest logits, (B,), if they are numbers; a UserError where there is no choice."""
    if not np.isfinite(top).all():
        b = int(np.flatnonzero(~np.isfinite(top))[0])
        why = "no word is allowed" if top[b] == -np.inf else f"the largest logit is {top[b]}"
        raise UserError(f"{owner}: nothing can be chosen for row {b}: {why}")
    return top


class Greedy(Value):
    """The word with the largest logit."""

    draws = False

    def __call__(self, logits, u=None, allowed=None):
        z = masked(logits, allowed, "Greedy")
        words = z.argmax(1)
        found(z[np.arange(len(z)), words], "Greedy")
        return words

    def probabilities(self, logits, allowed=None):
        """(B, V), 1 for the word that is chosen and 0 for the others."""
        p = np.zeros(logits.shape)
        p[np.arange(len(p)), self(logits, None, allowed)] = 1
        return p


class Sample(Value):
    """A word drawn from p = softmax(z / temperature), after p was cut and divided by what is left, in this order:

        top_k   to the k largest
        top_p   to the smallest number of largest ones whose sum is at least top_p: Holtzman et al., ICLR 2020
        min_p   to those that are at least min_p times the largest: Nguyen et al. 2024, arXiv:2407.01082

    At least one word stays. Of u the word is the first one, by number, at which the sum of p exceeds u. temperature 0
    is Greedy. None: nothing is cut.
    """

    draws = True

    def __init__(self, temperature=1.0, top_k=None, top_p=None, min_p=None):
        self.temperature = number("Sample", "temperature", temperature, low=0)
        self.top_k = None if top_k is None else whole("Sample", "top_k", top_k)
        self.top_p = None if top_p is None else number("Sample", "top_p", top_p, low=0, high=1)
        self.min_p = None if min_p is None else number("Sample", "min_p", min_p, low=0, high=1)

    def probabilities(self, logits, allowed=None):
        """p, (B, V) float64, as it is drawn from."""
        if not self.temperature:
            return Greedy().probabilities(logits, allowed)
        z = masked(np.asarray(logits, np.float64), allowed, "Sample")
        p = np.exp((z - found(z.max(1), "Sample")[:, None]) / self.temperature)
        if self.top_k is not None or self.top_p is not None:
            order = np.argsort(-p, axis=1, kind="stable")  # equal ones by their numbers
            ranked = np.take_along_axis(p, order, 1)
            if self.top_k is not None:
                ranked[:, self.top_k :] = 0
            if self.top_p is not None:
                before = np.cumsum(ranked, 1) - ranked  # the sum before a word: the first one always stays
                ranked[:, 1:][(before >= self.top_p * ranked.sum(1, keepdims=True))[:, 1:]] = 0
            np.put_along_axis(p, order, ranked, 1)
        if self.min_p is not None:
            p[p < self.min_p * p.max(1, keepdims=True)] = 0
        return p / p.sum(1, keepdims=True)

    def __call__(self, logits, u, allowed=None):
        if not self.temperature:
            return Greedy()(logits, None, allowed)
        return drawn(self.probabilities(logits, allowed), u)


def drawn(p, u):
    """(B,) int64: for each row of p, (B, V), the first place at which its sum exceeds u, (B,), times the whole sum."""
    sums = np.cumsum(p, 1)
    found = (sums <= np.asarray(u, np.float64)[:, None] * sums[:, -1:]).sum(1)
    last = p.shape[1] - 1 - (p[:, ::-1] > 0).argmax(1)  # where rounding ends behind the last word that may come
    return np.minimum(found, last)
