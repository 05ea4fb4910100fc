"""A full step of a recurrent language model (forward, loss, backward, clipping, SGD) beside PyTorch on the same cores.

    python benchmarks/recurrent.py --write

10,000 words, windows of 35 in 20 streams, no dropout, gradients clipped to a norm of 5: the medium and the small model
of Zaremba, Sutskever & Vinyals, arXiv:1409.2329, and their recurrent layers alone (forward and backward, gradients of
inputs and parameters). Both sides have the same weights and see the same batch again and again; before it is timed, the
losses of two steps are held to one another. PyTorch's nn.LSTM runs eagerly; the last column is npopt's time as a part
of torch.compile's. With --cpu the processor's time is taken, best with --threads 1, where others use
the machine, too.
"""

import pairs  # isort: skip (before NumPy)
from pairs import Table, alternate, arguments, torch  # isort: skip

import time

import nn
from npopt import SGD, Batch, Clipped, backend
from problems.neural import Neural
from problems.tokens import Windows

import numpy as np

WORDS, LENGTH, STREAMS, RATE, BOUND = 10_000, 35, 20, 1.0, 5.0
KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU}


def ours(kind, units):
    """(a function that makes one step and returns its loss, the network, x, inputs and targets)"""
    text = np.random.default_rng(0).integers(0, WORDS, STREAMS * LENGTH + 1)
    network = nn.language_model(WORDS, LENGTH, units, kind=KINDS[kind], streams=STREAMS)
    problem = Neural(network, Windows(text, LENGTH))
    x = problem.x0(backend.generator(0, "x0"))
    estimator, optimizer, batch, t = Clipped(BOUND), SGD(), Batch(np.arange(STREAMS)), 0
    g = estimator.start(problem, x, 0)
    optimizer.start(x, estimator)

    def step():
        nonlocal t
        problem.begin(t)
        loss = estimator(x, batch, out=g)
        optimizer.step(x, g, RATE)
        problem.commit()
        t += 1
        return loss

    return step, network, x.copy(), problem.feed.batch("train", batch.rows)


def model(kind, units):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(WORDS, units)
            self.rnn = getattr(torch.nn, kind)(units, units, 2, batch_first=True)
            self.head = torch.nn.Linear(units, WORDS)

        def forward(self, words, state):
            h, state = self.rnn(self.embed(words), state)
            return self.head(h), state

    return Model()


def fill(theirs, network, x):
    """Our weights into their model: the biases of PyTorch that we do not have are 0."""
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.zero_()
        for segment in network.segments:
            layer, name = segment.name.split(".")
            value = torch.from_numpy(x[segment.slice].reshape(segment.shape))
            if layer in ("embed", "head"):
                getattr(getattr(theirs, layer), {"W": "weight", "b": "bias"}[name]).copy_(value)
                continue
            k = int(layer[-1]) - 1
            if name == "bu":
                getattr(theirs.rnn, f"bias_hh_l{k}")[-value.numel() :].copy_(value)
            else:
                getattr(theirs.rnn, f"{ {'W': 'weight_ih', 'U': 'weight_hh', 'b': 'bias_ih'}[name] }_l{k}").copy_(value)


def theirs(kind, units, network, x, rows, compiled=False):
    """A function that makes one step of PyTorch and returns its loss."""
    words, targets = (torch.from_numpy(np.ascontiguousarray(a)) for a in rows)
    made = model(kind, units)
    fill(made, network, x)
    optimizer = torch.optim.SGD(made.parameters(), lr=RATE, fused=True)
    zero = torch.zeros(2, STREAMS, units)
    state = (zero, zero.clone()) if kind == "LSTM" else zero
    forward = torch.compile(made) if compiled else made

    def step():
        optimizer.zero_grad()
        z, _ = forward(words, state)  # the same batch again and again begins at zero on both sides
        loss = torch.nn.functional.cross_entropy(z.reshape(-1, WORDS), targets.reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), BOUND)
        optimizer.step()
        return float(loss.detach())

    return step


def layers(kind, units):
    """(ours, theirs): forward and backward of two recurrent layers."""
    rng = np.random.default_rng(1)
    network = nn.Network(nn.Sequential(*(KINDS[kind](units, units) for _ in "12")), (LENGTH, units))
    x, run = network.x0(rng), nn.Run(True, dx=True)
    g = np.empty_like(x)
    network.bind(x, g)
    a, dy = (rng.standard_normal((STREAMS, LENGTH, units)).astype("float32") for _ in "ad")

    def mine():
        _, *saved = network.forward(a, run)
        network.backward(dy.copy(), saved.pop(), run)

    if not torch:
        return mine, None
    rnn = getattr(torch.nn, kind)(units, units, 2, batch_first=True)
    inputs, upstream = torch.from_numpy(a.copy()).requires_grad_(), torch.from_numpy(dy)

    def other():
        rnn.zero_grad()
        inputs.grad = None
        rnn(inputs)[0].backward(upstream)

    return mine, other


def held(mine, other, what):
    """Two losses of each side, to 1e-4: float32 sums in other orders."""
    a, b = ([step() for _ in range(2)] for step in (mine, other))
    if not np.allclose(a, b, rtol=1e-4):
        raise SystemExit(f"{what}: the losses of two steps are {a} and {b}")


def main():
    p = arguments(__doc__, rounds=9)
    p.add_argument("--only", default="", help="only cases whose name contains this")
    p.add_argument("--cpu", action="store_true", help="the processor's time instead of the clock's")
    p.add_argument("--note", default="", help="a sentence on the machine's state, for the table")
    args = p.parse_args()
    backend.threads(args.threads)
    pairs.clock = time.process_time if args.cpu else pairs.clock
    if torch:
        torch.set_num_threads(args.threads)
    rival = f"PyTorch {torch.__version__.split('+')[0]}" if torch else "no PyTorch"
    table = Table(
        f"Language models, batch {STREAMS}, {LENGTH} times, float32, {args.threads} threads each, alternated"
        + ", processor time" * args.cpu,
        "npopt",
        rival,
        ("torch.compile",),
    )
    notes = []
    for kind, units in (("LSTM", 650), ("LSTM", 200), ("GRU", 200)):
        name = f"{kind}, 2 x {units} units"
        if args.only not in name:
            continue
        mine, network, x, rows = ours(kind, units)
        other, compiled = None, "-"
        if torch:
            other = theirs(kind, units, network, x, rows)
            held(mine, other, name)
            try:
                fast = theirs(kind, units, network, x, rows, compiled=True)
                a, b = alternate(mine, fast, max(3, args.rounds // 2))
                compiled = f"{np.median(a / b):.2f}"
            except Exception as error:  # no compiler for it, or one that it does not know
                compiled = type(error).__name__
        found = table.add(f"{name}, step", mine, other, args.rounds, compiled)
        table.add(f"{name}, layers alone", *layers(kind, units), args.rounds, "-")
        notes.append(f"{name}: {found:.2f}")
    if torch:
        table.note(f"Ratios of steps: {'; '.join(notes)} (target 0.9).")
    if args.note:
        table.note(args.note)
    if args.write:
        table.write("recurrent.txt")


if __name__ == "__main__":
    main()
