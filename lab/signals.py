"""What initial weights do to signals, for the Recipe of an entry's `run`: spectra, mean squares and Jacobians by depth.

`start` is an initialiser of nn.init.
"""

from nn import init
from nn.spectra import METRICS, PowerIteration, rank_by_entropy, singular_values
from npopt import backend
from problems.classifiers import book_network

import numpy as np

ACTIVATIONS = {"ReLU": lambda z: np.maximum(z, 0), "tanh": np.tanh}


def spectra(seed, events, start):
    """One row a matrix of the start: the metrics of nn.spectra, fan-in, variance; on the host."""
    net = book_network(784, 10, start)
    x = backend.to_host(net.x0(np.random.default_rng(seed), "float64"))
    rows = []
    for segment in net.segments:
        if segment.kind == "bias":
            continue
        w = x[segment.slice].reshape(segment.shape if len(segment.shape) > 1 else (1, 1))
        s = singular_values(w)
        rows.append(
            {
                "fan_in": w.shape[1],
                "matrix": float(segment.kind != "scalar"),
                "variance": w.var(),
                **{name: f(s) for name, f in METRICS.items()},
                "entropy_share": rank_by_entropy(s) / len(s),
            }
        )
        if segment.kind == "scalar":
            rows[-1]["rank_by_share"] = 1.0  # so the book counts it
    return {name: [row[name] for row in rows] for name in rows[0]} | {"unknowns": [x.size] * len(rows)}


def signals(seed, events, start, activation, layers, width):
    """Mean square of the pre-activations, layer by layer, for 256 inputs from N(0, I)."""
    rng, f = np.random.default_rng(seed), ACTIVATIONS[activation]
    h, found = rng.standard_normal((256, width)), []
    for _ in range(layers):
        z = h @ start(rng, (width, width), width, width, "float64").T
        found.append(float((z**2).mean()))
        h = f(z)
    return {"layer": list(range(1, layers + 1)), "square": found}


def jacobian(seed, events, start, layers, width):
    """Singular values of the product of the matrices of so many linear layers, relative to sqrt(n), by their rank."""
    rng, J = np.random.default_rng(seed), np.eye(width)
    for _ in range(layers):
        J = start(rng, (width, width), width, width, "float64") @ J
    s = singular_values(J)
    return {"rank": list(range(1, width + 1)), "value": s.tolist(), "frobenius": [float(np.sqrt((s**2).sum()))] * width}


def power(seed, events):
    """One power iteration a step on a matrix that moves by 1 % a step: the relative error of the spectral norm."""
    rng = np.random.default_rng(seed)
    w = init.KaimingNormal()(rng, (128, 256), 256, 128, "float64")
    estimate, found = PowerIteration(w.shape, rng), []
    for _ in range(100):
        w += 0.01 * np.sqrt(2 / 256) * rng.standard_normal(w.shape)
        found.append(1 - estimate(w) / singular_values(w)[0])
    return {"step": list(range(1, 101)), "error": found}
