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
    standard normal numbers.
    """
    network = layer if isinstance(layer, Network) else Network(layer, input_shape, name=type(layer).__name__)
    rng = np.random.default_rng(seed)
    shape = (batch, *network.input_shape)
    a = rng.standard_normal(shape) if inputs is None else np.asarray(inputs, np.float64)
    weights = np.asarray(backend.to_host(network.x0(rng, "float64"))).reshape(-1)
    point = np.concatenate([weights + 0.3 * rng.standard_normal(network.dim), a.reshape(-1)])
    c = backend.asarray(rng.standard_normal((batch, *network.output_shape)))
    there, back, split = Run(training, seed=seed), Run(training, dx=True, seed=seed), network.dim
    table = [(s.name, s.shape, s.kind, s.block) for s in network.segments]

    def value(x, rows=None):
        network.bind(x[:split])
        y, _ = network.forward(x[split:].reshape(shape), there)
        return (y * c).sum()

    def value_and_gradient(x, rows=None, out=None):
        network.bind(x[:split], out[:split])
        y, saved = network.forward(x[split:].reshape(shape), back)
        loss = (y * c).sum()
        out[split:] = network.backward(c.copy(), saved, back).reshape(-1)
        return loss

    problem = SimpleNamespace(
        name=network.name,
        value=value,
        value_and_gradient=value_and_gradient,
        segments=Segments.of(*table, ("inputs", shape, "vector", "inputs")),
    )
    return gradcheck(problem, backend.asarray(point), directions=directions, h=h, tol=tol, seed=seed + 1)
