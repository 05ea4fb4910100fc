"""The reference path of the recurrent layers: what a time step needs of the one before, in array code.

Gates are beside one another in the last axis, H columns each. u_t = k h_(t-1) is what the recurrent products see: k,
(B, H), is the mask of recurrent dropout, or None for ones. s is the logistic function.
"""

from npopt.backend import xp


def logistic(x):
    """1/(1 + e^(-x)), which cannot overflow."""
    return 0.5 * (1 + xp(x).tanh(0.5 * x))


def masked(h, mask):
    return h if mask is None else h * mask


def columns(a, t, n):
    """The gates of time t, views (B, n) each."""
    return [a[:, t, j : j + n] for j in range(0, a.shape[2], n)]


def lstm(a, u, mask, h0, c0, y, c):
    """a, (B, T, 4H), holds W x_t + b and becomes the gates (i, f, g, o) of a_t + U u_t;  c_t = f c_(t-1) + i g into c
    and h_t = o tanh(c_t) into y, (B, T, H) each.   u: (4H, H)   h0, c0: (B, H), read"""
    m, h, before, n = xp(a), h0, c0, u.shape[1]
    for t in range(a.shape[1]):
        a[:, t] += m.matmul(masked(h, mask), u.T)
        i, f, g, o = columns(a, t, n)
        for gate in (i, f, o):
            gate[...] = logistic(gate)
        g[...] = m.tanh(g)
        c[:, t] = f * before + i * g
        before = c[:, t]
        y[:, t] = o * m.tanh(before)
        h = y[:, t]


def lstm_backward(gates, c, c0, u, mask, dy, da, dh, dc):
    """da, (B, T, 4H): the gradient of what the gates are functions of. dh, dc, (B, H): in, that of h_T and c_T beside
    dy; out, that of h_0 and c_0. The others as `lstm` left them; dy is read.

    From the last time to the first, with dh_t = dy_t + k U' da_(t+1) and w = tanh(c_t):
        dc_t = dc_(t+1) f_(t+1) + dh_t o (1 - w^2)
        da_i = dc_t g i (1-i),   da_f = dc_t c_(t-1) f (1-f),   da_g = dc_t i (1-g^2),   da_o = dh_t w o (1-o)
    """
    m, n = xp(da), u.shape[1]
    for t in range(gates.shape[1] - 1, -1, -1):
        i, f, g, o = columns(gates, t, n)
        w, dht, before = m.tanh(c[:, t]), dy[:, t] + dh, c[:, t - 1] if t else c0
        dct = dc + dht * o * (1 - w * w)
        d = columns(da, t, n)
        d[0][...] = dct * g * i * (1 - i)
        d[1][...] = dct * before * f * (1 - f)
        d[2][...] = dct * i * (1 - g * g)
        d[3][...] = dht * w * o * (1 - o)
        dh[...] = masked(m.matmul(da[:, t], u), mask)
        dc[...] = dct * f


def gru(a, u, bias, mask, h0, y, q):
    """a, (B, T, 3H), holds W x_t + b and becomes the gates (r, z, n), with the reset gate after the product:

        r, z = s(a + U_rz u_t),   q = U_n u_t + bias,   n = tanh(a_n + r q),   h_t = (1 - z) n + z h_(t-1)

    y takes h_t, q its q, (B, T, H) each.   u: (3H, H)   bias: (H,)   h0: (B, H), read"""
    m, h, size = xp(a), h0, u.shape[1]
    for t in range(a.shape[1]):
        product = m.matmul(masked(h, mask), u.T)
        r, z, n = columns(a, t, size)
        r[...], z[...] = logistic(r + product[:, :size]), logistic(z + product[:, size : 2 * size])
        q[:, t] = product[:, 2 * size :] + bias
        n[...] = m.tanh(n + r * q[:, t])
        y[:, t] = (1 - z) * n + z * h
        h = y[:, t]


def gru_backward(gates, q, before, u, mask, dy, da, db, dh):
    """da, (B, T, 3H): the gradient of W x_t + b; db, (B, T, 3H): that of U u_t; dh, (B, H): in, that of h_T beside dy;
    out, that of h_0. before: h_(t-1), (B, T, H); the others as `gru` left them; dy is read.

    From the last time to the first, with dh_t = dy_t + dh_(t+1) z_(t+1) + k U' db_(t+1):
        da_n = dh_t (1-z) (1-n^2),   da_z = dh_t (h_(t-1) - n) z (1-z),   da_r = da_n q r (1-r)
        db_r = da_r,   db_z = da_z,   db_n = da_n r
    """
    m, size = xp(da), u.shape[1]
    for t in range(gates.shape[1] - 1, -1, -1):
        r, z, n = columns(gates, t, size)
        dht = dy[:, t] + dh
        d, e = columns(da, t, size), columns(db, t, size)
        d[2][...] = dht * (1 - z) * (1 - n * n)
        d[1][...] = dht * (before[:, t] - n) * z * (1 - z)
        d[0][...] = d[2] * q[:, t] * r * (1 - r)
        e[0][...], e[1][...], e[2][...] = d[0], d[1], d[2] * r
        dh[...] = dht * z + masked(m.matmul(db[:, t], u), mask)


def gru_before(a, u, mask, h0, y):
    """The same with the reset gate before the product:  n = tanh(a_n + U_n (r u_t))."""
    m, h, size = xp(a), h0, u.shape[1]
    for t in range(a.shape[1]):
        seen = masked(h, mask)
        a[:, t, : 2 * size] = logistic(a[:, t, : 2 * size] + m.matmul(seen, u[: 2 * size].T))
        r, z, n = columns(a, t, size)
        n[...] = m.tanh(n + m.matmul(r * seen, u[2 * size :].T))
        y[:, t] = (1 - z) * n + z * h
        h = y[:, t]


def gru_before_backward(gates, before, u, mask, dy, da, dh):
    """da and dh as above. With v = r u_t and dv = U_n' da_n:   da_r = dv u_t r (1-r),
    dh_(t-1) = dh_t z + k (dv r + U_r' da_r + U_z' da_z)."""
    m, size = xp(da), u.shape[1]
    for t in range(gates.shape[1] - 1, -1, -1):
        r, z, n = columns(gates, t, size)
        dht, d = dy[:, t] + dh, columns(da, t, size)
        d[2][...] = dht * (1 - z) * (1 - n * n)
        d[1][...] = dht * (before[:, t] - n) * z * (1 - z)
        dv = m.matmul(d[2], u[2 * size :])
        d[0][...] = dv * masked(before[:, t], mask) * r * (1 - r)
        du = dv * r + m.matmul(da[:, t, : 2 * size], u[: 2 * size])
        dh[...] = dht * z + masked(du, mask)
