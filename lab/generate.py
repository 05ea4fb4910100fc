"""`npopt generate`: a published or trained language model goes on with your text, in the terminal.

    npopt generate --model FOLDER --prompt "Once upon a time"
    npopt generate --model stories260K.bin --tokenizer tok512.bin --prompt "Once" --temperature 0.8 --top-p 0.9
    npopt generate --model FOLDER --prompt TEXT --cache streaming:4,252 --length 2000
    npopt generate --model FOLDER --prompt TEXT --draft FOLDER

A model is a folder as Hugging Face lays it out (config.json, *.safetensors, tokenizer.json) or a llama2.c .bin with its
tokenizer.bin. Without --temperature the likeliest word is taken. --draft guesses words that the model then judges: a
second model of the same words, or "text", the text itself; the text is the one that the model alone would write.
"""

import sys
import time
from pathlib import Path

from lab.options import Parser, nearest
from lab.progress import Doing
from nn import weights
from nn.decoding import (
    H2O,
    KIVI,
    Copying,
    Decoder,
    Full,
    Greedy,
    Model,
    Paged,
    Sample,
    SnapKV,
    Streaming,
    Window,
    generate,
    speculate,
)
from npopt import backend
from npopt.errors import UserError
from problems.vocabulary import Pieces, Scored

CACHES = {"full": Full, "paged": Paged, "window": Window, "streaming": Streaming, "kivi": KIVI, "h2o": H2O,
          "snapkv": SnapKV}  # fmt: skip


def cache_of(text):
    """The cache that a text such as "streaming:4,252" asks for."""
    name, _, numbers = text.partition(":")
    if name not in CACHES:
        raise UserError(f"--cache {text}: no cache is called {name!r}; {nearest(name, CACHES)}")
    try:
        return CACHES[name](*(int(number) for number in numbers.split(",") if numbers))
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"--cache {text}: numbers are wanted behind the colon, such as streaming:4,252") from None


class Spoken:
    """A model with its tokenizer: numbers of a text, and the text of numbers."""

    def __init__(self, path, tokenizer=None):
        path = Path(path)
        with Doing(f"reading {path.name}"):
            if path.is_dir():
                self.network, self.x = weights.hub(path)
                self.tokenizer = Pieces.from_file(path / "tokenizer.json")
            else:
                self.network, self.x = weights.llama2c(path)
                found = Path(tokenizer) if tokenizer else path.with_name("tokenizer.bin")
                self.tokenizer = Scored.from_file(found, self.network.output_shape[-1])
        if len(self.network.output_shape) != 2:
            raise UserError(f"{path}: {self.network.name} is no language model that goes on with a text")
        (self.length,) = self.network.input_shape

    @property
    def start(self):
        """Numbers that stand before a text."""
        if isinstance(self.tokenizer, Scored):
            return [Scored.start]
        return [self.tokenizer.special[name] for name in ("<s>", "<|begin_of_text|>") if name in self.tokenizer.special]

    @property
    def stop(self):
        """Numbers that end a text."""
        if isinstance(self.tokenizer, Scored):
            return [Scored.start, Scored.stop]
        names = ("</s>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>")
        return [self.tokenizer.special[name] for name in names if name in self.tokenizer.special]


class Printed:
    """Prints a text as its words come."""

    def __init__(self, tokenizer, numbers):
        self.tokenizer, self.numbers, self.shown = tokenizer, list(numbers), ""
        self.show()

    def __call__(self, words):
        self.numbers += [int(word) for word in words]
        self.show()

    def show(self, last=False):
        """Print what is new; bytes that are no character yet wait for the next ones, unless there are none."""
        text = self.tokenizer.decode(self.numbers)
        if text.startswith(self.shown) and (last or not text.endswith("\N{REPLACEMENT CHARACTER}")):
            sys.stdout.write(text[len(self.shown) :])
            sys.stdout.flush()
            self.shown = text


def parser():
    p = Parser(prog="npopt generate", description="A language model goes on with your text.")
    p.add_argument("--model", required=True, metavar="PATH", help="a folder, or a llama2.c .bin")
    p.add_argument("--tokenizer", metavar="FILE", help="of a .bin [tokenizer.bin beside it]")
    p.add_argument("--prompt", required=True, metavar="TEXT", help="how the text begins")
    p.add_argument("--length", type=int, metavar="N", help="words (pieces) in all [what the model was trained for]")
    p.add_argument("--temperature", type=float, default=0.0, metavar="T", help="of draws [0: the likeliest word]")
    p.add_argument("--top-k", type=int, metavar="K", help="draw among the K likeliest")
    p.add_argument("--top-p", type=float, metavar="P", help="draw among the likeliest with this probability together")
    p.add_argument("--min-p", type=float, metavar="P", help="draw among those with P times the likeliest's")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default: 0)")
    text = ", ".join(CACHES)
    p.add_argument("--cache", default="full", metavar="KIND", help=f"{text}; with numbers: streaming:4,252")
    p.add_argument("--draft", metavar="PATH", help='a smaller model of the same words, or "text"')
    p.add_argument("--guess", type=int, default=4, metavar="K", help="words that a draft guesses (default: 4)")
    return p


def command(words):
    """npopt generate --model PATH --prompt TEXT. Returns the exit status, or a sentence."""
    args = parser().parse_args(words)
    if not args.prompt.strip():
        return "--prompt is empty; give the beginning of a text"
    try:
        return written(args)
    except UserError as error:
        return str(error)


def written(args):
    """Print the text that was asked for, and how fast it came."""
    choose = Sample(args.temperature, args.top_k, args.top_p, args.min_p) if args.temperature else Greedy()
    cache, model = cache_of(args.cache), Spoken(args.model, args.tokenizer)
    backend.threads(backend.cores())
    prompt = [*model.start, *map(int, model.tokenizer.encode(args.prompt))]
    length = model.length if args.length is None else args.length
    if length < 1:
        return f"--length {length}: at least one word is wanted"
    if cache.whole and length > model.length:
        return f"--length {length}: the model was trained for {model.length} words; take --cache streaming for more"
    if len(prompt) >= length:
        return f"--prompt: its {len(prompt)} words leave none of {length}; give a shorter one, or a larger --length"
    decoder, stop = (
        Decoder(model.network, model.x, cache),
        [w for w in model.stop if w < model.network.output_shape[-1]],
    )
    draft = draft_of(args) if args.draft else None
    show, began = Printed(model.tokenizer, prompt), time.perf_counter()
    if draft is None:
        found, more = generate(decoder, prompt, length, choose, args.seed, stop=stop, each=show), ""
    else:
        speech = speculate(decoder, prompt, length, draft, choose, args.seed, stop=stop, each=show)
        found = speech.words
        more = f", {(len(found) - len(prompt)) / speech.passes:.2f} a pass, {100 * speech.rate:.0f} % of guesses right"
    took = time.perf_counter() - began
    show.show(last=True)
    print()
    print(f"{len(found) - len(prompt)} words, {(len(found) - len(prompt)) / took:,.0f} a second{more}", file=sys.stderr)
    return 0


def draft_of(args):
    if args.draft == "text":
        return Copying(k=args.guess)
    small = Spoken(args.draft, args.tokenizer)
    return Model(Decoder(small.network, small.x), args.guess)
