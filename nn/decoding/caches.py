"""What attention keeps of a text: keys and values of the positions so far. A cache is a value; start makes its memory.

    memory = Full().start([(G, d), ...], rows, dtype)       G key heads of d numbers in each attention layer
    memory.reserve(length)                                  before a pass: so many positions are to fit
    q, k, v, first = memory.extend(i, q, k, v, turn, start)

`extend` gets q, (B, n, H, d), and k, v, (B, n, G, d), of the positions from `start` on in layer i, before rotary
positions, and turn(x, start), or None, which turns x in place. It keeps what it will need and returns what attention is
to work with: q, keys and values, (B, S, G, d), and the place of the first query among these keys.

    memory.position(length)         the position that the next word is given, behind `length` others
    memory.rollback(length)         forget all positions from `length` on; a UserError where they are not there any more
    memory.branch(rows, length)     another one with copies of these rows
    memory.attend(i, q, k, v, turn, start, scale)       if there is one: attention itself, (B, n, H, d), or None, where
                                    `extend` is to be asked
    memory.rounds                   if there is one: True where words that others followed may not be taken back; a
                                    draft in the target's own state then works on a branch
    memory.nbytes                   bytes in use
    memory.keep(length, path)       where words of a tree can be appended: of the positions from `length` on those of
                                    `path`, rising, become the next ones
"""

from npopt import backend
from npopt.errors import UserError
from npopt.values import Value

from ..rotary import rounded


class Cache(Value):
    """How keys and values are kept. `whole`: attention sees those of every word, in the order of the text."""

    whole = False

    def check(self, layers):
        """A UserError where one of the attention layers does not go with it."""
        for layer in () if self.whole else layers:
            if layer.window or layer.pattern:
                raise UserError(f"{self!r} leaves words out, and so does {layer!r}; take one or the other")


MANY = 16  # new positions for which keys are laid out without gaps: compiled loops then take them


class Full(Cache):
    """All keys and values, turned as they were computed: attention sees what it sees in one pass over the whole text.

    2 L B G T d numbers for L layers, B rows and texts of T positions, T being rounded up to a power of two.
    """

    whole = True

    def start(self, shapes, rows, dtype):
        return FullMemory(shapes, rows, dtype)


class FullMemory:
    """The memory of Full: `numbers`, flat, has for each layer its keys and then its values, (B, G, d, room) each. Times
    are beside one another, so that a loop over them makes vectors."""

    def __init__(self, shapes, rows, dtype, room=0):
        self.shapes, self.rows, self.dtype, self.room = list(shapes), rows, dtype, room
        sizes = [heads * width * rows * room for heads, width in self.shapes]
        self.numbers = backend.zeros((2 * sum(sizes),), dtype)
        self.places = [2 * sum(sizes[:i]) for i in range(len(sizes) + 1)]  # where a layer begins

    @property
    def nbytes(self):
        return self.numbers.nbytes

    def of(self, i):
        """(keys, values) of layer i: (B, G, d, room)."""
        both = self.numbers[self.places[i] : self.places[i + 1]].reshape(2, self.rows, *self.shapes[i], self.room)
        return both[0], both[1]

    def copied(self, rows, count, length, room):
        """Another one with the first `length` positions of these rows (None: of all), and room for `room`."""
        other = FullMemory(self.shapes, count, self.dtype, room)
        for i in range(len(self.shapes)) if length else ():
            for mine, new in zip(self.of(i), other.of(i), strict=True):
                mine = mine[..., :length]
                new[..., :length] = mine if rows is None else mine[rows]
        return other

    def reserve(self, length):
        if length > self.room:
            other = self.copied(None, self.rows, self.room, rounded(length))
            self.room, self.numbers, self.places = other.room, other.numbers, other.places

    def extend(self, i, q, k, v, turn, start):
        if turn is not None:
            turn(q, start)
            turn(k, start)
        end = start + k.shape[1]
        keys, values = self.of(i)
        keys[..., start:end], values[..., start:end] = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 3, 1)
        if not start:
            return q, k, v, 0
        seen = [part[..., :end].transpose(0, 3, 1, 2) for part in (keys, values)]
        if k.shape[1] >= MANY:
            seen = [backend.xp(part).ascontiguousarray(part) for part in seen]
        return q, *seen, start

    def position(self, length):
        return length

    def rollback(self, length):
        """Positions behind `length` will be written over."""

    def keep(self, length, path):
        for i in range(len(self.shapes)):
            for part in self.of(i):
                part[..., length : length + len(path)] = part[..., [length + place for place in path]]

    def branch(self, rows, length):
        return self.copied(backend.asarray(rows), len(rows), length, self.room)
