"""A few words of a text through a whole decoder on a CPU, in one compiled function: norms before each part, attention
over a full cache, a feed-forward part, gated or not.

For a few words a network is matrices times vectors: each weight is read once for all of them (word_products.py), and
what the layers' own calls cost in Python is many times that. The weights stay where they are in the flat x. Keys and
values lie as in nn/decoding/caches.py, times beside one another: scores are sums over d of vectors of times, and what
is read of the values are products of rows with the vector of probabilities. A word's numbers have the same bits
whichever words go with it. One thread.
"""

from typing import NamedTuple

from npopt.backend.once import inside

import numpy as np

from . import gates, rows
from .attention_parts import exponentials, largest
from .blocks import Product, block_product
from .recurrent_parts import wide_of
from .word_products import dots, product

scores = block_product(4, False, height=1)
TOGETHER = 24  # words go through a layer side by side
PANEL = 64  # times: a multiple of what `scores` takes at a time; the room of a cache is a multiple of it


class Sizes(NamedTuple):
    """The whole numbers of a decoder, in the order of the vector that the loops are given.

    features, heads, kv_heads, width, hidden, words, layers     D, H, G, d, F, V, L
    pairs       how many pairs of a head are turned; 0: none. adjacent: whether a pair's numbers are neighbours
    centred     whether norms are LayerNorm
    activation  its place in KINDS of reference_gates.py; gated: whether it is a gate
    embed, positions, norm, norm_bias, head, head_bias      where they begin in x; -1 for what is not there
    """

    features: int
    heads: int
    kv_heads: int
    width: int
    hidden: int
    words: int
    layers: int
    pairs: int
    adjacent: int
    centred: int
    activation: int
    gated: int
    embed: int
    positions: int
    norm: int
    norm_bias: int
    head: int
    head_bias: int


# The columns of a layer's table: where each of its parameters begins in x, -1 for what is not there.
TABLE = (
    *("attention_norm.a", "attention_norm.b", "query.W", "query.b", "key.W", "key.b", "value.W", "value.b", "out.W"),
    *("out.b", "feed_norm.a", "feed_norm.b", "gate.W", "gate.b", "up.W", "up.b", "down.W", "down.b"),
)


@inside
def normed(h, x, at, bias, eps, centred, y):
    """y = a (h - m) r + b, or y = a h r, as in rows.py."""
    size, one = h.size, h.dtype.type(1)
    a = x[at : at + size]
    mean = rows.mean_of(h) if centred else h.dtype.type(0)
    r = one / np.sqrt(rows.mean_square(h, mean) + h.dtype.type(eps))
    for j in range(size):
        y[j] = a[j] * ((h[j] - mean) * r)
    if bias >= 0:
        b = x[bias : bias + size]
        for j in range(size):
            y[j] += b[j]


@inside
def turned(q, width, cos, sin, adjacent):
    """Turn the pairs of each head of q in place."""
    pairs = cos.size
    jump, stride = (1, 2) if adjacent else (pairs, 1)
    for first in range(0, q.size, width):
        for i in range(pairs):
            j = first + stride * i
            u, v = q[j], q[j + jump]
            q[j], q[j + jump] = u * cos[i] - v * sin[i], u * sin[i] + v * cos[i]


@inside
def hide(scores, first, i, parents):
    """-inf for the words of a tree that do not stand above word i; the tree begins at scores[first]."""
    at = i
    for j in range(i - 1, -1, -1):
        if parents[at] == j:
            at = j
        else:
            scores[first + j] = -np.inf


@inside
def attended(q, kept, at, shape, where, parents, scale, s, o):
    """o_h = sum_t p_t v_t, p the softmax over what word i of these, behind the first `length`, sees. at: where keys and
    values of this row begin in `kept`; shape: (H, G, d, room); where: (length, i); s: (1, room) and
    zeros, to work with."""
    (keys, values), (heads, shared, width, room), wide = at, shape, wide_of(q) // 2
    flat, place, count = s[0][0], np.zeros((2, 1), np.int64), where[0] + where[1] + 1
    scale = q.dtype.type(scale)
    for h in range(heads):
        group = h // (heads // shared) * width * room
        for t in range(0, count, 4 * wide):
            plan = Product(
                left_at=h * width,
                left_jump=0,
                left_step=1,
                right_at=keys + group + t,
                right_step=room,
                out_at=t,
                start_at=0,
                start_like_out=False,
                n=4 * wide,
                times=1,
                run=width,
            )
            scores(q, kept, flat, s[1][0], place, 0, 1, plan)
        if parents.size:
            hide(flat, where[0], where[1], parents)
        total = exponentials(s[0], 0, count, scale, scale * largest(flat, 0, count))
        dots(kept, values + group, room, flat, count, o, h * width, width)
        for i in range(h * width, (h + 1) * width):
            o[i] /= total


@inside
def asked(x, h, t, n, numbers, angles, places, work):
    """Queries, keys and values of a layer, turned to the places of their words. h: (m, D); t: the layer's row of the
    table; n: Sizes as a vector; places: of `placed`; work: see run."""
    y, q, k, v = work[:4]
    for j in range(h.shape[0]):
        normed(h[j], x, t[0], t[1], numbers[0], n[9], y[j])
    product(x, t[2], t[3], y, q)
    product(x, t[4], t[5], y, k)
    product(x, t[6], t[7], y, v)
    if n[7] > 0:
        for j in range(h.shape[0]):
            cos, sin = angles[0, places[j, 2]], angles[1, places[j, 2]]
            turned(q[j], n[3], cos, sin, n[8])
            turned(k[j], n[3], cos, sin, n[8])


@inside
def attend(x, h, k, net, kept, text, work, s):
    """h += attention of its norm, in layer k. net: as in `run`; text: (B, length, parents, places); s: (1, room)
    and zeros, to work with."""
    (table, n, numbers, angles), (B, length, parents, places) = net, text
    y, q, key, value, o = work[:5]
    room, size, shape = s[0].shape[1], n[2] * n[3], (n[1], n[2], n[3], s[0].shape[1])
    bases = 2 * k * B * size * room, (2 * k + 1) * B * size * room
    asked(x, h, table[k], n, numbers, angles, places, work)
    for j in range(h.shape[0]):
        b, slot = places[j, 0], length + places[j, 1]
        keys, values = bases[0] + b * size * room, bases[1] + b * size * room
        for c in range(size):
            kept[keys + c * room + slot], kept[values + c * room + slot] = key[j, c], value[j, c]
    for j in range(h.shape[0]):
        b, i = places[j, 0], places[j, 1]
        at = bases[0] + b * size * room, bases[1] + b * size * room
        attended(q[j], kept, at, shape, (length, i), parents, numbers[1], s, o[j])
    added(x, h, table[k], o, y)


@inside
def added(x, h, t, o, y):
    """h += W o + b, of what attention read."""
    product(x, t[8], t[9], o, y)
    for j in range(h.shape[0]):
        for c in range(h.shape[1]):
            h[j, c] += y[j, c]


@inside
def feed(x, h, t, n, numbers, work):
    """h += the feed-forward part of its norm; as attend."""
    (m, D), y, hidden, gate = h.shape, work[0], work[5], work[6]
    for j in range(m):
        normed(h[j], x, t[10], t[11], numbers[0], n[9], y[j])
    product(x, t[14], t[15], y, hidden)
    if n[11]:
        product(x, t[12], t[13], y, gate)
    for j in range(m):
        if n[11]:
            gates._gate(gate[j], hidden[j], gate[j], n[10])
            for c in range(hidden.shape[1]):
                hidden[j, c] = gate[j, c]
        else:
            gates._activate(hidden[j], hidden[j], n[10])
    product(x, t[16], t[17], hidden, y)
    for j in range(m):
        for c in range(D):
            h[j, c] += y[j, c]


@inside
def placed(words, length, parents, n):
    """(B T, 3): row, number and position of each word; a word of a tree stands behind those above it. Empty where a
    word is none of the V."""
    B, T = words.shape
    places, depth = np.empty((B * T, 3), np.int64), np.zeros(T, np.int64)
    for i in range(T):
        if parents.size == 0:
            depth[i] = i
        elif parents[i] >= 0:
            depth[i] = depth[parents[i]] + 1
    for b in range(B):
        for i in range(T):
            if words[b, i] < 0 or words[b, i] >= n[5]:
                return places[:0]
            places[b * T + i, 0], places[b * T + i, 1], places[b * T + i, 2] = b, i, length + depth[i]
    return places


@inside
def embedded(x, words, places, n, h):
    """h, (m, D): the vectors of words, with their positions if there are any."""
    for j in range(h.shape[0]):
        word, position = words[places[j, 0], places[j, 1]], places[j, 2]
        for c in range(h.shape[1]):
            h[j, c] = x[n[12] + word * n[0] + c]
            if n[13] >= 0:
                h[j, c] += x[n[13] + position * n[0] + c]


@inside
def room_for(m, n, x):
    """(h, work): (m, D), and (norms and sums, q, k, v, o, hidden, gate), m rows each."""
    inner, size, gated = n[1] * n[3], n[2] * n[3], n[4] if n[11] else 0
    h, y, q = np.empty((m, n[0]), x.dtype), np.empty((m, n[0]), x.dtype), np.empty((m, inner), x.dtype)
    k, v, o = np.empty((m, size), x.dtype), np.empty((m, size), x.dtype), np.empty((m, inner), x.dtype)
    return h, (y, q, k, v, o, np.empty((m, n[4]), x.dtype), np.empty((m, gated), x.dtype))


@inside
def run(x, kept, words, length, parents, parts, net, out):
    """Put words, (B, T), behind the `length` ones whose keys and values are `kept`, (L, 2, B, G d, room), flat.

    parents: (T,), of words of a tree, as State.append_tree has them, or (0,): the words follow each other
    parts: (L, 2) bool: whether a layer's attention and feed-forward part are there
    net: (table, n, numbers, angles)   table: (L, len(TABLE))   n: Sizes
    numbers: (eps of the norms, scale of the scores)   angles: (2, times, pairs), cosines and sines
    out: (B, 1 or T, V), logits behind the last word or behind each

    Returns False, and has done nothing, where a word is none of the V.
    """
    (B, T), (table, n, numbers, _), most = words.shape, net, min(words.size, TOGETHER)
    size = n[2] * n[3]
    room, every, done = kept.size // (2 * n[6] * B * size), out.shape[1] == T, 0
    places, logits = placed(words, length, parents, n), out.reshape(-1, n[5])
    if not places.size:
        return False
    hs, (ys, qs, ks, vs, os, hidden, gate) = room_for(most, n, x)
    s = np.empty((1, room), x.dtype), np.zeros((1, PANEL), x.dtype)
    for first in range(0, B * T, most):
        m, told = min(most, B * T - first), 0
        h, y, here = hs[:m], ys[:m], places[first : first + m]
        work = (y, qs[:m], ks[:m], vs[:m], os[:m], hidden[:m], gate[:m])
        embedded(x, words, here, n, h)
        for k in range(n[6]):
            if parts[k, 0]:
                attend(x, h, k, net, kept, (B, length, parents, here), work, s)
            if parts[k, 1]:
                feed(x, h, table[k], n, numbers, work)
        for j in range(m):
            if every or here[j, 1] == T - 1:
                normed(h[j], x, n[14], n[15], numbers[0], n[9], y[told])
                told += 1
        if told:
            product(x, n[16], n[17], y[:told], logits[done : done + told])
            done += told
    return True


@inside
def stretch(x, k, words, length, net, h, work, out):
    """What stands between attention of layer k - 1 and that of layer k, where a cache attends by itself: from o to q, k
    and v of `work`; from words, (B, 1), with k = 0, and to the logits, out, (B, V), with k = L.

    net: as in `run`. Returns False, and has done nothing, where a word is none of the V.
    """
    table, n, numbers, angles = net
    places = placed(words, length, np.empty(0, np.int64), n)
    if not places.size:
        return False
    if k == 0:
        embedded(x, words, places, n, h)
    else:
        added(x, h, table[k - 1], work[4], work[0])
        feed(x, h, table[k - 1], n, numbers, work)
    if k < n[6]:
        asked(x, h, table[k], n, numbers, angles, places, work)
    else:
        for j in range(h.shape[0]):
            normed(h[j], x, n[14], n[15], numbers[0], n[9], work[0][j])
        product(x, n[16], n[17], work[0], out)
    return True
