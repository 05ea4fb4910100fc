"""What scripts compare: optimizers with their customary rates, schedules with one highest rate; and functions that
measure something else than the path of one run, for the Recipe of an entry's `run`."""

import math

from nn import init
from npopt import Cosine, Events, Minibatch, RandomReshuffling, Stop, backend, minimize, schedules
from npopt import optimizers as opt
from npopt.analysis.curvature import Hessian, lanczos, length, rise, stable
from npopt.analysis.range_test import range_test
from problems import LANDSCAPES, Surface
from problems.adapted import adapted
from problems.classifiers import perceptron

import numpy as np

STARTS = {"N(0, 0.01²)": init.Normal(0.01), "Xavier": init.XavierUniform(), "library default": None}  # of the report
CUSTOMARY = {"SGD": (opt.SGD(), 0.1), "momentum": (opt.HeavyBall(0.9), 0.05), "Adam": (opt.Adam(), 1e-3)}  # its rates
SHIFT = (1.3, -0.7)  # of the surfaces: no minimum lies at 0, to which Adafactor's relative step and decay draw


def methods(steps):
    """{name: (optimizer, customary rate)}; `steps` of the run, of which SWA averages the last quarter.

    AdaBound's final rate is a hundred times the rate that is swept, 0.1 at the customary one. SWATS switches where its
    estimate agrees with the average to a hundredth; the paper's 1e-9, absolute, never fires here. LARS's coefficient
    is 1, so that biases and gains, which it leaves to plain steps of momentum, take them at the rate itself: at the
    paper's 0.001 the rate is near 10, and theirs, too.
    """
    return {
        "SGD": (opt.SGD(), 0.3),
        "HeavyBall": (opt.HeavyBall(0.9), 0.03),
        "Nesterov": (opt.Nesterov(0.9), 0.03),
        "AdaGrad": (opt.AdaGrad(), 0.03),
        "RMSProp": (opt.RMSProp(), 1e-3),
        "Adadelta": (opt.Adadelta(), 1.0),
        "Adam": (opt.Adam(), 1e-3),
        "AdamW": (opt.AdamW(weight_decay=1e-2), 1e-3),
        "AMSGrad": (opt.AMSGrad(), 1e-3),
        "NAdam": (opt.NAdam(), 1e-3),
        "RAdam": (opt.RAdam(), 1e-3),
        "AdaBound": (opt.AdaBound(base_lr=1e-3), 1e-3),
        "AMSBound": (opt.AMSBound(base_lr=1e-3), 1e-3),
        "SWATS": (opt.SWATS(tolerance=1e-2, relative=True), 1e-3),
        "Lion": (opt.Lion(), 3e-4),
        "LARS": (opt.LARS(coefficient=1.0), 0.01),
        "LAMB": (opt.LAMB(), 1e-2),
        "Adam-mini": (opt.AdamMini(), 1e-3),
        "Adafactor": (opt.Adafactor(), 0.03),
        "Sophia-G": (opt.SophiaG(), 1e-3),
        "Lookahead (Adam)": (opt.Lookahead(opt.Adam()), 1e-3),
        "EMA (HeavyBall)": (opt.EMA(opt.HeavyBall(0.9), 0.99), 0.03),
        "SWA (HeavyBall)": (opt.SWA(opt.HeavyBall(0.9), max(1, 3 * steps // 4)), 0.03),
    }


def plans(steps, lr):
    """{name: (schedule, what varies)}, all with lr as their highest rate."""
    s, cycle, half = schedules, schedules.OneCycle(lr, rise=0.3), max(1, steps // 8)
    return {
        "constant": (s.Constant(lr), None),
        "cosine": (Cosine(lr), None),
        "warm-up, cosine": (s.WithWarmup(Cosine(lr), max(1, steps // 10)), None),
        "steps": (s.Piecewise(lr, (steps // 2, 3 * steps // 4), per="step"), None),
        "triangular": (s.Cyclical(lr / 10, lr, half), None),
        "triangular2": (s.Cyclical(lr / 10, lr, half, "triangular2"), None),
        "SGDR": (s.CosineRestarts(lr, steps / 7, 2, unit="step"), None),
        "one-cycle": (cycle, {"beta": cycle.mirrored(0.85, 0.95)}),
    }


class Factor:
    """The report's FactorScheduler: every call multiplies its base rate."""

    def __init__(self, factor, floor, base):
        self.factor, self.floor, self.base = factor, floor, base

    def __call__(self):
        self.base = max(self.floor, self.base * self.factor)
        return self.base


def schedulers():
    """{name: schedule} that the report's schedulers come to."""
    s, drawn = schedules, Factor(0.8, 1e-3, 0.2)
    for _ in range(50):
        drawn()
    return {
        "constant 0.1": s.Constant(0.1),
        "constant 0.18": s.Constant(0.18),
        "constant 1.8": s.Constant(1.8),
        "milestones 15, 30": s.Piecewise(0.1, (15, 30)),
        "factor, fresh": s.Exponential(0.16, 0.8, floor=1e-3),
        "factor, drawn first": s.Constant(drawn()),
        "exponential from 2": s.Exponential(1.8, 0.9, floor=0.01),
        "exponential from 0.2": s.Exponential(0.18, 0.9, floor=0.01),
    }


def suggested(seed, events, data, rows, init, batch):
    """A learning-rate range test of Adam: the rate and the loss of each batch."""
    problem = perceptron(data, rows=rows, pixels=(0, 1), init=init)
    found = range_test(problem, opt.Adam(), RandomReshuffling(batch), low=1e-5, high=1.0, steps=300, seed=seed)
    return {"rate": found.rates.tolist(), "batch_loss": found.losses.tolist()}


def on_surfaces(seed, events, *, method, rates, steps, names=tuple(LANDSCAPES), shift=SHIFT):
    """For each surface and rate the height above the minimum after so many steps, in parts of that at the start,
    infinite where it diverged: exact gradients, constant rates, surfaces moved by `shift`, from a start that is uniform
    in the window, the same for all methods. Sophia-G, which samples labels, is Sophia-H here."""
    columns = {"surface": [], "rate": [], "gap": []}
    for name in names:
        i, (low_x, high_x, low_y, high_y) = list(LANDSCAPES).index(name), LANDSCAPES[name].window
        start = backend.generator(seed, "start", i).uniform((low_x, low_y), (high_x, high_y)) + shift
        for lr in rates:
            optimizer = opt.SophiaH() if method == "Sophia-G" else methods(steps)[method][0]
            surface = Surface(name, tuple(start), shift=shift)
            run = minimize(surface, optimizer, None, lr, stop=Stop(steps=steps), seed=seed, events=Events(None))
            first, last = run.columns["gap"][0], run.columns["gap"][-1]
            columns["gap"].append(last / first if math.isfinite(last) and not run.diverged else math.inf)
            columns["surface"].append(i)
            columns["rate"].append(lr)
    return columns


def solved(runs, level=1e-6):
    """(shares, methods, surfaces) of runs of `on_surfaces`: the share of the starts from which a method comes down to
    `level`, in parts of the height at the start, at the rate that is best on that surface. shares: (methods, surfaces).
    """
    groups, shares = runs.groups("method"), []
    for _, some in groups:
        surface = np.asarray(some[0].columns["surface"], int)
        share = np.mean([run.columns["gap"] < level for run in some], axis=0)
        numbers = list(dict.fromkeys(surface))
        shares.append([share[surface == i].max() for i in numbers])
    names = [method.replace("-G", "-H") for method, _ in groups]
    return np.array(shares), names, [list(LANDSCAPES)[i] for i in numbers]


def throughput(seed, events, *, data, rows, sizes, threads, at_least=0.3):
    """Rows a second of plain SGD on the perceptron by batch size, on so many threads: the best of five stretches of at
    least so many seconds, as other work on the machine can only slow them. The `seed` is a repetition."""
    problem, columns = perceptron(data, rows=rows, pixels=(0, 1)), {"B": [], "rate": []}
    before = backend.threads()
    backend.threads(threads)
    try:
        for size in sizes:
            best, steps = 0.0, max(3, 2048 // size)
            for _ in range(5):
                some = dict(stop=Stop(steps=steps), seed=seed, events=Events(None))
                run = minimize(problem, opt.SGD(), RandomReshuffling(min(size, problem.n)), 1e-3, **some)
                seconds = run.final["seconds"]
                best = max(best, steps * min(size, problem.n) / seconds)
                steps = max(3, math.ceil(steps * at_least / max(seconds, 1e-4)))
            columns["B"].append(min(size, problem.n))
            columns["rate"].append(best)
    finally:
        backend.threads(before)
    return columns


def switches(seed, events, *, data, rows, lr, epochs, batch, held, tolerances):
    """For each relative tolerance the epoch at which SWATS leaves Adam, under a cosine from lr (infinite: not before
    the end), and the rate that it then gives to SGD, in parts of lr."""
    columns = {"tolerance": list(tolerances), "switched": [], "rate": []}
    for tolerance in tolerances:
        problem, optimizer = perceptron(data, rows=rows, validation=held), opt.SWATS(tolerance=tolerance, relative=True)
        sampler, schedule, estimator = RandomReshuffling(batch), Cosine(lr), Minibatch()
        problem.set_seed(seed)
        x = problem.x0(backend.generator(seed, "x0"))
        sampler.start(problem, seed)
        schedule.start(sampler.steps_per_epoch, epochs * sampler.steps_per_epoch)
        g = estimator.start(problem, x, seed)
        optimizer.start(x, estimator)
        for t, rows_of_step in enumerate(sampler.take(epochs * sampler.steps_per_epoch)):
            problem.begin(t)
            estimator(x, rows_of_step, out=g)
            optimizer.step(x, g, schedule(t))
            problem.commit()
            if optimizer.switched:
                break
        columns["switched"].append(optimizer.switched / sampler.steps_per_epoch or math.inf)
        columns["rate"].append(optimizer.rate or math.nan)
    return columns


def sharpness(seed, events, *, data, rows, method, lr, epochs, batch, held, shifts):
    """Where a method ends. `high` is the largest eigenvalue of the training loss's Hessian over 1,000 rows (NaN where a
    kink disturbs it). A row for each a in `shifts` has the `rise` of the training loss, over 10,000 rows, from w to w +
    a z: the mean over ten z ~ N(0, I)."""
    problem = perceptron(data, rows=rows, validation=held)
    optimizer = methods(1)[method][0]
    run = minimize(
        problem, optimizer, RandomReshuffling(batch), Cosine(lr), stop=Stop(epochs=epochs), seed=seed, events=events
    )
    if run.diverged or run.reason == "interrupted":
        return run
    exact = perceptron(data, rows=rows, validation=held, dtype="float64")
    x = backend.asarray(backend.to_host(run.answer), "float64")
    seen = stable(exact, x, np.arange(min(exact.n, 1000)))
    loss, rises = rise(exact, x, shifts, np.arange(min(exact.n, 10_000)))
    return {
        "shift": list(shifts),
        "rise": rises,
        "train": [loss] * len(shifts),
        "test_accuracy": [run.final["test_accuracy"]] * len(shifts),
        "high": [float(seen.values[-1]) if seen else math.nan] * len(shifts),
    }


def slowdown(seed, events, *, sampler, after, **arguments):
    """The second task of problems.adapted after so many steps of SGD at rate 0.1: tr H over 256 rows, from 20 vectors
    of signs; lmax; curvature along the gradient; what they say of MeZO's steps against SGD's. H is a difference of
    gradients in float64."""
    problem, draw = adapted(**arguments, dtype="float64"), backend.generator(seed, "signs")
    x = minimize(problem, opt.SGD(), sampler, 0.1, stop=Stop(steps=after), seed=seed, events=events).x
    rows, g = np.arange(min(256, problem.n)), backend.xp(x).empty_like(x)
    H = Hessian(problem, x, rows, 1e-6)
    problem.value_and_gradient(x, rows, out=g)
    signs = (backend.asarray(draw.choice((-1.0, 1.0), x.size)) for _ in range(20))
    traces = np.array([float(backend.to_host(v @ H(v))) for v in signs])
    trace, error = traces.mean(), traces.std(ddof=1) / 20**0.5
    along, largest = float(backend.to_host(g @ H(g))) / length(g) ** 2, lanczos(H, x.size, 12, seed).values[-1]
    found = dict(trace=trace, trace_error=error, largest=largest, along=along, dim=x.size)
    found |= dict(rank=trace / largest, slowdown=trace / along + 2)
    return {name: [float(value)] for name, value in found.items()}
