"""Where the time of a step goes, layer by layer: what --profile prints."""

from lab.progress import Doing
from nn import Profile
from npopt import Events, Stop, minimize
from npopt.errors import UserError

PROFILED = 10  # steps


def profile(script, labelled):
    """Print where the time of a step goes, layer by layer, for every network and batch that the grid trains."""
    seen, networks = {}, 0
    for entry, _ in labelled:
        if entry.problem is None or (repr(entry.problem), repr(entry.sampler)) in seen:
            continue
        problem = entry.problem()
        known = (problem.name, repr(entry.sampler)) in seen.values()
        seen[repr(entry.problem), repr(entry.sampler)] = problem.name, repr(entry.sampler)
        if known or not hasattr(problem, "network"):
            continue
        problem.metrics = lambda x: {}
        given = dict(sampler=entry.sampler, schedule=0.0, events=Events(None))
        with Doing(f"compiling {problem.name}"):
            minimize(problem, entry.optimizer, **given, stop=Stop(steps=2))  # compiled and warm
        with Profile() as found:
            run = minimize(problem, entry.optimizer, **given, stop=Stop(steps=PROFILED))
        step = run.columns["seconds"][-1] / PROFILED * 1e3
        print(f"\n{problem.name}, {entry.sampler}, {entry.optimizer}: {step:.2f} ms a step, clocks included")
        print(found.table(), flush=True)
        networks += 1
    if not networks:
        raise UserError("--profile is for networks, and the chosen parts train none")
