"""Drafts for speculative decoding: who guesses the words that the target judges.

drafter = draft.start(decoder, state, choose, seed)        decoder and State of the target
words, q = drafter.propose(text, most)      at most `most` words behind the text, a list; q: (k, V) probabilities
                                            that they were drawn from, or None: they were not drawn
drafter.told(text, accepted, drafted)       the text as it goes on: so many of the drafted words stand
"""

import functools

from npopt import backend
from npopt.errors import UserError
from npopt.values import Value, number, whole

import numpy as np

from ..kernels import suffixes
from ..transformer import EncoderLayer
from .choosing import drawn
from .generation import number_at
from .speculative import Above


class Model:
    """A smaller decoder of the same words: Leviathan et al., ICML 2023.

    decoder     the draft; k: how many words it guesses at a time
    """

    def __init__(self, decoder, k=4):
        self.decoder, self.k = decoder, whole("Model", "k", k)

    def start(self, target, state, choose, seed):
        if self.decoder.words != target.words:
            raise UserError(f"Model: the draft knows {self.decoder.words} words, the target {target.words}")
        return OfModel(self.decoder, self.decoder.start(), self.k, choose, seed)


class OfModel:
    """Words drawn one by one from a decoder's own state, which follows the text."""

    def __init__(self, decoder, state, k, choose, seed, stop=None):
        self.decoder, self.state, self.k, self.choose, self.seed, self.stop = decoder, state, k, choose, seed, stop

    def propose(self, text, most):
        words, q = [], []
        logits = self.state.append([text[self.state.length :]]) if most > 0 else None
        while len(words) < min(self.k, most):
            word, p = one_of(self.choose, logits, self.seed, len(text) + len(words))
            words.append(word)
            q.append(p)
            if len(words) < min(self.k, most):
                logits = self.state.append([[word]])
        return words, np.array(q) if words and self.choose.draws else None

    def told(self, text, accepted, drafted):
        self.state.rollback(min(self.state.length, len(text) - 1))


def one_of(choose, logits, seed, position):
    """(a word, the probabilities, (V,), that it was drawn from; None: it was not drawn)."""
    logits = backend.to_host(logits)
    if not choose.draws:
        return int(choose(logits)[0]), None
    p = choose.probabilities(logits)
    return int(drawn(p, [number_at(seed, "draft", position)])[0]), p[0]


def likelihood(logits, word):
    """softmax(logits)[word], of logits (1, V)."""
    z = backend.to_host(logits)[0].astype(np.float64)
    return float(np.exp(z[word] - z.max()) / np.exp(z - z.max()).sum())


class Skipping(Value):
    """Draft & Verify: the target itself, without some of its parts. Zhang et al., ACL 2024, arXiv:2309.08168.

    skip        paths of the parts that are left out, such as "layer2.attention" and "layer3.feed"
    k           how many words are guessed at most
    least       the draft ends behind a word that the draft gave less than this probability, with Greedy() that of
                softmax; it moves by the paper's rule (section 3.4) toward the share `aim` of accepted words

    It goes on from the target's own keys and values; what it adds is thrown away, and judged words are computed anew
    by all parts.
    """

    def __init__(self, skip, k=8, least=0.8, aim=0.9):
        self.skip, self.k = tuple(skip), whole("Skipping", "k", k)
        self.least = number("Skipping", "least", least, low=0, high=1)
        self.aim = number("Skipping", "aim", aim, low=0, high=1)

    def start(self, target, state, choose, seed):
        parts = parts_of(target)
        for path in self.skip:
            if path not in parts:
                raise UserError(f"Skipping: no part is named {path!r}; the parts are {', '.join(parts)}")
        return OfParts(self, frozenset(parts[path] for path in self.skip), state, choose, seed)


def parts_of(decoder):
    """{path: part}: attention and feed-forward part of each layer of a decoder, which can be left out."""
    found = {}
    for layer in decoder.network.layer.leaves():
        if isinstance(layer, EncoderLayer):
            found |= {f"{layer.path}.{part.name}": part for part in layer.parts}
    return found


class OfParts:
    """Words of the target's network without some parts, in the target's own state."""

    def __init__(self, draft, skipped, state, choose, seed):
        self.draft, self.skipped, self.state, self.choose, self.seed = draft, skipped, state, choose, seed
        self.least, self.share = draft.least, draft.aim

    def propose(self, text, most):
        state, words, q = self.state, [], []
        if getattr(state.cache, "rounds", False):  # no way back behind what words of a draft had rounded
            state = state.branch([0])
        length, last = state.length, text[-1]
        with state.without(self.skipped):
            while len(words) < min(self.draft.k, most):
                logits = state.append([[last]])
                last, p = one_of(self.choose, logits, self.seed, len(text) + len(words))
                words.append(last)
                q.append(p)
                if self.least and (likelihood(logits, last) if p is None else p[last]) < self.least:
                    break
        if state is self.state:
            state.rollback(length)
        return words, np.array(q) if words and self.choose.draws else None

    def told(self, text, accepted, drafted):
        """The threshold of the paper: m <- 0.5 m + 0.5 accepted / drafted; it rises by 0.01 where m is below the aim,
        else it falls; th <- 0.9 th + 0.1 of that."""
        if drafted:
            self.share = 0.5 * self.share + 0.5 * accepted / drafted
            moved = self.least + (0.01 if self.share < self.draft.aim else -0.01)
            self.least = min(1.0, max(0.0, 0.9 * self.least + 0.1 * moved))


class Copying(Value):
    """LLMA: where the last `least` words of the text stand in the reference, what follows there is the draft. Yang et
    al. 2023, arXiv:2304.04487.

    reference   words of a text that the answer may repeat; None: the text itself so far, prompt look-up
    least       how many words must agree; with several places the longest agreement counts, then the first one
    k           how many words are copied
    most        how long an agreement is looked for
    """

    def __init__(self, reference=None, least=1, k=15, most=8):
        self.reference = None if reference is None else tuple(int(word) for word in reference)
        self.least, self.k, self.most = (
            whole("Copying", name, value) for name, value in (("least", least), ("k", k), ("most", most))
        )

    def start(self, target, state, choose, seed):
        return OfText(self)


class OfText:
    """`words`: a growing copy of the text, of which `count` are there."""

    def __init__(self, draft):
        self.draft, self.count, self.words = draft, 0, np.empty(256, np.int64)
        self.reference = None if draft.reference is None else np.array(draft.reference, np.int64)

    def propose(self, text, most):
        draft, size = self.draft, len(text)
        if size > self.words.size:
            self.words = np.concatenate([self.words, np.empty(size, np.int64)])
        self.words[self.count : size] = text[self.count :]
        self.count, known = size, self.words[:size]
        source = known if self.reference is None else self.reference
        place = suffixes.agreement(source, known, draft.least, draft.most) if most > 0 else -1
        return ([], None) if place < 0 else (source[place : place + min(draft.k, most)].tolist(), None)

    def told(self, text, accepted, drafted):
        self.count = min(self.count, len(text))


class Cascade:
    """CS Drafting: Chen, Yang, Lin et al., NeurIPS 2024, arXiv:2312.11462. Drafts that are drafted for.

    drafts      of falling cost, such as (Model(large), Model(small), Copying()); all but the last one are Models
    k           how many words each gives: the first guesses the first k[0] words, the second the next k[1], ... That is
                the horizontal cascade: words far ahead stand more seldom, and cheaper ones guess them
    lenient     the vertical cascade: what the draft below guesses, a draft judges before it speaks itself. It takes its
                own best word, and every word that it gives more than 1 / lenient

    For Greedy() alone, as the authors' code: only the target's judgement is strict, so the text is the target's.
    """

    def __init__(self, drafts, k, lenient=2.0):
        self.drafts, self.k = tuple(drafts), tuple(whole("Cascade", "k", count, 0) for count in k)
        self.lenient = number("Cascade", "lenient", lenient, low=1)
        if len(self.drafts) != len(self.k) or not self.drafts:
            raise UserError(f"Cascade: {len(self.drafts)} drafts have {len(self.k)} numbers k")
        if not all(isinstance(draft, Model) for draft in self.drafts[:-1]):
            raise UserError("Cascade: all drafts but the last must be Models")

    def start(self, target, state, choose, seed):
        if choose.draws:
            raise UserError("Cascade: its drafts are those of Greedy(); take choose=Greedy()")
        inner = [draft.start(target, state, choose, seed) for draft in self.drafts]
        return OfCascade(inner, self.k, self.lenient)


class OfCascade:
    """`drafters`, and how many words of each."""

    def __init__(self, drafters, k, lenient):
        self.drafters, self.k, self.lenient = drafters, k, lenient

    def propose(self, text, most):
        words = []
        for i, count in enumerate(self.k):
            wanted = min(count, most - len(words))
            if wanted > 0:
                words += self.spoken(i, [*text, *words], wanted)
        for drafter in self.drafters:
            drafter.told(text, 0, 0)
        return words, None

    def spoken(self, i, text, count):
        """At most `count` words of drafter i, which judges those of the next one."""
        if i == len(self.drafters) - 1:
            return self.drafters[i].propose(text, count)[0]
        words, state = [], self.drafters[i].state
        state.rollback(min(state.length, len(text) - 1))
        while len(words) < count:
            so_far = [*text, *words]
            guessed = self.spoken(i + 1, so_far, min(self.k[-1], count - len(words) - 1))
            logits = state.append([[*so_far[state.length :], *guessed]], every=True)
            logits = backend.to_host(logits)[0][-len(guessed) - 1 :].astype(np.float64)
            p = np.exp(logits - logits.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            good = 0
            while good < len(guessed) and p[good, guessed[good]] >= min(p[good].max(), 1 / self.lenient):
                good += 1
            words += [*guessed[:good], int(p[good].argmax())]
            state.rollback(len(text) + len(words) - 1)
        return words[:count]

    def told(self, text, accepted, drafted):
        for drafter in self.drafters:
            drafter.told(text, accepted, drafted)


class Datastore(Value):
    """REST: what followed in a corpus where the end of the text stands. He, Zhong, Cai, Lee & He, NAACL 2024,
    arXiv:2311.08252.

    corpus      words of a text, (n,) whole numbers; its suffix array is made once, when it is first asked for
    longest, least      lengths of the end of the text that are looked for, from the longest down (16 to 2)
    matches     how many places are looked at at most
    k           how many words follow
    nodes       the draft is the trie of what followed, its so many most frequent beginnings, judged as a tree in one
                pass: a word sees the words above it. 1: the path of the most frequent ones alone
    """

    def __init__(self, corpus, longest=16, least=2, matches=5000, k=10, nodes=64):
        self.corpus = np.asarray(corpus, np.int64)
        self.longest, self.least, self.matches, self.k, self.nodes = (
            whole("Datastore", name, value)
            for name, value in (
                ("longest", longest),
                ("least", least),
                ("matches", matches),
                ("k", k),
                ("nodes", nodes),
            )
        )

    def start(self, target, state, choose, seed):
        return OfSuffixes(self, self.order)

    @functools.cached_property
    def order(self):
        """The suffix array of the corpus."""
        words, rank = np.unique(self.corpus, return_inverse=True)
        return suffixes.suffix_array(rank.astype(np.int64), len(words))


class OfSuffixes:
    def __init__(self, draft, order):
        self.draft, self.order, self.corpus = draft, order, draft.corpus

    def propose(self, text, most):
        draft, most = self.draft, min(self.draft.k, most)
        end = np.array(text[-draft.longest :], np.int64)
        n, low, high = suffixes.places_of(self.corpus, self.order, end, draft.least, draft.matches)
        if not n or most <= 0:
            return [], None
        if draft.nodes == 1:
            return suffixes.likeliest(self.corpus, self.order, n, low, high, most).tolist(), None
        words, parents = suffixes.grown(self.corpus, self.order, n, low, high, most, draft.nodes)
        return words.tolist(), Above(parents)

    def told(self, text, accepted, drafted):
        """Nothing is kept."""
