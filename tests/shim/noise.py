"""Pictures of noise, as a data set for networks."""

from types import SimpleNamespace


def pictures(rng, count, size=8, classes=3):
    """So many grey pictures (size, size) of bytes, with labels."""
    return SimpleNamespace(
        name="noise",
        x_train=rng.integers(0, 256, (count, size, size, 1)).astype("uint8"),
        y_train=rng.integers(0, classes, count),
        x_test=None,
        y_test=None,
        mean=[120.0],
        std=[70.0],
        scale=1.0,
        classes=tuple(range(classes)),
        sha256="",
    )
