"""The last steps of a fixed-point map and what Anderson acceleration makes of them: least squares by an updated QR
factorisation, or normal equations. On the CPU an update and the solution are one compiled call."""

import math

from npopt import backend
from npopt.backend import elementwise
from npopt.optimizers.ista import descent
from npopt.state import Stateful

import numba
import numpy as np

FAST = {"reassoc", "nsz", "contract"}  # sums in any order, so that they are vectorised


@elementwise
def rotate(a, b, c, s):
    old = a
    a = c * a + s * b
    b = c * b - s * old
    return a, b


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def dot(a, b):
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@numba.njit(cache=True, error_model="numpy")
def condition_bound(R, k):
    """|R|_F |R^-1|_F of the first k columns, R upper triangular: between cond(R) and k cond(R)."""
    inverse, one, two = np.zeros((k, k)), 0.0, 0.0
    for j in range(k):
        inverse[j, j] = 1 / R[j, j]
        for i in range(j - 1, -1, -1):
            total = 0.0
            for t in range(i + 1, j + 1):
                total += R[i, t] * inverse[t, j]
            inverse[i, j] = -total / R[i, i]
        for i in range(j + 1):
            one += R[i, j] ** 2
            two += inverse[i, j] ** 2
    return math.sqrt(one) * math.sqrt(two)


@numba.njit(cache=True, error_model="numpy")
def solve(R, k, z):
    """R z = right for the first k columns, in place: z holds the right-hand side."""
    for i in range(k - 1, -1, -1):
        for j in range(i + 1, k):
            z[i] -= R[i, j] * z[j]
        z[i] /= R[i, i]


@numba.njit(cache=True, error_model="numpy")
def shift(R, ring, k, cosines, sines):
    """R without its first column, made triangular again by k - 1 rotations of neighbouring rows, which are kept."""
    for i in range(k - 1):
        a, b = R[i, i + 1], R[i + 1, i + 1]
        length = math.hypot(a, b)
        c, s = (a / length, b / length) if length > 0 else (1.0, 0.0)
        for j in range(i + 1, k):
            above, below = R[i, j], R[i + 1, j]
            R[i, j], R[i + 1, j] = c * above + s * below, c * below - s * above
        cosines[i], sines[i] = c, s
    for j in range(k - 1):
        for i in range(j + 1):
            R[i, j] = R[i, j + 1]
        ring[j] = ring[j + 1]


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def drop(Q, R, ring, k, cosines, sines):
    shift(R, ring, k, cosines, sines)
    for i in range(k - 1):
        c, s = cosines[i], sines[i]
        for t in range(Q.shape[1]):
            old = Q[i, t]
            Q[i, t] = c * old + s * Q[i + 1, t]
            Q[i + 1, t] = c * Q[i + 1, t] - s * old


@numba.njit(cache=True)
def spare(ring, k):
    """The first row of the ring that holds no step in use."""
    for row in range(ring.size):
        used = False
        for j in range(k):
            used |= ring[j] == row
        if not used:
            return row
    return 0


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def project(Q, R, k, v):
    """Take from v its part in the span of Q[:k], by Gram-Schmidt, twice. R's column k gets the coefficients. Returns
    the |v| that is left."""
    h = np.empty(k)
    for _ in range(2 if k else 0):
        for j in range(k):
            h[j] = dot(Q[j], v)
            R[j, k] += h[j]
        for j in range(k):
            for t in range(v.size):
                v[t] -= h[j] * Q[j, t]
    return math.sqrt(dot(v, v))


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def append(window, k, last, new, condition, room):
    """Make the newest differences the last column. Returns how many columns there are then. window: Q, steps, R and
    ring; last, new: q and r; room: two work vectors."""
    (Q, steps, R, ring), (last_q, last_r), (q, r), (cosines, sines) = window, last, new, room
    if k == len(ring):
        drop(Q, R, ring, k, cosines, sines)
        k -= 1
    row, v = spare(ring, k), Q[k]
    for t in range(q.size):
        steps[row, t] = q[t] - last_q[t]
        v[t] = r[t] - last_r[t]
    R[: k + 1, k] = 0
    left = project(Q, R, k, v)
    if left <= 1e-300:  # nothing new
        return k
    for t in range(v.size):
        v[t] /= left
    R[k, k], ring[k] = left, row
    k += 1
    while k > 1 and not condition_bound(R, k) <= condition:
        drop(Q, R, ring, k, cosines, sines)
        k -= 1
    return k


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def advance(window, k, ready, last, new, condition):
    """The work of `UpdatedQR.extrapolate`. Returns (k, ready, whether r holds the extrapolated point)."""
    (Q, steps, R, ring), (last_q, last_r), (q, r) = window, last, new
    z, spare_z = np.empty(len(ring)), np.empty(len(ring))
    if not math.isfinite(dot(r, r)):
        return 0, False, False
    if ready:
        k = append(window, k, last, new, condition, (z, spare_z))
    for t in range(q.size):
        last_q[t], last_r[t] = q[t], r[t]
    for j in range(k):
        z[j] = dot(Q[j], r)
    solve(R, k, z)
    for t in range(q.size):
        r[t] = q[t]
    for j in range(k):
        for t in range(q.size):
            r[t] -= z[j] * steps[ring[j], t]
    return k, True, k > 0 and math.isfinite(dot(r, r))


class UpdatedQR(Stateful):
    """dR = Q R with Q' (m, d) by rows on the device and R (m, m) on the host; dQ in a ring of m rows.

    ring[:k] says which rows of `steps` hold the k differences in use, the oldest first; nothing else is read.
    """

    def __init__(self, m, x, condition):
        self.m, self.condition = m, condition
        xp = backend.xp(x)
        self.Q, self.steps = (backend.zeros((m, x.size), x.dtype) for _ in range(2))
        self.R, self.ring, self.k = np.zeros((m, m)), np.zeros(m, np.int64), 0
        self.q, self.r = xp.zeros_like(x), xp.zeros_like(x)  # the last ones
        self.ready = False

    @property
    def last(self):
        return self.q

    def forget(self):
        """Begin a new window at the last point."""
        self.k = 0

    def extrapolate(self, q, r):
        """q - dQ z, or None where there is no history yet. q and r are kept as the last ones, and r is overwritten. A
        point that is not finite is not kept, and empties the window."""
        if isinstance(q, np.ndarray):
            window, last = (self.Q, self.steps, self.R, self.ring), (self.q, self.r)
            self.k, self.ready, mixed = advance(window, self.k, self.ready, last, (q, r), self.condition)
            return r if mixed else None
        if not np.isfinite(float(backend.to_host(r @ r))):
            self.k, self.ready = 0, False
            return None
        if self.ready:
            self.append(q, r)
        self.q[...], self.r[...], self.ready = q, r, True
        k = self.k
        if k == 0:
            return None
        z = backend.to_host(self.Q[:k] @ r).astype(np.float64)
        solve(self.R, k, z)
        r[...] = backend.asarray(z, r.dtype) @ self.steps[backend.asarray(self.ring[:k])]
        descent(r, q, r, 1.0)
        return r

    def append(self, q, r):
        """`append` above, in array code."""
        if self.k == self.m:
            self.drop()
        k = self.k
        row = spare(self.ring, k)
        descent(self.steps[row], q, self.q, 1.0)
        v = self.Q[k]
        descent(v, r, self.r, 1.0)
        self.R[: k + 1, k] = 0
        for _ in range(2 if k else 0):
            h = self.Q[:k] @ v
            descent(v, v, h @ self.Q[:k], 1.0)
            self.R[:k, k] += backend.to_host(h)
        left = float(backend.to_host((v * v).sum())) ** 0.5
        if left <= 1e-300:  # nothing new
            return
        v *= 1 / left
        self.R[k, k] = left
        self.ring[k], self.k = row, k + 1
        while self.k > 1 and not condition_bound(self.R, self.k) <= self.condition:
            self.drop()

    def drop(self):
        """Remove the oldest column."""
        cosines, sines = np.empty(self.k), np.empty(self.k)
        shift(self.R, self.ring, self.k, cosines, sines)
        for i in range(self.k - 1):
            rotate(self.Q[i], self.Q[i + 1], float(cosines[i]), float(sines[i]))
        self.k -= 1

    def kept(self):
        return {name: getattr(self, name) for name in ("Q", "steps", "R", "ring", "k", "q", "r", "ready")}


class Gram(Stateful):
    """Residuals and q's in rings of m + 1 rows on the device, the residuals' Gram matrix on the host."""

    def __init__(self, m, x, reg):
        self.reg = reg
        self.r, self.q = (backend.zeros((m + 1, x.size), x.dtype) for _ in range(2))
        self.G, self.count = np.zeros((m + 1, m + 1)), 0

    @property
    def last(self):
        return self.q[(self.count - 1) % len(self.q)]

    def forget(self):
        """Begin a new window at the last point."""
        last = (self.count - 1) % len(self.r)
        self.r[0], self.q[0] = self.r[last].copy(), self.q[last].copy()
        self.G[0, 0] = self.G[last, last]
        self.count = min(self.count, 1)

    def extrapolate(self, q, r):
        rows = len(self.r)
        i = self.count % rows
        self.r[i], self.q[i] = r, q
        self.count += 1
        k = min(self.count, rows)
        self.G[i, :k] = self.G[:k, i] = backend.to_host(self.r[:k] @ r)
        if k == 1:
            return None
        G = self.G[:k, :k]
        size = np.linalg.norm(G, 2) if np.isfinite(G).all() else 0.0
        if not size > 0:
            return None
        a = np.linalg.solve(G / size + self.reg * np.eye(k), np.ones(k))
        r[...] = backend.asarray(a / a.sum(), r.dtype) @ self.q[:k]
        return r

    def kept(self):
        return {name: getattr(self, name) for name in ("r", "q", "G", "count")}
