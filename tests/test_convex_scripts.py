"""What the convex scripts compute beside the library: problems, fits, the yardstick."""

import importlib.util
import pathlib
import sys

from lab import Finished, Results
from npopt import Events, Stop, backend, minimize

import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "scripts"


def script(name):
    spec = importlib.util.spec_from_file_location(f"script_{name}", FOLDER / f"{name}.py")
    found = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def finished(name, columns, seed=0, n=100):
    columns = {k: np.asarray(v, float) for k, v in columns.items()}
    final = {k: v[-1] for k, v in columns.items()}
    return Finished("a", {"method": name}, seed, {"n": n}, columns, final, 1.0, "steps")


@pytest.mark.parametrize(
    "name, build, arguments",
    [
        ("variance_reduction", "linear", dict(data="diabetes", at_minimum=True, logs=("sigma",))),
        ("variance_reduction", "linear", dict(data="breast_cancer", strength=0.01)),
        ("anderson_windows", "smooth", dict(data="breast_cancer", bound=0.3)),
        ("anderson", "smooth", dict(data="breast_cancer", wide=True)),
        ("sampling", "lasso", dict(data="diabetes")),
        ("importance", "logistic", dict(data="breast_cancer", lengths="log-normal", rows=100, logs=("error",))),
    ],
)
def test_problems_run_where_nothing_may_be_read(name, build, arguments, device):
    found, module = [], script(name)
    from npopt import FISTA, RandomReshuffling

    for where in (device, "cpu"):
        backend.use(where)
        run = minimize(
            getattr(module, build)(**arguments),
            FISTA(),
            RandomReshuffling(16),
            1e-3,
            stop=Stop(steps=3),
            events=Events(1, "step"),
        )
        found.append(run)
    for column in found[0].columns:
        if column != "seconds":
            np.testing.assert_allclose(found[0].columns[column], found[1].columns[column], rtol=1e-9, atol=1e-12)


def test_variance_reduction_fits_a_line_through_the_mean_log_gap():
    module = script("variance_reduction")
    t = np.arange(0, 40, 0.25)
    runs = Results(
        finished("x", {"passes": t, "gap": np.exp(-0.7 * t + wiggle * np.sin(t))}, seed)
        for seed, wiggle in enumerate((0.5, -0.5))
    )
    rate, r2 = module.line(runs)
    assert rate == pytest.approx(0.7, rel=1e-6) and r2 > 0.999999
    assert np.isnan(module.line(Results([finished("x", {"passes": t, "gap": np.ones_like(t)})]))[0])


def test_variance_reduction_cuts_stages_of_two_passes():
    module = script("variance_reduction")
    step = np.arange(0, 801, 25)  # n = 100: a stage is 200 steps, eight rows
    v = 1e-3 ** (step // 200) * (1 + step % 200)
    stages = module.by_stage(finished("SVRG", {"step": step, "variance": v + 1e-40}))
    assert len(stages) == 4 and all(len(s) == 8 for s in stages)


def test_memory_of_the_two_tables():
    module = script("saga_memory")
    one, two = (module.memory("diabetes", table, 40, 0, None) for table in ("scalars", "gradients"))
    assert two["table_bytes"][0] == 10 * one["table_bytes"][0] == 10 * 8 * 354
    assert [v["state_bytes"][0] - v["table_bytes"][0] for v in (one, two)] == [80, 80]  # the mean, like w
    np.testing.assert_allclose(one["w"][0], two["w"][0], rtol=1e-11)


def test_the_yardstick_of_anderson_reaches_the_target():
    module = script("anderson")
    columns = module.lbfgs("diabetes", 0, None)
    assert columns["gap"][-1] <= module.TARGET < columns["gap"][-2] and len(set(map(len, columns.values()))) == 1
    assert np.all(np.diff(columns["seconds"]) > 0) and columns["gradients"][-1] >= 354 * columns["step"][-1]


def test_windowed_counts_the_bytes_of_the_state():
    columns = script("anderson_windows").windowed("diabetes", 3, 0, None)
    assert columns["bytes_of_state"][-1] == 2 * 4 * 10 * 8 and columns["gap"][-1] <= 1e-7


def test_sampling_gain_at_zero_is_that_of_the_row_norms():
    found = script("importance").gains("breast_cancer", "log-normal", 0, None)
    assert found["by_L_at_0"][0] == pytest.approx(1, rel=1e-9)  # p_i prop. to L_i gains nothing there
    assert found["at_0"][0] == pytest.approx(found["predicted"][0], rel=1e-10) and found["predicted"][0] > 1.5


def test_the_kinked_functions_derivative_is_continuous_where_the_paper_has_it(device):
    module = script("anderson_windows")
    problem = module.Kinked(2.0)
    g = backend.zeros((1,), np.float64)
    for v, expected in ((-3.0, -25.2), (-0.5, -12.5), (0.5, 12.5), (1.0, 25.0), (3.0, 25.2)):
        value = problem.value_and_gradient(backend.asarray(np.array([v])), out=g)
        up, down = (problem.value_and_gradient(backend.asarray(np.array([v + h]))) for h in (1e-6, -1e-6))
        assert backend.to_host(g)[0] == pytest.approx(expected)
        assert (up - down) / 2e-6 == pytest.approx(expected, rel=1e-6) and value > 0
