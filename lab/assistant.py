"""`npopt verse`: a network writes the lower line of a couplet, below the line that you give.

    npopt verse 春眠不覺曉                                   five lines, drawn
    npopt verse 春眠不覺曉 --rhyme 鳥 --begin 處              that rhymes with a character, that begins so
    npopt verse 春眠不覺曉 --beam 8                           the likeliest ones
    npopt verse --page                                      the same on a page of this machine, for a browser

The first call trains the network, a few minutes, and keeps it under results/verse; a call that was stopped goes on
where it was. The line is as long as yours. With --rhyme it rhymes and with --tones it keeps the tones, as far as
problems/prosody.py knows them. Nothing is chosen by hand: lines that were drawn are shown in that order, those that a
search found by their probability.
"""

import argparse
import dataclasses
import math
import threading
from pathlib import Path

from lab.options import Parser
from lab.progress import Line, line
from lab.verse_page import serve
from lab.wish import Wish
from nn.decoding import beam, score
from npopt import Adam, Cosine, Events, RandomReshuffling, Stop, backend, checkpoint, minimize
from npopt.errors import UserError
from npopt.schedules import WithWarmup
from problems.verse import KINDS, verse
from problems.vocabulary import SPECIAL, STOP

import numpy as np

STEPS = 3000
RATES = {"encoder-decoder": 4e-3, "decoder": 2e-3, "lstm": 8e-3}  # the best of `poems`
SIZES = {"tang-poems": dict(features=96, heads=4, layers=2, least=10), "couplets": dict(features=32, heads=2, layers=1)}


HELP = {
    "begin": "the first characters of the lower line",
    "rhyme": "a character with which it is to rhyme",
    "tones": "opposite tones at even places, a level one at the end",
    "temperature": "of the draws (default: 0.8)",
    "top_k": "draw among the K likeliest characters",
    "top_p": "draw among the likeliest ones that have this probability together",
    "beam": "search so wide for the likeliest lines, instead of drawing",
    "count": "lines (default: 5)",
    "seed": "of the draws (default: 0)",
}


class Assistant:
    """A problem of problems/verse.py and its trained weights."""

    def __init__(self, problem, x):
        self.problem, self.x, self.lock = problem, x, threading.Lock()  # a network serves one pass at a time
        self.prosody, self.units = problem.verses.prosody, problem.verses.vocabulary.units
        self.tones = np.array([0] * len(SPECIAL) + [self.prosody.tone(c) for c in self.units[len(SPECIAL) :]])
        self.groups = np.array([self.prosody.rhymes.get(c, -1) for c in self.units])

    def masks(self, wish):
        """[(V,) bool]: which characters may come at each place of the line, and behind it the end alone."""
        numbers, n, found = self.problem.verses.vocabulary.numbers, len(wish.upper), []
        for place in range(n):
            may = np.arange(len(self.units)) >= len(SPECIAL)
            if place < len(wish.begin):
                if wish.begin[place] not in numbers:
                    raise UserError(f"{wish.begin[place]!r} is not a character that this network knows")
                may &= np.arange(len(self.units)) == numbers[wish.begin[place]]
            elif place == n - 1 and wish.rhyme:
                may &= self.groups == self.group(wish.rhyme)
            elif place == n - 1 and wish.tones:
                may &= self.tones >= 0
            elif place % 2 and wish.tones and place < n - 1:
                tone = self.prosody.tone(wish.upper[place])
                may &= (self.tones != tone) | (tone == 0)
            if not may.any():
                raise UserError(f"no character that this network knows may stand at place {place + 1} of the line")
            found.append(may)
        end = np.zeros(len(self.units), bool)
        end[STOP] = True
        return [*found, end]

    def group(self, character):
        if character not in self.prosody.rhymes:
            some = "".join(self.prosody.group(g)[:1] for g in range(10))
            raise UserError(f"no rhymes of {character!r} are known; there are rhymes of {some} and others")
        return self.prosody.rhymes[character]

    def write(self, wish):
        """[{text, score, rhymes, opposed, copied}]: score is the mean log p of the line's characters."""
        masks = self.masks(wish)
        with self.lock:
            if wish.beam:
                lines = self.searched(wish, masks)
            else:
                allowed = lambda place, texts: np.array([masks[min(max(p, 0), len(masks) - 1)] for p in place])  # noqa: E731
                uppers = [wish.upper] * wish.count
                lines = list(dict.fromkeys(self.problem.write(self.x, uppers, wish.choose(), wish.seed, allowed)))
            found = [self.described(wish, *pair) for pair in zip(lines, self.scores(wish, lines), strict=True)]
        return sorted(found, key=lambda one: -one["score"]) if wish.beam else found

    def scores(self, wish, lines):
        """The mean log p of each line's characters; all lines have one length."""
        decoder, prompts, seen = self.problem.begun(self.x, [wish.upper] * len(lines))
        encode = self.problem.verses.vocabulary.encode
        texts = [[*prompt, *encode(text)] for prompt, text in zip(prompts, lines, strict=True)]
        return score(decoder, np.array(texts), **seen)[:, len(prompts[0]) - 1 :].mean(1)

    def searched(self, wish, masks):
        """The likeliest lines, by the mean log p of their characters and the end behind them."""
        decoder, (prompt,), seen = self.problem.begun(self.x, [wish.upper])
        start = len(prompt)
        found = beam(decoder, prompt, start + len(masks), wish.beam, 1.0, stop=STOP, **seen,
                     allowed=lambda position, texts: masks[position - start])  # fmt: skip
        return [self.problem.spelt(text[start:-1]) for text, _ in found[: wish.count]]

    def described(self, wish, text, score):
        opposed = self.prosody.opposed(wish.upper, text)
        return dict(
            text=text,
            score=float(score),
            rhymes=self.prosody.rhyming(text[-1], wish.rhyme) if wish.rhyme else None,
            opposed=f"{sum(opposed)} of {len(opposed)}",
            copied=text in self.problem.verses.known,
        )


class Training(Line):
    """The line of a terminal while the network is trained."""

    def __init__(self, what):
        self.at = 0.0
        super().__init__(
            line(desc=what, total=100, bar_format="{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]")
        )

    def note(self, fraction, epoch=None, loss=None):
        self.at = 100 * fraction

    def draw(self):
        self.bar.update(max(0.0, self.at - self.bar.n))


def trained(data, kind, steps, folder):
    """The Assistant of a network that was trained for so many steps; kept in a file of the folder."""
    if data not in SIZES:
        raise UserError(f"verse: {data!r} holds no poems; there is {', '.join(SIZES)}")
    problem = verse(data, kind, held=500, **SIZES[data])
    path = Path(folder) / f"{data}-{kind}-{steps}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    schedule = WithWarmup(Cosine(RATES[kind]), max(1, steps // 10))
    with Training(f"training {kind}") as bar:
        events, stop = Events(None, checkpoint=path, progress=bar.note), Stop(steps=steps)
        try:
            run = minimize(problem, Adam(0.9, 0.98), RandomReshuffling(64), schedule, stop=stop, events=events)
        except checkpoint.Damaged as error:
            raise UserError(f"{error}; delete {path}, and the network is trained again") from None
    if run.reason == "interrupted":
        raise KeyboardInterrupt
    return Assistant(problem, run.x)


def told(found, wish):
    """A line of the terminal for each line of verse."""
    rows = []
    for one in found:
        more = [f"perplexity {math.exp(-one['score']):.0f}", f"tones opposite at {one['opposed']}"]
        more += ["rhymes" if one["rhymes"] else "does not rhyme"] * (one["rhymes"] is not None)
        more += ["a line of the training poems"] * one["copied"]
        rows.append(f"{one['text']}   {', '.join(more)}")
    return "\n".join([wish.upper, *rows])


def command(words):
    """npopt verse [LINE]. Returns the exit status, or a sentence."""
    p = Parser(prog="npopt verse", description="A network writes the lower line of a couplet, below yours.")
    p.add_argument("upper", nargs="?", help="your line, 5 or 7 characters", metavar="LINE")
    for field in dataclasses.fields(Wish)[1:]:
        kind = dict(action="store_true") if field.type is bool else dict(metavar=field.name[0].upper())
        p.add_argument(f"--{field.name.replace('_', '-')}", default=argparse.SUPPRESS, help=HELP[field.name], **kind)
    p.add_argument(
        "--page", nargs="?", type=int, const=0, help="serve a page on this machine [a free port]", metavar="PORT"
    )
    p.add_argument("--network", choices=KINDS, default="decoder", help="(default: %(default)s)")
    p.add_argument("--data", choices=list(SIZES), default="tang-poems", help="(default: %(default)s)")
    p.add_argument("--steps", type=int, default=STEPS, help="of training (default: %(default)s)")
    p.add_argument("--out", type=Path, default=Path("results"), help="where the network is kept (default: results)")
    args = vars(p.parse_args(words))
    page, network, data, steps, out = (args.pop(name) for name in ("page", "network", "data", "steps", "out"))
    if (args["upper"] is None) == (page is None):
        return "give a line of 5 or 7 characters, or --page"
    if steps < 1:
        return f"--steps must be at least 1, got {steps}"
    try:
        wish = None if args["upper"] is None else Wish.of(args)
        backend.threads(backend.parallel.cores())
        assistant = trained(data, network, steps, out / "verse")
        if wish is not None:
            print(told(assistant.write(wish), wish))
            return 0
    except UserError as error:
        return str(error)
    return serve(assistant, page)
