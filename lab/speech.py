"""Texts with drafts, and what they cost: words a pass, guesses that stand, time beside plain decoding."""

import time

from nn.decoding import Cascade, Copying, Datastore, Decoder, Greedy, Model, Sample, Skipping, generate, speculate
from nn.decoding.drafts import parts_of
from npopt import backend

import numpy as np


def draft_of(kind, target, small, text):
    """A draft of a tuple that says what it is: ("model", k), ("parts", which, k), ("text", least, k), ("corpus", words,
    k, nodes), ("cascade", (k, ...))."""
    name, *given = kind
    if name == "model":
        return Model(small, *given)
    if name == "parts":
        return Skipping(*given, least=0.0)
    if name == "text":
        return Copying(None, *given)
    if name == "corpus":
        return Datastore(text[: given[0]], k=given[1], nodes=given[2])
    return Cascade([Model(small), Copying(None, 2, given[0][-1])], given[0])


def spoken(target, draft, prompts, length, choose, repeats=1):
    """Columns with one row, over all prompts: "rate", "a pass", "seconds", "plain" (seconds without a draft), "same",
    "drafted". target: a Decoder; draft: None, or of nn/decoding/drafts.py; prompts: (n, words)."""
    lengths, judged, accepted, took, plain, same = [], 0, 0, 0.0, 0.0, True
    for seed, prompt in enumerate(prompts):
        prompt = [int(word) for word in prompt]
        for again in range(repeats + 1):  # the first time is for compilers and memory
            began = time.perf_counter()
            expected = generate(target, prompt, length, choose, seed)
            middle = time.perf_counter()
            speech = speculate(target, prompt, length, draft, choose, seed)
            ended = time.perf_counter()
            if again:
                plain += (middle - began) / repeats
                took += (ended - middle) / repeats
        same &= choose.draws or np.array_equal(expected, speech.words)
        lengths += [given for given, _ in speech.lengths]
        accepted += speech.accepted
        judged += speech.accepted + sum(given <= drafted for given, drafted in speech.lengths)
    return {
        "rate": [accepted / judged if judged else 0.0],
        "a pass": [float(np.mean(lengths))],
        "seconds": [took],
        "plain": [plain],
        "same": [float(same)],
    }


def costs(target, small, prompt, most=9):
    """Columns "words", "pass", "draft": seconds of a pass of the target over 1, 2, ... words behind a text, in parts of
    that over one; and those of one word of the small model, in the same parts."""
    found = []
    for decoder in (target, small):
        state = decoder.start()
        state.append([[int(word) for word in prompt]])
        for n in range(1, most + 1 if decoder is target else 2):
            took = []
            for _ in range(30):
                began = time.perf_counter()
                state.append([[1] * n], every=True)
                took.append(time.perf_counter() - began)
                state.rollback(len(prompt))
            found.append(float(np.median(took)))
    *passes, draft = found
    count = list(range(1, most + 1))
    return {"words": count, "pass": [p / passes[0] for p in passes], "draft": [draft / passes[0]] * most}


def chosen_parts(target, prompts, length, most, seed=0):
    """(paths, rates): the parts that can be left out, one more at a time, that with which most guesses stand; `most` in
    all. Zhang et al. let a Bayesian search choose; of few parts each can be tried."""
    skip, rates = [], []
    for _ in range(most):
        tried = {}
        for path in sorted(set(parts_of(target)) - set(skip)):
            draft = Skipping([*skip, path], 4, least=0.0)
            tried[path] = spoken(target, draft, prompts, length, Greedy(), 1)["rate"][0]
        best = max(tried, key=tried.get)
        skip.append(best)
        rates.append(tried[best])
    return skip, rates


def choice(temperature):
    return Sample(temperature) if temperature else Greedy()


def decoder_of(reader):
    return Decoder(reader.network, backend.asarray(reader.x))
