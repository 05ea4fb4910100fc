"""Half of AdamW's state for the same loss: what blocks does Adam-mini need on a small GPT?   Course task B1.

Adam-mini keeps one second moment for each block of weights. Zhang et al. 2024 (arXiv:2406.16793) find in the Hessian of
Transformers a block for each head of queries and keys, and for each row of other matrices, and warn of a block for a
whole matrix. A GPT of two layers of 64 reads Shakespeare's characters, 64 at a time, in batches of 16 with a cosine:
AdamW, and Adam-mini with queries and keys cut by head, by row, and not at all, each at the best of its rates, chosen by
the loss of held-out text. All shrink x by 1 - 5e-5 a step before the cosine.

Predicted: by head as AdamW, within a per cent, with 4 instead of 8 bytes of state a parameter. How many second moments
are left is counted on GPT-2 itself, where the paper's abstract says less than 1 in 1,000. `adam_variants` has the other
relatives of AdamW, on LeNet-5.

Run time on one core: --quick about 5 seconds; --data real --jobs 1 --threads 1 about 10 minutes.
"""

import itertools
import math

from lab import Entry, Experiment, Part, Recipe
from lab.charts import against_rate
from lab.claims import decided, inside, listed, spreads
from lab.figures import below, closer, curves, panels
from lab.methods import arrays
from lab.verdicts import close, lower
from nn.language import gpt2
from npopt import AdamMini, AdamW, Cosine, RandomReshuffling, Stop, backend
from problems.language import gpt

import numpy as np

experiment = Experiment(
    __doc__,
    task="B1",
    source="Zhang et al. 2024, arXiv:2406.16793",
    parts={
        "a": Part("training a small GPT", "chain", "tinyshakespeare"),
        "b": Part("bytes of state, and second moments of GPT-2", "chain", "tinyshakespeare"),
    },
    seeds=3,
)

SHRINK = 5e-5  # of x a step, before the cosine
RATES = (1e-3, 3e-3, 1e-2)
HEADS = 4
BLOCKS = {"by head": HEADS, "by row": None, "whole": 1}  # of queries and keys
GPT2 = dict(words=50_257, length=1024, features=768, layers=12, heads=12)
BY = "validation_loss"


# ---------------------------------------------------------------------------------------------------- own functions
def optimizer_of(method, lr):
    some = dict(b2=0.95, weight_decay=SHRINK / lr)
    return AdamMini(**some, heads=BLOCKS[method]) if method in BLOCKS else AdamW(**some)


def state(seed, events, data, optimizer, **size):
    """Bytes of state a parameter of the small GPT."""
    problem = gpt(data, **size)
    x = problem.x0(backend.generator(seed, "x0"))
    optimizer.start(x, Of(problem))
    return {"bytes": [sum(a.nbytes for _, a in arrays(optimizer.state())) / problem.dim]}


class Of:
    """What an optimizer asks its estimator for."""

    def __init__(self, problem):
        self.problem = problem


def second(seed, events, heads):
    """Second moments that Adam-mini keeps of GPT-2, in parts of its parameters."""
    segments, optimizer = gpt2(**GPT2).segments, AdamMini(heads=heads)
    return {"moments": [sum(math.prod(optimizer.blocks(s)) for s in segments) / segments.dim], "dim": [segments.dim]}


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    size = dict(length=args.pick(64, 16), features=args.pick(64, 32), layers=args.pick(2, 1), heads=HEADS)
    for data, method in itertools.product(args.data_of("a"), ("AdamW", *BLOCKS)):
        for lr in args.pick(RATES, RATES[1:2]):
            problem = Recipe(gpt, data=data, held=args.pick(8000, 1000), **size)
            some = dict(stop=Stop(steps=args.pick(600, 60)), metrics=args.pick(60, 15), per="step")
            yield Entry("a", problem, optimizer_of(method, lr), RandomReshuffling(16), Cosine(lr), method=method, lr=lr,
                        **some)  # fmt: skip
    for data, method in itertools.product(args.data_of("b"), ("AdamW", *BLOCKS)):
        run = Recipe(state, data=data, optimizer=optimizer_of(method, 1e-3), **size)
        yield Entry("b", run=run, seeds=[0], method=method, what="state")
    if args.data_of("b"):
        yield Entry("b", run=Recipe(second, heads=GPT2["heads"]), seeds=[0], method="by head", what="GPT-2")


# ----------------------------------------------------------------------------------------------------------- claims
experiment.claim(
    "a-edge",
    "the rates are wide enough",
    expected="the best rate is inside its grid, always",
    source="tuning of this script",
)(inside("a", BY))


def ends(results, *methods):
    tuned = results.select("a", method=methods).tuned(by=BY)
    return {method: tuned[method].runs.final(BY) for method in methods}


@experiment.claim(
    "a-mini",
    "with blocks by head Adam-mini ends as AdamW does",
    expected="held-out loss within 1 % (95 % of the log); false where they are farther apart",
)
def a_mini(results):
    found = ends(results, "by head", "AdamW")
    return decided(spreads(found), close(*(np.log(v) for v in found.values()), 0.01))


@experiment.claim(
    "a-whole",
    "one block for all heads is worse than one for each",
    expected="held-out loss above (95 % of the log); false where below, or above by less than 0.5 %",
    source="Zhang et al. 2024, section 2",
)
def a_whole(results):
    found = ends(results, "by head", "whole")
    return decided(spreads(found), lower(*(np.log(v) for v in found.values()), np.log(1.005)))


@experiment.claim(
    "b-state",
    "Adam-mini's state is half of AdamW's",
    expected="8 bytes a parameter, and 4 to 4.2 however queries and keys are cut",
    source="definitions of the methods",
)
def b_state(results):
    found = results.select("b", what="state").means("bytes")
    return listed(found), found["AdamW"] == 8 and all(4 <= found[method] <= 4.2 for method in BLOCKS)


@experiment.claim(
    "b-moments",
    "of GPT-2's second moments 99.9 % are done away with",
    expected="second moments / parameters below 1e-3",
    source="Zhang et al. 2024, abstract, of models from 39 M to 13 B",
)
def b_moments(results):
    (run,) = results.select("b", what="GPT-2")
    return f"{run.final['moments']:.3g} of {run.final['dim']:,.0f}", run.final["moments"] < 1e-3


# ---------------------------------------------------------------------------------------------------------- figures
@experiment.figure(
    "gpt.png",
    caption="A small GPT, AdamW and Adam-mini with three kinds of blocks for queries and keys, each at its best rate: "
    "training loss, loss of held-out text, and the latter at the end against the rate (circles: chosen).",
)
def gpt_figure(results):
    some = results.select("a").at_best(by=BY)
    figure, (left, middle, right) = panels(1, 3)
    for ax, column, text in ((left, "train_loss", "training loss"), (middle, BY, "held-out loss")):
        curves(ax, some, column, "step", ylabel=text, legend=False)
        closer(ax, some, column, 0.03, 0.03)
        ax.set_xlim(left=0)
    against_rate(right, results.select("a").tuned(by=BY))
    return below(figure, left, 4)


if __name__ == "__main__":
    experiment.main()
