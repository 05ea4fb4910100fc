"""Texts with a small model's guesses beside the target's alone: wall time, greedy and drawn.

    python benchmarks/speculative.py --steps 300 --write

Target and draft learn Shakespeare's characters here (problems/reading.py; kept in the user's cache, so that they are
trained once): six layers of 256, 4.8 M parameters, and one layer of 64, 0.06 M. At that size a pass waits for weights,
and one over five words takes about as long as over one (nn/kernels/word_products.py); a small network on the same text
guesses many of the target's words. Few steps make a poor model with easy words: the table says how many were taken, the
rate at which guesses stand, and the two losses on text that neither has read. The target's rate is that of its own
text, not of Shakespeare's. Each row is one text of 96 characters behind 32, both sides with the same compiled loops and
one thread each; greedy texts are held to one another first.
"""

from pairs import Table, arguments  # isort: skip (before NumPy)

from nn.decoding import Decoder, Greedy, Model, Sample, generate, score, speculate
from npopt import backend
from problems import reading

import numpy as np

BEFORE, LENGTH, TEXTS, TARGET = 32, 128, 4, 1.5
LARGE, SMALL = dict(features=256, layers=6, heads=4), dict(features=64, layers=1, heads=4)


def read(steps, rate, sizes):
    """(Reader, Decoder) of a model that is trained, or was."""
    reader = reading.trained("tinyshakespeare", steps, rate, tuple(sorted(dict(length=LENGTH, **sizes).items())))
    return reader, Decoder(reader.network, reader.x)


def main():
    p = arguments(__doc__)
    p.add_argument("--steps", type=int, default=300, help="of the target's training (default: %(default)s)")
    args = p.parse_args()
    backend.threads(1)
    (reader, target), (_, small) = read(args.steps, 2e-3, LARGE), read(1500, 5e-3, SMALL)
    prompts, unread = reader.streams(TEXTS, BEFORE, 0), reader.streams(16, LENGTH, 1)
    title = "Four texts of 96 characters with guesses of a small model, and without, one thread, alternated"
    table, gains = Table(title, "guesses", "alone", ("rate", "a pass")), []
    for name, choose in (("greedy", Greedy()), ("drawn", Sample(1.0))):
        for k in (2, 4, 6):
            draft, told = Model(small, k), []
            for seed, prompt in enumerate(prompts):
                speech = speculate(target, prompt, LENGTH, draft, choose, seed)
                alone = generate(target, prompt, LENGTH, choose, seed)
                if not choose.draws and not np.array_equal(speech.words, alone):
                    raise SystemExit("a greedy text with guesses is not the target's")
                told.append((speech.rate, (LENGTH - BEFORE) / speech.passes))
            each = [f"{value:.2f}" for value in np.mean(told, axis=0)]

            def ours(draft=draft, choose=choose):
                return [speculate(target, row, LENGTH, draft, choose, i) for i, row in enumerate(prompts)]

            def theirs(choose=choose):
                return [generate(target, row, LENGTH, choose, i) for i, row in enumerate(prompts)]

            ratio = table.add(f"{name}, {k} guessed", ours, theirs, args.rounds, *each)
            gains.append(f"{name}, {k}: {1 / ratio:.2f}")
    losses = [-score(decoder, unread).mean() for decoder in (target, small)]
    table.note(f"Gains: {'; '.join(gains)} (target of one of them: {TARGET}).")
    table.note(f"Trained for {args.steps} and 1500 steps of 16 windows of {LENGTH}.")
    table.note(f"Losses on unread text: {losses[0]:.2f} and {losses[1]:.2f}.")
    if args.write:
        table.write("speculative.txt")


if __name__ == "__main__":
    main()
