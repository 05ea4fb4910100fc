"""A cache in pages, which texts that began alike share. Kwon et al., SOSP 2023, arXiv:2309.06180 (vLLM)."""

from npopt import backend
from npopt.values import whole

import numpy as np

from .caches import Cache


class Paged(Cache):
    """All keys and values, as in Full, in pages of `page` words each; a branch shares the pages of its beginning.

    A page belongs to all texts that have it in their tables. Who is to write into one that others have, too, takes a
    copy first (section 4.3). So beams cost what is different in them. A page is free again when no text has it.

    2 L G d page numbers a page; of each text the last page alone may be partly empty.
    """

    whole = True

    def __init__(self, page=16):
        self.page = whole("Paged", "page", page)

    def start(self, shapes, rows, dtype):
        return PagedMemory(Pages(list(shapes), self.page, dtype), rows)


class Pages:
    """The pages of all texts that came from one start: for each layer (pages, 2, G, d, page). `owners` counts texts."""

    def __init__(self, shapes, page, dtype):
        self.page, self.shapes, self.free, self.owners = page, shapes, [], []
        self.layers = [backend.empty((0, 2, *shape, page), dtype) for shape in shapes]

    @property
    def used(self):
        return len(self.owners) - len(self.free)

    @property
    def nbytes(self):
        """Of the pages in use."""
        return sum(layer[:1].nbytes for layer in self.layers) * self.used if self.owners else 0

    def take(self):
        """The number of a page that nobody has."""
        if not self.free:
            count = max(8, len(self.owners))
            for i, layer in enumerate(self.layers):
                larger = backend.zeros((len(layer) + count, *layer.shape[1:]), layer.dtype)
                larger[: len(layer)] = layer
                self.layers[i] = larger
            self.free = list(range(len(self.owners) + count - 1, len(self.owners) - 1, -1))
            self.owners += [0] * count
        page = self.free.pop()
        self.owners[page] = 1
        return page

    def own(self, page):
        """The number of a page with the same numbers that one text alone has."""
        if self.owners[page] == 1:
            return page
        copy = self.take()
        for layer in self.layers:
            layer[copy] = layer[page]
        self.leave([page])
        return copy

    def leave(self, pages):
        for page in pages:
            self.owners[page] -= 1
            if not self.owners[page]:
                self.free.append(page)


class PagedMemory:
    """`tables`: for each row the numbers of its pages."""

    def __init__(self, pages, rows, tables=None, length=0):
        self.pages, self.rows, self.length = pages, rows, length
        self.tables = [[] for _ in range(rows)] if tables is None else tables
        for table in self.tables:
            for page in table:
                pages.owners[page] += 1

    def __del__(self):
        for table in self.tables:
            self.pages.leave(table)

    @property
    def nbytes(self):
        """Of all pages in use, those of other branches, too."""
        return self.pages.nbytes

    def position(self, length):
        return length

    def reserve(self, length):
        first = self.length // self.pages.page  # the page that is written next
        for table in self.tables:
            if first < len(table):
                table[first] = self.pages.own(table[first])
            while len(table) * self.pages.page < length:
                table.append(self.pages.take())

    def extend(self, i, q, k, v, turn, start):
        if turn is not None:
            turn(q, start)
            turn(k, start)
        page, layer, end = self.pages.page, self.pages.layers[i], start + k.shape[1]
        tables = np.array([table[: -(-end // page)] for table in self.tables])
        places = np.arange(start, end)
        where = backend.asarray(tables[:, places // page]), backend.asarray(places % page)
        for kind, new in enumerate((k, v)):
            layer[where[0], kind, :, :, where[1][None, :]] = new
        self.length = end
        both = layer[backend.asarray(tables)]  # (B, pages, 2, G, d, page)
        B, count, _, G, d, _ = both.shape
        both = both.transpose(2, 0, 1, 5, 3, 4).reshape(2, B, count * page, G, d)[:, :, :end]
        m = backend.xp(both)
        return q, m.ascontiguousarray(both[0]), m.ascontiguousarray(both[1]), start

    def rollback(self, length):
        least = -(-length // self.pages.page)
        for table in self.tables:
            self.pages.leave(table[least:])
            del table[least:]
        self.length = length

    def keep(self, length, path):
        page = self.pages.page
        for layer in self.pages.layers:
            for table in self.tables:
                moved = [(length + i, length + place) for i, place in enumerate(path)]
                for to, place in moved:  # rising: nothing is written over that is still wanted
                    layer[table[to // page], ..., to % page] = layer[table[place // page], ..., place % page]
        self.rollback(length + len(path))

    def branch(self, rows, length):
        return PagedMemory(self.pages, len(rows), [list(self.tables[row]) for row in np.asarray(rows)], length)
