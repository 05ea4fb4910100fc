"""Small examples of papers and lecture notes that show by numbers what a method does; each gives columns, as the
Recipe of an entry's `run` must."""

import math

from npopt import Adam, AMSGrad, RAdam

import numpy as np

BIG = 3.0  # C of the counterexample
WELLS = ((-2.0, 1.0), (2.0, 0.2))  # centres and widths of the wells


def moves(optimizer, gradients, lr):
    """Steps of one number from 0."""
    x, found = np.zeros(1), []
    optimizer.start(x)
    for t, g in enumerate(gradients):
        before = x[0]
        optimizer.step(x, np.array([float(g)]), lr(t))
        found.append(x[0] - before)
    return found


def spike(seed, events, before=100_000, after=1000):
    """|steps| of Adam and AMSGrad, b1 = 0, for gradients 1, ..., 1, 1e5, 1, ..., 1 and lr 1: from 50 steps before the
    large one, which comes after `before` small ones.

    There vh = (1-b2) 1e10 / (1-b2^t), but for the ones, and the step is sqrt((1-b2^t) / (1-b2)): 31.62 for large t.
    """
    gradients, columns, kept = [1.0] * before + [1e5] + [1.0] * after, {}, slice(max(0, before - 50), None)
    for name, optimizer in (("adam", Adam(0.0, 0.999, 0.0)), ("amsgrad", AMSGrad(0.0, 0.999, 0.0, "corrected"))):
        columns[name] = [abs(v) for v in moves(optimizer, gradients, lambda t: 1.0)][kept]
    return {"step": list(range(1, len(gradients) + 1))[kept], **columns}


def counterexample(seed, events, steps=30_000):
    """x in [-1, 1] under f_t = C x for t mod 3 = 1, else -x, b1 = 0, b2 = 1/(1 + C^2), rate 0.5/sqrt t."""
    columns = {"step": []}
    for name, kind in (
        ("adam", Adam(0.0, 1 / (1 + BIG**2), 0.0)),
        ("amsgrad", AMSGrad(0.0, 1 / (1 + BIG**2), 0.0, "original")),
    ):
        x, columns[name], columns["step"] = np.zeros(1), [], []
        kind.start(x)
        for t in range(1, steps + 1):
            kind.step(x, np.array([BIG if t % 3 == 1 else -1.0]), 0.5 / math.sqrt(t))
            np.clip(x, -1, 1, out=x)
            if t % 30 == 0 or t < 30:
                columns[name].append(float(x[0]))
                columns["step"].append(t)
    return columns


def rectifier(seed, events):
    """RAdam's factor, NaN while it takes steps of momentum alone, for b2 = 0.9, 0.99 and 0.999."""
    steps = sorted({int(round(10 ** (k / 40))) for k in range(161)} | {5, 6, 100, 200, 1000, 5000})
    columns = {"step": steps}
    for b2 in (0.9, 0.99, 0.999):
        columns[f"b2 {b2:g}"] = [RAdam(b2=b2, threshold=4).rectifier(t) or math.nan for t in steps]
    return columns


def well(x):
    """1 - sum_k exp(-(x - c_k)^2 / (2 s_k^2)): minima at the centres, of curvature 1/s_k^2."""
    return 1 - sum(np.exp(-((x - c) ** 2) / (2 * s**2)) for c, s in WELLS)


def wells(seed, events, shift=0.1):
    """A loss of one weight with a flat and a sharp minimum, and the same loss shifted."""
    x = np.linspace(-4.5, 3.5, 1601)
    return {"x": x.tolist(), "train": well(x).tolist(), "test": well(x - shift).tolist()}
