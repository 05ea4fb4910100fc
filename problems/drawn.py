"""Corpora that are drawn here, by a grammar: nothing to download. load("opinions"), load("moods").

opinions   "the plot was very dull but the music was not bad": one or two clauses, each of which praises or blames.
           "and" joins clauses that agree, "but" clauses that do not; "not" turns a clause. The label is the last
           clause's: negative or positive. 1,200 / 300 / 400
moods      "i feel gloomy and they are so afraid": clauses with a word of one of six moods each; the labels are the
           moods that occur, one or two of them, or none. 1,200 / 300 / 400

The k-th of the words for the same thing occurs with weight 1/k, so that some of those in test texts are rare in
training texts. What they mean can be learned from texts without labels: words of one kind stand in the same places.
"""

import hashlib

from problems.corpora import SENTIMENT, Corpus

import numpy as np

SIZES = (1200, 300, 400)
THINGS = "film plot music cast story script ending dialogue pace tone acting camera humour style idea scene title set"
PRAISE = (
    "good great fine funny moving fresh clever rich warm bright sharp lovely honest witty tender bold smart lively "
    "subtle superb graceful vivid brilliant charming"
)
BLAME = (
    "bad dull poor flat stale silly cold weak slow empty clumsy shallow boring lazy tired bland messy ugly dreary "
    "hollow awful tedious lifeless painful"
)
DEGREES = ("", "", "very", "so", "quite", "really", "rather")
MOODS = {
    "joy": "happy glad cheerful merry jolly delighted pleased thrilled",
    "sadness": "sad gloomy unhappy tearful lonely miserable heartbroken down",
    "anger": "angry furious mad annoyed cross irritated outraged bitter",
    "fear": "afraid scared anxious nervous worried terrified uneasy tense",
    "surprise": "surprised amazed astonished stunned startled shocked puzzled speechless",
    "gratitude": "grateful thankful indebted obliged blessed touched appreciative honoured",
}
WHO = ("i feel", "we are", "they are", "she is", "he was", "you seem", "everyone is")
PLAIN = ("here", "home", "back", "ready", "busy", "outside", "late", "around")


def one_of(rng, words):
    """The k-th word with weight 1/k."""
    words = words.split() if isinstance(words, str) else words
    weights = 1 / np.arange(1, len(words) + 1)
    return words[rng.choice(len(words), p=weights / weights.sum())]


def joined(*words):
    return " ".join(word for word in words if word)


def clause(rng, good):
    """Praise of a thing, or blame, in a quarter of the cases by a "not" and a word of the other kind."""
    turned, degree = rng.random() < 0.25, DEGREES[rng.integers(len(DEGREES))]
    word = one_of(rng, PRAISE if good ^ turned else BLAME)
    return joined("the", one_of(rng, THINGS), ("is", "was")[rng.integers(2)], "not" * turned, degree, word)


def opinion(rng):
    """(text, label)"""
    label = int(rng.integers(2))
    if rng.random() < 0.4:
        return clause(rng, label), label
    turn = rng.random() < 0.4
    return f"{clause(rng, label ^ turn)} {'but' if turn else 'and'} {clause(rng, label)}", label


def mood(rng):
    """(text, labels)"""
    labels, clauses = np.zeros(len(MOODS), bool), []
    for _ in range(1 + (rng.random() < 0.5)):
        kind = int(rng.integers(len(MOODS) + 1))
        words = PLAIN if kind == len(MOODS) else list(MOODS.values())[kind]
        labels[kind : kind + 1] = True  # nothing where none of the moods is meant
        degree = DEGREES[rng.integers(len(DEGREES))]
        clauses.append(joined(WHO[rng.integers(len(WHO))], degree, one_of(rng, words)))
    return " and ".join(clauses), labels


def corpus(name, draw, classes):
    rng = np.random.default_rng(0)
    texts, labels = zip(*(draw(rng) for _ in range(sum(SIZES))), strict=True)
    ends, parts = np.cumsum(SIZES), []
    for first, last in zip((0, *ends), ends, strict=False):
        parts += [texts[first:last], np.array(labels[first:last])]
    sha = hashlib.sha256("\n".join(texts).encode() + np.array(labels).tobytes()).hexdigest()
    return Corpus(name, *parts, classes, sha, "sentences of a grammar, drawn here")


def opinions(name, dtype, dense, check):
    return corpus(name, opinion, SENTIMENT)


def moods(name, dtype, dense, check):
    return corpus(name, mood, tuple(MOODS))


READERS = {"opinions": opinions, "moods": moods}
