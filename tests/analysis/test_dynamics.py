"""Norms, cosines and ratios of steps against their definitions, written out."""

from npopt import backend
from npopt.analysis import Dynamics
from npopt.segments import Segments

import numpy as np
import pytest

TABLE = Segments.of(("a", (2, 3), "matrix", "a"), ("b", (3,), "bias", "a"), ("c", (1,), "scalar", "c"))
PIECES = (slice(0, 6), slice(6, 9), slice(9, 10))


def test_each_number_is_its_definition(device, rng):
    points, slopes, found = rng.standard_normal((5, 10)), rng.standard_normal((4, 10)), []
    slopes[3] = slopes[2]
    for where in ("cpu", device):
        backend.use(where)
        told = Dynamics(TABLE, backend.asarray(points[0]))
        found.append([told(backend.asarray(x), backend.asarray(g)) for x, g in zip(points[1:], slopes, strict=True)])
    norm = np.linalg.norm
    for rows in found:
        for t, row in enumerate(rows):
            x, before, g = points[t + 1], points[t], slopes[t]
            for name, v in (("gradient", g), ("weights", x), ("change", x - points[0])):
                assert row[name] == pytest.approx(norm(v), rel=1e-12)
                assert row[f"{name}_sum"] == pytest.approx(sum(norm(v[piece]) for piece in PIECES), rel=1e-12)
                assert row[name] <= row[f"{name}_sum"] <= 3**0.5 * row[name] * (1 + 1e-12)
            assert row["update"] == pytest.approx(norm(x - before), rel=1e-12)
            assert row["ratio"] == pytest.approx(norm(x - before) / norm(before), rel=1e-12)
            if t:
                cosine = g @ slopes[t - 1] / norm(g) / norm(slopes[t - 1])
                assert row["cosine"] == pytest.approx(cosine, rel=1e-12)
            else:
                assert np.isnan(row["cosine"])
    assert found[0][3]["cosine"] == pytest.approx(1)


def test_arrays_that_are_used_again_do_not_matter(rng):
    x, g = rng.standard_normal(10), rng.standard_normal(10)
    told = Dynamics(TABLE, x)
    told(x, g)
    x += 0.5
    g *= -2
    row = told(x, g)
    assert row["cosine"] == pytest.approx(-1) and row["update"] == pytest.approx(0.5 * 10**0.5)
    assert np.isnan(Dynamics(TABLE, 0 * x)(x, g)["ratio"])
    assert np.isnan(told(x, 0 * g)["cosine"])
