"""The network's two ends, pooling, and functions number by number: a thread a number, each kernel one pass.

    relu                1 read, 1 written                   max_pool            1 read; y and a byte for each window
    relu_backward       2 read, 1 written                   max_pool_backward   dy and the bytes read, dx written
    erf                 1 read, 1 written                   softmax             z read (again from the cache), p written
    sum_by_word         dy read, its words' rows written (and the words sorted)
    gather_images       a byte or a number read, a number written

Memory sets the time of all but erf, about 40 operations a number (computed, not measured).
"""

from npopt.backend import xp

from .. import reference
from .launch import Program, blocks, geometry

rows_program, pools_program = Program("rows.cu"), Program("pools.cu")


def relu(x, y):
    rows_program.each("relu", x.size, x, y)


def relu_backward(y, dy, dx):
    rows_program.each("relu_backward", y.size, y, dy, dx)


def erf(x):
    rows_program.each("erf_in_place", x.size, x)


def sum_by_word(dy, words, dw):
    m, (places, width) = xp(dy), dy.shape
    order = m.argsort(words * places + m.arange(places))  # places of a word together, in their order
    dw[...] = 0
    rows_program.each("sum_words", dy.size, dy, order, words[order].astype("int64", copy=False), dw, places, width)


def softmax(z, t, smoothing, weights, p, rows):
    batch, classes = z.shape
    t = t.astype("int64", copy=False)
    arguments = z, t, float(smoothing), weights, p, rows, batch, classes
    rows_program("softmax", z)((blocks(batch, 8),), (32, 8), arguments)


def gather_images(data, rows, moves, scale, shift, out):
    if data.dtype not in (out.dtype, "uint8"):
        reference.gather_images(data, rows, moves, scale, shift, out)
        return
    name = "gather_bytes" if data.dtype == "uint8" else "gather_images"
    rows, moves = (None if v is None else v.astype("int64", copy=False) for v in (rows, moves))
    b, height, width, c = out.shape
    grid = b * height, blocks(width * c)
    rows_program(name, out)(grid, (256,), (data, rows, moves, scale, shift, out, height, width, c))


def max_pool(x, y, index, kernel, stride, padding):
    shape = geometry(x, y.shape[1:3], kernel, stride, padding)
    pools_program.lines("max_pool", y.shape, 1, x, y, index, *shape)


def max_pool_backward(dy, index, dx, kernel, stride, padding):
    shape = geometry(dx, dy.shape[1:3], kernel, stride, padding)
    pools_program.lines("max_pool_backward", dx.shape, 1, dy, index, dx, *shape)
