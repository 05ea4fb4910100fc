"""What attacks ask of a network: its inputs' box, and passes whose inputs are not those of rows."""

from nn import Run
from nn.losses import KLDivergence, columns, weighted_mean
from npopt import backend
from npopt.estimators.accumulated import add

KL = KLDivergence()


class OfInputs:
    """A part of Neural. Passes in evaluation mode change nothing, and their gradients are those of the rows one by one:
    dinputs[b] = d l_b / d inputs[b], of the sum of losses, not of their mean."""

    def box(self):
        """(low, high, unit): black, white and white - black in the network's scale, each of one row's shape."""
        return self.feed.box()

    def image_shape(self):
        """(H, W, C) of a row, or its shape as it is where rows are no images."""
        return tuple(self.feed.parts["train"][0].shape[1:])

    def pairs(self, part, rows=None):
        """(inputs, targets) of rows of a part, without augmentation; inputs (B, *input_shape) in its scale."""
        return self.feed.batch(part, None if rows is None else backend.asarray(rows, "int64"))

    def scores(self, x, inputs):
        """The network's outputs for these inputs in evaluation mode, (B, *output_shape), on the device."""
        self.network.bind(self.check(x))
        return self.network.forward(inputs, Run(compute=self.compute))[0]

    def attacked(self, x, inputs, targets, loss=None, dinputs=None):
        """(outputs, losses), losses (B,), in evaluation mode. dinputs receives the gradient of each row's loss.

        loss: a loss of nn.losses or of problems.attacks; None: the problem's own.
        """
        loss = self.loss_function if loss is None else loss
        if dinputs is None:
            z = self.scores(x, inputs)
            return z, loss.rows(z, targets)
        self.network.bind(self.check(x))
        run = Run(dx=True, compute=self.compute)
        z, *kept = self.network.forward(inputs, run)
        losses = loss.rows(z, targets)
        ones = backend.zeros(z.shape[:1], z.dtype) + z.shape[0]  # B of B: a gradient of 0 must not become 1e-10
        _, dz = loss.value_and_gradient(z, targets, ones)
        if self.loss_scale != 1:
            dz *= self.loss_scale
        dinputs[...] = self.network.backward(dz, kept.pop(), run).reshape(dinputs.shape)
        if self.loss_scale != 1:
            dinputs *= 1 / self.loss_scale
        return z, losses

    def divergence(self, x, natural, inputs, dinputs=None):
        """(B,) KL(softmax(natural) || softmax(outputs)) in evaluation mode; dinputs receives its gradient by rows."""
        return self.attacked(x, inputs, natural, KL, dinputs)[1]

    def compared(self, x, rows, weights, out, inputs, beta):
        """L(x) + (beta/B) sum_b w_b KL(softmax(z_b) || softmax(z'_b)), z' the outputs of `inputs`; a training pass.

        out, (dim,) or None, receives the gradient through both outputs. Both see the same dropout, batch norm
        normalises each by itself, and the natural inputs leave the statistics.
        """
        own, targets, run = self._prepare(rows, None, backward=out is not None)
        other = self._prepare(rows, inputs)[0]
        self.network.bind(self.check(x), out)
        z, kept = self.network.forward(own, run)
        v, more = self.network.forward(other, run)
        loss, dz = self.loss_function.value_and_gradient(z, targets, weights)
        apart, dv, dt = KL.both(v, z)
        loss = loss + beta * weighted_mean(apart, weights)
        if out is not None:
            share = self.loss_scale * beta / z.shape[0]
            dt, dv = (d * share if weights is None else d * columns(weights, d) * share for d in (dt, dv))
            dz *= self.loss_scale
            dz += dt
            self.network.backward(dz, kept, run)
            scratch = backend.xp(x).empty_like(out)
            self.network.bind(x, scratch)
            self.network.backward(dv, more, run)
            out += scratch
            if self.loss_scale != 1:
                out *= 1 / self.loss_scale
        if self.l2:
            strength, term = self._l2(x, weights)
            loss = loss + term
            if out is not None:
                add(out, x, strength)
        return loss
