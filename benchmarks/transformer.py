"""Attention alone, and a Transformer's layer, forward and backward, beside PyTorch on the same cores.

    python benchmarks/transformer.py --write

Attention alone is from q, k and v to dq, dk and dv, in blocks on both sides: PyTorch's is its
scaled_dot_product_attention. The layer is MiniLM's, post-LN, 384 features, 12 heads, 1,536 hidden, on 16 sentences of
64 tokens; PyTorch's is nn.TransformerEncoderLayer, with the same weights. Before they are timed, outputs and gradients
of the two sides are held to one another. With --cpu the processor's time is taken, best with --threads 1, where others
use the machine, too.
"""

import pairs  # isort: skip (before NumPy)
from pairs import Table, arguments, torch  # isort: skip

import time

import nn
from nn import kernels
from nn.kernels.reference_attention import How
from npopt import backend

import numpy as np

SIZES = ((8, 256, 12, 32), (2, 1024, 8, 64), (1, 4096, 8, 64))  # batch, tokens, heads, numbers of a head
BATCH, TOKENS, FEATURES, HEADS, HIDDEN = 16, 64, 384, 12, 1536
TARGET = 0.8


def noise(rng, *shape):
    return rng.standard_normal(shape).astype("float32")


def attention(sizes, causal):
    """(ours, theirs): functions that go forward and backward, and return o, dq, dk, dv."""
    (batch, tokens, heads, width), rng = sizes, np.random.default_rng(0)
    q, k, v, do = (noise(rng, *sizes) for _ in range(4))
    how = How(width**-0.5, causal)

    def mine():
        o, *grads = (backend.empty(q.shape, q.dtype) for _ in range(4))
        lse = backend.empty((batch, heads, tokens), q.dtype)
        kernels.attention(q, k, v, o, lse, how)
        kernels.attention_backward(q, k, v, o, lse, do, (*grads, None, None), how)
        return o, *grads

    if not torch:
        return mine, None
    inputs = [torch.from_numpy(a).transpose(1, 2).requires_grad_() for a in (q, k, v)]
    upstream = torch.from_numpy(do).transpose(1, 2)

    def other():
        o = torch.nn.functional.scaled_dot_product_attention(*inputs, is_causal=causal)
        return [a.detach().transpose(1, 2).numpy() for a in (o, *torch.autograd.grad(o, inputs, upstream))]

    return mine, other


def layer():
    """(ours, theirs): forward and backward of one layer, from x to y, dx and the gradients of all parameters."""
    rng = np.random.default_rng(1)
    network = nn.Network(nn.EncoderLayer(FEATURES, HEADS, HIDDEN, place="post"), (TOKENS, FEATURES))
    x, run = network.x0(rng), nn.Run(True, dx=True)
    g = np.empty_like(x)
    network.bind(x, g)
    a, dy = noise(rng, BATCH, TOKENS, FEATURES), noise(rng, BATCH, TOKENS, FEATURES)

    def mine():
        y, *saved = network.forward(a, run)
        return y, network.backward(dy.copy(), saved.pop(), run)

    if not torch:
        return mine, None
    theirs = torch.nn.TransformerEncoderLayer(FEATURES, HEADS, HIDDEN, 0.0, "gelu", batch_first=True)
    of = {s.name: torch.from_numpy(x[s.slice].reshape(s.shape)) for s in network.segments}
    values = [torch.cat([of[f"attention.{part}.{kind}"] for part in ("query", "key", "value")]) for kind in "Wb"]
    values += [of[f"{name}.{kind}"] for name in ("attention.out", "feed.up", "feed.down") for kind in "Wb"]
    values += [of[f"{name}_norm.{kind}"] for name in ("attention", "feed") for kind in "ab"]
    with torch.no_grad():
        for parameter, value in zip(theirs.parameters(), values, strict=True):
            parameter.copy_(value)
    inputs, upstream = torch.from_numpy(a.copy()).requires_grad_(), torch.from_numpy(dy)

    def other():
        theirs.zero_grad()
        inputs.grad = None
        y = theirs(inputs)
        y.backward(upstream)
        return y.detach().numpy(), inputs.grad.numpy()

    return mine, other


def held(mine, other, what):
    """What the two sides give, to 1e-4 of the largest number: float32 sums in other orders."""
    for a, b in zip(mine(), other(), strict=True):
        if not np.allclose(a, b, rtol=0, atol=1e-4 * np.abs(b).max()):
            raise SystemExit(f"{what}: the two sides differ by {np.abs(a - b).max()}")


def main():
    p = arguments(__doc__, rounds=9)
    p.add_argument("--only", default="", help="only cases whose name contains this")
    p.add_argument("--cpu", action="store_true", help="the processor's time instead of the clock's")
    p.add_argument("--note", default="", help="a sentence on the machine's state, for the table")
    args = p.parse_args()
    backend.threads(args.threads)
    pairs.clock = time.process_time if args.cpu else pairs.clock
    rival = f"PyTorch {torch.__version__.split('+')[0]}" if torch else "no PyTorch"
    if torch:
        torch.set_num_threads(args.threads)
    title = f"Attention and a Transformer's layer, float32, {args.threads} threads each, alternated"
    table, found = Table(title + ", processor time" * args.cpu, "npopt", rival), []
    for sizes in SIZES:
        for causal in (False, True):
            name = f"{'causal ' * causal}attention, {'x'.join(map(str, sizes))}"
            if args.only not in name:
                continue
            mine, other = attention(sizes, causal)
            if other:
                held(mine, other, name)
            found.append(table.add(name, mine, other, args.rounds))
    if args.only in "layer":
        mine, other = layer()
        if other:
            held(mine, other, "layer")
        table.add(f"layer, {BATCH}x{TOKENS}x{FEATURES}", mine, other, args.rounds)
    if torch and found:
        table.note(f"Ratios of attention: {', '.join(f'{ratio:.2f}' for ratio in found)} (target {TARGET}).")
    if args.note:
        table.note(args.note)
    if args.write:
        table.write("transformer.txt")


if __name__ == "__main__":
    main()
