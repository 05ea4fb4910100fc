"""How much memory does SAGA need on a linear model?   Course task A9; Defazio, Bach & Lacoste-Julien, NIPS 2014.

SAGA keeps the last gradient of every row, n vectors. On a linear model these are multiples of the rows: one number a
row is enough, d times less. Both forms keep the table's mean beside it and take the same steps.

Run time on one core: --quick and --data real some seconds.
"""

from lab import Entry, Experiment, Part, Recipe
from lab.claims import on_every
from lab.figures import look, panels
from problems.tables import memory

import numpy as np

experiment = Experiment(
    __doc__,
    task="A9",
    source="Defazio, Bach & Lacoste-Julien, NIPS 2014",
    parts={
        "a": Part(
            "memory of SAGA's two tables, and that they take the same steps",
            ("diabetes", "breast_cancer"),
            ("abalone", "mushrooms", "a9a", "w8a"),
        ),
        "b": Part("a set whose table of gradients does not fit", real="news20"),
    },
    seeds=1,
)


@experiment.runs
def runs(args):
    for part in "ab":
        for data in args.data_of(part):
            for table in ("scalars", "gradients"):
                run = Recipe(memory, data=data, table=table, steps=1000)
                yield Entry(part, run=run, seeds=[0], data=data, table=table)


@experiment.claim(
    "a-memory",
    "SAGA's table of scalars is d times smaller than its table of gradients, and takes the same steps",
    expected="ratio d of the tables, the rest of the state equal; f after 1,000 steps equal to 1e-12, relative, where "
    "both tables fit",
)
def a_memory(results):
    def judged(name, runs):
        one, two = (runs.select(table=table)[0] for table in ("scalars", "gradients"))
        rest = [run.final["state_bytes"] - run.final["table_bytes"] for run in (one, two)]
        same, holds = "", two.final["table_bytes"] / one.final["table_bytes"] == one.final["dim"] and len({*rest}) == 1
        if two.final["allocated"]:
            apart = np.abs(one.columns["w"][0] - two.columns["w"][0]).max() / np.abs(two.columns["w"][0]).max()
            f = abs(one.final["objective"] / two.final["objective"] - 1)
            same, holds = f", w {apart:.0e} and f {f:.0e} apart", holds and f <= 1e-12
        sizes = [run.final["state_bytes"] / 1e6 for run in (two, one)]
        return f"{sizes[0]:.4g} against {sizes[1]:.3g} MB of state{same}", holds

    return on_every(results.groups("data"), judged)


@experiment.figure(
    "memory.png",
    caption="The whole state that SAGA keeps beside the data: one number a row for a linear model, or n vectors, and "
    "their mean. A hatched bar was computed, not allocated.",
)
def memory_figure(results):
    names = results.values("data")
    figure, ax = panels()
    for i, (table, label) in enumerate((("scalars", "table of scalars"), ("gradients", "table of gradients"))):
        for at, name in enumerate(names):
            run = results.select(data=name, table=table)[0].final
            size = run["state_bytes"] / 1e6
            kind = dict(hatch=None if run["allocated"] else "///", label=None if at else label)
            ax.bar(at + (i - 0.5) * 0.4, size, 0.38, color=look(i)["color"], edgecolor="white", **kind)
            if table == "gradients":
                small = results.select(data=name, table="scalars")[0].final["state_bytes"] / 1e6
                ax.annotate(f"{size / small:.3g} times", (at + 0.2, size), ha="center", va="bottom", fontsize=10)
    data = [run.final["data_bytes"] / 1e6 for run in results.select(table="scalars")]
    ax.plot(np.arange(len(names)), data, "k_", ms=44, mew=2, label="the data X")
    ax.set_yscale("log")
    ax.set_ylim(ax.get_ylim()[0] / 3, ax.get_ylim()[1] * 3)
    ax.set_xticks(range(len(names)), names)
    ax.set_ylabel("megabytes")
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper left")
    return figure


if __name__ == "__main__":
    experiment.main()
