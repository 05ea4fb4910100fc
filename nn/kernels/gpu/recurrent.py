"""LSTM and GRU: for each time one product of cuBLAS and one launch for the gates, forward and backward.

The products read and write the rows of one time where they lie, between those of other times: the LSTM's is added to
the sums in place, and h_(t-1) is read from y. So a time needs no array of its own but, with recurrent dropout, k h.
Bytes beside the product's, in units of B H s, s a number's:

    lstm        a, 4, and c read, gates, 4, c and y written: 11
    backward    gates, 4, c twice, dy, dh, dc read, da, 4, and dc written: 14
    gru         a, 3, sums, 3, and h read, gates, 3, q and y written: 12
    backward    gates, 3, q, h, dy, dh twice read, da, 3, db, 3, and dh written: 15

A mask is one more, and k h. At a batch of 20 and 650 units that is half a megabyte, 0.2 us at 3 TB/s. U, 6.8 MB, stays
in the second cache, and its product is 68 million operations. So two launches set the time of a step, about 2 us each
in a recorded graph and 10 us from Python (computed from published figures, not measured). In array code a time of the
LSTM is 27 launches, and 31 backward. GRU(reset="before"), and numbers of two bytes, remain that.
"""

from npopt import backend
from npopt.backend import xp

from .. import reference_recurrent as reference
from .convolutions import product
from .launch import Program

program = Program("recurrent.cu")


def plain(a):
    """Whether numbers like a's are array code."""
    return a.dtype.name not in ("float32", "float64")


def first(h0, mask):
    """What the product sees at time 0, and memory for what it sees later: None where that is y itself."""
    if mask is None:
        return h0, None
    seen = backend.workspace(h0.shape, h0.dtype)
    xp(h0).multiply(h0, mask, out=seen)
    return seen, seen


def lstm(a, u, mask, h0, c0, y, c):
    if plain(a):
        reference.lstm(a, u, mask, h0, c0, y, c)
        return
    times, width = y.shape[1:]
    sees, seen = first(h0, mask)
    arrays = (a, c0, mask, c, y, seen)
    for t in range(times):
        product(sees, u, a[:, t], turn_b=True, add=True)
        program.each("lstm_cell", h0.size, *arrays, t, times, width)
        sees = y[:, t] if seen is None else seen


def lstm_backward(gates, c, c0, u, mask, dy, da, dh, dc):
    if plain(gates):
        reference.lstm_backward(gates, c, c0, u, mask, dy, da, dh, dc)
        return
    times, width = c.shape[1:]
    for t in range(times - 1, -1, -1):
        here = None if t == times - 1 else mask  # dh of the end has been through no U
        arrays = (gates, c, c0, here, dy, dh, dc, da)
        program.each("lstm_cell_backward", dh.size, *arrays, t, times, width)
        product(da[:, t], u, dh)
    if mask is not None:
        dh *= mask


def gru(a, u, bias, mask, h0, y, q):
    if plain(a):
        reference.gru(a, u, bias, mask, h0, y, q)
        return
    times, width = y.shape[1:]
    sums = backend.workspace((h0.shape[0], 3 * width), h0.dtype)
    sees, seen = first(h0, mask)
    arrays = (a, sums, bias, h0, mask, q, y, seen)
    for t in range(times):
        product(sees, u, sums, turn_b=True)
        program.each("gru_cell", h0.size, *arrays, t, times, width)
        sees = y[:, t] if seen is None else seen


def gru_backward(gates, q, before, u, mask, dy, da, db, dh):
    if plain(gates):
        reference.gru_backward(gates, q, before, u, mask, dy, da, db, dh)
        return
    times, width = q.shape[1:]
    through = backend.workspace(dh.shape, dh.dtype)
    for t in range(times - 1, -1, -1):
        back = None if t == times - 1 else through
        arrays = (gates, q, before, mask, dy, back, dh, da, db)
        program.each("gru_cell_backward", dh.size, *arrays, t, times, width)
        product(db[:, t], u, through)
    dh += through if mask is None else through * mask
