"""Is momentum SGD just SGD with the step lr / (1 - beta)?   Course task A1; Yuan, Ying & Sayed, JMLR 17, 2016.

The paper proves it for strongly convex risks, constant small steps and noisy gradients, and finds it in simulations of
others: HeavyBall(beta) at lr and SGD at lr/(1-beta) coincide after a transient of about 1/(1-beta) steps. The mean
square distance of the two iterates is of order lr^2, their distance to the minimum of order lr. The control, SGD at lr
itself, has to lag clearly behind: without that the test has no power.

Part p shows where the equality ends. For curvature h and e = h lr/(1-beta), noise of one size gives SGD the stationary
mean square lr/(1-beta) sigma^2 / (h (2 - e)), and momentum the same with e (1-beta)/(1+beta) for e: their ratio is
(2 - e) / (2 - e (1-beta)/(1+beta)). SGD diverges beyond e = 2, momentum beyond 2 (1+beta)/(1-beta).

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 35 minutes.
"""

from figures.momentum_vs_sgd import album, ratio, steady
from lab import Entry, Experiment, Option, Part, Recipe, Undecided
from lab.claims import alike, decided, larger, on_every, slope, spread
from lab.options import whole
from lab.verdicts import close, shown, together, within
from npopt import SGD, Events, HeavyBall, RandomReshuffling, Stop, WithReplacement, backend, minimize
from problems.classifiers import lenet, resnet
from problems.convex import regression
from problems.quadratic import Quadratic

import numpy as np

experiment = Experiment(
    __doc__,
    task="A1",
    source="Yuan, Ying & Sayed, On the influence of momentum acceleration on online learning, JMLR 17, 2016",
    parts={
        "a": Part("linear regression: curves, and slopes in the step size", "diabetes", ("abalone", "housing")),
        "b": Part("LeNet-5: momentum, SGD at lr/(1-beta), and the control", "digits", "mnist"),
        "c": Part("ResNet-18: the same", "digits", "cifar-10-jpeg"),
        "p": Part("a quadratic: momentum's noise floor over beta and the step, beyond SGD's stable range, too"),
    },
    options=[
        Option("--beta", type=float, default=0.9, help="momentum"),
        Option("--width", type=whole(1, "width"), help="channels of ResNet-18's first stage (default: 8; full: 64)"),
        Option("--rows", type=whole(1, "rows"), help="training images of part c (default: 4096)"),
    ],
    seeds=10,
    figures=album,
)

BATCHES = (1, 16)  # of part a
HALVINGS = (1, 2, 4, 8)  # of the step, part a
BETAS = (0.5, 0.7, 0.9, 0.95, 0.99)  # of part p
SCALES = (1 / 32, 1 / 8, 1 / 2, 1, 1.8, 2.2, 8, 32, 128)  # of part p: L lr/(1-beta)
PAIR, CONTROL, LOGS = ("momentum", "sgd"), "control", ("w", "distance")


# ---------------------------------------------------------------------------------------------------- own functions
def phase(beta, scale, steps, seed, events):
    """200 noisy coordinates of curvature 1, from the minimum: the late mean squares of momentum and of SGD, and of
    their difference; NaN where one diverged."""
    problem = Quadratic(np.ones(200), n=1000, noise=1.0)
    problem.metrics = lambda x: {"w": backend.to_host(x).copy()}
    late = []
    for _, optimizer, lr in methods(scale * (1 - beta), beta)[:2]:
        run = minimize(
            problem,
            optimizer,
            WithReplacement(1),
            lr,
            stop=Stop(steps=steps),
            seed=seed,
            x=np.zeros(200),
            events=Events(5, "step"),
        )
        w = run.columns["w"][len(run.columns["w"]) // 2 :]
        late.append(np.full((1, 200), np.nan) if run.diverged or np.abs(w[-1]).max() > 1e6 else np.array(w))
    one, two = late
    apart = (one - two) if len(one) == len(two) else np.array([np.nan])
    found = {name: [float(np.mean(v**2))] for name, v in (("momentum", one), ("sgd", two), ("apart", apart))}
    return {"step": [steps], **found}


# ------------------------------------------------------------------------------------------------------------- grid
def methods(lr, beta):
    """The three methods of parts a, b and c: (name, optimizer, rate)."""
    return (("momentum", HeavyBall(beta), lr), ("sgd", SGD(), lr / (1 - beta)), (CONTROL, SGD(), lr))


@experiment.runs
def runs(args):
    few = args.seeds[:5]
    for data in args.data_of("a")[: args.pick(None, 1)]:
        problem = regression(data, test=True)
        rate = 0.1 / problem.row_smoothness().max()  # lr/(1-beta) of the recipe
        slow = 1 / (rate * problem.strong_convexity())  # how many steps SGD remembers at that rate
        recipe = Recipe(regression, data=data, logs=LOGS, test=True)
        still = Recipe(regression, data=data, logs=LOGS, test=True, at_minimum=True)
        for size in BATCHES:
            how = dict(stop=Stop(steps=args.pick(4000, 400)), metrics=20, per="step")
            for name, optimizer, lr in methods(rate * (1 - args.beta), args.beta):
                yield Entry("a", recipe, optimizer, WithReplacement(size), lr, data=data, B=size, method=name, **how)
        for k in args.pick(HALVINGS, HALVINGS[:3]):
            steps = int(args.pick(4, 0.25) * k * slow)
            how = dict(stop=Stop(steps=steps), metrics=max(1, steps // 150), per="step", seeds=few)
            for name, optimizer, lr in methods(rate / k * (1 - args.beta), args.beta)[:2]:
                yield Entry("a", still, optimizer, WithReplacement(1), lr, data=data, divisor=k, method=name, **how)

    def network(data, build=lenet, **more):
        return Recipe(build, data=data, test_rows=args.pick(None, 2000), **more)

    for data in args.data_of("b"):
        epochs = args.budget(*((30, 3) if data == "digits" else (10, 2)))
        problem, how = network(data, rows=args.pick(None, 800)), dict(stop=Stop(epochs=epochs), seeds=few)
        for name, optimizer, lr in methods(0.005, args.beta):
            yield Entry("b", problem, optimizer, RandomReshuffling(64), lr, method=name, **how)
    for data in args.data_of("c"):
        small = dict(width=args.width or args.pick(8, 4), rows=args.rows or args.pick(4096, 192), l2=5e-4)
        epochs = args.budget(15, 2)
        problem, how = network(data, resnet, **small), dict(stop=Stop(epochs=epochs), seeds=few)
        for name, optimizer, lr in methods(0.002, args.beta):  # constant and small: the theorem's setting
            yield Entry("c", problem, optimizer, RandomReshuffling(128), lr, method=name, **how)
    for beta in args.pick(BETAS, BETAS[::2]):
        for scale in args.pick(SCALES, SCALES[1::2]):
            tags = dict(beta=beta, scale=scale)
            yield Entry("p", run=Recipe(phase, **tags, steps=args.pick(2000, 300)), seeds=few, **tags)


# ----------------------------------------------------------------------------------------------------------- claims
def curved(results):
    """[("set B=size", its runs)] of part a."""
    return [(f"{data} B={size}", runs) for (data, size), runs in results.select("a").groups("data", "B")]


def lags(runs, column, beta=None, x="step"):
    """(pair, control): the mean over a path of log momentum - log SGD, and of log control - log SGD, one a seed; after
    3/(1-beta) steps, or after the first row."""
    t = runs.stack(column, x)[0]
    late = t >= (t[1] if beta is None else 3 / (1 - beta))
    stacks = {name: group.stack(column, x)[1] for name, group in runs.groups("method")}
    logs = {name: np.log(np.maximum(values, 1e-300))[:, late] for name, values in stacks.items()}
    return tuple((logs[name] - logs["sgd"]).mean(1) for name in (PAIR[0], CONTROL))


def on_one_path(runs, column, beta=None, x="step"):
    """(text, whether): the pair's paths are apart by less than 5 % of SGD's distance to the control."""
    pair, control = lags(runs, column, beta, x)
    margin = 0.05 * abs(control.mean())
    return f"{shown(pair)} of {control.mean():.3g}", close(pair, 0 * pair, margin)


@experiment.claim(
    "a-same",
    "linear regression: the paths of momentum and of SGD at lr/(1-beta) are one",
    expected="mean difference of log gap within 5 % of SGD's distance to the control (95 %)",
)
def a_same(results, args):
    return on_every(curved(results), lambda name, runs: on_one_path(runs, "gap", args.beta))


@experiment.claim(
    "a-power",
    "linear regression: the control lags behind, so that the comparison has power",
    expected="mean log gap ratio above 0.1 (95 %), every set and batch size",
    source="the recipe",
)
def a_power(results, args):
    def judged(name, runs):
        control = lags(runs, "gap", args.beta)[1]
        return spread(control, 3), within(control, 0.1)

    return on_every(curved(results), judged)


for i, text, wanted, margin in (
    (0, "E|w_momentum - w_sgd|^2 is of order step^2", 2, 0.3),
    (2, "the noise floor E|w_sgd - w*|^2 is of order step", 1, 0.2),
):

    @experiment.claim(f"a-slope-{wanted}", f"linear regression: {text}", expected=f"slope {wanted} ± {margin} (95 %)")
    def a_slope(results, i=i, wanted=wanted, margin=margin):
        def judged(data, found):
            steps, table = found
            slopes = np.array([slope(steps, row) for row in table[:, :, i]])
            return spread(slopes, 3), within(slopes, wanted - margin, wanted + margin)

        return on_every(steady(results).items(), judged)


@experiment.claim(
    "a-floor",
    "linear regression: both methods have the same noise floor, at every step size",
    expected="ratio of the mean square errors in 0.9 to 1.1 (95 % of the log)",
)
def a_floor(results):
    def judged(data, found):
        table = found[1]
        logs = np.log(table[:, :, 1] / table[:, :, 2])
        ratios, bounds = np.exp(logs.mean(0)), np.log((0.9, 1.1))
        return f"{ratios.min():.3f} to {ratios.max():.3f}", together(within(v, *bounds) for v in logs.T)

    return on_every(steady(results).items(), judged)


@experiment.claim(
    "p-ratio",
    "a quadratic: momentum's floor, of SGD's, is (2 - e) / (2 - e (1-beta)/(1+beta))",
    expected="to 10 % (95 % of the log), at every beta and e < 2; near 1 for small e, not near e = 2",
)
def p_ratio(results):
    off, verdicts = {}, []
    for (beta, scale), runs in results.select("p", scale=lambda e: e < 2).groups("beta", "scale"):
        logs = np.log(runs.final("momentum") / runs.final("sgd")) - np.log(ratio(beta, scale))
        verdicts.append(close(logs, 0 * logs, np.log(1.1)))
        off[f"beta {beta:g}, e {scale:.3g}"] = float(np.exp(logs.mean()))
    worst = max(off, key=lambda k: abs(np.log(off[k])))
    return decided(f"{len(off)} cells; farthest: {worst}, {off[worst]:.3f} of the prediction", *verdicts)


@experiment.claim(
    "p-edge",
    "a quadratic: SGD diverges beyond e = 2, momentum only beyond 2 (1+beta)/(1-beta)",
    expected="in every cell and seed",
)
def p_edge(results):
    wrong = [
        run.name
        for run in results.select("p")
        for name, bound in (("sgd", 2), ("momentum", 2 * (1 + run.tags["beta"]) / (1 - run.tags["beta"])))
        if np.isnan(run.final[name]) != (run.tags["scale"] > bound)
    ]
    return f"{len(results.select('p'))} runs" + (f"; wrong: {', '.join(wrong)}" if wrong else ""), not wrong


for part, network in (("b", "LeNet-5"), ("c", "ResNet-18")):
    for column, word, margin in (("test_accuracy", "test accuracy", 0.005), ("train_loss", "training loss", 0.01)):
        experiment.claim(
            f"{part}-same-{column.replace('_', '-')}",
            f"{network}: momentum and SGD at lr/(1-beta) end with the same {word}",
            expected=f"within {margin:g} (95 %)",
        )(alike(part, *PAIR, column, margin))
    experiment.claim(
        f"{part}-path",
        f"{network}: momentum and SGD at lr/(1-beta) run on one path",
        expected="mean difference of log training loss within 5 % of SGD's distance to the control (95 %)",
    )(lambda results, part=part: on_one_path(results.select(part), "train_loss", x="epoch"))
    experiment.claim(
        f"{part}-control",
        f"{network}: SGD at lr without momentum ends with the larger training loss",
        expected="above SGD at lr/(1-beta) (95 %)",
        source="control of the recipe",
    )(larger(part, CONTROL, "sgd", "train_loss"))


@experiment.claim(
    "b-accuracy",
    "LeNet-5 with momentum reaches 98.8 % on MNIST's test set in 10 epochs",
    expected=">= 98.8 % (95 % over seeds)",
    source="a target of this project",
)
def b_accuracy(results, args):
    found = 100 * results.select("b", method="momentum").final("test_accuracy")
    if args.data_of("b") != ["mnist"] or args.quick or args.budget(10, 2) != 10:
        raise Undecided(f"it speaks of 10 epochs on all of MNIST; here the accuracy is {spread(found)} %")
    return decided(f"{spread(found)} %", within(found, 98.8))


if __name__ == "__main__":
    experiment.main()
