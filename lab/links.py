"""A step of a large network on published links, computed: by formula, and by a small network on a slow clock.

The large one is Megatron-LM's: 72 layers of D = 3072 on rows of T = 1024 (8.3 billion parameters with its tables, which
are left out here), in 16 bits, 8 rows a batch and device, on A100s at their peak rate. Nothing overlaps. On a clock
whose links are slower by the ratio of the bytes, and whose arithmetic is slower by the ratio of the operations, a small
network on simulated nodes takes the same time. Latency is an assumption.

Operations of a layer, forward, a row: 24 T D^2 (1 + T / (6 D)); twice as many back (Narayanan et al., SC 2021).
"""

from npopt.distributed import Clock

LINKS = {  # bytes a second, one way, as published
    "NVLink 3": 300e9,
    "PCIe 4.0 x16": 31.5e9,
    "InfiniBand HDR": 25e9,
    "Ethernet 100 Gb/s": 12.5e9,
    "Ethernet 10 Gb/s": 1.25e9,
}
D, T, LAYERS, ROWS, WIDE = 3072, 1024, 72, 8, 2  # WIDE: bytes of a number
RATE, LATENCY = 312e12, 1e-5  # operations a second, an A100's peak in 16 bits; seconds a message
ROW = LAYERS * 3 * 24 * T * D**2 * (1 + T / (6 * D)) / RATE  # seconds of a row's gradient on one device


def under_way(speed):
    """Seconds that the activations of one row need from stage to stage, on a link of so many bytes a second."""
    return T * D * WIDE / speed + LATENCY


def clock_of(how, link, size, parameters):
    """The Clock on which a network of this size (lab/parallel.py) and so many parameters takes the large one's time.

    how  "tensors", on 2 rows; "pipeline", a row in each micro-batch; "ZeRO", a row on each node
    """
    speed, row = LINKS[link], size["length"] * size["features"] * 8  # activations of a row in float64
    if how == "tensors":
        more = LAYERS / size["layers"]  # each message stands for so many
        return Clock(LATENCY * more, speed * 2 * row / (more * ROWS * T * D * WIDE), ROW * ROWS / 2)
    if how == "pipeline":
        return Clock(LATENCY, speed * row / (T * D * WIDE), ROW)
    return Clock(LATENCY, speed * parameters * 4 / (LAYERS * 12 * D**2 * WIDE), ROW * ROWS)


def theory(how, nodes, speed):
    """Seconds of a step by formula; None where there is none."""
    if how == "tensors":
        each = 2 * (nodes - 1) * (ROWS * T * D * WIDE / nodes / speed + LATENCY)
        return ROWS * ROW / nodes + 4 * LAYERS * each
    if how == "ZeRO":
        return ROWS * ROW + 2 * (nodes - 1) * (LAYERS * 12 * D**2 * WIDE / nodes / speed + LATENCY)
    if how.startswith("GPipe"):
        return (micro(how) + nodes - 1) * ROW / nodes + 2 * (nodes - 1) * under_way(speed)
    return None


def micro(how):
    """m of "GPipe, m = 32"."""
    return int(how.split("= ")[1])


def efficiency(how, nodes, seconds):
    """The time of the arithmetic alone, shared out evenly, over that of a step of so many seconds."""
    rows = {"tensors": ROWS, "ZeRO": ROWS * nodes}.get(how) or micro(how)
    return rows * ROW / nodes / seconds
