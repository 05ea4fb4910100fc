"""The table that says which piece of a flat vector is what."""

from typing import NamedTuple

from npopt.errors import UserError

KINDS = ("matrix", "conv", "bias", "norm", "scalar", "embedding", "vector")


class Segment(NamedTuple):
    """One named piece: x[start:stop] has `shape`; `kind` is one of KINDS; pieces of one `block` move together."""

    name: str
    start: int
    stop: int
    shape: tuple
    kind: str
    block: str

    @property
    def slice(self):
        return slice(self.start, self.stop)

    @property
    def size(self):
        return self.stop - self.start


class Segments(tuple):
    """Segments in the order of the vector, without gaps: Segments.of((name, shape, kind, block), ...)."""

    @classmethod
    def of(cls, *entries):
        found, start = [], 0
        for name, shape, kind, block in entries:
            if kind not in KINDS:
                raise UserError(f"segment {name}: kind must be one of {', '.join(KINDS)}, got {kind!r}")
            size = 1
            for extent in shape:
                size *= int(extent)
            found.append(Segment(name, start, start + size, tuple(shape), kind, block))
            start += size
        table = cls(found)
        if len(set(table.names)) < len(table):
            raise UserError(f"segments: a name occurs twice among {', '.join(table.names)}")
        return table

    @property
    def dim(self):
        return self[-1].stop if self else 0

    @property
    def names(self):
        return [segment.name for segment in self]

    def find(self, name):
        """The segment of that name."""
        for segment in self:
            if segment.name == name:
                return segment
        raise UserError(f"no segment is named {name!r}; the names are {', '.join(self.names)}")

    def view(self, vector, name):
        """The piece of a vector under its own shape; a view, so writing to it writes the vector."""
        segment = self.find(name)
        return vector[segment.slice].reshape(segment.shape)

    def select(self, names):
        """A compact table of these segments, in the order of this one; names may also be names of blocks."""
        wanted = {names} if isinstance(names, str) else set(names)
        unknown = wanted - set(self.names) - set(self.blocks)
        if unknown:
            raise UserError(
                f"no segment or block is named {', '.join(sorted(unknown))}; segments: {', '.join(self.names)}"
            )
        return Segments.of(*((s.name, s.shape, s.kind, s.block) for s in self if {s.name, s.block} & wanted))

    @property
    def blocks(self):
        """Block names, each once, in order."""
        return list(dict.fromkeys(segment.block for segment in self))
