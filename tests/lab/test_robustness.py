"""Watched classifiers, runs that end with attacks, and answers to pictures."""

from lab import robustness
from npopt import Adversarial, Constant, Events, FreeAdversarial, RandomReshuffling, Replay, Stop, backend, minimize
from npopt.optimizers import Adam
from problems.attacks import FGSM, PGD, attacked

import numpy as np
import pytest

THREADS = 1  # layers of a few numbers: tests/conftest.py

GIVEN = dict(data="digits", network="strided", rows=300, test_rows=40)


def net(**more):
    return robustness.classifier(**GIVEN | dict(eps=0.1) | more)


@pytest.fixture(scope="module")
def natural():
    problem = net()
    run = minimize(
        problem, Adam(), RandomReshuffling(50), 5e-3, stop=Stop(epochs=15), seed=1, events=Events(metrics=15)
    )
    return problem, run


def test_pixels_run_from_0_to_1_and_answers_to_them_are_the_accuracy(natural):
    problem, run = natural
    images, targets = robustness.pixels(problem, np.arange(problem.feed.count("test")))
    assert images.min() == 0 and images.max() == pytest.approx(1, abs=1e-6) and images.shape[1:] == (8, 8)
    right = robustness.answers(problem, run.x, images) == targets
    assert right.mean() == pytest.approx(run.final["test_accuracy"]) and right.mean() > 0.8


def test_what_is_watched_is_fgsm_and_pgd_of_the_rows_tested(natural):
    problem, run = natural
    for name, attack in (("fgsm", FGSM(0.1)), ("pgd", PGD(0.1, None, 10))):
        found = attacked(problem, run.x, attack, rows=problem.tested, seed=problem.seed).robust.mean()
        assert run.final[f"{name}_accuracy"] == found


def test_a_plane_shows_the_natural_answer_in_its_middle_and_fgsm_on_its_axis(natural):
    problem, run = natural
    grid = robustness.plane(problem, run.x, 3, 0.5, 11)
    image, _ = robustness.pixels(problem, [3])
    assert grid[5, 5] == robustness.answers(problem, run.x, image)[0]
    sign = np.sign(attacked(problem, run.x, FGSM(1e-3), rows=[3], keep=True, stop=False).delta).reshape(image.shape)
    for k in (0, 3, 8, 10):
        assert grid[5, k] == robustness.answers(problem, run.x, image + (k - 5) / 10 * sign)[0]
    assert grid.shape == (11, 11) and len(np.unique(grid)) > 1


def test_shares_fall_from_attack_to_attack(natural):
    problem, run = natural
    found = robustness.evaluated(problem, run.x, 0.1, 3, strength=0.2)
    assert list(found) == ["clean", "FGSM", "PGD-50-10", "APGD-CE", "APGD-DLR", "Square"]
    assert found["clean"] >= found["FGSM"] >= found["PGD-50-10"] - 1e-9
    assert found["clean"] >= found["APGD-CE"] >= found["APGD-DLR"] >= found["Square"]
    assert robustness.evaluated(problem, run.x, 1.0, 3, strength=0.2)["Square"] == 0


@pytest.mark.parametrize(
    "method, sampler",
    [(None, RandomReshuffling(50)), (Adversarial(0.1, 0.125), RandomReshuffling(50)),
     (FreeAdversarial(0.1, 50), Replay(RandomReshuffling(50), 2))],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_training_ends_with_attacks_and_resumes(method, sampler, device, tmp_path):
    def run(epochs, name):
        given = dict(method=method, sampler=sampler, schedule=Constant(5e-3), strength=0.05, eps=0.1, epochs=epochs)
        return robustness.trained(2, Events(checkpoint=tmp_path / name), **GIVEN | dict(rows=100, test_rows=20) | given)

    whole, _, parts = run(2, "whole.npz"), run(1, "parts.npz"), run(2, "parts.npz")
    np.testing.assert_array_equal(*(backend.to_host(r.x) for r in (whole, parts)))
    assert len(whole.columns["Square"]) == len(whole.columns["epoch"]) == 3
    assert whole.columns["pgd_accuracy"] == parts.columns["pgd_accuracy"]


def test_curves_have_a_row_for_each_radius(device):
    given = dict(GIVEN, rows=100, test_rows=20, network="LeNet", batch=50, schedule=Constant(5e-3), epochs=3)
    found = robustness.plain(1, Events(None), radii=(0.05, 0.5), queries=10, **given)
    assert found["eps"] == [0.05, 0.5] and len(found) == 2 + 7
    for name in robustness.attacks_of(0.1, 10):
        assert found["clean"][0] + 1e-9 >= found[name][0] >= found[name][1], name
