"""A network's loss at many points of a line or a plane, on the same rows."""

from math import prod

from nn import Residual, Run, Sequential
from npopt import backend
from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.values import whole


@elementwise
def on_line(y, x, d, a):
    """y <- x + a d."""
    y = x + a * d
    return y


@elementwise
def on_plane(y, x, d, e, a, b):
    """y <- x + a d + b e."""
    y = x + a * d + b * e
    return y


def widths(layer, shape):
    """How many numbers of a row go into and come out of each layer."""
    yield prod(shape)
    if isinstance(layer, Sequential):
        for child in layer.layers:
            yield from widths(child, shape)
            shape = child.output_shape(shape)
    elif isinstance(layer, Residual):
        yield from widths(layer.block, shape)
    yield prod(layer.output_shape(shape) if not isinstance(layer, Sequential) else shape)


def mixed(one, two, a):
    """(1 - a) of one state of batch statistics and a of the other."""
    return {
        path: {name: (1 - a) * value + a * two[path][name] for name, value in state.items()}
        for path, state in one.items()
    }


class Sections:
    """A part of Neural: its loss along directions."""

    def along(self, plane, coefficients, rows=None, part="train", statistics="running", batch=None):
        """(loss, accuracy) at x + sum_k c_k d_k for each row of coefficients, one after the other.

        plane        with origin x, (dim,), and directions, (1 or 2, dim)
        rows         of this part; None: all
        statistics   of batch normalisation: "running", those that the network has, at every point; "rows", at each
                     point those of these rows themselves, all of them one batch, as a training pass has; or a pair of
                     states (problem.state()), which are mixed as the weights are: (1 - a) of the first and a of the
                     second, between 0 and 1, beyond that those of the nearer end. Without such layers they are one.
        batch        rows in a pass, where the statistics leave the choice; None: all that keep a layer's numbers in
                     the processor's cache

        Everything is in evaluation mode: no dropout, no augmentation, and without the l2 term, as train_loss and
        test_loss. Inputs are made once. A point costs one pass forward and no memory of its own.
        """
        states = None
        if not isinstance(statistics, str):
            states, statistics = [state["statistics"] for state in statistics], "running"
            if len(states) != 2:
                raise UserError(f"along: statistics must be 'running', 'rows' or two states, got {len(states)} of them")
        elif statistics not in ("running", "rows"):
            raise UserError(f"along: statistics must be 'running', 'rows' or two states, got {statistics!r}")
        together = statistics == "rows" and self.network.recalibrates
        count = self.feed.count(part) if rows is None else len(rows)
        size = count if together else whole("along", "batch", batch) if batch else self.fitting()
        if rows is None:
            batches = self.feed.walk(part, count, size)
        else:
            rows = backend.asarray(rows, "int64")
            batches = [rows[first : first + size] for first in range(0, count, size)]
        held = [(self.feed.batch(part, some), some) for some in batches]
        y, kept = backend.xp(plane.origin).empty_like(plane.origin), self.network.state() if states else None
        for some in coefficients:
            place(y, self.check(plane.origin), plane.directions, some)
            if states:
                self.network.load_state(mixed(*states, float(min(max(some[0], 0.0), 1.0))))
            try:
                found = self._mean_loss(y, held, together)
            finally:
                if states:
                    self.network.load_state(kept)
            yield found

    def fitting(self):
        """Rows whose largest layer takes four megabytes: a layer's input and output stay in the processor's cache."""
        numbers = max(widths(self.network.layer, self.network.input_shape))
        return int(min(max(2**22 // (numbers * self.dtype.itemsize), 16), self.metrics_batch))

    def _mean_loss(self, y, held, together):
        """(loss, accuracy) at y over batches that were made."""
        self.network.bind(y)
        loss, right, total, carried = 0.0, 0.0, 0, {}
        for (inputs, targets), some in held:
            run = Run(recalibrating=together, compute=self.compute, rows=some, pending=None if together else carried)
            z = self.network.forward(inputs, run)[0]
            more = self.loss_function.sums(z, targets)
            loss, right, total = loss + more[0], right + more[1], total + more[2]
        return loss / total, right / total if self.loss_function.accuracy else float("nan")


def place(y, x, directions, coefficients):
    """y <- x + sum_k c_k d_k."""
    if directions.shape[0] == 1:
        on_line(y, x, directions[0], float(coefficients[0]))
    else:
        on_plane(y, x, directions[0], directions[1], *(float(c) for c in coefficients))
