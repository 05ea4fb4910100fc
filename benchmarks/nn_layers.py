"""Each convolution of ResNet-18 beside the machine's best matrix product, each pass over memory beside a copy.

    python benchmarks/nn_layers.py --write

GFLOP/s count 2 x 9 H W C O (or 2 H W C O k^2) for each image, whatever the algorithm; "done" are those that
Winograd's form really does in its products. The limit of a convolution is the longer of two times. One is the time of
its products at the speed of the best product that was found (a matrix product, or those of a row). The other is the
time to read and write each of its arrays once at the speed of a copy. GB/s count every array that a pass reads or
writes, once.
"""

from pairs import Table, arguments, timed  # isort: skip (before NumPy)

from nn import kernels
from nn.kernels import cpu, pooling, winograd
from nn.kernels.products import lanes, transpose
from npopt import backend

import numba
import numpy as np

args = arguments(__doc__, rounds=7).parse_args()
backend.threads(args.threads)
rng, B = np.random.default_rng(0), 128
table = Table(f"Layers of ResNet-18, batch {B}, float32, {args.threads} threads", "", "")
table.lines.clear()


def noise(*shape):
    return rng.standard_normal(shape).astype("float32")


def best(function, rounds=args.rounds):
    function()
    return min(timed(function, 1) for _ in range(rounds))


def row(*cells):
    widths = (34, 7, 9, 10, 9, 9, 9, 22)
    line = f"{cells[0]:{widths[0]}}" + "".join(f"{c:>{w}}" for c, w in zip(cells[1:], widths[1:], strict=False))
    table.lines.append(line)
    print(line, flush=True)


# ------------------------------------------------------------------------------------------------------- the limits
SHAPES = ((2048, 2048, 2048), (8192, 576, 128), (8192, 1152, 256), (8192, 2304, 512))
speeds = {"NumPy's BLAS": [], "register blocks (nn/kernels/matrices.py)": []}
for n, k, m in SHAPES:
    a, b, c = noise(n, k), noise(k, m), np.empty((n, m), "float32")
    for found, function in zip(speeds.values(), (np.matmul, kernels.linear_inputs), strict=True):
        found.append(2 * n * k * m / best(lambda f=function, x=(a, b, c): f(*x)))
flops = max(max(found) for found in speeds.values())
big = noise(1 << 25)
other = np.empty_like(big)


def copy():
    kernels.relu(big, other)


rate = 2 * big.nbytes / best(copy)
for name, found in speeds.items():
    row(
        f"Products in GFLOP/s, {name}: "
        + ", ".join(
            f"{' x '.join(map(str, shape))} {speed / 1e9:.0f}" for shape, speed in zip(SHAPES, found, strict=True)
        )
        + "."
    )
row(f"An array of 134 MB read, another written (ReLU): {rate / 1e9:.1f} GB/s.")
row("")
row("convolution, pass", "form", "ms", "GFLOP/s", "done", "of best", "of limit", "limited by")
row("-" * 109)

CONVOLUTIONS = [  # size of the image, inputs, outputs, kernel, stride, how many of them
    (32, 3, 64, 3, 1, 1),
    (32, 64, 64, 3, 1, 4),
    (32, 64, 128, 3, 2, 1),
    (32, 64, 128, 1, 2, 1),
    (16, 128, 128, 3, 1, 3),
    (16, 128, 256, 3, 2, 1),
    (16, 128, 256, 1, 2, 1),
    (8, 256, 256, 3, 1, 3),
    (8, 256, 512, 3, 2, 1),
    (8, 256, 512, 1, 2, 1),
    (4, 512, 512, 3, 1, 3),
]
whole, found = 0.0, []
for size, i, o, k, s, count in CONVOLUTIONS:
    p = (k - 1) // 2
    out = (size + 2 * p - k) // s + 1
    x, w, y = noise(B, size, size, i), noise(o, k, k, i), noise(B, out, out, o)
    dx, dw, st, pad = np.empty_like(x), np.empty_like(w), (s, s), (p, p)
    passes = {
        "forward": lambda x=x, w=w, y=y, st=st, pad=pad: kernels.convolve(x, w, None, y, st, pad),
        "dx": lambda x=x, w=w, y=y, dx=dx, st=st, pad=pad: kernels.convolve_inputs(y, w, dx, st, pad),
        "dW": lambda x=x, dw=dw, y=y, st=st, pad=pad: kernels.convolve_weights(x, y, dw, st, pad),
    }
    m = cpu.algorithm((k, k), st, pad, (out, out), i, o)
    direct = 2 * B * out * out * k * k * i * o
    done = 2 * B * (-(-out // m)) ** 2 * (m + 2) ** 2 * i * o if m else direct
    for name, function in passes.items():
        if i == 3 and name == "dx":
            continue  # the first layer has none
        t = best(function)
        whole += count * t
        found.append(
            (
                f"{size}x{size}, {i} -> {o}, {k}x{k}/{s}, {name}" + f" (x{count})" * (count > 1),
                f"F({m},3)" if m else "direct",
                t,
                direct,
                done,
                (x.nbytes + w.nbytes + y.nbytes) / rate,
            )
        )
flops = max(flops, *(done / t for _, _, t, _, done, _ in found))
for title, form, t, direct, done, memory in found:
    limit, share = max(done / flops, memory), done / flops / t
    what = "products" if share > 0.75 else "products, memory" if memory > 0.15 * t else "products, maps"
    row(
        title,
        form,
        f"{t * 1e3:.2f}",
        f"{direct / t / 1e9:.0f}",
        f"{done / t / 1e9:.0f}",
        f"{share:.2f}",
        f"{limit / t:.2f}",
        what,
    )
row("")
row(f"All convolutions of a step, the first layer's dx left out: {whole * 1e3:.0f} ms.")
row("")
row("pass over memory", "", "ms", "MB", "GB/s", "of copy")
row("-" * 79)

rows, d = B * 32 * 32, 64
x, dy, y, z, skip = (noise(rows, d) for _ in range(5))
np.maximum(y, 0, out=y)
vectors = [noise(d) for _ in range(6)]
one = x.nbytes
images, pooled = x.reshape(B, 32, 32, d), np.empty((B, 16, 16, d), "float32")
index = np.empty((B, 16, 16, d), "uint8")
kernels.max_pool(images, pooled, index, (2, 2), (2, 2), (0, 0))
raw, picked = rng.integers(0, 256, (1000, 32, 32, 3)).astype("uint8"), rng.integers(0, 1000, B)
batch, three = np.empty((B, 32, 32, 3), "float32"), noise(3)
PASSES = {
    "moments": (lambda: kernels.moments(x, *vectors[:2]), one),
    "normalise, ReLU": (lambda: kernels.normalise(x, *vectors[:3], None, True, z), 2 * one),
    "normalise, + skip, ReLU": (lambda: kernels.normalise(x, *vectors[:3], skip, True, z), 3 * one),
    "sums": (lambda: kernels.normalise_sums(x, *vectors[:2], dy, None, *vectors[4:]), 2 * one),
    "sums, dy masked in place": (lambda: kernels.normalise_sums(x, *vectors[:2], dy, y, *vectors[4:]), 4 * one),
    "dx of batch norm, in place": (lambda: kernels.normalise_backward(x, *vectors[:2], dy, *vectors[2:4], dy), 3 * one),
    "dx of batch norm": (lambda: kernels.normalise_backward(x, *vectors[:2], dy, *vectors[2:4], z), 3 * one),
    "sum of a residual block's dx": (lambda: np.add(x, skip, out=x), 3 * one),
    "max pool 2x2": (
        lambda: kernels.max_pool(images, pooled, index, (2, 2), (2, 2), (0, 0)),
        one + pooled.nbytes + index.nbytes,
    ),
    "max pool 2x2, backward": (
        lambda: kernels.max_pool_backward(pooled, index, images, (2, 2), (2, 2), (0, 0)),
        one + pooled.nbytes + index.nbytes,
    ),
    "images from bytes": (lambda: kernels.gather_images(raw, picked, None, three, three, batch), batch.nbytes * 5 // 4),
}
for name, (function, moved) in PASSES.items():
    t = best(function)
    row(name, "", f"{t * 1e3:.2f}", f"{moved / 1e6:.0f}", f"{moved / t / 1e9:.1f}", f"{moved / t / rate:.2f}")

# ------------------------------------------------------------------------------- is the emitted code worth its lines?
row("")
row("emitted kernel", "", "ms", "plain", "ratio")
row("-" * 79)


@numba.njit(parallel=True, error_model="numpy", fastmath={"contract"})
def plain_product(a, w, y):
    for i in numba.prange(a.shape[0]):
        y[i] = 0
        for k in range(a.shape[1]):
            for j in range(w.shape[0]):
                y[i, j] += a[i, k] * w[j, k]


@numba.njit(parallel=True, error_model="numpy")
def plain_transpose(a, b):
    for i in numba.prange(b.shape[0]):
        for j in range(b.shape[1]):
            b[i, j] = a[j, i]


P, Q, P2, Q2 = (getattr(winograd, name) for name in ("P", "Q", "P2", "Q2"))


@numba.njit(inline="always")
def MAP(d):
    d0, d1, d2, d3, d4, d5 = d
    a, b = d4 - Q2 * d2, P * d3 - P * Q2 * d1
    c, e = d4 - P2 * d2, Q * d3 - Q * P2 * d1
    return P2 * Q2 * d0 - (P2 + Q2) * d2 + d4, a + b, a - b, c + e, c - e, P2 * Q2 * d1 - (P2 + Q2) * d3 + d5


@numba.njit(parallel=True, error_model="numpy", fastmath={"contract"})
def plain_inputs(x, out):
    """B' d B of 6 x 6 tiles, channel by channel: x, out (T, 6, 6, C)."""
    for t in numba.prange(x.shape[0]):
        half = np.empty((6, 6, x.shape[3]), x.dtype)
        for turn in range(2):
            source, to = (x[t], half) if turn == 0 else (half, out[t])
            for i in range(6):
                for c in range(x.shape[3]):
                    d = (
                        source[0, i, c],
                        source[1, i, c],
                        source[2, i, c],
                        source[3, i, c],
                        source[4, i, c],
                        source[5, i, c],
                    )
                    e = MAP(d)
                    for p in range(6):
                        to[i, p, c] = e[p]


@numba.njit(parallel=True, error_model="numpy")
def emitted_inputs(x, out):
    c, flat, to = x.shape[3], x.reshape(-1), out.reshape(-1)
    for t in numba.prange(x.shape[0]):
        at = np.int64(t) * 36 * c
        winograd.of_input4(flat, at, 6 * c, c, to, at, 6 * c, c, flat, 0, c)


a, w, y = noise(2048, 512), noise(512, 512), np.empty((2048, 512), "float32")
wide, turned, tiles = noise(2048, 4608), np.empty((4608, 2048), "float32"), noise(2048, 6, 6, 64)
points = np.empty_like(tiles)
EMITTED = {
    "product 2048 x 512 x 512": (lambda: kernels.linear(a, w, None, y), lambda: plain_product(a, w, y)),
    "transposition 2048 x 4608": (
        lambda: transpose(wide, turned, lanes("float32")),
        lambda: plain_transpose(wide, turned),
    ),
    "map of 2048 tiles, 64 channels": (lambda: emitted_inputs(tiles, points), lambda: plain_inputs(tiles, points)),
    "max pool 2x2": (
        lambda: kernels.max_pool(images, pooled, index, (2, 2), (2, 2), (0, 0)),
        lambda: pooling._max_pool(images, pooled, index, 2, 2, 2, 2, 0, 0),
    ),
}
for name, (emitted, plainly) in EMITTED.items():
    t, u = best(emitted), best(plainly)
    row(name, "", f"{t * 1e3:.2f}", f"{u * 1e3:.2f}", f"{t / u:.2f}")
if args.write:
    table.write("nn_layers.txt")
