"""Networks in narrow formats, and what is asked of them beside runs of `minimize`: scripts/mixed_precision.py."""

import copy
import math
import time

import nn
from lab.account import KINDS, Account
from lab.dynamics import Table, started
from nn.losses import SoftmaxCrossEntropy
from nn.narrow import layers_of, replaced
from nn.norms import BatchNorm, joined
from npopt import Run, WithReplacement, backend
from npopt.backend import rounded
from npopt.backend.rounding import FORMATS, numbers_of, one
from npopt.estimators import Minibatch
from npopt.values import number
from problems.classifiers import Recalibrated, shortened
from problems.datasets import shared
from problems.feeds import CropFlip, Images
from problems.language import windows
from problems.neural import Neural

import numba
import numpy as np

HALF = FORMATS["float16"]
EXPONENTS = range(-48, 8)  # the bins of a histogram: floor(log2 |slope|), the first and the last with what is beyond


class Divided(SoftmaxCrossEntropy):
    """The mean cross-entropy divided by a number: with the rate times that number the same steps, but for rounding.
    Metrics are not divided."""

    def __init__(self, by):
        super().__init__()
        self.by = number("Divided", "by", by, low=0, open_low=True)

    def value(self, z, t, weights=None):
        return super().value(z, t, weights) * (1 / self.by)

    def value_and_gradient(self, z, t, weights=None):
        loss, dz = super().value_and_gradient(z, t, weights)
        dz *= 1 / self.by
        return loss * (1 / self.by), dz


class HalfStatistics(BatchNorm):
    """Batch norm whose mean and variance are float16 with float16 sums, number by number: what not to do.

    m = fl(S/N), v = fl(Q/N), S the running sum of x_n and Q that of fl(fl(x_n - m)^2), each sum rounded. Past 2048 a
    sum of ones stands still (Micikevicius et al., ICLR 2018, section 3.3, keep statistics in float32). The sums are
    taken on the host.
    """

    def moments(self, rows, run):
        x, n = backend.to_host(rows).astype("float32"), rows.shape[0]
        m = rounded(sums(x) * np.float32(1 / n), "float16")
        squares = rounded(np.square(rounded(x - m, "float16")), "float16")
        v = rounded(sums(squares) * np.float32(1 / n), "float16")
        if run.pending is not None:
            wide = n, *(backend.asarray(a.astype("float64")) for a in (m, v))
            run.leave(self, joined(run.left(self), *wide) if run.recalibrating else wide)
        return backend.asarray(m), backend.asarray(v)


def sums(rows):
    """The sums over the first axis in float16, row by row, as float32: (D,)."""
    out = np.empty(rows.shape[1], "float32")
    _sums(np.ascontiguousarray(rows), out, *numbers_of(HALF))
    return out


@numba.njit(cache=True, error_model="numpy")
def _sums(rows, out, cut, tiny, largest, beyond, unit):
    for j in range(rows.shape[1]):
        total = np.float32(0)
        for i in range(rows.shape[0]):
            bits = one(np.float32(total + rows[i, j]).view(np.uint32), cut, tiny, largest, beyond, unit)
            total = np.uint32(bits).view(np.float32)
        out[j] = total


# --------------------------------------------------------------------------------------------------------- problems
def convolutional(shape, classes, norm=BatchNorm):
    """Twice convolution, norm, ReLU, pool; then a linear layer."""
    sizes = dict(conv1=nn.Conv2d(shape[2], 8, 3, 1, 1, bias=False), norm1=norm(8), act1=nn.ReLU())
    sizes |= dict(pool1=nn.MaxPool2d(2), conv2=nn.Conv2d(8, 16, 3, 1, 1, bias=False), norm2=norm(16), act2=nn.ReLU())
    flat = (shape[0] // 4) * (shape[1] // 4) * 16
    sizes |= dict(pool2=nn.MaxPool2d(2), flatten=nn.Flatten(), fc=nn.Linear(flat, classes))
    return nn.Network(nn.Sequential(**sizes), shape, "cnn")


def pictures(data, network, compute=None, rows=None, test_rows=None, divided=1.0, half=False, width=8):
    """A network on pictures. Metrics on 2,000 training rows, with the statistics of x.

    network   "MLP", "LeNet-5", "CNN" (two convolutions with batch norm) or "ResNet-18"
    divided   the loss is divided by it;   half   batch norm's statistics are float16 (CNN)
    """
    d = shortened(shared(data, rows=rows), test_rows)
    shape, classes, augment = d.x_train.shape[1:], len(d.classes), None
    if network == "ResNet-18":
        built = nn.resnet18(width, in_channels=shape[2], image=shape[0], classes=classes)
        augment = CropFlip(4) if shape[0] == 32 else None
    elif network == "CNN":
        built = convolutional(shape, classes, HalfStatistics if half else BatchNorm)
    elif network == "LeNet-5":
        built = nn.lenet5(input_shape=shape, classes=classes)
    else:
        built = nn.mlp((math.prod(shape), 128, 56, classes))
    loss = None if divided == 1 else Divided(divided)
    more = dict(compute=compute, metrics_rows=min(2000, len(d.y_train)), metrics_batch=1000)
    return Recalibrated(built, Images(d, augment), loss, **more)


def text(data, length, features, layers, heads, compute=None, tokens=None, held=None, tied=True):
    """GPT-2's decoder on a text. Metrics on `held` tokens of the validation and the test part each."""
    found = shared(data, rows=tokens)
    network = nn.gpt2(len(found.words), length, features, layers, heads, tied=tied)
    return Neural(network, windows(found, length, held), compute=compute, metrics_rows=64, metrics_batch=32)


# ---------------------------------------------------------------------------------------------------------- studies
def steps_of(problem, x, optimizer, sampler, lr, steps, seed, estimator=None):
    """Make the steps of `minimize` from x, in place; yield (loss, whether it was skipped) of each batch."""
    estimator, made = Minibatch() if estimator is None else estimator, 0
    sampler.start(problem, seed)
    g = estimator.start(problem, x, seed)
    optimizer.start(x, estimator)
    for batch in sampler.take(steps):
        problem.begin(made)
        estimator.loss = loss = estimator(x, batch, out=g)
        if not estimator.skip:
            optimizer.step(x, g, lr)
            problem.commit()
            made += 1
        yield float(backend.to_host(loss)), estimator.skip


def memory(seed, events, build, arguments, optimizer, batch, lr, steps):
    """One row: bytes by kind, counted and `measured_<kind>` (lab/account.py); `parameters`; `losses`, (1, steps), of so
    many steps; `step_seconds`, their median, on a GPU alone, because on a CPU narrow formats are imitated. NaN where a
    device does not say what it lends out."""
    found, sampler = {}, WithReplacement(batch)
    problem, losses, took = build(**arguments), [], []
    x, begin = started(problem, seed), time.perf_counter()
    for loss, _ in steps_of(problem, x, copy.deepcopy(optimizer), sampler, lr, steps, seed):
        losses.append(loss)
        took.append(time.perf_counter() - begin)
        begin = time.perf_counter()
    size = problem.dim
    del problem, x  # Account has its own; what is compiled is there now
    known = backend.device() == "cpu" or "device" in backend.memory()
    account = Account(build(**arguments), optimizer, sampler, Minibatch(), lr, seed) if known else None
    for kind in KINDS:
        counted, measured = (one[kind] for one in (account.counted, account.measured)) if known else (None, math.nan)
        found |= {kind: math.nan if counted is None else float(counted), f"measured_{kind}": float(measured)}
    seconds = float(np.median(took[steps // 3 :])) if backend.device() == "gpu" else math.nan
    found |= {"parameters": float(size), "step_seconds": seconds, "losses": losses}
    return {name: [value] for name, value in found.items()}


def share_of(a, condition):
    """The share of numbers that are not 0 for which it holds; NaN where all are 0."""
    return float(condition[a > 0].mean()) if (a > 0).any() else math.nan


def slopes(seed, events, build, arguments, optimizer, batch, lr, steps, scale):
    """After so many steps in float32, one pass: a row for each layer that has parameters (dL/dy, what float16 would
    store) and, with `gradient` 1, for each matrix of the gradient. Of the numbers that are not 0: `lost`, the share
    that float16 rounds to 0; `coarse`, that of subnormal ones; `scaled_lost`, `scaled_over`: the share that is lost, or
    past the largest number, when multiplied by `scale`. `zero`: the share of zeros. `e-20`: the share of all numbers of
    this exponent of 2. config["layers"]: the rows' names."""
    problem = build(**arguments)
    x = started(problem, seed)
    for _ in steps_of(problem, x, optimizer, WithReplacement(batch), lr, steps, seed):
        pass
    rows, dys = np.random.default_rng(seed).integers(0, problem.n, batch), {}

    def watching(layer):
        back = layer.backward

        def backward(dy, saved, run):
            dys[layer.path] = backend.to_host(dy).copy()
            return back(dy, saved, run)

        return {"backward": backward}

    g = backend.xp(x).zeros_like(x)
    with replaced([one for one in layers_of(problem.network.layer) if one.shapes and not one.children()], watching):
        problem.begin(steps)
        problem.value_and_gradient(x, rows, None, g)
    host = backend.to_host(g)
    some = [(name, 0.0, dy) for name, dy in reversed(dys.items())]
    some += [(s.name, 1.0, host[s.slice]) for s in problem.segments if len(s.shape) > 1]
    columns = Table()
    for _, gradient, dy in some:
        columns.add(gradient=gradient, **looked_at(np.abs(dy).reshape(-1).astype(float), scale))
    return Run(columns, None, None, "finished", {"layers": [name for name, *_ in some], "scale": scale}, "python")


def looked_at(a, scale):
    """The columns of `slopes` for |slopes|, flat."""
    half = HALF.step / 2
    bins = np.clip(np.floor(np.log2(np.where(a > 0, a, 1))), EXPONENTS[0], EXPONENTS[-1])
    counts = np.bincount((bins[a > 0] - EXPONENTS[0]).astype(int), minlength=len(EXPONENTS)) / a.size
    return {
        "size": float(a.size),
        "zero": float((a == 0).mean()),
        "lost": share_of(a, a <= half),
        "coarse": share_of(a, (a > half) & (a < 2.0**HALF.least)),
        "scaled_lost": share_of(a, a * scale <= half),
        "scaled_over": share_of(a, a * scale >= HALF.largest * (1 + 2.0**-12)),
        **{f"e{e}": float(share) for e, share in zip(EXPONENTS, counts, strict=True)},
    }


def scales(seed, events, build, arguments, optimizer, batch, lr, steps, estimator):
    """A row for each batch: the scale of the next one, whether it was skipped, the loss."""
    problem, columns = build(**arguments), Table()
    x = started(problem, seed)
    for i, (loss, skipped) in enumerate(
        steps_of(problem, x, optimizer, WithReplacement(batch), lr, steps, seed, estimator), 1
    ):
        columns.add(step=i, scale=estimator.shown["scale"], skipped=float(skipped), loss=loss)
    return columns


def vanishing(seed, events, sizes, scale, count):
    """For numbers of N(0, s^2), the share that float16 rounds to 0: as they are (`lost`, by theory `law`), and
    multiplied by `scale` (`scaled`, `scaled_law`)."""
    z, columns = np.random.default_rng(seed).standard_normal(count).astype("float32"), Table()
    for s in sizes:
        found = {"s": s}
        for name, by in (("lost", 1.0), ("scaled", scale)):
            found[name] = float((rounded(np.float32(s * by) * z, "float16") == 0).mean())
            found["law" if by == 1 else "scaled_law"] = math.erf(HALF.step / 2 / (s * by * math.sqrt(2)))
        columns.add(**found)
    return columns
