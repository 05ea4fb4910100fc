"""Attention in array code for every device, in two ways: with all T x S probabilities at once, and in blocks of keys.

    s_ij = scale q_i . k_j + biases,    p_ij = e^(s_ij) / sum_j e^(s_ij),    o_i = sum_j p_ij v_j

q, o: (B, T, H, D)   k, v: (B, S, G, D)   lse: (B, H, T). Head h of the queries looks at head h // (H/G) of the keys.

Backward. With r_i = sum_j dp_ij p_ij, because p is a softmax,

    dv_j = sum_i p_ij do_i,   dp_ij = do_i . v_j,   ds_ij = p_ij (dp_ij - r_i),
    dq_i = scale sum_j ds_ij k_j,   dk_j = scale sum_i ds_ij q_i,        dk, dv summed over the heads that share them.

In blocks. Forward goes through the keys block by block and carries for each query the largest score so far, m, the sum
l = sum e^(s - m) and the sum a = sum e^(s - m) v. When m grows to m', l and a shrink by e^(m - m'). At the end o = a/l.
Kept is lse = m + log l alone: with it p_ij = e^(s_ij - lse_i) is made again, block by block. And r needs no dp:

    r_i = sum_j p_ij (do_i . v_j) = do_i . sum_j p_ij v_j = do_i . o_i.

So no array of T x S numbers is kept. Rabe & Staats 2021; Dao et al., NeurIPS 2022, algorithms 1 and 4.

Pairs that may not see each other have s = -inf, so p = 0 and ds = 0. Where a query may see nothing, o = 0, lse = inf,
and p made again is 0: its gradients are 0.

Relative positions (Shaw et al. 2018): K_c joins k_j and V_c joins v_j, c = c(i, j). With R_ic = q_i . K_c, s_ij has
scale R_i,c(i,j) more, and with W_ic = sum of p_ij over the j of c, o_i has sum_c W_ic V_c more. So dp_ij has
do_i . V_c(i,j) more, and dV_c = sum_i W_ic do_i. With X_ic = sum of ds_ij over the j of c, dq_i has
scale sum_c X_ic K_c more, and dK_c = scale sum_i X_ic q_i. As c = clip(j - i) + k, W_ic has one term, which is looked
up, but at the two ends.

Dropout: o = sum_j p_ij M_ij v_j, M_ij 0 or 1/(1 - rate). Then dv_j has p_ij M_ij, and dp_ij = M_ij (do_i . v_j); r_i is
do_i . o_i as before. M is a function of (key, row, h, i, j) and is drawn again on the way back.
"""

from typing import NamedTuple

from npopt import backend
from npopt.backend import xp

BLOCK = 256  # keys


class How(NamedTuple):
    """What attention does besides the products.

    causal      query i sees keys j <= i alone
    window      keys with |i - j| < window alone; 0: all
    pattern     ("strided", l), ("fixed", l, c) of Child et al. 2019, see nn/attention.py; (): all
    first       the position i of the first query
    keep        (B, S), bool, the keys that are there; None: all
    slopes      (H,), m_h |i - j| is taken off; None: nothing
    tables      (K, V) of relative positions, (2k + 1, D) each, V possibly None; None: nothing
    dropout     (rate, key, rows), rows (B,) or None for 0, ..., B-1; None: no dropout
    """

    scale: float
    causal: bool = False
    window: int = 0
    pattern: tuple = ()
    first: int = 0
    keep: object = None
    slopes: object = None
    tables: object = None
    dropout: object = None

    def sees(self, i, j):
        """Whether query i may see key j, for arrays of positions; None: always."""
        m, found = xp(i), []
        if self.causal:
            found.append(j <= i)
        if self.window:
            found.append(m.abs(i - j) < self.window)
        if self.pattern and self.pattern[0] == "strided":
            found.append((m.abs(i - j) < self.pattern[1]) | ((i - j) % self.pattern[1] == 0))
        if self.pattern and self.pattern[0] == "fixed":
            _, length, columns = self.pattern
            found.append((i // length == j // length) | (j % length >= length - columns))
        for more in found[1:]:
            found[0] = found[0] & more
        return found[0] if found else None


class Block:
    """All queries and the keys from j0 to j1: q, o, do as (B, G, R, T, D), k, v as (B, G, 1, J, D), R = H/G."""

    def __init__(self, q, k, v, how, j0, j1):
        self.how, self.m = how, xp(q)
        self.whole = q.shape, k.shape
        self.q, self.k, self.v = grouped(q, k), shared(k[:, j0:j1]), shared(v[:, j0:j1])
        self.j0, self.j1 = j0, j1
        self.i = how.first + self.m.arange(q.shape[1]).reshape(-1, 1)
        self.j = self.m.arange(j0, j1).reshape(1, -1)
        if how.tables is not None:
            self.reach = how.tables[0].shape[0] // 2
            self.place = self.m.clip(self.j - self.i, -self.reach, self.reach) + self.reach  # c, (T, J)

    def scores(self):
        """s, (B, G, R, T, J)."""
        how, m = self.how, self.m
        s = self.q @ self.k.swapaxes(3, 4)
        if how.tables is not None:
            s += self.looked_up(self.q @ how.tables[0].T)
        s *= how.scale
        if how.slopes is not None:
            s -= how.slopes.reshape(1, *s.shape[1:3], 1, 1) * m.abs(self.i - self.j).astype(s.dtype)
        sees = how.sees(self.i, self.j)
        if how.keep is not None:
            keep = how.keep[:, None, None, None, self.j0 : self.j1]
            sees = keep if sees is None else sees & keep
        return s if sees is None else m.where(sees, s, -m.inf).astype(s.dtype)

    def looked_up(self, r):
        """r_i,c(i,j) of r, (B, G, R, T, 2k + 1)."""
        return r[..., self.m.arange(r.shape[3]).reshape(-1, 1), self.place]

    def gathered(self, p):
        """W_ic, the sum of p_ij over the j of this block with c(i, j) = c: (B, G, R, T, 2k + 1)."""
        m, far = self.m, self.j - self.i
        near = self.i + m.arange(1 - self.reach, self.reach).reshape(1, -1) - self.j0  # the one j of c, less j0
        inside = (near >= 0) & (near < self.j1 - self.j0)
        near = m.clip(near, 0, self.j1 - self.j0 - 1)
        middle = p[..., m.arange(p.shape[3]).reshape(-1, 1), near] * inside
        ends = [(p * there).sum(-1, keepdims=True) for there in (far <= -self.reach, far >= self.reach)]
        return m.concatenate([ends[0], middle, ends[1]], axis=-1).astype(p.dtype)

    def kept(self, dtype):
        """M of dropout, (B, G, R, T, J), or None."""
        if self.how.dropout is None:
            return None
        (rate, key, rows), ((B, T, H, _), (_, S, G, _)) = self.how.dropout, self.whole
        u = backend.empty((B, H * T * S), dtype)
        backend.row_uniform(key, rows, u)
        u = u.reshape(B, G, H // G, T, S)[..., self.j0 : self.j1]
        return ((u >= rate) * (1 / (1 - rate))).astype(dtype)

    def backward(self, p, do, r, grads):
        """Add what this block gives to (dq, dk, dv, dK, dV), in the shapes of q, k, v and of the tables."""
        m, how, (dq, dk, dv, dK, dV) = self.m, self.how, grads
        drop, dp = self.kept(p.dtype), do @ self.v.swapaxes(3, 4)
        V = None if how.tables is None else how.tables[1]
        if V is not None:
            dp += self.looked_up(do @ V.T)
        pm = p
        if drop is not None:
            dp *= drop
            pm = p * drop
        ds = p * (dp - ((dp * p).sum(-1, keepdims=True) if r is None else r)) * how.scale
        dk[:, self.j0 : self.j1] += (ds.swapaxes(3, 4) @ self.q).sum(2).swapaxes(1, 2)
        dv[:, self.j0 : self.j1] += (pm.swapaxes(3, 4) @ do).sum(2).swapaxes(1, 2)
        more = ds @ self.k
        if how.tables is not None:
            x = self.gathered(ds)
            more += x @ how.tables[0]
            if dK is not None:
                dK += flat(x).T @ flat(self.q)
            if dV is not None:
                dV += flat(self.gathered(pm)).T @ flat(do)
        dq += ungrouped(m.ascontiguousarray(more))


def grouped(q, k):
    """(B, T, H, D) as (B, G, R, T, D)."""
    B, T, H, D = q.shape
    return q.reshape(B, T, k.shape[2], H // k.shape[2], D).transpose(0, 2, 3, 1, 4)


def ungrouped(q):
    """The inverse of grouped."""
    B, G, R, T, D = q.shape
    return q.transpose(0, 3, 1, 2, 4).reshape(B, T, G * R, D)


def shared(k):
    """(B, S, G, D) as (B, G, 1, S, D)."""
    return k.transpose(0, 2, 1, 3)[:, :, None]


def flat(a):
    return a.reshape(-1, a.shape[-1])


def attention(q, k, v, o, lse, how):
    """o and lse, with all T x S numbers at once."""
    block, m = Block(q, k, v, how, 0, k.shape[1]), xp(q)
    s = block.scores()
    top = s.max(-1, keepdims=True)
    top = m.where(m.isfinite(top), top, 0).astype(s.dtype)
    p = m.exp(s - top)
    total = p.sum(-1, keepdims=True)
    found = m.where(total > 0, top + m.log(m.where(total > 0, total, 1)), m.inf)
    lse[...] = found.reshape(lse.shape)
    p /= m.where(total > 0, total, 1)
    drop = block.kept(p.dtype)
    pm = p if drop is None else p * drop
    y = pm @ block.v
    if how.tables is not None and how.tables[1] is not None:
        y += block.gathered(pm) @ how.tables[1]
    o[...] = ungrouped(y)


def attention_backward(q, k, v, o, lse, do, grads, how):
    """Write grads = (dq, dk, dv, dK, dV), dK and dV possibly None, from p made again as a whole."""
    for g in grads:
        if g is not None:
            g[...] = 0
    block, m = Block(q, k, v, how, 0, k.shape[1]), xp(q)
    s = block.scores()
    top = s.max(-1, keepdims=True)
    p = m.exp(s - m.where(m.isfinite(top), top, 0))
    total = p.sum(-1, keepdims=True)
    p = (p / m.where(total > 0, total, 1)).astype(q.dtype)
    block.backward(p, grouped(do, k), None, grads)


def blocks(q, k, how):
    """[(j0, j1)]: the blocks of keys that any query may see."""
    last = min(k.shape[1], how.first + q.shape[1]) if how.causal else k.shape[1]
    return [(j, min(j + BLOCK, last)) for j in range(0, last, BLOCK)]


def attention_in_blocks(q, k, v, o, lse, how):
    """o and lse, with T x BLOCK numbers at once."""
    m, shape = xp(q), grouped(q, k).shape
    top, total = m.full(shape[:4], -m.inf, q.dtype), m.zeros(shape[:4], q.dtype)
    a, w = m.zeros(shape, q.dtype), None
    V = None if how.tables is None else how.tables[1]
    for j0, j1 in blocks(q, k, how):
        block = Block(q, k, v, how, j0, j1)
        s = block.scores()
        new = m.maximum(top, s.max(-1))
        safe = m.where(m.isfinite(new), new, 0).astype(q.dtype)
        shrink, top = m.exp(top - safe), new
        p = m.exp(s - safe[..., None])
        total = total * shrink + p.sum(-1)
        drop = block.kept(p.dtype)
        p = p if drop is None else p * drop
        a = a * shrink[..., None] + p @ block.v
        if V is not None:
            more = block.gathered(p)
            w = more if w is None else w * shrink[..., None] + more
    if V is not None:
        a = a + w @ V
    there = total > 0
    lse[...] = m.where(there, top + m.log(m.where(there, total, 1)), m.inf).reshape(lse.shape)
    o[...] = ungrouped(a / m.where(there, total, 1)[..., None].astype(q.dtype))


def attention_in_blocks_backward(q, k, v, o, lse, do, grads, how):
    """As attention_backward, in blocks."""
    m, shape = xp(q), grouped(q, k).shape
    for g in grads:
        if g is not None:
            g[...] = 0
    r = grouped((do * o).sum(-1, keepdims=True), k)
    lse = lse.reshape(shape[:4])[..., None]
    for j0, j1 in blocks(q, k, how):
        block = Block(q, k, v, how, j0, j1)
        p = m.exp(block.scores() - lse)
        block.backward(p, grouped(do, k), r, grads)
