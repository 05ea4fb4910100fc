"""What methods that save memory cost in time: beside AdamW on the whole network, and beside a dense layer.

    python benchmarks/memory.py --write

A row is a pair in one process, on the same arrays. `method` times a whole training step (forward, backward, update) and
the update alone, both amortised: a subspace is renewed in one step of `period`, so that step is timed by itself and
counts with 1 / period. The bar is for the training step, as the 17 % of Zhao et al. (arXiv:2403.03507) are. `layer`
times forward and backward with dx and all gradients. `blocks` times training steps that move some blocks alone, beside
what arithmetic allows. A further method is a line of METHODS, a further layer one of LAYERS. With --cpu the processor's
time is taken, best with --threads 1, where others use the machine, too.
"""

import pairs  # isort: skip (before NumPy)
from pairs import Table, alternate, arguments, timed, unit  # isort: skip (before NumPy)

import copy
import time

import nn
from nn.language import llama
from npopt import AdamW, Batch, BlockGradient, Blockwise, Flora, GaLore, GoLore, Minibatch, backend
from npopt.projectors import RangeFinder
from problems import Neural
from problems.tokens import Windows

import numpy as np

SIZE = dict(words=512, length=128, features=256, layers=4, heads=8)
RANK, PERIOD, ROWS = 64, 200, 4  # a quarter of the features, as in the paper; windows in a batch
METHODS = {  # name: (optimizer, how often its long step comes, most that a training step may take of AdamW's)
    "GaLore": (GaLore(RANK, PERIOD), PERIOD, 1.15),
    "GaLore, range finder": (GaLore(RANK, PERIOD, projector=RangeFinder()), PERIOD, 1.15),
    "GoLore, random": (GoLore(RANK, PERIOD), PERIOD, 1.15),
    "Flora": (Flora(RANK, PERIOD), PERIOD, None),
}
LAYERS = {  # name: (layer, Linear in its place, most that it may take of it)
    "SLTrain 512 x 512, 10 %": (lambda: nn.SLTrain(512, 512, 128, density=0.1, bias=False), (512, 512), 1.3),
    "SLTrain 512 x 512, 3 %": (lambda: nn.SLTrain(512, 512, 128, density=0.03, bias=False), (512, 512), 1.3),
    "SLTrain 512 x 1376, 10 %": (lambda: nn.SLTrain(512, 1376, 128, density=0.1, bias=False), (512, 1376), 1.3),
    "LoRA 512 x 512, rank 128": (lambda: nn.LoRA(512, 512, 128, bias=False), (512, 512), None),
    "W = BA 512 x 512, rank 128": (lambda: nn.LowRank(512, 512, 128, bias=False), (512, 512), None),
}
TOKENS = 2048  # rows of a layer's input


class Training:
    """A network, its rows and a gradient; steps of any method on it."""

    def __init__(self, estimator=None):
        rng = np.random.default_rng(0)
        self.problem = Neural(llama(**SIZE), Windows(rng.integers(0, SIZE["words"], 10_000), SIZE["length"]))
        self.x, self.estimator = self.problem.x0(backend.generator(0, "x0")), estimator or Minibatch()
        self.g, self.batch = self.estimator.start(self.problem, self.x, 0), Batch(np.arange(ROWS))
        self.estimator(self.x, self.batch, out=self.g)

    def gradient(self):
        self.problem.begin(0)
        self.estimator(self.x, self.batch, out=self.g)
        self.problem.commit()

    def update(self, optimizer, long=False):
        """A function that takes one step, an ordinary one or the long one."""
        optimizer = copy.deepcopy(optimizer)
        optimizer.start(self.x, self.estimator)
        optimizer.step(self.x, self.g, 1e-9)  # the first is the long one

        def step():
            optimizer.t = 0 if long else 1
            optimizer.step(self.x, self.g, 1e-9)

        return step, optimizer.bytes() / self.x.size

    def whole(self, step):
        def both():
            self.gradient()
            step()

        return both


def methods(table, args):
    training = Training()
    adamw, _ = training.update(AdamW())
    for name, (optimizer, period, bar) in METHODS.items():
        short, size = training.update(optimizer)
        long, _ = training.update(optimizer, long=True)
        more = max(np.median([timed(long, 1) for _ in range(5)]) - np.median([timed(short, 1) for _ in range(5)]), 0.0)
        for what, ours, theirs, most in (
            ("training", training.whole(short), training.whole(adamw), bar),
            ("update alone", short, adamw, None),
        ):
            a, b = alternate(ours, theirs, args.rounds)
            row(table, f"{name}, {what}", a + more / period, b, most, f"{size:.2f}")
        table.note(f"{name}: the long step takes {unit(more)} more, once in {period}")


def blocks(table, args):
    """BAdam with one layer at hand, each in turn, and LISA with the lowest or the highest two, after AdamW on all."""
    whole = Training()
    adamw = whole.whole(whole.update(AdamW())[0])
    names = whole.problem.segments.blocks
    layers = [name for name in names if "layer" in name]
    around = [name for name in names if name not in layers]
    cases = {f"BAdam, layer {i + 1}": (around, [name]) for i, name in enumerate(layers)}
    cases |= {"LISA, the lowest two": ([], layers[:2]), "LISA, the highest two": ([], layers[-2:])}
    for name, (never, chosen) in cases.items():
        held = [*never, *(layer for layer in layers if layer not in chosen)]
        always = [] if never else around
        some = Training(BlockGradient(1_000_000, "ascending", len(chosen), always, held))
        some.gradient()
        step = some.whole(some.update(Blockwise(AdamW()))[0])
        a, b = alternate(step, adamw, args.rounds)
        row(table, name, a, b, None, f"{share(whole.problem.segments, names, [*always, *chosen]):.2f}")


def share(table, names, moved):
    """Products of a step that moves some blocks, in parts of those of a whole step, attention's own left out: a matrix
    counts once on the way up, once on the way back to what is below it, and once for its gradient. A table of words
    has none."""
    sizes = {name: sum(s.size for s in table if s.block == name and len(s.shape) == 2) for name in names}
    sizes[names[0]] = 0
    lowest = min(names.index(name) for name in moved)
    back = sum(sizes[name] for name in names[lowest:])
    return (sum(sizes.values()) + back + sum(sizes[name] for name in moved)) / (3 * sum(sizes.values()))


def layers(table, args):
    rng = np.random.default_rng(0)
    for name, (make, (inputs, outputs), bar) in LAYERS.items():
        passes = [both_ways(layer, inputs, outputs, rng) for layer in (make(), nn.Linear(inputs, outputs, bias=False))]
        a, b = alternate(*passes, args.rounds)
        count = nn.Network(make(), (inputs,)).dim / (inputs * outputs)
        row(table, name, a, b, bar, f"{count:.2f}")


def both_ways(layer, inputs, outputs, rng):
    """A function that goes forward and backward through a layer."""
    network = nn.Network(layer, (inputs,))
    x = network.x0(rng)
    network.bind(x, np.empty_like(x))
    a, dy = (rng.standard_normal((TOKENS, n)).astype("float32") for n in (inputs, outputs))
    run = nn.Run(training=True, backward=True, dx=True)

    def both():
        _, saved = network.forward(a, run)
        network.backward(dy, saved, run)

    return both


def row(table, name, a, b, bar, more):
    """A line of the table out of seconds of both sides."""
    ratio = float(np.median(a / b))
    low, high = np.percentile(a / b, (25, 75))
    verdict = "-" if bar is None else f"{bar:g}: {'met' if ratio <= bar else 'NOT met'}"
    cells = f"{name:34}{unit(np.median(a)):>12}{unit(np.median(b)):>16}{ratio:>9.2f}{f'{low:.2f}-{high:.2f}':>16}"
    table.lines.append(f"{cells}{more:>16}{verdict:>16}")
    print(table.lines[-1], flush=True)


PARTS = {
    "methods": (methods, f"Beside AdamW, a Llama of {SIZE['layers']} layers of {SIZE['features']}", "state B/param"),
    "blocks": (blocks, f"Some blocks alone, a Llama of {SIZE['layers']} layers of {SIZE['features']}", "by products"),
    "layers": (layers, f"Layers on {TOKENS} rows, forward and backward, beside Linear", "parameters"),
}


def main():
    args = arguments(__doc__, rounds=9)
    args.add_argument("--only", default=",".join(PARTS), help="some of %(default)s")
    args.add_argument("--cpu", action="store_true", help="take the processor's time of all threads")
    args = args.parse_args()
    backend.threads(args.threads)
    if args.cpu:
        pairs.clock = time.process_time
    lines = []
    for name in args.only.split(","):
        function, title, column = PARTS[name]
        table = Table(
            f"{title}, float32, {args.threads} thread(s){', processor time' * args.cpu}",
            "npopt",
            "beside",
            (column, "at most"),
        )
        function(table, args)
        lines += [*table.lines, ""]
    if args.write:
        table.lines = lines[:-1]
        table.write("memory.txt")


if __name__ == "__main__":
    main()
