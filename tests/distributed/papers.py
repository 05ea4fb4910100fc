"""Slow loops from the papers, for quadratics f_i(x) = x'A_i x / 2 - b_i'x with rows of noise e_ir: nothing of the
package but its draws. Each gives the x of every round, of the server or of all nodes, (rounds, nodes, d)."""

from npopt import backend

import numpy as np

SEED = 6


class Oracle:
    """Gradients of node `rank` (its draws are numbered from 1)."""

    def __init__(self, problem, rank):
        self.A, self.b, self.e, self.rank, self.k = problem.exact_A, problem.exact_b, problem.e, rank, 0

    def number(self):
        self.k += 1
        return self.k

    def __call__(self, x, batch=None):
        g = self.A @ x - self.b
        if batch is None:
            return g
        rows = backend.generator(SEED, f"rows of {self.rank}", self.number()).integers(len(self.e), size=batch)
        return g + sum(self.e[r] for r in rows) / batch

    def key(self, word):
        return backend.key(SEED, f"{word} of {self.rank}", self.number())


def chosen(t, share, count):
    """Numbers 0..count-1 of the clients of a round."""
    size = max(1, round(share * count))
    if size == count:
        return list(range(count))
    return sorted(backend.generator(SEED, "clients of a round", t).permutation(count)[:size].tolist())


def data_parallel(f, sizes, x, rounds, lr, batch):
    for _ in range(rounds):
        x = x - lr * sum(n / sum(sizes) * g(x, batch) for n, g in zip(sizes, f, strict=True))
        yield [x] * len(f)


def local_sgd(f, sizes, x, rounds, lr, steps, batch):
    for _ in range(rounds):
        ends = []
        for g in f:
            y = x
            for _ in range(steps):
                y = y - lr * g(y, batch)
            ends.append(y)
        x = sum(n * y for n, y in zip(sizes, ends, strict=True)) / sum(sizes)
        yield [x] * len(f)


def fedavg(f, sizes, x, rounds, lr, steps, batch, share, server_lr):
    for t in range(rounds):
        some, new = chosen(t, share, len(f)), {}
        for i in some:
            y = x
            for _ in range(steps):
                y = y - lr * f[i](y, batch)
            new[i] = y
        mean = sum(sizes[i] * new[i] for i in some) / sum(sizes[i] for i in some)
        x = x + server_lr * (mean - x)
        yield [x]


def fedvarp(f, sizes, x, rounds, lr, steps, batch, share, server_lr):
    count = len(f)
    memory = [0 * x] * count
    for t in range(rounds):
        some, new = chosen(t, share, count), {}
        for i in some:
            y = x
            for _ in range(steps):
                y = y - lr * f[i](y, batch)
            new[i] = (x - y) / (lr * steps)
        v = sum(memory) / count + sum(new[i] - memory[i] for i in some) / len(some)
        x = x - server_lr * lr * steps * v
        for i in some:
            memory[i] = new[i]
        yield [x]


def scaffold(f, sizes, x, rounds, lr, steps, batch, share, server_lr, option):
    count = len(f)
    c, own = 0 * x, [0 * x] * count
    for t in range(rounds):
        some = chosen(t, share, count)
        moves, changes = [], []
        for i in some:
            y = x
            for _ in range(steps):
                y = y - lr * (f[i](y, batch) - own[i] + c)
            new = f[i](x) if option == 1 else own[i] - c + (x - y) / (steps * lr)
            moves.append(y - x)
            changes.append(new - own[i])
            own[i] = new
        x = x + server_lr * sum(moves) / len(some)
        c = c + len(some) / count * sum(changes) / len(some)
        yield [x]


def dsgd(f, W, x, rounds, lr, batch):
    n = len(f)
    X = [x] * n
    for _ in range(rounds):
        X = [sum(W[i, j] * X[j] for j in range(n)) - lr * f[i](X[i], batch) for i in range(n)]
        yield X


def gradient_tracking(f, W, x, rounds, lr, batch):
    n = len(f)
    X = [x] * n
    G = [g(x, batch) for g in f]
    Y = list(G)
    for _ in range(rounds):
        X = [sum(W[i, j] * X[j] for j in range(n)) - lr * Y[i] for i in range(n)]
        new = [f[i](X[i], batch) for i in range(n)]
        Y = [sum(W[i, j] * Y[j] for j in range(n)) + new[i] - G[i] for i in range(n)]
        G = new
        yield X


def extra(f, W, x, rounds, lr):
    n = len(f)
    both, tilde = np.eye(n) + W, (np.eye(n) + W) / 2
    old = np.array([x] * n)
    X = W @ old - lr * np.array([f[i](old[i]) for i in range(n)])
    for _ in range(rounds):
        yield X
        change = np.array([f[i](X[i]) - f[i](old[i]) for i in range(n)])
        old, X = X, both @ X - tilde @ old - lr * change


def ef21(f, x, rounds, lr, C, eta, batch):
    n = len(f)
    v = [None] * n
    h = [0 * x] * n
    for _ in range(rounds):
        for i in range(n):
            g = f[i](x, batch)
            v[i] = g if v[i] is None else (1 - eta) * v[i] + eta * g
            h[i] = h[i] + C(v[i] - h[i], f[i].key("compressed"))
        x = x - lr * sum(h) / n
        yield [x]


def compressed(f, x, rounds, lr, C, feedback, batch):
    n = len(f)
    e = [0 * x] * n
    for _ in range(rounds):
        sent = []
        for i in range(n):
            p = e[i] + lr * f[i](x, batch)
            sent.append(C(p, f[i].key("compressed")))
            e[i] = p - sent[i] if feedback else e[i]
        x = x - sum(sent) / n
        yield [x]


def one_bit_adam(f, x, rounds, lr, warm, b1, b2, eps, C, batch, server):
    n = len(f)
    m, v, e, own = 0 * x, 0 * x, 0 * x, [0 * x] * n
    for t in range(rounds):
        if t < warm:
            g = sum(g(x, batch) for g in f) / n
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        else:
            sent = []
            for i in range(n):
                full = b1 * m + (1 - b1) * f[i](x, batch) + own[i]
                sent.append(C(full, f[i].key("compressed")))
                own[i] = full - sent[i]
            full = sum(sent) / n + e
            m = C(full, server.key("compressed"))
            e = full - m
        x = x - lr * m / (np.sqrt(v) + eps)
        yield [x]


def power_sgd(f, x, rounds, lr, rank, beta, batch, matrix):
    """matrix: (name, slice, (a, b)) of the one matrix of x."""
    n, (name, where, shape) = len(f), matrix
    Q = backend.generator(SEED, "power " + name).standard_normal((shape[1], rank))
    e, m = [0 * x] * n, 0 * x
    for _ in range(rounds):
        D = [g(x, batch) + own for g, own in zip(f, e, strict=True)]
        M = sum(D) / n
        mean = M[where].reshape(shape)
        P = np.linalg.qr(mean @ Q)[0]  # of any signs: they cancel in P Q'
        M[where] = (P @ (P.T @ mean)).ravel()
        Q = mean.T @ P
        e = [d - M for d in D]
        m = beta * m + M
        x = x - lr * (M + m)
        yield [x] * n
