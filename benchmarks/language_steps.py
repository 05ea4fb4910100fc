"""A full training step of Transformers (forward, loss, backward, AdamW) beside PyTorch on the same cores.

    python benchmarks/language_steps.py --write

encoder     MiniLM's size, 6 layers of 384, 12 heads, 30,522 words, on 16 texts of 64 words, 40 to 64 of them there; one
            of two classes from the first word
GPT         12 layers of 384, 6 heads, 4,096 words, tied, on 8 windows of 256 words

Both sides have the same weights and see the same batch again and again; before they are timed, the losses of two steps
are held to one another. PyTorch's attention is its scaled_dot_product_attention, its AdamW is fused; it runs eagerly,
and the last column is npopt's time as a part of torch.compile's. Peak memory as in nn_cpu.py. With --cpu the
processor's time is taken, best with --threads 1, where others use the machine, too.
"""

import pairs  # isort: skip (before NumPy)
from pairs import Table, arguments, beside_compiled, torch  # isort: skip
from peaks import added, peak  # isort: skip

import functools
import time

import nn
from npopt import AdamW, backend
from problems.encoded import Labelled
from problems.neural import Neural
from problems.tokens import Windows

import numpy as np

FEATURES, RATE, DECAY = 384, 1e-4, 0.01
CASES = {"encoder": (6, 12, 30_522, 64, 16), "GPT": (12, 6, 4_096, 256, 8)}  # layers, heads, words, length, rows
TARGET, MEMORY = 0.85, 1.1


def problem_of(case, rows):
    layers, heads, words, length, _ = CASES[case]
    rng = np.random.default_rng(0)
    if case == "GPT":
        network = nn.gpt2(words, length, FEATURES, layers, heads)
        return Neural(network, Windows(rng.integers(0, words, rows * length + 1), length))
    texts = [rng.integers(0, words, n) for n in rng.integers(40, length + 1, rows)]
    network = nn.bert(words, length, FEATURES, layers, heads, 4 * FEATURES, head=2)
    return Neural(network, Labelled((texts, rng.integers(0, 2, rows)), length))


def ours(case, rows):
    """(a function that makes one step and returns its loss, the problem, x)"""
    problem = problem_of(case, rows)
    x, batch, t = problem.x0(backend.generator(0, "x0")), np.arange(rows), 0
    g, optimizer = np.empty_like(x), AdamW(weight_decay=DECAY)
    optimizer.start(x)

    def step():
        nonlocal t
        problem.begin(t)
        loss = problem.value_and_gradient(x, batch, None, g)
        optimizer.step(x, g, RATE)
        problem.commit()
        t += 1
        return loss

    return step, problem, x.copy()


def model(case):
    """PyTorch's network, its parameters under our segments' names."""
    from torch.nn import functional as F

    layers, heads, words, length, _ = CASES[case]
    causal = case == "GPT"

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.value, self.out = (torch.nn.Linear(FEATURES, FEATURES) for _ in range(4))
            self.up, self.down = torch.nn.Linear(FEATURES, 4 * FEATURES), torch.nn.Linear(4 * FEATURES, FEATURES)
            eps = 1e-5 if causal else 1e-12
            self.attention_norm, self.feed_norm = (torch.nn.LayerNorm(FEATURES, eps) for _ in range(2))

        def attend(self, x, keep):
            parts = (f(x).view(*x.shape[:2], heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
            o = F.scaled_dot_product_attention(*parts, attn_mask=keep, is_causal=causal)
            return self.out(o.transpose(1, 2).reshape(x.shape))

        def feed(self, x):
            return self.down(F.gelu(self.up(x), approximate="tanh" if causal else "none"))

        def forward(self, x, keep):
            if causal:
                x = x + self.attend(self.attention_norm(x), keep)
                return x + self.feed(self.feed_norm(x))
            x = self.attention_norm(x + self.attend(x, keep))
            return self.feed_norm(x + self.feed(x))

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.positions = torch.nn.Embedding(words, FEATURES), torch.nn.Embedding(length, FEATURES)
            self.blocks = torch.nn.ModuleList(Block() for _ in range(layers))
            self.norm = torch.nn.LayerNorm(FEATURES, 1e-5 if causal else 1e-12)
            if not causal:
                self.types, self.pooler = torch.nn.Embedding(2, FEATURES), torch.nn.Linear(FEATURES, FEATURES)
                self.head = torch.nn.Linear(FEATURES, 2)

        def forward(self, ids, keep=None):
            x = self.embed(ids) + self.positions.weight[: ids.shape[1]]
            x = x if causal else self.norm(x + self.types.weight[0])
            for block in self.blocks:
                x = block(x, None if keep is None else keep[:, None, None])
            if causal:
                return F.linear(self.norm(x), self.embed.weight)
            return self.head(torch.tanh(self.pooler(x[:, 0])))

    return Model()


def fill(made, problem, x):
    """Our weights into their model."""
    theirs, kinds = dict(made.named_parameters()), {"W": "weight", "b": "bias", "a": "weight"}
    with torch.no_grad():
        for segment in problem.segments:
            *path, name = (
                segment.name.removeprefix("encoder.").replace("attention.", "").replace("feed.", "").split(".")
            )
            if path[0].startswith("layer"):
                path[:1] = ["blocks", str(int(path[0][5:]) - 1)]
            kind = "bias" if name == "b" else kinds[name]
            theirs.pop(".".join([*path, kind])).copy_(torch.from_numpy(x[segment.slice].reshape(segment.shape)))
    if theirs:
        raise SystemExit(f"no weights for {', '.join(theirs)}")


def theirs(case, problem, x, rows, compiled=False):
    """A function that makes one step of PyTorch and returns its loss."""
    inputs, targets = problem.feed.batch("train", np.arange(rows))
    inputs = [torch.from_numpy(np.ascontiguousarray(a)) for a in (inputs if isinstance(inputs, tuple) else (inputs,))]
    targets = torch.from_numpy(np.ascontiguousarray(targets)).reshape(-1)
    made = model(case)
    fill(made, problem, x)
    optimizer = torch.optim.AdamW(made.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
    forward = torch.compile(made) if compiled else made

    def step():
        optimizer.zero_grad()
        z = forward(*inputs)
        loss = torch.nn.functional.cross_entropy(z.reshape(len(targets), -1), targets)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def alone(side, case, rows):
    """One side's step, without the other's arrays: of theirs the weights are copied, and then ours are let go."""
    if side == "ours":
        return ours(case, rows)[0]
    problem = problem_of(case, rows)
    return theirs(case, problem, problem.x0(backend.generator(0, "x0")), rows)


def main():
    p = arguments(__doc__, rounds=7)
    p.add_argument("--peak", nargs=2, metavar=("SIDE", "CASE"), help="print one side's peak memory, in bytes")
    p.add_argument("--only", default="", help="only cases whose name contains this")
    p.add_argument("--cpu", action="store_true", help="the processor's time instead of the clock's")
    args = p.parse_args()
    backend.threads(args.threads)
    pairs.clock = time.process_time if args.cpu else pairs.clock
    if torch:
        torch.set_num_threads(args.threads)
    if args.peak:
        side, case = args.peak
        print(added(lambda rows: alone(side, case, rows), 2, CASES[case][-1]))
        return
    rival = f"PyTorch {torch.__version__.split('+')[0]}" if torch else "no PyTorch"
    title = f"Training steps of Transformers, float32, {args.threads} threads each, alternated"
    columns = ("peak npopt", f"peak {rival.split()[0]}", "torch.compile")
    table, notes = Table(title + ", processor time" * args.cpu, "npopt", rival, columns), []
    for case, (*_, length, rows) in CASES.items():
        if args.only not in case:
            continue
        mine, problem, x = ours(case, rows)
        other = theirs(case, problem, x, rows) if torch else None
        if other:
            losses = [[step() for _ in range(2)] for step in (mine, other)]
            if not np.allclose(*losses, rtol=1e-4):
                raise SystemExit(f"{case}: the losses of two steps are {losses[0]} and {losses[1]}")
        peaks = [peak(__file__, args.threads, s, case) if torch or s == "ours" else None for s in ("ours", "theirs")]
        memory = [f"{b / 2**20:.0f} MiB" if b else "-" for b in peaks]
        made = functools.partial(theirs, case, problem, x, rows, True)
        compiled = beside_compiled(mine, made, args.rounds) if torch else "-"
        found = table.add(f"{case}, {rows}x{length}", mine, other, args.rounds, *memory, compiled)
        if torch:
            share = f"{peaks[0] / peaks[1]:.2f}" if all(peaks) else "not known"
            notes.append(f"{case}: {found:.2f} (target {TARGET}), memory {share} (target {MEMORY})")
    if torch:
        table.note("Ratios: " + "; ".join(notes) + ".")
    if args.write:
        table.write("language_steps.txt")


if __name__ == "__main__":
    main()
