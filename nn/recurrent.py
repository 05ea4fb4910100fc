"""Recurrent layers over sequences, (B, T, C) -> (B, T, H): LSTM and GRU, with back-propagation through time.

The products with x of all times are one product, and so are the gradients of W and U; what goes from time to time is in
nn/kernels. s is the logistic function, products of gates are number by number.

With `streams` = B the state at the end of a row goes on into the next: truncated back-propagation through time
(Williams & Peng, Neural Computation 2(4), 1990). Place b of a batch starts where place b of the committed batch before
it ended, if its row is the one behind that row, r' = r + 1; else at zero: at the text's beginning, and where a stream
begins again. samplers.Sequential brings rows in such an order. No gradient goes back into that state. In training a
pass leaves its last state, and `commit` makes it the next step's beginning: between begin and commit the layer is one
fixed function. In evaluation it goes on from pass to pass of one walk through the text, whose Run keeps it.
"""

from math import sqrt

from npopt import backend
from npopt.backend import xp
from npopt.errors import UserError
from npopt.values import number, whole

import numpy as np

from . import init as initialisers
from . import kernels
from .layer import Layer


class Recurrent(Layer):
    """What LSTM and GRU share. A subclass has `gates` and `states`, a name for each array of the state, and

    through(x, state, mask) -> y, last, more    y, (B, T, H), the last state, and what else backward needs
    back(dy, saved, last) -> da, db, seen       the gradients of W x + b and of the recurrent products, (B, T, gates H)
                                                each, and k h_(t-1), (B, T, H); writes that of the first state over
                                                `last`, that of the last
    """

    gates, states = 1, ("h",)

    def __init__(self, inputs, units, dropout=0.0, streams=0, init=None):
        name = type(self).__name__
        self.inputs, self.units = whole(name, "inputs", inputs), whole(name, "units", units)
        self.dropout = number(name, "dropout", dropout, low=0, high=1, open_high=True)
        self.streams = whole(name, "streams", streams, 0)
        rows, usual = self.gates * units, initialisers.Uniform(1 / sqrt(units))
        self.shapes = {"W": ((rows, inputs), "matrix"), "U": ((rows, units), "matrix"), "b": ((rows,), "bias")}
        self.init = {"W": init or usual, "U": init or usual, "b": initialisers.Zeros() if init else usual}
        self.kept = None

    def output_shape(self, shape):
        if len(shape) != 2 or shape[1] != self.inputs:
            raise UserError(f"{type(self).__name__}: a row must be (times, {self.inputs}), got {tuple(shape)}")
        return (shape[0], self.units)

    def fans(self, name):
        return self.inputs if name == "W" else self.units, self.units

    def forward(self, x, run):
        """y of x, from the state that the rows begin with."""
        y, last, saved = self.unroll(x, self.first(x, run), run)
        if self.streams and not run.recalibrating and (not run.training or len(x) == self.streams):
            run.leave(self, (self.rows(x, run).copy(), *(s.copy() for s in last)))
        return y, saved

    def extend(self, x, past):
        """y at further positions, from the state behind those that came before; a text begins at zero."""
        before = past.carried.get(self)
        zeros = [backend.zeros((x.shape[0], self.units), x.dtype) for _ in self.states]
        state = zeros if before is None or not past.length else [part[:, past.length - 1].copy() for part in before]
        y, _, more = self.through(x, state, None)
        past.carry(self, self.path_of(y, more))
        return y

    def extendable(self):
        """Of all recurrent layers."""

    def path_of(self, y, more):
        """The states at all times, (B, T, H) each, from what `through` returned."""
        return (y,)

    def unroll(self, x, state, run):
        """(y, last state, saved) of x, (B, T, in), from a state: a list of arrays (B, H), as `states` names them."""
        mask = self.mask(x, run)
        y, last, more = self.through(x, state, mask)
        return y, last, (x, state, mask, y, *more)

    def backward(self, dy, saved, run):
        return self.rolled_back(dy, saved, None, run)[0]

    def rolled_back(self, dy, saved, last, run):
        """(dx or None, the gradient of the first state), given that of the last one beside dy; None: zeros. Writes the
        gradients of the parameters."""
        x, state = saved[:2]  # forward was: a = W x + b, then time after time a + U (k h)
        last = [backend.zeros(s.shape, s.dtype) if last is None else last[i].copy() for i, s in enumerate(state)]
        da, db, seen = self.back(dy, saved, last)
        flat = da.reshape(-1, da.shape[2])
        if self.dW is not None:
            kernels.linear_weights(x.reshape(-1, self.inputs), flat, self.dW)  # dW = da' x
        if self.db is not None:
            kernels.sum_rows(flat, self.db)
        if self.dU is not None:
            self.recurrent_weights(db, seen, saved)
        if not run.dx:
            return None, last
        dx = backend.empty((flat.shape[0], self.inputs), dy.dtype)
        kernels.linear_inputs(flat, self.W, dx)  # dx = da W
        return dx.reshape(x.shape), last

    def recurrent_weights(self, db, seen, saved):
        kernels.linear_weights(seen.reshape(-1, self.units), db.reshape(-1, db.shape[2]), self.dU)  # dU = db' (k h)

    def products(self, x):
        """W x + b at all times, (B, T, gates H)."""
        a = backend.empty((*x.shape[:2], self.gates * self.units), x.dtype)
        kernels.linear(x.reshape(-1, self.inputs), self.W, self.b, a.reshape(-1, a.shape[2]))
        return a

    def mask(self, x, run):
        """k of a training pass, (B, H), 0 or 1/(1 - p), a function of (seed, step, layer name, row); else None."""
        if not run.training or self.dropout == 0:
            return None
        u = backend.empty((x.shape[0], self.units), x.dtype)
        backend.row_uniform(backend.key(run.seed, f"recurrent {self.path}", run.step), run.rows, u)
        return ((u >= self.dropout) * (1 / (1 - self.dropout))).astype(x.dtype)

    # --- the state that goes on --------------------------------------------------------------------------------------

    def rows(self, x, run):
        return xp(x).arange(x.shape[0]) if run.rows is None else run.rows

    def first(self, x, run):
        """The state that the rows of x begin with."""
        batch, kept = x.shape[0], None
        if self.streams and not run.recalibrating:
            kept = self.kept if run.training else run.left(self)
        if kept is None or len(kept[0]) < batch or run.training and batch != self.streams:
            return [backend.zeros((batch, self.units), x.dtype) for _ in self.states]
        m, (before, *states) = xp(x), kept
        on = (self.rows(x, run) == before[:batch] + 1).reshape(-1, 1)
        return [m.where(on, s[:batch], 0).astype(x.dtype) for s in states]

    def commit(self, left):
        """The next step goes on from what was left."""
        self.kept = left

    def state(self):
        """The rows that were committed, (streams,), and the state at their ends, (streams, H) each, in float64."""
        if not self.streams:
            return {}
        if self.kept is None:
            empty = {name: np.zeros((self.streams, self.units)) for name in self.states}
            return {"rows": np.full(self.streams, -2), **empty}  # no row follows row -2
        rows, *states = (backend.to_host(part) for part in self.kept)
        return {"rows": rows.copy(), **{n: s.astype("float64") for n, s in zip(self.states, states, strict=True)}}

    def load_state(self, state):
        if self.streams:
            self.kept = tuple(backend.asarray(state[name]) for name in ("rows", *self.states))

    def __repr__(self):
        more = f", dropout={self.dropout:g}" * bool(self.dropout) + f", streams={self.streams}" * bool(self.streams)
        return f"{type(self).__name__}({self.inputs}, {self.units}{self.form()}{more})"

    def form(self):
        return ""


def shifted(y, first):
    """The states before those of y, (B, T, H): `first` at time 0."""
    before = backend.empty(y.shape, y.dtype)
    before[:, 0] = first
    before[:, 1:] = y[:, :-1]
    return before


class LSTM(Recurrent):
    """Long short-term memory with a forget gate: Hochreiter & Schmidhuber, Neural Computation 9(8), 1997; Gers,
    Schmidhuber & Cummins, 2000.   x: (B, T, in)   W: (4H, in)   U: (4H, H)   b: (4H,)   h, c: (B, H)   y: (B, T, H)

        (a_i, a_f, a_g, a_o) = W x_t + U (k h_(t-1)) + b          i, f, o = s(a_i), s(a_f), s(a_o);   g = tanh(a_g)
        c_t = f c_(t-1) + i g            y_t = h_t = o tanh(c_t)

    The order of the gates is PyTorch's, and W, U are its weight_ih, weight_hh. PyTorch has two biases, of which only
    the sum counts: b = bias_ih + bias_hh. A step of SGD moves that sum twice as far as it moves b here.

    dropout  of h_(t-1) where the gates see it, with one mask k for all times: Gal & Ghahramani, NIPS 2016, equation 7
    streams  rows of a training batch whose state goes on into the next batch (see above); 0: every row starts at zero
    init     of W and U, biases 0; None: all U(-1/sqrt(H), 1/sqrt(H)), as in PyTorch

    Backward through time, from the last time to the first: nn/kernels/reference_recurrent.py derives da, then
        dW = sum_t da_t' x_t,   dU = sum_t da_t' (k h_(t-1)),   db = sum_t da_t,   dx_t = da_t W.
    Kept: x, y, the gates, c.
    """

    gates, states = 4, ("h", "c")

    def through(self, x, state, mask):
        a = self.products(x)
        y, c = (backend.empty((*x.shape[:2], self.units), x.dtype) for _ in "yc")
        kernels.lstm(a, self.U, mask, *state, y, c)
        return y, [y[:, -1], c[:, -1]], (a, c)

    def path_of(self, y, more):
        return y, more[1]

    def back(self, dy, saved, last):
        _, (h0, c0), mask, y, gates, c = saved
        da = backend.empty(gates.shape, dy.dtype)
        kernels.lstm_backward(gates, c, c0, self.U, mask, dy, da, *last)
        before = shifted(y, h0)
        return da, da, before if mask is None else before * mask[:, None]


class GRU(Recurrent):
    """Gated recurrent unit: Cho et al., EMNLP 2014.   x: (B, T, in)   W: (3H, in)   U: (3H, H)   b: (3H,)   h: (B, H)

        r, z = s(W_r x_t + U_r u + b_r), s(W_z x_t + U_z u + b_z),   u = k h_(t-1)
        n = tanh(W_n x_t + b_n + r (U_n u + b_u))         reset "after" the product: PyTorch, cuDNN; b_u, (H,), is `bu`
        n = tanh(W_n x_t + b_n + U_n (r u))               reset "before" it: the paper; there is no `bu`
        y_t = h_t = (1 - z) n + z h_(t-1)

    The order of the gates is PyTorch's, and W, U are its weight_ih, weight_hh; b = bias_ih + (the r and z parts of
    bias_hh), bu the rest of bias_hh. In the paper z has the same meaning; Chung et al. 2014 write 1 - z for it.
    dropout, streams, init: as in LSTM. Backward is derived in nn/kernels/reference_recurrent.py; reset="before" has no
    compiled path. Kept: x, y, the gates, and U_n u + b_u.
    """

    gates = 3

    def __init__(self, inputs, units, reset="after", dropout=0.0, streams=0, init=None):
        super().__init__(inputs, units, dropout, streams, init)
        if reset not in ("after", "before"):
            raise UserError(f'GRU: reset must be "after" or "before" the recurrent product, got {reset!r}')
        self.reset, self.dbu = reset, None
        if reset == "after":
            self.shapes["bu"], self.init["bu"] = ((units,), "bias"), self.init["b"]

    def through(self, x, state, mask):
        a, y = self.products(x), backend.empty((*x.shape[:2], self.units), x.dtype)
        if self.reset == "before":
            kernels.gru_before(a, self.U, mask, *state, y)
            return y, [y[:, -1]], (a, None)
        q = backend.empty(y.shape, x.dtype)
        kernels.gru(a, self.U, self.bu, mask, *state, y, q)
        return y, [y[:, -1]], (a, q)

    def back(self, dy, saved, last):
        _, (h0,), mask, y, gates, q = saved
        da, before = backend.empty(gates.shape, dy.dtype), shifted(y, h0)
        seen = before if mask is None else before * mask[:, None]
        if self.reset == "before":
            kernels.gru_before_backward(gates, before, self.U, mask, dy, da, *last)
            return da, da, seen
        db = backend.empty(gates.shape, dy.dtype)
        kernels.gru_backward(gates, q, before, self.U, mask, dy, da, db, *last)
        if self.dbu is not None:
            kernels.sum_rows(db.reshape(-1, db.shape[2])[:, 2 * self.units :], self.dbu)
        return da, db, seen

    def recurrent_weights(self, db, seen, saved):
        if self.reset == "after":
            super().recurrent_weights(db, seen, saved)
            return
        n, gates = 2 * self.units, saved[4]
        pairs = (seen, db[..., :n], self.dU[:n]), (gates[..., : self.units] * seen, db[..., n:], self.dU[n:])
        for a, d, out in pairs:  # r and z see u, the candidate sees r u
            kernels.linear_weights(a.reshape(-1, self.units), d.reshape(-1, d.shape[2]), out)

    def form(self):
        return ', reset="before"' * (self.reset == "before")
