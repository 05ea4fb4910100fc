"""Runs that experiments begin from: made once, and kept in the user's cache."""

from npopt import Events, RandomReshuffling, Stop, checkpoint, identity, minimize
from problems import files


def kept_run(problem, room, name, optimizer, batch, schedule, steps):
    """The Run of so many steps on a problem, batches of `batch` rows, seed 0. It is read from a file of the cache where
    it was made before; what was made by other code, or with other threads, is made anew, and a damaged file, too.

    room, name    of the file: <cache>/<room>/<hash of the problem>-<name>.npz
    """
    path = files.cache() / room / f"{identity.of_problem(problem)}-{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    events = Events(max(1, steps // 12), "step", checkpoint=path)

    def made():
        return minimize(problem, optimizer, RandomReshuffling(batch), schedule, stop=Stop(steps=steps), events=events)

    try:
        return made()
    except checkpoint.Damaged:
        path.unlink()
        return made()
