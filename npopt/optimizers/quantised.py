"""State in 8 bits: Dettmers, Lewis, Shleifer & Zettlemoyer, ICLR 2022, arXiv:2110.02861, sections 2 and 3."""

from npopt import backend
from npopt.codes import Code, Coded, block_of, bytes_of
from npopt.errors import UserError
from npopt.optimizers.averaging import check_inner
from npopt.optimizers.base import Optimizer
from npopt.optimizers.by_segment import check_kinds, each_segment, segments_of
from npopt.state import Stateful
from npopt.values import whole as whole_number


class Quantised(Optimizer):
    """`inner`, whose arrays are kept as codes of 8 or 4 bits with a scale for each block (npopt/codes.py). In a step

        m, v <- values of the codes times their scales            x, m, v <- the step of `inner`, in x's dtype
        scale of a block <- its largest magnitude                 codes <- those of the nearest values

    block       numbers to a scale: 2048 in the paper, 256 in the authors' later code; None: one scale for each segment.
                Blocks are cut from each segment as it lies in x, flattened; the last one of a segment may be shorter
    code        "dynamic" or "linear": the map of all arrays; or two names, the second of arrays that are never
                negative (`never_negative` of the method), which may be "positive": a linear map without 0
    bits        8, or 4: two codes a byte. Li, Chen & Zhu, NeurIPS 2023, have bits=4, block=128, code=("dynamic",
                "positive"), with a finer kind of scale for v
    stochastic  rounding up or down at random, without bias; draws are a function of (seed, array, step, coordinate).
                The paper rounds to the nearest
    smallest    segments with fewer numbers are kept in x's dtype
    whole       so are segments of these kinds: embeddings, as the paper has it with its StableEmbedding
    signs       whether a small negative number may not become 0: the rule of the authors' code, see Code

    Any method fits whose arrays like x are touched by formulas alone and whose answer is x: Adam, AdamW, HeavyBall,
    Lion, LAMB, Muon and others. What it keeps beside them stays as it is. The step takes the gradient segment by
    segment. Where a gradient is not finite, m and v become 0 and x stays, as in the authors' code. State of 8 bits: one
    byte and 4 / block for a number of each array.
    """

    parts = ("inner",)

    def __init__(
        self,
        inner,
        block=256,
        code="dynamic",
        bits=8,
        stochastic=False,
        smallest=4096,
        whole=("embedding",),
        signs=True,
    ):
        self.inner, self.block, self.code, self.bits = check_inner("Quantised", inner), block, code, bits
        block_of(1, block)
        self.signs = bool(signs)
        self.codes()
        self.stochastic, self.smallest = bool(stochastic), whole_number("Quantised", "smallest", smallest, 0)
        self.whole = check_kinds("Quantised", whole)
        if type(inner).answer is not Optimizer.answer or isinstance(inner, Quantised):
            raise UserError(f"Quantised: {type(inner).__name__} reports a point of its own; put it around Quantised")

    @property
    def proximal(self):
        return self.inner.proximal

    def codes(self):
        """(Code of arrays with signs, Code of the others)."""
        names = (self.code, self.code) if isinstance(self.code, str) else tuple(self.code)
        if len(names) != 2:
            raise UserError(f"Quantised: code must be a name or two names, got {self.code!r}")
        return Code(names[0], True, self.bits, self.signs), Code(names[1], False, self.bits)

    def start(self, x, oracle=None):
        self.segments = segments_of(x, oracle)
        if self.segments.dim != x.size:
            raise UserError(f"Quantised: the problem's segments have {self.segments.dim} numbers, x has {x.size}")
        super().start(x, oracle)
        self.seed = getattr(oracle, "seed", 0)
        self.shelves = {}
        self.inner.keeper = self.shelf
        self.inner.start(x, oracle)
        if not self.shelves:
            raise UserError(f"Quantised: {type(self.inner).__name__} keeps no array that could be quantised")

    def shelf(self, name, x, places=None):
        """What an array of `inner` is kept in. places: {segment: slice}, where it is not like x."""
        places = {s.name: s.slice for s in self.segments} if places is None else places
        small = [s.name for s in self.segments if s.name in places and self.keeps_whole(s, places[s.name])]
        code = self.codes()[name in self.inner.never_negative]
        self.shelves[name] = Shelf(x, places, small, code, self.block)
        return self.shelves[name]

    def keeps_whole(self, segment, place):
        """Whether a segment's part of an array, with this place in it, keeps x's dtype."""
        return place.stop - place.start < self.smallest or segment.kind in self.whole

    def step(self, x, g, lr):
        self.t += 1
        if self.stochastic:
            for name, shelf in self.shelves.items():
                shelf.draw(backend.key(self.seed, f"quantised {name}", self.t))
        self.inner.step(x, Parts(type(self).__name__, self.segments, g), lr)


class Parts:
    """A gradient that hands out the parts of its segments, one by one."""

    def __init__(self, owner, segments, g):
        self.given = owner, segments, g

    def each(self, take):
        each_segment(*self.given, lambda segment, part: take(segment.slice, part))


class Shelf(Stateful):
    """An array of an optimizer's state in parts: some Coded, some of x's dtype. shelf[slice] is the part there.

    places: {name: slice}; small: names of parts that keep x's dtype. A formula takes it in the place of a flat array.
    """

    def __init__(self, x, places, small, code, block):
        self.size, self.dtype, self.ndim = max((s.stop for s in places.values()), default=0), x.dtype, 1
        sizes = {name: s.stop - s.start for name, s in places.items()}
        coded = [name for name in places if name not in small]
        self.whole = backend.xp(x).zeros(sum(sizes[name] for name in small), dtype=x.dtype)
        blocks = {name: -(-sizes[name] // block_of(sizes[name], block)) for name in coded}
        self.codes = backend.xp(x).zeros(sum(bytes_of(sizes[name], code) for name in coded), dtype="uint8")
        self.codes[...] = code.zero if code.bits == 8 else 17 * code.zero
        self.scales = backend.xp(x).zeros(sum(blocks.values()), dtype="float32")
        code.there(), code.there(draw=True)
        self.parts, at, byte, scale = {}, 0, 0, 0
        for name, place in places.items():
            n = sizes[name]
            if name in small:
                part = self.whole[at : at + n]
                at += n
            else:
                cut = self.codes[byte : byte + bytes_of(n, code)], self.scales[scale : scale + blocks[name]]
                part = Coded(*cut, n, code, block_of(n, block), x.dtype, first=place.start)
                byte, scale = byte + bytes_of(n, code), scale + blocks[name]
            self.parts[place.start, place.stop] = part

    @property
    def shape(self):
        return (self.size,)

    def kept(self):
        return {"codes": self.codes, "scales": self.scales, "whole": self.whole}

    def draw(self, key):
        """Round at random from now on, by the draws of this key."""
        for part in self.parts.values():
            if isinstance(part, Coded):
                part.key = key

    def __getitem__(self, piece):
        first, stop, _ = piece.indices(self.size)
        if (first, stop) not in self.parts:
            raise UserError(f"an array that is kept as codes comes in whole segments; {first}:{stop} is none")
        return self.parts[first, stop]

    def __setitem__(self, piece, value):
        """shelf[...] = a number, or an array like all of it."""
        if piece is not Ellipsis:
            raise UserError("an array that is kept as codes is written whole, shelf[...] = a, or by formulas")
        for (first, stop), part in self.parts.items():
            if not isinstance(part, Coded):
                part[...] = value[first:stop] if getattr(value, "ndim", 0) else value
            elif getattr(value, "ndim", 0):
                part.write(value[first:stop])
            else:
                part.write(backend.xp(self.codes).full(part.size, value, dtype=self.dtype))

    def read(self):
        """All numbers, a flat array of x's dtype."""
        out = backend.xp(self.codes).empty(self.size, dtype=self.dtype)
        for (first, stop), part in self.parts.items():
            out[first:stop] = part.read() if isinstance(part, Coded) else part
        return out

    @staticmethod
    def elementwise(formula, args, offset):
        """What a formula calls that is given a whole shelf: the formula part by part."""
        for first, stop in next(a for a in args if isinstance(a, Shelf)).parts:
            cut = [a[first:stop] if getattr(a, "ndim", 0) else a for a in args]
            formula(*cut, offset=offset + first)

    reshape = __array__ = __iadd__ = __isub__ = __imul__ = __itruediv__ = Coded._refuse
    __add__ = __sub__ = __mul__ = __truediv__ = __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __neg__ = Coded._refuse
    __array_ufunc__ = None
