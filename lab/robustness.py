"""Networks under attack, for the Recipes of scripts: classifiers on pixels from 0 to 1, watched while they train; runs
that end with strong attacks; answers to pictures."""

import nn
from npopt import Adam, RandomReshuffling, Stop, backend, minimize
from problems.attacks import APGD, FGSM, PGD, Ensemble, LogitMargin, LogitRatio, Square, attacked
from problems.classifiers import between
from problems.datasets import shared
from problems.feeds import Images
from problems.neural import Neural

import numpy as np

NETWORKS = {"LeNet": nn.lenet5, "strided": nn.strided}
STRONG = "PGD-50-10"
ENSEMBLE = ("APGD-CE", "APGD-DLR", "Square")


class Watched(Neural):
    """A network that is attacked while it trains: metrics fgsm_accuracy and pgd_accuracy (PGD-10, one start) on the
    test rows `tested`, (n,) row numbers; `eps` in units of the image."""

    eps, tested = 0.3, None

    def metrics(self, x):
        rows = self.tested
        attacks = {"fgsm": FGSM(self.eps), "pgd": PGD(self.eps, None, 10)}
        return super().metrics(x) | {
            f"{name}_accuracy": float(attacked(self, x, attack, rows=rows, seed=self.seed).robust.mean())
            for name, attack in attacks.items()
        }

    def ingredients(self):
        return super().ingredients() | {"eps": self.eps, "tested": self.tested}


def classifier(data, network, rows=None, test_rows=200, eps=0.3):
    """A network of NETWORKS on a set of images with pixels from 0 to 1, watched on test_rows of its test rows, drawn at
    random, the same for all seeds."""
    d = between(shared(data, rows=rows), 0.0, 1.0)
    build = NETWORKS[network](classes=len(d.classes), input_shape=d.x_train.shape[1:])
    problem = Watched(build, Images(d), metrics_rows=min(2000, len(d.y_train)))
    problem.eps = eps
    problem.tested = np.random.default_rng(0).permutation(len(d.y_test))[:test_rows]
    return problem


def scaled(number, strength):
    return max(1, round(number * strength))


def evaluated(problem, x, eps, seed, strength=1.0):
    """{attack: share of the rows problem.tested that withstand it}: clean; FGSM; PGD-50-10, with steps of eps / 30, as
    0.01 for 0.3; the ensemble's attacks, each with those before it: APGD with 100 steps, Square with 1,000 queries.

    strength   a factor of steps, restarts and queries
    """
    rows = problem.tested
    steps, restarts = scaled(50, strength), scaled(10, strength)
    attacks = {"FGSM": FGSM(eps), STRONG: PGD(eps, eps / 30 / min(1, strength), steps, restarts=restarts)}
    found = {name: attacked(problem, x, attack, rows=rows, seed=seed) for name, attack in attacks.items()}
    shares = {"clean": found["FGSM"].right.mean()} | {name: one.robust.mean() for name, one in found.items()}
    steps, queries = max(2, scaled(100, strength)), max(2, scaled(1000, strength))
    for name, attack in zip(ENSEMBLE, Ensemble.small(eps, steps, queries).attacks, strict=True):
        one = attacked(problem, x, attack, rows=rows, seed=seed)
        rows = one.rows[one.robust]
        shares[name] = len(rows) / len(problem.tested)
        if not len(rows):
            break
    return {name: float(shares.get(name, 0.0)) for name in ("clean", *attacks, *ENSEMBLE)}


def trained(seed, events, *, data, network, method, sampler, schedule, epochs, eps, rows, test_rows, strength):
    """Train a watched classifier with Adam, then attack rows of its test: columns of `evaluated`, equal in all rows."""
    problem = classifier(data, network, rows, test_rows, eps)
    run = minimize(problem, Adam(), sampler, schedule, method, stop=Stop(epochs=epochs), seed=seed, events=events)
    if run.diverged or run.reason == "interrupted":
        return run
    for name, value in evaluated(problem, run.x, eps, seed, strength).items():
        run.columns[name] = [value] * len(run.columns["epoch"])
    return run


def attacks_of(eps, queries):
    """{name: attack} for curves against eps; PGD's steps are 2.5 eps / K."""
    return {
        "FGSM": FGSM(eps),
        "PGD-10": PGD(eps, None, 10),
        "PGD-40": PGD(eps, None, 40),
        "PGD-40, margin": PGD(eps, None, 40, loss=LogitMargin()),
        "APGD-CE, 40": APGD(eps, 40),
        "APGD-DLR, 40": APGD(eps, 40, loss=LogitRatio()),
        f"Square, {queries}": Square(eps, queries),
    }


def plain(seed, events, *, data, network, batch, schedule, epochs, radii, rows, test_rows, queries):
    """Train a classifier on natural images; columns with its accuracy under each attack, a row for each of `radii`."""
    problem = classifier(data, network, rows, test_rows)
    run = minimize(
        problem, Adam(), RandomReshuffling(batch), schedule, stop=Stop(epochs=epochs), seed=seed, events=events
    )
    if run.diverged or run.reason == "interrupted":
        return run
    columns = {"eps": list(radii), "clean": []}
    for eps in radii:
        found = {
            name: attacked(problem, run.x, attack, rows=problem.tested, seed=seed)
            for name, attack in attacks_of(eps, queries).items()
        }
        columns["clean"].append(float(found["FGSM"].right.mean()))
        for name, one in found.items():
            columns.setdefault(name, []).append(float(one.robust.mean()))
    return columns


# ------------------------------------------------------------------------------------------------------------ pictures


def answers(problem, x, images):
    """Classes of images with pixels from 0 to 1, (B, ...), on the host."""
    low, _, unit = problem.box()
    inputs = low + unit * backend.asarray(images.reshape(-1, *problem.network.input_shape), problem.dtype)
    return backend.to_host(problem.scores(x, inputs).argmax(axis=1))


def pixels(problem, rows):
    """Test images (B, H, W), pixels from 0 to 1, and their classes, on the host."""
    low, _, unit = problem.box()
    inputs, targets = problem.pairs("test", rows)
    shape = problem.image_shape()[:2]
    return backend.to_host((inputs - low) / unit).reshape(len(rows), *shape), backend.to_host(targets)


def plane(problem, x, row, span, count, seed=0):
    """(count, count) classes around a test image: across, span times the sign of its gradient; up, span times random
    signs. Pixels are not cut, so the plane is flat."""
    image, _ = pixels(problem, [row])
    first = attacked(problem, x, FGSM(1e-3), rows=[row], keep=True, stop=False).delta.reshape(image.shape)
    second = np.sign(backend.generator(seed, "plane").standard_normal(image.shape))
    grid = np.linspace(-span, span, count)
    points = [image + a * np.sign(first) + b * second for b in grid for a in grid]
    return answers(problem, x, np.concatenate(points)).reshape(count, count)
