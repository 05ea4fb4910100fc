"""What the scripts on networks compute beside the library: costs, crossings, norms, choices of rates."""

import importlib.util
import pathlib
import sys

from lab import Finished, Results
from nn.networks import resnet18
from npopt import AdamW, HeavyBall, SophiaG, backend

import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "scripts"


def script(name):
    spec = importlib.util.spec_from_file_location(f"script_{name}", FOLDER / f"{name}.py")
    found = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def run(seed=0, x=None, part="a", **tags_and_ends):
    ends = {k: v for k, v in tags_and_ends.items() if k.startswith(("test", "validation"))}
    tags = {k: v for k, v in tags_and_ends.items() if k not in ends}
    columns = {k: np.array([v]) for k, v in ends.items()}
    return Finished(part, tags, seed, {}, columns, ends, 0.0, "steps", x=x)


@pytest.fixture
def small(monkeypatch):
    """adam_variants with a ResNet-18 of width 4: 47,000 parameters."""
    module = script("adam_variants")
    monkeypatch.setattr(module, "resnet18", lambda: resnet18(width=4))
    return module


@pytest.mark.parametrize(
    "optimizer, state, more",
    [(HeavyBall(0.9), 4, 0), (AdamW(), 8, 0), (SophiaG(), 8, 4)],  # Sophia's estimate is a vector like x
    ids=["momentum", "AdamW", "Sophia-G"],
)
def test_peaks_are_the_state_and_what_a_step_holds_beside_it(small, optimizer, state, more):
    found = small.memory(0, None, optimizer)
    assert found["bytes"] == [state] and found["moments"] == [(state - 4) / 4]
    assert state + more <= found["peak"][0] < state + more + 0.3


def test_updates_are_timed_in_turns_without_estimates(small, monkeypatch):
    order = []
    for kind in (AdamW, SophiaG):
        step = kind.step
        monkeypatch.setattr(
            kind, "step", lambda self, *a, step=step: (order.append(type(self).__name__), step(self, *a))
        )
    sampled = []
    monkeypatch.setattr(small.Stand, "sampled", lambda self, x, out, key: sampled.append(1) or 1)
    found = small.steps(0, None, {"one": AdamW(), "two": SophiaG()}, 3)
    assert {name: len(v) for name, v in found.items()} == {"one": 3, "two": 3} and min(found["one"]) > 0
    assert order[2:] == ["AdamW", "SophiaG"] * 3 and len(sampled) == 1  # the one at the start is not timed


def test_gradients_are_timed_where_nothing_may_be_read(small, device):
    backend.use(device)
    found = small.gradients(0, None, "digits", 2, 16, 2)
    assert len(found["gradient"]) == len(found["sampled"]) == 2 and min(found["gradient"]) > 0


@pytest.mark.parametrize("lr", [1e-4, 3e-2])
def test_all_methods_shrink_x_by_the_same_part_a_step(lr):
    """Decoupled: x <- x - lr weight_decay x. L2 with momentum, in the long run: lr l2 / (1 - beta)."""
    for name, methods in (("adam", ("AdamW",)), ("adam_variants", ("AdamW", "Adam-mini", "Adafactor", "Sophia-G"))):
        module = script(name)
        for method in methods:
            optimizer = module.method_of(method, lr)[0] if name == "adam" else module.optimizer_of(method, lr)
            assert lr * optimizer.weight_decay == pytest.approx(5e-5)
    optimizer, l2 = script("adam").method_of("momentum SGD", lr)
    assert lr * l2 / (1 - optimizer.beta) == pytest.approx(5e-5)


def test_a_crossing_lies_on_the_line_over_the_logarithm():
    module = script("resnet18")
    assert module.crossing((100, 10_000), np.array([-1.0, 1.0])) == pytest.approx(1000)
    assert module.crossing((100, 200, 400), np.array([-3.0, -1.0, 1.0])) == pytest.approx(200 * 2**0.5)
    assert np.isnan(module.crossing((100, 200), np.array([1.0, 2.0])))
    assert np.isnan(module.crossing((100, 200), np.array([2.0, -1.0])))


def test_the_long_runs_are_asked_for_at_the_rate_that_held_out_rows_choose():
    module = script("resnet18")
    found = Results(
        run(method="Adam", steps=600, lr=lr, stage="grid", validation_loss=loss)
        for lr, loss in ((1e-4, 0.5), (1e-3, 0.3), (1e-2, 0.4))
    )
    assert module.best_rate(found, "Adam", 600) == 1e-3
    assert module.best_rate(found, "Adam", 2400) is None and module.best_rate(None, "Adam", 600) is None


def test_leads_are_paired_by_seed_and_budget():
    module = script("resnet18")
    ends = {("momentum SGD", 600): (0.5, 0.52), ("momentum SGD", 2400): (0.7, 0.75)}
    ends |= {("Adam", 600): (0.55, 0.5), ("Adam", 2400): (0.6, 0.6)}
    some = Results(
        run(seed, method=method, steps=steps, test_accuracy=v)
        for (method, steps), values in ends.items()
        for seed, v in enumerate(values)
    )
    budgets, apart = module.ahead(some, "momentum SGD", "Adam")
    np.testing.assert_array_equal(budgets, [600, 2400])
    np.testing.assert_allclose(apart, [[-5, 10], [2, 15]])


def test_strengths_are_compared_where_both_leave_x_at_one_norm():
    module, some = script("adam"), Results()
    for seed in range(3):
        for decay, (one, two) in {0.0: (10, 10), 1e-3: (6, 5), 1e-2: (2, 3)}.items():
            for kind, norm in (("L2", one), ("decoupled", two)):
                accuracy = 0.9 + 0.01 * np.log(norm) + (0.02 if kind == "decoupled" else 0) + seed * 1e-5
                x = np.full(4, norm / 2, np.float32)
                some.append(run(seed, x, "c", method=kind, lr=1e-3, decay=decay, test_accuracy=accuracy))
    text, holds = module.c_strength(some)[:2]
    assert "2 ±" in text and holds is False  # the two points are found though no decays have one norm
    norms, accuracy = module.against_norm(some.select(method="L2"))[0]
    np.testing.assert_allclose(np.exp(norms), [2, 6, 10], rtol=1e-6)
    assert accuracy[0] == pytest.approx(100 * (0.9 + 0.01 * np.log(2)))


def test_variance_networks_cuts_stages_and_fits_their_rise():
    module, K, power = script("variance_networks"), 40, 1.7
    step = np.arange(0, 4 * K + 1, 4)
    since = np.where(step > 0, (step - 1) % K + 1, 0)
    columns = {"step": step, "plain_variance": np.full(len(step), 2.0), "variance": 2 * (since / K) ** power}
    some = Finished("v", {"K": K, "lr": 0.1, "method": "SVRG"}, 0, {}, columns, {}, 0.0, "steps")
    cuts = module.stages(some)
    assert len(cuts) == 4 and all(len(at) == 10 and at[-1] == 1 for at, _ in cuts)
    np.testing.assert_allclose(cuts[2][1], cuts[2][0] ** power)
    np.testing.assert_allclose(module.rises([some]), [power])
    np.testing.assert_allclose(module.late([some]), [1 / (power + 1)], rtol=0.01)
    torn = {name: column[:29] for name, column in columns.items()}  # 112 of 160 steps: the third stage is not whole
    torn = Finished("v", some.tags, 0, {}, torn, {}, 0.0, "diverged: the loss is nan")
    assert len(module.stages(torn)) == 2 and np.isnan(module.late([torn])).all()


def test_orders_networks_finds_the_teeth_of_classes_of_unequal_size():
    module, epoch = script("orders_networks"), np.arange(0, 201) / 100
    ends = np.array([0.08, 0.2, 0.31, 0.42, 0.5, 0.6, 0.72, 0.8, 0.9, 1.0])
    last = np.array([0, *ends])
    which = np.searchsorted(ends, (epoch - 1e-9) % 1)
    tooth = np.where(epoch > 1, (ends[which] - (epoch - 1e-9) % 1) / np.diff(last)[which], 7.0)
    run_of = Finished("t", {}, 0, {}, {"epoch": epoch, "loss": tooth}, {}, 0.0, "epochs")
    found = module.teeth(run_of, ends)
    assert found.shape == (10, 2) and np.all(found[:, 0] > 0.6) and np.all(found[:, 1] < 0.25)
    shares = module.borders("digits", 900)
    assert len(shares) == 10 and shares[-1] == 1 and np.ptp(np.diff([0, *shares])) > 0


def test_orders_networks_measures_twice_and_leaves_the_statistics_alone():
    problem = script("orders_networks").network("digits", "resnet", rows=80, test_rows=40)
    x = problem.x0(np.random.default_rng(0))
    problem.begin(0)
    problem.value_and_gradient(x, np.arange(16), None, np.empty_like(x))
    problem.commit()
    before = {name: {k: v.copy() for k, v in kept.items()} for name, kept in problem.network.state().items()}
    found = problem.metrics(x)
    for name, kept in problem.network.state().items():
        for key, value in kept.items():
            np.testing.assert_array_equal(before[name][key], value)
    assert found["last"] == np.mean(problem.outputs(x).argmax(1) == 9)
    assert found["fresh_accuracy"] != found["test_accuracy"]  # after one step the running ones are not there yet
    problem.recalibrate(x, np.arange(problem.metrics_rows))
    assert problem.metrics(x)["test_accuracy"] == found["fresh_accuracy"]


def edged(seed=0, **tags):
    """A run of 100 steps at the rate 0.5 whose lmax, looked at in every fifth row, rises from 1 to 4 = 2/lr by step
    50."""
    step = np.arange(101)
    high = np.where(step % 5 == 0, np.minimum(1 + 3 * step / 50, 4.0), np.nan)
    high[0] = 4.5  # above the edge at first, as networks are at large rates
    cosine = np.where(step < 50, 1.0, -1.0)
    columns = {"step": step, "high": high, "cosine": cosine, "loss": 1 / (1 + step) + 0.001 * (-1.0) ** step}
    return Finished("g", dict(data="d", lr=0.5, edge=4.0) | tags, seed, {}, columns, {}, 0.0, "steps")


def test_training_dynamics_finds_where_runs_reach_their_edge():
    module = script("training_dynamics")
    run = edged()
    assert module.arrival(run) == 50 and module.arrival(run, 0.7) == 30 and module.arrival(run, 2.0) == 100
    assert module.value_at(run, 22.5) == pytest.approx(1 + 3 * 22.5 / 50)
    np.testing.assert_allclose(module.late([run, run], "high"), [4, 4])
    np.testing.assert_allclose(module.late([run], "cosine"), [-1])
    some = Results(edged(seed) for seed in range(3))
    for claim, seen in ((module.g_edge, "1 ± 0"), (module.g_rises, "3.08"), (module.g_zigzag, "1.00 and -1.00")):
        text, holds = claim(some)[:2]
        assert holds is True and seen in text
    assert "rise" in module.g_falls(some)[0]
    text, holds = module.g_path(Results([*some, *(edged(seed, lr=0.25, edge=8.0) for seed in range(3))]))[:2]
    assert holds is False  # the same by steps, so not by time
    slow = [edged(seed, lr=0.25, edge=8.0) for seed in range(3)]
    for run in slow:
        run.columns["step"] = 2 * run.columns["step"]
    assert module.g_path(Results([*some, *slow]))[1] is True
