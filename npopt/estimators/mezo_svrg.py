"""MeZO-SVRG: Gautam, Park, Zhou, Raman & Ha, ICML 2024, arXiv:2404.08080, Algorithm 1."""

from npopt import backend
from npopt.directions import Normals
from npopt.estimators.mezo import MeZO
from npopt.values import number, whole


class MeZOSVRG(MeZO):
    """Every `every` steps the estimate over all rows, at the anchor w~ <- x; between them MeZO with its control
    variate.

        anchor          g = ratio b z_a,                   b = s(w~; all rows, z_a)
        other steps     g = (s_B(x; z) - s_B(w~; z)) z + b z_a

    The schedule is the rate of the other steps, eta_2 in the paper; ratio = eta_1/eta_2, the anchor's rate in parts of
    it. b and the key of z_a are kept in the place of b z_a, so that memory is MeZO's and one vector, w~. An anchor
    costs the values of all rows, another step 4 q B. The authors divide both rates by 5 where the loss of an epoch has
    risen by 5 % over two: that is for a schedule.

    Three traps of the released code, avoided here: its anchor is a list that shares its tensors with the weights, so
    that both points are one after the first step; the two probes of a batch draw different z; and they are applied one
    after the other. Then the difference is noise of twice MeZO's variance instead of a control variate.
    """

    def __init__(self, every=2, ratio=1.0, radius=1e-3, q=1, difference="central"):
        super().__init__(radius, q, difference)
        self.every = whole("MeZOSVRG", "every", every)
        self.ratio = number("MeZOSVRG", "ratio", ratio, low=0, open_low=True)

    def start(self, problem, x, seed):
        self.taken = self.at = 0
        self.anchor, self.b = backend.xp(x).zeros_like(x), backend.zeros((self.q,), "float64")
        return super().start(problem, x, seed)

    def __call__(self, x, batch, out):
        first = self.taken % self.every == 0
        self.taken += 1
        self.batch = batch._replace(rows=None, weights=None) if first else batch
        if not first:
            return self.give(*self.probe(x), out)
        self.anchor[...], self.at = x, self.problem.t
        projected, loss = self.probe(x)
        for k, s in enumerate(projected):
            self.b[k : k + 1] = s
        return self.give(projected, loss, out)

    def terms(self, projected, t=None):
        mean = [(self.b[k] / self.q, Normals(self.key(k, self.at))) for k in range(self.q)]
        if (self.taken - 1) % self.every == 0:
            return [(self.ratio * c, z) for c, z in mean]
        return super().terms(projected, t) + mean

    def probe(self, y):
        projected, loss = super().probe(y)
        if (self.taken - 1) % self.every:
            old, _ = super().probe(self.anchor)
            projected = [s - before for s, before in zip(projected, old, strict=True)]
        return projected, loss

    def state(self):
        return {**super().state(), "taken": self.taken, "at": self.at, "anchor": self.anchor, "b": self.b}

    def load_state(self, state):
        super().load_state(state)
        self.taken, self.at = int(state["taken"]), int(state["at"])
        for array, name in ((self.anchor, "anchor"), (self.b, "b")):
            array[...] = backend.asarray(state[name], array.dtype)
