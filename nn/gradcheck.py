"""npopt.gradcheck for a layer or a network: every parameter and the input, with a random upstream gradient."""

from types import SimpleNamespace

from npopt import backend
from npopt.analysis.gradcheck import gradcheck
from npopt.segments import Segments

import numpy as np

from .layer import Run
from .network import Network


def gradcheck_layer(layer, input_shape, batch=3, training=True, tol=1e-7, seed=0, directions=2, h=None, inputs=None):
    """Check f(parameters, inputs) = sum c * layer(inputs), c random; -> npopt.analysis.gradcheck.Report.

    An upstream gradient c of ones would hide errors: batch norm's input gradient is then zero, right or wrong. No
    parameter stays at a neutral start such as 0 or 1: each is its initial value plus N(0, 0.3^2). The Report has a
    line for each parameter and one for "inputs". layer may be a Network; inputs are (batch, *input_shape), by default
    standard normal numbers. A layer that takes a tuple of arrays has a tuple of shapes; those of whole numbers or bool
    stay as they are, and the gradient of the others is what backward returns, an array or a tuple.
    """
    network = layer if isinstance(layer, Network) else Network(layer, input_shape, name=type(layer).__name__)
    rng = np.random.default_rng(seed)
    shapes = network.input_shape if isinstance(network.input_shape[0], tuple) else (network.input_shape,)
    given = inputs if isinstance(inputs, tuple) else (inputs,) * len(shapes)
    pairs = zip(given, shapes, strict=True)
    arrays = [rng.standard_normal((batch, *shape)) if a is None else np.asarray(a) for a, shape in pairs]
    moving = [a.dtype.kind == "f" for a in arrays]
    weights = np.asarray(backend.to_host(network.x0(rng, "float64"))).reshape(-1)
    point = np.concatenate(
        [weights + 0.3 * rng.standard_normal(network.dim)]
        + [a.reshape(-1).astype("float64") for a, moves in zip(arrays, moving, strict=True) if moves]
    )
    c = backend.asarray(rng.standard_normal((len(arrays[0]), *network.output_shape)))
    there, split = Run(training, seed=seed), network.dim
    back = Run(training, backward=True, dx=any(moving), seed=seed)
    table = [(s.name, s.shape, s.kind, s.block) for s in network.segments]
    fixed = [None if moves else backend.asarray(a) for a, moves in zip(arrays, moving, strict=True)]

    def taken(x):
        return inputs_of(x[split:], arrays, fixed)

    def value(x, rows=None):
        network.bind(x[:split])
        y, _ = network.forward(taken(x), there)
        return (y * c).sum()

    def value_and_gradient(x, rows=None, out=None):
        network.bind(x[:split], out[:split])
        y, saved = network.forward(taken(x), back)
        loss, at = (y * c).sum(), split
        dx = network.backward(c.copy(), saved, back)
        for d in (dx if isinstance(dx, tuple) else (dx,)) if any(moving) else ():
            out[at : at + d.size] = d.reshape(-1)
            at += d.size
        return loss

    shape = arrays[0].shape if len(arrays) == 1 else (len(point) - split,)
    problem = SimpleNamespace(
        name=network.name,
        value=value,
        value_and_gradient=value_and_gradient,
        segments=Segments.of(*table, *[("inputs", shape, "vector", "inputs")] * any(moving)),
    )
    return gradcheck(problem, backend.asarray(point), directions=directions, h=h, tol=tol, seed=seed + 1)


def inputs_of(x, arrays, fixed):
    """Inputs of the shapes of `arrays`: those that are fixed, and None's in turn out of the flat x."""
    found, at = [], 0
    for a, constant in zip(arrays, fixed, strict=True):
        if constant is None:
            constant, at = x[at : at + a.size].reshape(a.shape), at + a.size
        found.append(constant)
    return found[0] if len(found) == 1 else tuple(found)
