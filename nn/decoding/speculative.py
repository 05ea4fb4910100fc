"""Speculative decoding: a cheap draft guesses words, and one pass of the target judges all of them.

Leviathan, Kalman & Matias, ICML 2023, arXiv:2211.17192, Algorithm 1; Chen et al. 2023, arXiv:2302.01318. With p and q
the probabilities of target and draft as `choose` makes them (temperature and cuts included):

    accept the draft's word w with probability min(1, p(w) / q(w))
    else draw from max(p - q, 0), divided by its sum, and forget the rest of the draft
    where all k words were accepted, draw one more from the target

The text has the law of the target alone; with Greedy() it is the same text, as far as rounding lets equal logits be
equal. If a word is accepted with probability a, whatever came before, a pass of the target gives
(1 - a^(k+1)) / (1 - a) words on average.
"""

from npopt import backend
from npopt.errors import UserError
from npopt.values import whole

import numpy as np

from .choosing import Greedy, drawn
from .generation import ends, number_at, prompts


class Speech:
    """What was done for a text of which `start` words were given: `words`, (n,) int64, prompt and stop included;
    `lengths`, for each pass of the target (how many words it gave, how many had been drafted)."""

    def __init__(self, start):
        self.start, self.words, self.lengths = start, None, []

    @property
    def passes(self):
        return len(self.lengths)

    @property
    def drafted(self):
        return sum(drafted for _, drafted in self.lengths)

    @property
    def accepted(self):
        return sum(given - 1 for given, _ in self.lengths)

    @property
    def rate(self):
        """The share of judged words that were accepted; those behind a rejected one were not judged."""
        judged = self.accepted + sum(given <= drafted for given, drafted in self.lengths)
        return self.accepted / judged if judged else float("nan")


class Above:
    """In the place of q: the words are those of a tree, `parents`, (n,), saying above each which one stands; -1: the
    text."""

    def __init__(self, parents):
        self.parents = np.asarray(parents, np.int64)


def judge(p, words, q, draws):
    """(how many of the drafted words stand, the word behind them).

    p: (k + 1, V), the target's probabilities behind the text and behind each drafted word   words: (k,)
    q: (k, V), those that the words were drawn from; None: they were drawn from nothing, q is 1 at the word
    draws(i) -> (u, u'), numbers in (0, 1) for the place i
    """
    for i, word in enumerate(words):
        u, other = draws(i)
        share = 1.0 if q is None else q[i, word]
        if u * share < p[i, word]:
            continue
        left = p[i].copy()
        if q is None:
            left[word] = 0
        else:
            left = np.maximum(left - q[i], 0)
        return i, int(drawn(left[None], [other])[0])
    return len(words), int(drawn(p[-1:], [draws(len(words))[1]])[0])


def judge_greedily(best, words, parents=None):
    """As judge and judge_tree, for the target's best word behind the text and behind each drafted word, (k + 1,): a
    word stands if it is the best one."""
    path, at = [], -1
    for i, word in enumerate(words):  # what stands below a word comes behind it
        if (at if parents is None else parents[i]) != at:
            continue
        if word == best[at + 1]:
            path.append(i)
            at = i
        elif parents is None:
            break
    return path, int(best[at + 1])


def judge_tree(p, words, parents, draws):
    """(numbers of the words of the path that stands, the word behind it). The target's word is drawn at each place, and
    goes on with the child that is this word, if there is one.

    p: (n + 1, V), probabilities behind the text, and behind each word of the tree   words, parents: (n,)
    """
    path, at = [], -1
    while True:
        word = int(drawn(p[at + 1][None], [draws(len(path))[1]])[0])
        child = next((i for i, w in enumerate(words) if w == word and parents[i] == at), None)
        if child is None:
            return path, word
        path, at = [*path, child], child


def speculate(decoder, prompt, length, draft, choose=None, seed=0, *, stop=(), each=None):
    """A text of at most `length` words behind a prompt: a Speech.

    decoder    the target; its cache must let a text be rolled back
    prompt     the words of one text
    draft      one of nn/decoding/drafts.py
    choose     Greedy(), the default, or Sample(...), for target and draft
    stop       as in generate
    each       a function that is given the words of a pass, a list, as soon as they stand
    """
    length, choose = whole("speculate", "length", length), Greedy() if choose is None else choose
    (text, *others), alone = prompts("speculate", prompt, None, length)
    if not alone or others:
        raise UserError("speculate: the prompt must be the words of one text")
    ended, text = ends("speculate", stop, decoder.words), list(map(int, text))
    state, speech = decoder.start(), Speech(len(text))
    drafter = draft.start(decoder, state, choose, seed)
    if len(text) > 1:
        state.append([text[:-1]])

    def draws(i):
        position = len(text) + i
        return number_at(seed, "accept", position), number_at(seed, "word", position)

    while len(text) < length:
        words, q = drafter.propose(text, length - len(text) - 1)
        parents = q.parents.tolist() if isinstance(q, Above) else None  # of a tree, below the last word of the text
        if parents is None:
            logits = state.append([[text[-1], *words]], every=True)[0]
        else:
            logits = state.append_tree([text[-1], *words], [-1, *(parent + 1 for parent in parents)])
        logits = backend.to_host(logits)
        if not choose.draws:
            path, word = judge_greedily(choose(logits), words, parents)
        elif parents is None:
            count, word = judge(choose.probabilities(logits), words, q, draws)
            path = range(count)
        else:
            path, word = judge_tree(choose.probabilities(logits), words, parents, draws)
        if parents is not None:
            state.choose_path([0, *(i + 1 for i in path)])
        count, new = len(path), [*(words[i] for i in path), word]
        speech.lengths.append((count + 1, len(words)))
        over = next((i for i, w in enumerate(new) if ended[w]), None)
        new = new if over is None else new[: over + 1]
        text += new
        if each is not None:
            each(new)
        if over is not None:
            break
        state.rollback(len(text) - 1)
        drafter.told(text, count, len(words))
    speech.words = np.array(text, np.int64)
    return speech
