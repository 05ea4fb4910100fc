"""Training steps on a GPU beside PyTorch on the same card, each piece of a step beside the card's limits.

    python benchmarks/nn_gpu.py --write

A step is forward, loss, backward and momentum update, the batch being on the card. Times: the median and the quartiles
of `--rounds` samples, the sides in turn, each of as many steps as take 30 ms, with the device waited for at both ends.
PyTorch runs eagerly, channels last, cuDNN choosing its algorithms by trial, its fused SGD; float16 and bfloat16 are
autocast there, compute= here, both without loss scaling. "float32" is IEEE products on both sides, "TF32" the tensor
cores' on both. From its third step on npopt replays a recorded CUDA graph. Peak memory is what the side's own pools
hold (CuPy) or have given out at most (PyTorch) in its first three steps.

The limits are measured: a copy of 1 GiB, a square product. A pass's bytes count every array that it must read or write
once, its operations two for each product of a sum.
"""

import gc
import time

from pairs import RESULTS, arguments, machine, torch, unit  # isort: skip (before NumPy)
from steps import ours, theirs  # isort: skip

from nn.kernels.gpu import convolutions, norms, winograd
from npopt import AdamW, backend

import numpy as np

CASES = {
    "ResNet-18, batch 128": ("resnet", 128, {}),
    "LeNet-5, batch 64": ("lenet", 64, {}),
    "MLP, batch 256": ("mlp", 256, {}),
    "ResNet-18, batch 512": ("resnet", 512, {}),
    "ResNet-18, batch 1024": ("resnet", 1024, {}),
}
PARAMETERS, COPY, SQUARE, PASSES = 11_173_962, 1 << 28, 8192, 128
BITS = (25, 26, 28, 30)  # of the bound on columns
SAMPLE = 0.03  # seconds
IMAGES, ONE = ((32, 64), (16, 128), (8, 256), (4, 512)), (1, 1)  # sides and channels of ResNet-18's convolutions


class Report:
    """Lines, printed as they come."""

    def __init__(self, *lines):
        self.lines = []
        self.add(*lines)

    def add(self, *lines):
        self.lines += lines
        print("\n".join(lines), flush=True)

    def heading(self, title, *columns):
        head = f"{columns[0]:44}" + "".join(f"{c:>14}" for c in columns[1:])
        self.add("", title, "", head, "-" * len(head))

    def row(self, *cells):
        self.add(f"{cells[0]:44}" + "".join(f"{c:>14}" for c in cells[1:]))


def wait():
    backend.synchronize()
    if torch and torch.cuda.is_available():
        torch.cuda.synchronize()


def sample(function, calls):
    """Seconds of a call, from the mean of so many, the device being idle before and after."""
    wait()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    wait()
    return (time.perf_counter() - start) / calls


def calls_of(function):
    """How many calls take SAMPLE seconds; warms up on the way."""
    sample(function, 2)
    return max(1, int(SAMPLE / sample(function, 1)))


def best(function, rounds=5):
    """Seconds of a call, the smallest of some samples: for limits and passes."""
    calls = calls_of(function)
    return min(sample(function, calls) for _ in range(rounds))


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
    before = backend.memory()["device"] if mine else torch.cuda.memory_allocated()
    step = make()
    for _ in range(3):
        step()
    wait()
    return step, (backend.memory()["device_peak"] if mine else torch.cuda.max_memory_allocated()) - before


def products(name):
    """Both sides take products of float32 numbers in this precision from now on."""
    backend.precision(name)
    if torch:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"


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
            counts[label] = calls_of(made[side][0])
        times = {label: [] for label, _, _ in runs}
        for r in range(args.rounds):
            for label, side, precision in runs[:: 1 if r % 2 else -1]:
                products(precision)
                times[label].append(sample(made[side][0], counts[label]))
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


def workspace(report, args):
    """The bound on what a convolution writes: a small one stays in the card's cache, a large one needs few launches."""
    case, size, options = CASES["ResNet-18, batch 128"]
    kept, step = (convolutions.WORKSPACE, convolutions.WINOGRAD), ours(case, size, **options)
    report.heading(
        f"ResNet-18, batch {size}, by the bytes of columns or points at a time",
        "",
        *(f"{1 << bits - 20} MiB" for bits in BITS),
    )
    for label, precision, fast in (
        ("float32, Winograd", "float32", True),
        ("float32, columns", "float32", False),
        ("TF32, columns", "tf32", False),
    ):
        products(precision)
        cells = []
        for bits in BITS:
            convolutions.WORKSPACE, convolutions.WINOGRAD = 1 << bits, fast
            cells.append(unit(best(step, 3)))
        report.row(label, *cells)
    convolutions.WORKSPACE, convolutions.WINOGRAD = kept
    products("float32")


# ------------------------------------------------------------------------------------------------------------ limits
def noise(*shape):
    """Numbers in (-1/2, 1/2), made on the device."""
    out = backend.empty(shape, "float32")
    backend.row_uniform(backend.key(0, "noise"), None, out.reshape(1, -1))
    out -= 0.5
    return out


def limits(report):
    """(bytes a second of a copy, {precision: operations a second of a square product})."""
    xp = backend.xp()
    pair, speeds = [backend.zeros((COPY,), "float32") for _ in range(2)], {}
    rate = 2 * pair[0].nbytes / best(lambda: xp.copyto(*pair))
    pair.clear()
    x, out = noise(SQUARE, SQUARE), backend.empty((SQUARE, SQUARE), "float32")
    for precision in ("float32", "tf32"):
        products(precision)
        speeds[precision] = 2 * SQUARE**3 / best(lambda: xp.matmul(x, x, out=out))
    products("float32")
    report.add(
        "",
        f"Limits: copy {rate / 1e9:.0f} GB/s; product of {SQUARE} x {SQUARE} "
        + ", ".join(f"{k} {v / 1e12:.1f} TFLOP/s" for k, v in speeds.items()),
    )
    return rate, speeds


def passes(report, rate):
    """Kernels at the widest and the deepest convolution of ResNet-18, by their bytes."""
    report.heading(f"Passes over memory, ResNet-18 at batch {PASSES}", "", "bytes", "time", "GB/s", "of a copy")

    def row(name, numbers, function):
        seconds = best(function)
        size = 4 * numbers
        report.row(
            name, f"{size / 1e6:.1f} MB", unit(seconds), f"{size / seconds / 1e9:.0f}", f"{size / seconds / rate:.2f}"
        )

    for image, c in (IMAGES[0], IMAGES[-1]):
        n, label = PASSES * image**2, f", {image}x{image}x{c}"
        x, y, dy, dx = (noise(n, c) for _ in range(4))
        v = [noise(c) for _ in range(4)]
        shaped = x.reshape(PASSES, image, image, c)
        columns = backend.empty((PASSES, image, image, 3, 3, c), "float32")
        row(
            "columns 3x3" + label,
            10 * n * c,
            lambda a=(shaped, columns): convolutions.gather_windows(*a, (1, 1), (1, 1)),
        )
        row(
            "columns summed" + label,
            10 * n * c,
            lambda a=(columns, shaped): convolutions.sum_windows(*a, (1, 1), (1, 1)),
        )
        v36 = noise(36, n // 16, c)
        row(
            "Winograd's points of x" + label,
            n * c * 52 // 16,
            lambda a=(shaped, (image // 4, image // 4), (1, 1)): winograd._inputs(*a),
        )
        row(
            "Winograd's outputs" + label,
            n * c * 52 // 16,
            lambda a=(v36, None, shaped, image, image, image // 4, image // 4, c), n=n * c // 16: winograd.program.each(
                "winograd_outputs", n, *a
            ),
        )
        row("moments" + label, n * c, lambda a=(x, v[0], v[1]): norms.moments(*a))
        row("normalise, skip, ReLU" + label, 3 * n * c, lambda a=(x, *v[:3], dy, True, y): norms.normalise(*a))
        row(
            "normalise_sums, ReLU" + label,
            4 * n * c,
            lambda a=(x, v[0], v[1], dy, y, v[2], v[3]): norms.normalise_sums(*a),
        )
        row(
            "normalise_backward" + label,
            3 * n * c,
            lambda a=(x, v[0], v[1], dy, v[2], v[3], dx): norms.normalise_backward(*a),
        )
    x, g, optimizer = noise(PARAMETERS), noise(PARAMETERS), AdamW()
    optimizer.start(x)
    row(f"AdamW, {PARAMETERS / 1e6:.1f} M parameters", 7 * PARAMETERS, lambda: optimizer.step(x, g, 1e-4))


def convolution_products(report, speeds):
    """The three products of a convolution, without columns, by their operations."""
    report.heading(
        f"Products of 3x3 convolutions, ResNet-18 at batch {PASSES}",
        "",
        "GFLOP",
        "float32",
        "of square",
        "TF32",
        "of square",
    )
    xp, device = backend.xp(), backend.owner(noise(1))
    for image, c in IMAGES:
        n, k = PASSES * image**2, 9 * c
        columns, w, y = noise(n, k), noise(c, k), noise(n, c)
        dw, made, out = backend.empty((c, k), "float32"), backend.empty((n, c), "float32"), xp.empty_like(columns)
        points = [noise(36, n // 16, c), noise(36, c, c), backend.empty((36, n // 16, c), "float32")]
        for name, function in (
            ("forward", lambda a=(columns, w.T), o=made: xp.matmul(*a, out=o)),
            ("dx", lambda a=(y, w), o=out: xp.matmul(*a, out=o)),
            ("dW, in parts", lambda a=(columns, y, dw): convolutions.linear_weights(*a)),
            ("dW, one product", lambda a=(y.T, columns), o=dw: xp.matmul(*a, out=o)),
            ("Winograd, 36 products", lambda a=points: device.products(*a, turn_b=True)),
        ):
            cells, work = [], (72 * (n // 16) * c * c if "36" in name else 2 * n * k * c)
            for precision in ("float32", "tf32"):
                products(precision)
                speed = work / best(function, 3)
                cells += [f"{speed / 1e12:.1f} T/s", f"{speed / speeds[precision]:.2f}"]
            report.row(f"{name}, {n} x {k} x {c}", f"{work / 1e9:.1f}", *cells)
    products("float32")


def convolution_kernels(report):
    """A convolution's three passes on tensor cores, beside cuDNN's."""
    report.heading(
        f"3x3 convolutions on tensor cores, TFLOP/s, batch {PASSES}",
        "",
        *(f"{side} {kind}" for kind in ("TF32", "float16") for side in ("npopt", "cuDNN")),
    )
    for image, c in IMAGES:
        work, speeds = 18 * PASSES * image**2 * c * c, {}
        for precision, dtype in (("tf32", "float32"), ("tf32", "float16")):
            products(precision)
            x, dy, y, dx = (noise(PASSES * image * image, c).astype(dtype) for _ in range(4))
            x, dy, y, dx = (v.reshape(PASSES, image, image, c) for v in (x, dy, y, dx))
            w, dw = (noise(c, 9 * c).reshape(c, 3, 3, c) for _ in range(2))
            mine = (
                lambda a=(x, w, None, y): convolutions.convolve(*a, ONE, ONE),
                lambda a=(dy, w, dx): convolutions.convolve_inputs(*a, ONE, ONE),
                lambda a=(x, dy, dw): convolutions.convolve_weights(*a, ONE, ONE),
            )
            for name, function in zip(("forward", "dx", "dW"), mine, strict=True):
                speeds.setdefault(name, []).append(work / best(function, 3))
                speeds[name].append(work / best(rivals_convolution(name, image, c, dtype), 3) if torch else np.nan)
        for name, found in speeds.items():
            report.row(f"{name}, {image}x{image}x{c}", *(f"{speed / 1e12:.0f}" for speed in found))
    products("float32")


def rivals_convolution(name, image, c, dtype):
    """PyTorch's pass of that name over a 3x3 convolution, channels last."""
    options = dict(dtype=getattr(torch, dtype), device="cuda" if torch.cuda.is_available() else "cpu")
    x, dy = (torch.randn(PASSES, c, image, image, **options).to(memory_format=torch.channels_last) for _ in "xy")
    w = torch.randn(c, c, 3, 3, **options).to(memory_format=torch.channels_last)
    if name == "forward":
        return lambda: torch.nn.functional.conv2d(x, w, padding=1)
    which, two = (name == "dx", name == "dW", False), ([1, 1], [1, 1], [1, 1])
    return lambda: torch.ops.aten.convolution_backward(dy, x, w, None, *two, False, [0, 0], 1, which)


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
    rate, speeds = limits(report)
    steps(report, args, start + args.seconds)
    workspace(report, args)
    passes(report, rate)
    convolution_kernels(report)
    convolution_products(report, speeds)
    report.add("", f"The whole took {time.perf_counter() - start:.0f} s.")
    if args.write:
        (RESULTS / "nn_gpu.txt").write_text("\n".join(report.lines) + "\n")
        print("written to benchmarks/results/nn_gpu.txt")


if __name__ == "__main__":
    main()
