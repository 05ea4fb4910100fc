"""Attention and norms along rows on a GPU, beside PyTorch's and the card's limits; or what published figures allow.

    python benchmarks/gpu_attention.py --write          (no card is needed: a table that is computed)

benchmarks/nn_gpu.py times them where there is a card.
"""

import gpu_tools as tools
from gpu_tools import Report, noise, products

from pairs import RESULTS, arguments, torch, unit  # isort: skip (before NumPy)

from nn import kernels
from nn.kernels.reference_attention import How
from npopt import backend

SIZES = ((16, 256, 12, 64), (8, 1024, 12, 64), (2, 4096, 12, 64), (2, 4096, 6, 128))  # batch, tokens, heads, numbers
ROWS = ((16384, 384), (16384, 768), (4096, 4096))
# of an H100 SXM, as NVIDIA's data sheet has them without sparsity: bytes and operations a second
MEMORY, SPEEDS = 3.35e12, {"float32": 66.9e12, "TF32": 494.7e12, "float16": 989.4e12}
USUAL = 0.35  # of the tensor cores' speed that FlashAttention-2 reaches on an H100: Shah et al., arXiv:2407.08608


def counts(sizes, causal, item):
    """{pass: (operations, bytes)} of attention: products of pairs that see each other, arrays once."""
    batch, tokens, heads, width = sizes
    pairs = batch * heads * tokens * ((tokens + 1) / 2 if causal else tokens)
    array, statistic = batch * tokens * heads * width * item, 4 * batch * tokens * heads
    # forward reads q, k, v; backward q, k, v twice, do twice, o once: dq, then dk and dv
    return {
        "forward": (4 * pairs * width, 4 * array + statistic),
        "backward": (14 * pairs * width, 12 * array + 4 * statistic),
    }


def label(sizes, causal):
    batch, tokens, heads, width = sizes
    return f"{batch} x {tokens} tokens, {heads} x {width}{', causal' if causal else ''}"


def computed(report):
    """What published figures of an H100 allow: the longer of the times that bytes and that operations take."""
    report.add(
        "", f"Figures: {MEMORY / 1e12:.2f} TB/s; " + ", ".join(f"{k} {v / 1e12:.0f}T" for k, v in SPEEDS.items())
    )
    report.heading("Attention, computed", "", "pass", "GFLOP", *SPEEDS)
    for sizes in SIZES:
        for causal in (False, True):
            for name in ("forward", "backward"):
                cells = []
                for kind, speed in SPEEDS.items():
                    work, size = counts(sizes, causal, 2 if kind == "float16" else 4)[name]
                    reached = speed if kind == "float32" else speed * USUAL
                    by_bytes = size / MEMORY > work / reached
                    cells.append(unit(max(work / reached, size / MEMORY)) + "*" * by_bytes)
                work = counts(sizes, causal, 4)[name][0]
                report.row(label(sizes, causal), name, f"{work / 1e9:.1f}", *cells)
    report.add("", f"TF32 and float16 at {USUAL:.0%} of the figures, FlashAttention-2's share. *: bytes take longer.")
    report.heading("Layer norm, computed", "", "pass", "float32", "float16")
    for n, d in ROWS:
        for name, arrays in (("forward", 2), ("backward", 3)):
            report.row(f"{n} x {d}", name, *(unit(arrays * n * d * item / MEMORY) for item in (4, 2)))


def attention(report):
    """Times on the device in use; a pass's operations are those that `counts` has."""
    report.heading("Attention", "", "forward", "TFLOP/s", "/ PyTorch", "with backward", "TFLOP/s", "/ PyTorch")
    for sizes in SIZES:
        for causal in (False, True):
            for kind in SPEEDS:
                products("float32" if kind == "float32" else "tf32")
                item, cells = 2 if kind == "float16" else 4, []
                work = {name: found[0] for name, found in counts(sizes, causal, item).items()}
                mine, others = ours(sizes, causal, kind), theirs(sizes, causal, kind)
                for part, operations in (("forward", work["forward"]), ("both", sum(work.values()))):
                    seconds = tools.best(mine[part], 3)
                    rival = tools.best(others[part], 3) if others else None
                    ratio = f"{seconds / rival:.2f}" if rival else "-"
                    cells += [unit(seconds), f"{operations / seconds / 1e12:.1f}", ratio]
                report.row(f"{label(sizes, causal)}, {kind}", *cells)
    products("float32")


def ours(sizes, causal, kind):
    """{part: function} of the kernels."""
    dtype = "float16" if kind == "float16" else "float32"
    (batch, tokens, heads, _), how = sizes, How(sizes[3] ** -0.5, causal)
    q, k, v, do = (noise(*sizes).astype(dtype) for _ in range(4))
    o, *grads = (backend.empty(sizes, dtype) for _ in range(4))
    lse = backend.empty((batch, heads, tokens), "float32")

    def forward():
        kernels.attention(q, k, v, o, lse, how)

    def both():
        forward()
        kernels.attention_backward(q, k, v, o, lse, do, (*grads, None, None), how)

    return {"forward": forward, "both": both}


def theirs(sizes, causal, kind):
    """{part: function} of PyTorch's scaled_dot_product_attention; None without a card."""
    if not (torch and torch.cuda.is_available()):
        return None
    dtype = torch.float16 if kind == "float16" else torch.float32
    q, k, v, do = (torch.randn(*sizes, dtype=dtype, device="cuda").transpose(1, 2) for _ in range(4))
    inputs = [a.requires_grad_() for a in (q, k, v)]
    attend = torch.nn.functional.scaled_dot_product_attention

    def forward():
        with torch.no_grad():
            attend(*inputs, is_causal=causal)

    return {
        "forward": forward,
        "both": lambda: torch.autograd.grad(attend(*inputs, is_causal=causal), inputs, do),
    }


def layer_norms(report, rate):
    """Layer norm beside a copy of as many bytes, and beside PyTorch's."""
    report.heading("Layer norm", "", "bytes", "time", "of a copy", "/ PyTorch")
    for n, d in ROWS:
        x, y, dy, dx = (noise(n, d) for _ in range(4))
        a, b, da, db = (noise(d) for _ in range(4))
        m, r = noise(n), noise(n)
        ways = {
            "forward": (2, lambda v=(x, a, b, 1e-5, y, m, r): kernels.layer_norm(*v)),
            "backward": (3, lambda v=(x, a, m, r, dy, dx, da, db): kernels.layer_norm_backward(*v)),
        }
        others = rivals_norms(n, d) if torch and torch.cuda.is_available() else {}
        for name, (arrays, function) in ways.items():
            seconds, size = tools.best(function), arrays * x.nbytes
            ratio = f"{seconds / tools.best(others[name]):.2f}" if others else "-"
            report.row(
                f"{n} x {d}, {name}", f"{size / 1e6:.1f} MB", unit(seconds), f"{size / seconds / rate:.2f}", ratio
            )


def rivals_norms(n, d):
    x, dy = (torch.randn(n, d, device="cuda") for _ in range(2))
    a, b = (torch.randn(d, device="cuda") for _ in range(2))
    _, mean, scale = torch.ops.aten.native_layer_norm(x, [d], a, b, 1e-5)
    back = torch.ops.aten.native_layer_norm_backward
    return {
        "forward": lambda: torch.ops.aten.native_layer_norm(x, [d], a, b, 1e-5),
        "backward": lambda: back(dy, x, [d], mean, scale, a, b, [True, True, True]),
    }


def main(argv=None):
    args = arguments(__doc__).parse_args(argv)
    report = Report("Attention and layer norm on an H100: what published figures allow; nothing here was timed")
    computed(report)
    if args.write:
        (RESULTS / "gpu_attention.txt").write_text("\n".join(report.lines) + "\n")
        print("written to benchmarks/results/gpu_attention.txt")


if __name__ == "__main__":
    main()
