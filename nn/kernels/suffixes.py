"""Loops of drafts that are looked up (nn/decoding/drafts.py): suffix arrays, the places of the end of a text, and the
tree of what followed there. All are compiled by numba, for a CPU.

A suffix array is the places of a corpus in the order of what stands from each on. So places that begin alike are beside
one another, and what follows them is in order, too: a node of the tree of continuations is a range of the suffix array,
and its children are the ranges into which the next word divides it.
"""

import numba
import numpy as np

jit = numba.njit(cache=True, error_model="numpy")


@jit
def sorted_by(rank, places, classes):
    """places, ordered by rank[place], each below `classes`; equal ones stay in their order."""
    begins, out = np.zeros(classes + 1, np.int64), np.empty_like(places)
    for r in rank:
        begins[r + 1] += 1
    for r in range(classes):
        begins[r + 1] += begins[r]
    for place in places:
        out[begins[rank[place]]] = place
        begins[rank[place]] += 1
    return out


@jit
def suffix_array(rank, classes):
    """The places of all suffixes in their order, (n,) int64. rank: (n,) int64, 0 to classes - 1.

    By doubling: places that are ordered by `step` words are ordered by twice as many, by counting. O(n log n). Manber &
    Myers 1993.
    """
    n, step = rank.size, 1
    order = sorted_by(rank, np.arange(n), classes)
    while n:
        by_second, count = np.empty(n, np.int64), 0
        for place in range(max(n - step, 0), n):  # nothing stands `step` words on: they come first
            by_second[count], count = place, count + 1
        for place in order:
            if place >= step:
                by_second[count], count = place - step, count + 1
        order = sorted_by(rank, by_second, classes)
        new, last = np.empty(n, np.int64), 0
        new[order[0]] = 0
        for i in range(1, n):
            a, b = order[i - 1], order[i]
            second_a = rank[a + step] if a + step < n else -1
            second_b = rank[b + step] if b + step < n else -1
            last += int(rank[a] != rank[b] or second_a != second_b)
            new[b] = last
        rank, classes, step = new, last + 1, 2 * step
        if classes == n:
            break
    return order


@jit
def before(corpus, place, end, equal):
    """Whether the suffix at `place` comes before all those that begin with `end`; or, with `equal`, is one of these."""
    for i in range(end.size):
        if place + i >= corpus.size or corpus[place + i] < end[i]:
            return True
        if corpus[place + i] > end[i]:
            return False
    return equal


@jit
def first_not_before(corpus, order, end, low, equal):
    high = order.size
    while low < high:
        middle = (low + high) // 2
        if before(corpus, order[middle], end, equal):
            low = middle + 1
        else:
            high = middle
    return low


@jit
def range_of(corpus, order, end):
    """(low, high): the suffixes order[low:high] begin with `end`, and a word follows."""
    low = first_not_before(corpus, order, end, 0, False)
    high = first_not_before(corpus, order, end, low, True)
    if low < high and order[low] + end.size == corpus.size:  # the shortest one: nothing follows it
        low += 1
    return low, high


@jit
def places_of(corpus, order, end, least, matches):
    """(n, low, high): the suffixes order[low:high] begin with the last n words of `end`, and a word follows.

    n is the largest, at least `least`, for which there is one; 0: there is none. Of all these the first `matches`.
    """
    n, over, low, high = 0, end.size + 1, 0, 0
    tried = least
    while n + 1 < over and tried < over:  # what n words have, fewer have, too
        a, b = range_of(corpus, order, end[-tried:])
        if a < b:
            n, low, high = tried, a, min(b, a + matches)
        elif not n:
            break
        else:
            over = tried
        tried = (n + over) // 2
    return n, low, high


@jit
def end_of_run(corpus, order, low, high, depth):
    """The first place of order[low:high] that has another word than the first one has `depth` words on."""
    word, step = corpus[order[low] + depth], 1
    while low + step < high and corpus[order[low + step] + depth] == word:
        low, step = low + step, 2 * step
    high = min(high, low + step)
    while low + 1 < high:  # low has the word, high has not
        middle = (low + high) // 2
        if corpus[order[middle] + depth] == word:
            low = middle
        else:
            high = middle
    return high


@jit
def likeliest(corpus, order, n, low, high, most):
    """The most frequent word of each step behind the n words of order[low:high], (at most `most`,); of equal ones the
    lowest number."""
    words, count = np.empty(most, np.int64), 0
    while low < high and count < most:
        depth, best, place = n + count, 0, low
        if order[low] + depth == corpus.size:  # this one ended
            place += 1
        while place < high:
            end = end_of_run(corpus, order, place, high, depth)
            if end - place > best:
                best, low = end - place, place
            place = end
        if not best:
            break
        words[count], count, high = corpus[order[low] + depth], count + 1, low + best
    return words[:count]


@jit
def grown(corpus, order, n, low, high, most, nodes):
    """(words, parents), (at most `nodes`,) each: the most frequent beginnings of at most `most` words that follow the n
    words of order[low:high]. Of equal ones the shorter comes first, then the first in the order of words. -1: nothing
    stands above a word.

    A beginning is never more frequent than its own beginning, so that it comes behind it: the best ones so far are
    kept in order, and each in its turn puts its children among those behind it.
    """
    lows, highs, depths, words, parents = np.empty((5, nodes), np.int64)
    used, at = 0, -1
    while at < used:
        a, b, depth = (low, high, 0) if at < 0 else (lows[at], highs[at], depths[at])
        if order[a] + n + depth == corpus.size:  # this one ended
            a += 1
        while a < b and depth < most:
            end = end_of_run(corpus, order, a, b, n + depth)
            place = used
            while place > 0:
                more = highs[place - 1] - lows[place - 1] - (end - a)
                deeper = depths[place - 1] - (depth + 1)
                if more > 0 or (more == 0 and (deeper < 0 or (deeper == 0 and lows[place - 1] < a))):
                    break
                place -= 1
            if place < nodes:
                used = min(used + 1, nodes)
                for i in range(used - 1, place, -1):
                    lows[i], highs[i], depths[i] = lows[i - 1], highs[i - 1], depths[i - 1]
                    words[i], parents[i] = words[i - 1], parents[i - 1]
                lows[place], highs[place], depths[place] = a, end, depth + 1
                words[place], parents[place] = corpus[order[a] + n + depth], at
            a = end
        at += 1
    return words[:used], parents[:used]


@jit
def agreement(source, text, least, most):
    """The place behind the first of the longest matches, of `least` to `most` words, of the end of `text` in `source`;
    -1 where there is none. A match must be followed by a word."""
    found, longest = -1, least - 1
    for place in range(1, source.size):
        n, top = 0, min(most, place, text.size)
        while n < top and source[place - 1 - n] == text[text.size - 1 - n]:
            n += 1
        if n > longest:
            found, longest = place, n
    return found
