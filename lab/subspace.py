"""Runs of the script `subspace`: a network trained whole, in subspaces or by adapters; what it costs, and its rank."""

from types import SimpleNamespace
from typing import NamedTuple

from nn import FLoRA, LoRA, LowRank, SLTrain
from nn.adapters import adapters, free, merged
from npopt import (
    Adam,
    AdamW,
    Cosine,
    Flora,
    GaLore,
    GoLore,
    JaggedCosine,
    Phase,
    RandomReshuffling,
    ReLoRA,
    Stop,
    WithWarmup,
    backend,
    in_phases,
)
from npopt.segments import Segments
from problems.quadratic import Quadratic

import numpy as np

LEAST = 0.01  # of the largest singular value: those above count for the numerical rank
MAPS = ("attention", "feed")


class Scale(NamedTuple):
    """steps; rank and period of subspaces; restarts every so many steps; density of sparse numbers"""

    steps: int
    rank: int
    period: int
    every: int
    density: float = 0.1

    def optimizer(self, method, **more):
        """The optimizer of a method; more: arguments of GaLore's kind in the place of these."""
        inner, some = Adam(b2=0.95), dict(rank=self.rank, period=self.period) | more
        if method.startswith("ReLoRA"):
            return ReLoRA(inner, self.every, 0.01)
        if method == "GoLore":
            return GoLore(**some, at=self.steps // 4, inner=inner)
        if method in ("GaLore", "Flora"):
            return (GaLore if method == "GaLore" else Flora)(**some, inner=inner)
        return AdamW(b2=0.95, weight_decay=0.0)

    def adapters(self, method):
        """(layer, options) in the place of maps, or (None, {})."""
        rank = {"rank": self.rank}
        if method == "SLTrain":
            return SLTrain, rank | {"density": self.density}
        if method == "W = BA":
            return LowRank, rank
        return (FLoRA if method == "FLoRA" else LoRA, rank) if "LoRA" in method else (None, {})

    def schedule(self, method, lr):
        """A warm-up over a tenth of the steps, then a cosine to a tenth of the rate; ReLoRA's warms up as long again
        after each restart."""
        first = max(1, self.steps // 10)
        if method.startswith("ReLoRA"):
            return JaggedCosine(lr, self.every, first, first, 0.1 * lr)
        return WithWarmup(Cosine(lr, 0.1 * lr), first)


def trained(
    seed, events, *, data, build, arguments, optimizer, schedule, steps, batch, warm=0, warm_lr=1e-3, held=(), **more
):
    """The Run of a network that `build(data, **more, **arguments)` gives, in batches, with columns of what it costs
    (`costs`) and of the rank of its change (`ranks`).

    Segments that move: `nn.adapters.free(network, held)`. warm: so many of the steps come first in which the network
    without adapters moves by AdamW at warm_lr, on a cosine of its own.
    """
    problem = build(data, **more, **arguments)
    network, sampler = problem.network, RandomReshuffling(batch)
    names = free(network, held)
    names = None if len(names) == len(network.segments) else names
    phases = [Phase(optimizer, schedule, Stop(steps=steps - warm), names, sampler=sampler)]
    if warm:
        whole = WithWarmup(Cosine(warm_lr, 0.1 * warm_lr, length=steps - steps // 10), steps // 10)
        base = [name for name in network.segments.names if name in network.source.segments.names]
        phases.insert(0, Phase(AdamW(weight_decay=0.0), whole, Stop(steps=warm), base, sampler=sampler))
    run = in_phases(problem, phases, seed=seed, events=events)
    found = costs(problem, run.x, optimizer, names)
    if not run.diverged:
        found |= ranks(network, problem.x0(backend.generator(seed, "x0")), run.x)
    rows = len(run.columns["step"])
    run.columns.update({name: [float(value)] * rows for name, value in found.items()})
    return run


def costs(problem, x, optimizer, names):
    """Bytes of arrays: weights (with the indices of sparse ones), gradients, states, projectors; how many numbers are
    trained."""
    part = problem if names is None else problem.restrict(x, names)
    optimizer.start(part.x0(None) if names else x, SimpleNamespace(problem=part, seed=0))
    kept = optimizer.state()
    projector = kept["P"].nbytes if "P" in kept else 0
    indices = sum(
        leaf.places.nbytes + leaf.starts.nbytes for leaf in adapters(problem.network) if hasattr(leaf, "places")
    )
    size = part.dim * part.dtype.itemsize
    return {
        "weights": problem.dim * part.dtype.itemsize + indices,
        "gradients": size,
        "states": optimizer.bytes() - projector,
        "projectors": projector,
        "trained": part.dim,
    }


def formulas(features, layers, rank, dim):
    """{method: (gradients, states, projectors)} in bytes by the papers' formulas, float32, of Llama's decoder with so
    many numbers in all."""
    hidden = -(-8 * features // 96) * 32
    shapes = layers * ([(features, features)] * 4 + [(hidden, features)] * 2 + [(features, hidden)])
    rest = dim - sum(m * n for m, n in shapes)
    small, large, rows = (rank * sum(f(s) for s in shapes) for f in (min, max, lambda s: s[0]))
    lora = rest + rank * sum(m + n for m, n in shapes)
    galore = (4 * dim, 8 * (large + rest), 4 * small)
    return {
        "AdamW": (4 * dim, 8 * dim, 0),
        "GaLore": galore,
        "GoLore": galore,
        "Flora": (4 * dim, 8 * (rows + rest), 0),
        "LoRA": (4 * lora, 8 * lora, 0),
    }


def maps(network, x):
    """{name: matrix} of the maps of attention and feed-forward parts, on the host, adapters merged."""
    if adapters(network):
        network, x = merged(network, x)
    some = [s for s in network.segments if s.kind == "matrix" and any(word in s.name for word in MAPS)]
    return {s.name: backend.to_host(network.segments.view(x, s.name)).copy() for s in some}


def ranks(network, before, after):
    """Of the change of the maps: the mean and the largest numerical rank, the number of singular values above a
    hundredth of the largest one."""
    before, after = maps(network, before), maps(network, after)
    found = []
    for name in before:
        values = np.linalg.svd((after[name] - before[name]).astype("float64"), compute_uv=False)
        found.append(int((values > LEAST * values[0]).sum()) if values[0] > 0 else 0)
    return {"rank": np.mean(found), "largest_rank": max(found)}


def bowl(kind, sigma, k, r, rows=2):
    """A quadratic in one matrix X, (k, k), whose rows differ by noise S_i of mean 0 in the gradient.

    "block"      f = 1/2 |X_1|^2, X_1 the first k - r rows and columns; S_1 = -S_2 = sigma (0 0; 0 I), I in the last r
                 rows and columns: of He et al.'s kind (arXiv:2410.11289), the noise lies where f is flat
    "isotropic"  f = 1/2 |X|^2; S_i normal of deviation sigma, centred over so many rows
    """
    if kind == "block":
        A, S = np.ones((k, k)), np.zeros((k, k))
        A[k - r :] = A[:, k - r :] = 0
        S[k - r :, k - r :] = sigma * np.eye(r)
        problem = Quadratic(A.reshape(-1), noise=np.array([S.reshape(-1), -S.reshape(-1)]), name="flat where noisy")
    else:
        problem = Quadratic(np.ones(k * k), n=rows, noise=sigma, name="isotropic noise")
    problem.set_shape(k * k, "float64", Segments.of(("X", (k, k), "matrix", "X")))
    return problem
