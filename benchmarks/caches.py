"""Attention of one word over the keys and values that a cache holds: KIVI's codes beside the full cache.

    python benchmarks/caches.py --write

One layer of 8 heads of 64 numbers, float32, one text, one thread. A full cache gives the layer its keys and values, and
the layer's attention reads them; KIVI reads its codes itself (nn/kernels/packed.py). Bytes are those in use.
"""

from pairs import Table, arguments  # isort: skip (before NumPy)

import nn
from nn import kernels
from nn.decoding import KIVI, Full
from npopt import backend

import numpy as np

HEADS, WIDTH, LENGTHS, TARGET = 8, 64, (1024, 4096), 1.2
LAYER = nn.MultiHeadAttention(HEADS * WIDTH, HEADS, causal=True)


def reading(cache, length):
    """(a function that lets one word attend to `length` others, bytes of the cache)"""
    rng, memory = np.random.default_rng(0), cache.start([(HEADS, WIDTH)], 1, np.dtype("float32"))
    numbers = rng.standard_normal((3, 1, length, HEADS, WIDTH)).astype("float32")
    memory.reserve(length + 1)
    memory.extend(0, *(part.copy() for part in numbers), None, 0)
    word = rng.standard_normal((3, 1, 1, HEADS, WIDTH)).astype("float32")
    o, lse = np.empty((1, 1, HEADS, WIDTH), "float32"), np.empty((1, HEADS, 1), "float32")

    def read():
        q, k, v = word.copy()
        if isinstance(cache, Full):
            q, k, v, first = memory.extend(0, q, k, v, None, length)
            kernels.attention(q, k, v, o, lse, LAYER.how(q, k, None, nn.Run())._replace(first=first))
        elif memory.attend(0, q, k, v, None, length, LAYER.scale) is None:
            raise SystemExit("KIVI's codes are not read by compiled loops here")
        memory.rollback(length)

    return read, memory.nbytes - (memory.nbytes // 2 if isinstance(cache, Full) else 0)  # room is a power of two


def main():
    args = arguments(__doc__).parse_args()
    backend.threads(1)
    table = Table("One word over a cache, one thread, alternated", "KIVI", "full cache", ("MB", "MB, full"))
    ratios = []
    for length in LENGTHS:
        full, whole = reading(Full(), length)
        for bits in (2, 4, 8):
            mine, size = reading(KIVI(bits), length)
            ratio = table.add(
                f"{length} words, {bits} bits", mine, full, args.rounds, f"{size / 1e6:.2f}", f"{whole / 1e6:.2f}"
            )
            ratios.append(f"{length} words, {bits} bits: {ratio:.2f}")
    table.note(f"Ratios: {'; '.join(ratios)} (target at 4,096 words: {TARGET}).")
    if args.write:
        table.write("caches.txt")


if __name__ == "__main__":
    main()
