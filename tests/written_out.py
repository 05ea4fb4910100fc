"""A network written out row by row in NumPy, as what attacks and adversarial training are compared with.

u = (255 p - mean) / std,   h = tanh(V u + a),   z = W h + b,   p: (D,) pixels from 0 to 1
"""

from types import SimpleNamespace

from nn import Linear, Network, Sequential, Tanh
from npopt import backend
from problems import Neural
from problems.feeds import Images

import numpy as np

SHAPE, HIDDEN, CLASSES, MEAN, STD = (3, 4, 1), 5, 4, 90.0, 70.0
D = 12


def images(rng, n=13):
    """Random images with labels, the same in all parts."""
    x, y = rng.integers(0, 256, (n, *SHAPE)).astype("uint8"), rng.integers(0, CLASSES, n)
    return SimpleNamespace(name="noise", x_train=x, y_train=y, x_test=x, y_test=y, mean=[MEAN], std=[STD], scale=255.0)


def problem(data, dtype="float64", **more):
    layers = Sequential(fc1=Linear(D, HIDDEN), act1=Tanh(), fc2=Linear(HIDDEN, CLASSES))
    return Neural(Network(layers, (D,)), Images(data), dtype=dtype, **more)


def pixels(data):
    return data.x_train.reshape(-1, D) / 255


def parts(x):
    """Views V, a, W, b of the flat x."""
    cuts = np.cumsum([HIDDEN * D, HIDDEN, CLASSES * HIDDEN])
    V, a, W, b = np.split(x, cuts)
    return V.reshape(HIDDEN, D), a, W.reshape(CLASSES, HIDDEN), b


def outputs(x, p):
    V, a, W, b = parts(x)
    h = np.tanh(V @ ((255 * p - MEAN) / STD) + a)
    return h, W @ h + b


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def cross_entropy(z, t):
    return -np.log(softmax(z)[t]), softmax(z) - np.eye(CLASSES)[t]


def margin(z, t):
    j = max((k for k in range(CLASSES) if k != t), key=lambda k: z[k])
    return z[j] - z[t], np.eye(CLASSES)[j] - np.eye(CLASSES)[t]


def ratio(z, t):
    """-(z_t - z_j)/(z_(1) - z_(3)) by the quotient rule."""
    order = sorted(range(CLASSES), key=lambda k: -z[k])
    j = order[1] if order[0] == t else order[0]
    top, bottom, eye = z[t] - z[j], z[order[0]] - z[order[2]], np.eye(CLASSES)
    return -top / bottom, (eye[j] - eye[t] + top / bottom * (eye[order[0]] - eye[order[2]])) / bottom


def by_pixels(x, p, dz):
    """d l / d p, given dl/dz at p."""
    V, _, W, _ = parts(x)
    h, _ = outputs(x, p)
    return V.T @ ((1 - h * h) * (W.T @ dz)) * 255 / STD


def by_parameters(x, p, dz):
    """d l / d x, flat, given dl/dz at p."""
    _, _, W, _ = parts(x)
    h, _ = outputs(x, p)
    d = (1 - h * h) * (W.T @ dz)
    return np.concatenate([np.outer(d, (255 * p - MEAN) / STD).ravel(), d, np.outer(dz, h).ravel(), dz])


def uniforms(seed, stream, counter, row, width=D):
    """The uniform numbers of one row, (width,)."""
    key = backend.key(seed, stream, counter)
    return backend.row_uniform(key, np.array([row]), np.empty((1, width)))[0]


def cut(delta, p, eps):
    """The nearest point of |delta| <= eps, 0 <= p + delta <= 1."""
    return np.clip(p + np.clip(delta, -eps, eps), 0, 1) - p
