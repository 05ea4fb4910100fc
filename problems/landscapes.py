"""Functions of two variables with known minima, to look at: names, formulas, gradients, a window, a start.

Each entry of LANDSCAPES, and of OPEN, which have no minimum, has `f` and `gradient` for x and y, numbers or arrays of
one shape; `minima` with the value there; `window` (low x, high x, low y, high y) and `start` for drawings. Sources:
Surjanovic & Bingham's virtual library of simulation experiments for the standard ones; valley and saddles after A.
Radford's animations, whose formulas are not known.
"""

import dataclasses
from collections.abc import Callable

from npopt import backend
from npopt.errors import UserError
from problems.base import Problem

import numpy as np


@dataclasses.dataclass(frozen=True)
class Landscape:
    title: str
    formula: str
    f: Callable
    gradient: Callable
    minima: tuple
    value: float
    window: tuple
    start: tuple


def beale(x, y):
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def beale_gradient(x, y):
    a, b, c = 1.5 - x + x * y, 2.25 - x + x * y**2, 2.625 - x + x * y**3
    return 2 * (a * (y - 1) + b * (y**2 - 1) + c * (y**3 - 1)), 2 * x * (a + 2 * b * y + 3 * c * y**2)


def himmelblau(x, y):
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def himmelblau_gradient(x, y):
    a, b = x**2 + y - 11, x + y**2 - 7
    return 4 * x * a + 2 * b, 2 * a + 4 * y * b


def rosenbrock(x, y):
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def rosenbrock_gradient(x, y):
    return -2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)


def goldstein_price(x, y):
    a = 1 + (x + y + 1) ** 2 * (19 - 14 * x + 3 * x**2 - 14 * y + 6 * x * y + 3 * y**2)
    b = 30 + (2 * x - 3 * y) ** 2 * (18 - 32 * x + 12 * x**2 + 48 * y - 36 * x * y + 27 * y**2)
    return a * b


def goldstein_price_gradient(x, y):
    s, d = x + y + 1, 2 * x - 3 * y
    p = 19 - 14 * x + 3 * x**2 - 14 * y + 6 * x * y + 3 * y**2
    q = 18 - 32 * x + 12 * x**2 + 48 * y - 36 * x * y + 27 * y**2
    a, b = 1 + s**2 * p, 30 + d**2 * q
    ax, ay = 2 * s * p + s**2 * (-14 + 6 * x + 6 * y), 2 * s * p + s**2 * (-14 + 6 * x + 6 * y)
    bx, by = 4 * d * q + d**2 * (-32 + 24 * x - 36 * y), -6 * d * q + d**2 * (48 - 36 * x + 54 * y)
    return ax * b + a * bx, ay * b + a * by


def ackley(x, y):
    r, c = np.sqrt(0.5 * (x**2 + y**2)), 0.5 * (np.cos(2 * np.pi * x) + np.cos(2 * np.pi * y))
    return -20 * np.exp(-0.2 * r) - np.exp(c) + np.e + 20


def ackley_gradient(x, y):
    r, c = np.sqrt(0.5 * (x**2 + y**2)), 0.5 * (np.cos(2 * np.pi * x) + np.cos(2 * np.pi * y))
    slope = 2 * np.exp(-0.2 * r) / np.where(r > 0, r, 1)  # the minimum is a cusp: 0 there
    return tuple(slope * v + np.pi * np.sin(2 * np.pi * v) * np.exp(c) for v in (x, y))


LANDSCAPES = {
    "beale": Landscape(
        "Beale",
        "(1.5 - x + xy)^2 + (2.25 - x + xy^2)^2 + (2.625 - x + xy^3)^2",
        beale,
        beale_gradient,
        ((3.0, 0.5),),
        0.0,
        (-0.6, 4.2, -1.4, 1.9),
        (1.0, 1.5),
    ),
    "valley": Landscape(
        "long valley",
        "x^2/20 + y^2",
        lambda x, y: x**2 / 20 + y**2,
        lambda x, y: (x / 10, 2 * y),
        ((0.0, 0.0),),
        0.0,
        (-4.6, 1.4, -1.6, 1.6),
        (-4.0, 1.0),
    ),
    "saddle": Landscape(
        "saddle",
        "x^2 - y^2 + y^4/4",
        lambda x, y: x**2 - y**2 + y**4 / 4,
        lambda x, y: (2 * x, y**3 - 2 * y),
        ((0.0, 2**0.5), (0.0, -(2**0.5))),
        -1.0,
        (-0.9, 0.9, -1.8, 1.8),
        (0.5, 1e-4),
    ),
    "rosenbrock": Landscape(
        "Rosenbrock",
        "(1 - x)^2 + 100 (y - x^2)^2",
        rosenbrock,
        rosenbrock_gradient,
        ((1.0, 1.0),),
        0.0,
        (-1.8, 1.8, -0.6, 2.2),
        (-1.2, 1.0),
    ),
    "himmelblau": Landscape(
        "Himmelblau",
        "(x^2 + y - 11)^2 + (x + y^2 - 7)^2",
        himmelblau,
        himmelblau_gradient,
        (
            (3.0, 2.0),
            (-2.805118086952745, 3.131312518250573),
            (-3.779310253377747, -3.283185991286170),
            (3.584428340330492, -1.848126526964404),
        ),
        0.0,
        (-5.2, 5.2, -5.2, 5.2),
        (-0.5, -0.9),
    ),
    "six-hump camel": Landscape(
        "six-hump camel",
        "(4 - 2.1x^2 + x^4/3) x^2 + xy + (4y^2 - 4) y^2",
        lambda x, y: (4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (4 * y**2 - 4) * y**2,
        lambda x, y: (8 * x - 8.4 * x**3 + 2 * x**5 + y, x + 16 * y**3 - 8 * y),
        ((0.08984201368301331, -0.7126564032704135), (-0.08984201368301331, 0.7126564032704135)),
        -1.0316284534898774,
        (-2.1, 2.1, -1.2, 1.2),
        (-1.8, 0.9),
    ),
    "three-hump camel": Landscape(
        "three-hump camel",
        "2x^2 - 1.05x^4 + x^6/6 + xy + y^2",
        lambda x, y: 2 * x**2 - 1.05 * x**4 + x**6 / 6 + x * y + y**2,
        lambda x, y: (4 * x - 4.2 * x**3 + x**5 + y, x + 2 * y),
        ((0.0, 0.0),),
        0.0,
        (-2.4, 2.4, -2.4, 2.4),
        (-1.1, 1.9),
    ),
    "goldstein-price": Landscape(
        "Goldstein-Price",
        "(1 + (x+y+1)^2 p)(30 + (2x-3y)^2 q)",
        goldstein_price,
        goldstein_price_gradient,
        ((0.0, -1.0),),
        3.0,
        (-2.0, 2.0, -2.2, 1.4),
        (-1.5, 0.5),
    ),
    "mccormick": Landscape(
        "McCormick",
        "sin(x + y) + (x - y)^2 - 1.5x + 2.5y + 1",
        lambda x, y: np.sin(x + y) + (x - y) ** 2 - 1.5 * x + 2.5 * y + 1,
        lambda x, y: (np.cos(x + y) + 2 * (x - y) - 1.5, np.cos(x + y) - 2 * (x - y) + 2.5),
        ((0.5 - np.pi / 3, -0.5 - np.pi / 3),),
        -1.9132229549810362,
        (-1.5, 4.0, -3.0, 4.0),
        (2.5, 3.5),
    ),
    "styblinski-tang": Landscape(
        "Styblinski-Tang",
        "(x^4 - 16x^2 + 5x + y^4 - 16y^2 + 5y)/2",
        lambda x, y: sum(v**4 - 16 * v**2 + 5 * v for v in (x, y)) / 2,
        lambda x, y: tuple(2 * v**3 - 16 * v + 2.5 for v in (x, y)),
        ((-2.903534027771177, -2.903534027771177),),
        -78.33233140754282,
        (-4.6, 4.6, -4.6, 4.6),
        (0.4, 3.8),
    ),
    "rastrigin": Landscape(
        "Rastrigin",
        "20 + x^2 + y^2 - 10 (cos 2 pi x + cos 2 pi y)",
        lambda x, y: 20 + sum(v**2 - 10 * np.cos(2 * np.pi * v) for v in (x, y)),
        lambda x, y: tuple(2 * v + 20 * np.pi * np.sin(2 * np.pi * v) for v in (x, y)),
        ((0.0, 0.0),),
        0.0,
        (-2.6, 2.6, -2.6, 2.6),
        (2.1, -1.7),
    ),
    "ackley": Landscape(
        "Ackley",
        "-20 exp(-0.2 sqrt((x^2+y^2)/2)) - exp((cos 2 pi x + cos 2 pi y)/2) + e + 20",
        ackley,
        ackley_gradient,
        ((0.0, 0.0),),
        0.0,
        (-3.2, 3.2, -3.2, 3.2),
        (2.6, -2.2),
    ),
}


OPEN = {  # without a least value; heights count from the saddle point's
    "open saddle": Landscape(
        "open saddle",
        "x^2 - y^2",
        lambda x, y: x**2 - y**2,
        lambda x, y: (2 * x, -2 * y),
        (),
        0.0,
        (-1.0, 1.0, -1.6, 1.6),
        (0.5, 1e-4),
    ),
}
EVERY = {**LANDSCAPES, **OPEN}


def at(function, point):
    """The function at two numbers, with NumPy's infinities where Python's floats raise an OverflowError."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return function(*point)
    except OverflowError:
        return at(function, np.array(point))


class Surface(Problem):
    """One of LANDSCAPES, or of OPEN, as a problem of one row: Surface("beale"), started where its drawing starts or at
    `start`.

    shift moves the surface: f(x - shift), with minima and start moved, too. Some minima lie at 0, where methods whose
    step is proportional to |x|, or that decay x, are drawn whatever f is.

    Metrics: f, the gap f - f*, the point x and y, and the distance to the nearest minimum (infinite where there is
    none). Two numbers are computed on the host: on a device each pass reads x and sends the gradient back.
    """

    n = 1

    def __init__(self, name, start=None, dtype=np.float64, shift=(0.0, 0.0)):
        if name not in EVERY:
            raise UserError(f"Surface: no landscape is called {name!r}; there are {', '.join(EVERY)}")
        self.landscape, self.name = EVERY[name], name
        self.shift = np.array(shift, float)
        self.start = tuple(float(v) for v in (self.landscape.start + self.shift if start is None else start))
        self.set_shape(2, dtype)

    def x0(self, rng):
        return backend.asarray(np.array(self.start, self.dtype))

    def value_and_gradient(self, x, rows=None, weights=None, out=None):
        point = [float(v) for v in backend.to_host(self.check(x)) - self.shift]
        if out is not None:
            out[...] = backend.asarray(np.array(at(self.landscape.gradient, point), self.dtype))
        return float(at(self.landscape.f, point))

    def loss(self, x, rows, weights):
        return self.value_and_gradient(x)

    def minimum(self):
        """(the minima, (k, 2), f*)."""
        return np.reshape(self.landscape.minima, (-1, 2)) + self.shift, self.landscape.value

    def metrics(self, x):
        point = np.asarray(backend.to_host(x), float)
        f = float(at(self.landscape.f, point - self.shift))
        distance = float(np.sqrt(((self.minimum()[0] - point) ** 2).sum(1)).min(initial=np.inf))
        return {"f": f, "gap": f - self.landscape.value, "x": point[0], "y": point[1], "distance": distance}
