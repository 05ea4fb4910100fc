"""Training steps on a GPU beside PyTorch on the same card, each piece of a step beside the card's limits.

    python benchmarks/nn_gpu.py --write

A step is forward, loss, backward and momentum update, the batch being on the card. Times are the median and the
quartiles of `--rounds` samples, the sides in turn. A sample is as many steps as take 30 ms, with the device waited for
at both ends. PyTorch runs eagerly, channels last, with its fused SGD, and cuDNN chooses its algorithms by trial.
float16 and bfloat16 are autocast on PyTorch's side and compute= on ours, both without loss scaling. "float32" is IEEE
products on both sides, "TF32" the tensor cores' on both. From its third step on npopt replays a recorded CUDA graph.
Peak memory is what the side's own pools hold (CuPy) or have given out at most (PyTorch) in its first three steps.

The limits are measured: a copy of 1 GiB, a square product. A pass's bytes count every array that it must read or write
once, its operations two for each product of a sum.
"""

import gc
import time

import gpu_attention
import gpu_pieces as pieces
import gpu_tools as tools
from gpu_tools import Report, products

from pairs import RESULTS, arguments, machine, torch, unit  # isort: skip (before NumPy)
from steps import ours, theirs  # isort: skip

from npopt import backend

import numpy as np

CASES = {
    "ResNet-18, batch 128": ("resnet", 128, {}),
    "LeNet-5, batch 64": ("lenet", 64, {}),
    "MLP, batch 256": ("mlp", 256, {}),
    "ResNet-18, batch 512": ("resnet", 512, {}),
    "ResNet-18, batch 1024": ("resnet", 1024, {}),
}


def free():
    """Give all memory of both pools back."""
    gc.collect()
    backend.xp().get_default_memory_pool().free_all_blocks()
    if torch and torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak(make, mine):
    """(a step function, bytes that its first three steps take at most)."""
    free()
    before = backend.memory()["device_peak"] if mine else torch.cuda.memory_allocated()
    step = make()
    for _ in range(3):
        step()
    tools.wait()
    return step, (backend.memory()["device_peak"] if mine else torch.cuda.max_memory_allocated()) - before


HALVES = ("float16", "bfloat16")


def sides(case, size, options):
    """{(name, type of activations or None): (how to make the step, whether it is ours)}; autocast on PyTorch's side."""
    found = {}
    for half in (None, *HALVES):
        found["npopt", half] = lambda half=half: ours(case, size, compute=half, **options), True
        if torch:
            cast = half and getattr(torch, half)
            found["PyTorch", half] = lambda cast=cast: theirs(case, size, True, "cuda", cast), False
    return found


# ------------------------------------------------------------------------------------------------------------- steps
def steps(report, args, deadline):
    report.heading("Training steps", "", "median", "quartiles", "images/s", "peak memory", "/ PyTorch")
    for name, (case, size, options) in CASES.items():
        if time.perf_counter() > deadline:
            report.add(f"{name}: left out, the time of the benchmark was up")
            continue
        made = {}
        products("float32")
        for side, (make, mine) in sides(case, size, options).items():
            made[side] = peak(make, mine)
        # one network for each side and type; float32 and TF32 are two ways to run one
        runs = []
        for side, half in made:
            ways = [(half, "tf32")] if half else [("float32", "float32"), ("TF32", "tf32")]
            runs += [(f"{side}, {label}", (side, half), precision) for label, precision in ways]
        counts = {}
        for label, side, precision in runs:
            products(precision)
            counts[label] = tools.calls_of(made[side][0])
        times = {label: [] for label, _, _ in runs}
        for r in range(args.rounds):
            for label, side, precision in runs[:: 1 if r % 2 else -1]:
                products(precision)
                times[label].append(tools.sample(made[side][0], counts[label]))
        medians = {label: np.median(t) for label, t in times.items()}
        for label, side, _ in runs:
            low, high = np.percentile(times[label], (25, 75)) * 1e3
            rival = medians.get(label.replace("npopt", "PyTorch")) if label.startswith("npopt") else None
            report.row(
                f"{name}, {label}",
                unit(medians[label]),
                f"{low:.3g}-{high:.3g}",
                f"{size / medians[label]:.0f}",
                f"{made[side][1] / 2**20:.0f} MiB",
                f"{medians[label] / rival:.2f}" if rival else "-",
            )
        del made
    products("float32")
    free()


def main(argv=None):
    p = arguments(__doc__, rounds=7)
    p.add_argument("--device", default="gpu", help="the device (default: %(default)s)")
    p.add_argument("--seconds", type=float, default=75, help="after these no further network (default: %(default)s)")
    args = p.parse_args(argv)
    start = time.perf_counter()
    backend.use(args.device)
    backend.threads(args.threads)
    if torch and torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True
        card = f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__.split('+')[0]}"
    else:
        card = f"device {args.device}, no PyTorch with a card"
    report = Report("Training on a GPU", f"{card}; host: {machine()}")
    rate, speeds = pieces.limits(report)
    steps(report, args, start + args.seconds)
    pieces.passes(report, rate)
    pieces.recurrent_layers(report)
    pieces.convolution_kernels(report)
    pieces.convolution_products(report, speeds)
    gpu_attention.attention(report)
    gpu_attention.layer_norms(report, rate)
    report.add("", f"The whole took {time.perf_counter() - start:.0f} s.")
    if args.write:
        (RESULTS / "nn_gpu.txt").write_text("\n".join(report.lines) + "\n")
        print("written to benchmarks/results/nn_gpu.txt")


if __name__ == "__main__":
    main()
