"""The gradient of a network in pieces, the last layer's first, while its backward pass runs (nn/release.py)."""

from nn.release import Release
from npopt.backend import elementwise


@elementwise
def add_scaled(y, x, a):
    y = y + a * x
    return y


@elementwise
def scaled(y, a):
    y = a * y
    return y


class Released:
    """What a Neural has for gradients that are never whole."""

    _release = None

    def value_and_pieces(self, x, rows=None, weights=None, names=None):
        """As of every problem. The forward pass is made here, and the backward pass in each(take).

        A piece is the gradient of value_and_gradient to the last bit. What is below the lowest of `names` keeps no
        activations, and backward stops there. Between the two calls the network must not be used for another pass.
        """
        network = self.network
        active = None if names is None else frozenset(self.segments.select(names).names)
        if self._release is None:
            self._release = Release(network)
        inputs, targets, run = self._prepare(rows, None)
        network.bind(self.check(x), self._release, active)
        z, *kept = network.forward(inputs, run)
        loss, dz = self.loss_function.value_and_gradient(z, targets, weights)
        del z
        self.seen(dz, weights)
        if self.loss_scale != 1:
            dz *= self.loss_scale
        strength = 0.0
        if self.l2:
            strength, term = self._l2(x, weights)
            loss = loss + term
        dz = [dz]

        def each(take):
            def finished(segment, gradient):
                if self.loss_scale != 1:
                    scaled(gradient, 1 / self.loss_scale)
                if self.l2:
                    add_scaled(gradient, x[segment.slice], strength)
                take(segment.slice, gradient)

            # pop: our only references, so that what a layer kept goes when it is used
            self._release.backward(lambda: network.backward(dz.pop(), kept.pop(), run), finished)

        return loss, each
