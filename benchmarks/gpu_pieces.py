"""The pieces of a step on a GPU, each beside the card's limits or cuDNN: passes over memory, recurrent layers,
convolutions, products."""

import gpu_tools as tools
from gpu_tools import noise, products

from pairs import torch, unit  # isort: skip (before NumPy)

import nn
from nn import kernels
from nn.kernels.gpu import convolutions, norms, winograd
from npopt import AdamW, Quantised, backend

import numpy as np

PARAMETERS, COPY, SQUARE, PASSES = 11_173_962, 1 << 28, 8192, 128
STREAMS, TIMES, UNITS = 20, 35, 650  # of the medium model of Zaremba, Sutskever & Vinyals, arXiv:1409.2329
IMAGES, ONE = ((32, 64), (16, 128), (8, 256), (4, 512)), (1, 1)  # sides and channels of ResNet-18's convolutions


def limits(report):
    """(bytes a second of a copy, {precision: operations a second of a square product})."""
    xp = backend.xp()
    pair, speeds = [backend.zeros((COPY,), "float32") for _ in range(2)], {}
    rate = 2 * pair[0].nbytes / tools.best(lambda: xp.copyto(*pair))
    pair.clear()
    x, out = noise(SQUARE, SQUARE), backend.empty((SQUARE, SQUARE), "float32")
    for precision in ("float32", "tf32"):
        products(precision)
        speeds[precision] = 2 * SQUARE**3 / tools.best(lambda: xp.matmul(x, x, out=out))
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
        seconds = tools.best(function)
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
    x, g, count = noise(PARAMETERS), noise(PARAMETERS), f"{PARAMETERS / 1e6:.1f} M parameters"
    optimizer, eight = AdamW(), Quantised(AdamW(), 256, smallest=0, whole=())
    for one in (optimizer, eight):
        one.start(x)
    row(f"AdamW, {count}", 7 * PARAMETERS, lambda: optimizer.step(x, g, 1e-4))
    row(f"AdamW in 8 bits, {count}", PARAMETERS * (4 + 4 / 256), lambda: eight.step(x, g, 1e-4))


def recurrent_layers(report):
    """A layer forward and backward, launch by launch, as one recorded graph, in array code, and by cuDNN."""
    title = f"Recurrent layers, batch {STREAMS}, {TIMES} times, {UNITS} units, float32, both ways"
    report.heading(title, "", "npopt", "in a graph", "array code", "cuDNN")
    for kind in ("LSTM", "GRU"):
        network, run = nn.Network(nn.Sequential(getattr(nn, kind)(UNITS, UNITS)), (TIMES, UNITS)), nn.Run(True, dx=True)
        x = network.x0(np.random.default_rng(0))
        network.bind(x, backend.zeros(x.shape, x.dtype))
        a, dy = (noise(STREAMS, TIMES, UNITS) for _ in "ad")

        def step(network=network, run=run, a=a, dy=dy):
            _, saved = network.forward(a, run)
            network.backward(dy.copy(), saved, run)

        times = [tools.best(step), tools.best(backend.owner(x).recorded(step))]
        kernels.use("reference")
        times.append(tools.best(step))
        kernels.use("fast")
        cudnn = unit(tools.best(rivals_layer(kind))) if torch and torch.cuda.is_available() else "-"
        report.row(kind, *(unit(seconds) for seconds in times), cudnn)


def rivals_layer(kind):
    rnn = getattr(torch.nn, kind)(UNITS, UNITS, batch_first=True).cuda()
    x, dy = (torch.randn(STREAMS, TIMES, UNITS, device="cuda", requires_grad=k == "x") for k in ("x", "d"))

    def step():
        rnn.zero_grad()
        x.grad = None
        rnn(x)[0].backward(dy)

    return step


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
                speed = work / tools.best(function, 3)
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
                speeds.setdefault(name, []).append(work / tools.best(function, 3))
                speeds[name].append(
                    work / tools.best(rivals_convolution(name, image, c, dtype), 3) if torch else np.nan
                )
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
