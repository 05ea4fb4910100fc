"""The maps of Winograd's minimal filtering, as winograd.py uses them: in one dimension, and of them on tiles."""

from . import blocks

# The 1-D maps, from a list of values to a list of values; e: anything with + - and * by a number. The points of m = 4
# are 0, +-P, +-Q, infinity, of m = 2 0, +-1, infinity. Any P and Q give a convolution. Rounding is least where the
# powers of both stay near 1. In float32, 5/8 and 3/2 leave an error of 7.6e-7, 1 and 2, the usual ones, 1.7e-6, and
# direct sums 3.1e-7 (64 channels of normal numbers, relative norm).
P, Q = 5 / 8, 3 / 2
P2, Q2, P3, Q3 = P**2, Q**2, P**3, Q**3
AT_P, AT_Q = 1 / (2 * P2 * (P2 - Q2)), 1 / (2 * Q2 * (Q2 - P2))  # 1 / prod (p - q) over the other points q


def inputs4(d):
    """B' for m = 4: 6 -> 6. Row p has the coefficients of prod (x - q) over the other points q."""
    d0, d1, d2, d3, d4, d5 = d
    a, b, c, e = d4 - Q2 * d2, P * d3 - P * Q2 * d1, d4 - P2 * d2, Q * d3 - Q * P2 * d1
    return [P2 * Q2 * d0 - (P2 + Q2) * d2 + d4, a + b, a - b, c + e, c - e, P2 * Q2 * d1 - (P2 + Q2) * d3 + d5]


def weights4(g):
    """G for m = 4: 3 -> 6. Row p is (1, p, p^2) / prod (p - q)."""
    g0, g1, g2 = g
    a, b = g0 * AT_P + g2 * (P2 * AT_P), g1 * (P * AT_P)
    c, d = g0 * AT_Q + g2 * (Q2 * AT_Q), g1 * (Q * AT_Q)
    return [g0 * (1 / (P2 * Q2)), a + b, a - b, c + d, c - d, g2 * 1.0]


def outputs4(m):
    """A' for m = 4: 6 -> 4. Column p is (1, p, p^2, p^3)."""
    m0, m1, m2, m3, m4, m5 = m
    a, b, c, d = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return [m0 + a + c, P * b + Q * d, P2 * a + Q2 * c, P3 * b + Q3 * d + m5]


def outputs4_adjoint(y):
    """A for m = 4: 4 -> 6."""
    y0, y1, y2, y3 = y
    a, b, c, d = y0 + P2 * y2, P * y1 + P3 * y3, y0 + Q2 * y2, Q * y1 + Q3 * y3
    return [y0 * 1.0, a + b, a - b, c + d, c - d, y3 * 1.0]


def weights4_adjoint(u):
    """G' for m = 4: 6 -> 3."""
    u0, u1, u2, u3, u4, u5 = u
    a, b, c, d = (u1 + u2) * AT_P, (u1 - u2) * AT_P, (u3 + u4) * AT_Q, (u3 - u4) * AT_Q
    return [u0 * (1 / (P2 * Q2)) + a + c, P * b + Q * d, P2 * a + Q2 * c + u5]


def inputs2(d):
    """B' for m = 2: 4 -> 4."""
    d0, d1, d2, d3 = d
    return [d0 - d2, d1 + d2, d2 - d1, d1 - d3]


def weights2(g):
    """G for m = 2: 3 -> 4."""
    g0, g1, g2 = g
    a, b = (g0 + g2) * 0.5, g1 * 0.5
    return [g0 * 1.0, a + b, a - b, g2 * 1.0]


def outputs2(m):
    """A' for m = 2: 4 -> 2."""
    m0, m1, m2, m3 = m
    return [m0 + m1 + m2, m1 - m2 - m3]


def outputs2_adjoint(y):
    """A for m = 2: 2 -> 4."""
    y0, y1 = y
    return [y0 * 1.0, y0 + y1, y0 - y1, y1 * -1.0]


def weights2_adjoint(u):
    """G' for m = 2: 4 -> 3."""
    u0, u1, u2, u3 = u
    a, b = (u1 + u2) * 0.5, (u1 - u2) * 0.5
    return [u0 + a, b * 1.0, a + u3]


def both(line, size_in, size_out, edge, **options):
    """The map of whole tiles, and of those that reach over the edge of an image on side x or y."""
    return (blocks.tile_transform(line, size_in, size_out, edge=side, **options) for side in (None, edge))


of_input4, of_input_edge4 = both(inputs4, 6, 6, "x")
of_input2, of_input_edge2 = both(inputs2, 4, 4, "x")
of_product4, of_product_edge4 = both(outputs4, 6, 4, "y", bias=True)
of_product2, of_product_edge2 = both(outputs2, 4, 2, "y", bias=True)
of_output4, of_output_edge4 = both(outputs4_adjoint, 4, 6, "x")
of_output2, of_output_edge2 = both(outputs2_adjoint, 2, 4, "x")
# Weights are few and meet every tile: their maps are taken in float64.
of_weight4 = blocks.tile_transform(weights4, 3, 6, exact=True)
of_weight2 = blocks.tile_transform(weights2, 3, 4, exact=True)
to_weight4, to_weight2 = blocks.tile_transform(weights4_adjoint, 6, 3), blocks.tile_transform(weights2_adjoint, 4, 3)
