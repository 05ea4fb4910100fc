"""Greedy texts of stories260K, microseconds a word, beside llama2.c's on one core.

    python benchmarks/decoding.py --weights data/weights/stories260K.bin --rival llama2.c/run.c --write
    python benchmarks/decoding.py --weights drawn --rival llama2.c/run.c --write

"drawn" is a model of the shape of llama2.c's stories15M (288 wide, 6 layers and heads, 32,000 words) with random
weights: 61 MB that each word reads, which is what its time is compared with.

run.c is Andrej Karpathy's, https://github.com/karpathy/llama2.c, of August 2023 (with transformer(token, pos, ...) and
shared keys); it is not part of this repository. It is compiled here with gcc -O3 -march=native -ffast-math -fopenmp and
called as a library, so that both sides start from weights in memory. Its side is transformer and argmax, word after
word, without printing; ours is generate(decoder, [1], n), which allocates its state, checks what it is given and
chooses from an array of logits. Both have one thread, which is the faster setting for run.c here, too. Before anything
is timed the two texts are held to one another. `append` is State.append alone, for a text that is known; "layer by
layer" is ours without the compiled function.
"""

import pairs  # isort: skip (before NumPy)
from pairs import Table, arguments  # isort: skip

import ctypes
import os
import pathlib
import subprocess
import tempfile

from nn import weights
from nn.decoding import Decoder, generate
from nn.weights.llama2c import layout
from npopt import backend

import numpy as np

LENGTHS, TARGET = (64, 256, 500), 1.2
DRAWN = dict(features=288, hidden=768, layers=6, heads=6, kv_heads=6, words=32_000, length=1024, tied=True)
LONG, LARGE = (16, 256, 1024), 1.1  # of that one: lengths and target
FLAGS = ("-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC")
WRAPPER = """
#include <omp.h>
#define main run_main
#include RUN_C
#undef main
static Config config; static TransformerWeights weights; static RunState state;
int prepare(const char *path) {
    omp_set_num_threads(1);
    FILE *file = fopen(path, "rb");
    if (!file || fread(&config, sizeof config, 1, file) != 1) return 1;
    fseek(file, 0, SEEK_END); long size = ftell(file); fclose(file);
    int shared = config.vocab_size > 0;
    config.vocab_size = abs(config.vocab_size);
    float *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, open(path, O_RDONLY), 0);
    checkpoint_init_weights(&weights, &config, data + sizeof config / sizeof *data, shared);
    malloc_run_state(&state, &config);
    return 0;
}
void tell(int *words, int n) {
    for (int pos = 0; pos + 1 < n; pos++) {
        transformer(words[pos], pos, &config, &state, &weights);
        words[pos + 1] = argmax(state.logits, config.vocab_size);
    }
}
"""


def rival(path, checkpoint, folder):
    """A function of n: the first n words of run.c's greedy text."""
    source, library = pathlib.Path(folder) / "wrapper.c", pathlib.Path(folder) / "run.so"
    source.write_text(WRAPPER)
    name = f'-DRUN_C="{pathlib.Path(path).resolve()}"'
    subprocess.run(["gcc", *FLAGS, name, str(source), "-o", str(library), "-lm"], check=True)
    found = ctypes.CDLL(str(library))
    if found.prepare(str(checkpoint).encode()):
        raise SystemExit(f"{checkpoint} cannot be read by run.c")

    def text(n):
        words = (ctypes.c_int * n)(1)
        found.tell(words, n)
        return np.array(words)

    return text


def drawn(path):
    """Write a checkpoint of random weights."""
    shapes, _ = layout(**DRAWN)
    header = [DRAWN[key] for key in ("features", "hidden", "layers", "heads", "kv_heads", "words", "length")]
    rng = np.random.default_rng(0)
    with open(path, "wb") as file:
        file.write(np.array(header, "<i4").tobytes())
        for name, shape in shapes.items():
            scale = 1.0 if "norm" in name else 2 * shape[-1] ** -0.5
            file.write((scale * rng.standard_normal(shape)).astype("<f4").tobytes())


def bandwidth(size):
    """Bytes a second at which one thread reads `size` bytes, the best of five."""
    a = np.ones(size // 4, np.float32)
    return size / min(pairs.timed(a.sum, 1) for _ in range(5))


def main():
    p = arguments(__doc__)
    p.add_argument("--weights", required=True, help="stories260K.bin, or drawn")
    p.add_argument("--rival", default=os.environ.get("LLAMA2C_RUN"), help="run.c of llama2.c; or $LLAMA2C_RUN")
    p.add_argument("--note", default="", help="a sentence on the machine's state, for the table")
    args = p.parse_args()
    backend.threads(1)
    if args.weights == "drawn":
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "drawn.bin"
            drawn(path)
            measure(args, path, "a drawn model of 15 M", LONG, LARGE, "decoding_15m.txt")
    else:
        measure(args, args.weights, "stories260K", LENGTHS, TARGET, "decoding.txt")


def measure(args, path, name, lengths, target, file):
    """The table of a checkpoint."""
    network, x = weights.llama2c(path)
    decoder, slow = Decoder(network, x), Decoder(network, x)
    slow.fast = None
    table = Table(f"Greedy texts of {name}, one thread each, alternated; times of whole texts", "npopt",
                  "llama2.c" if args.rival else "no run.c", ("us a word",))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        theirs = rival(args.rival, path, folder) if args.rival else None
        ratios = []
        for n in lengths:
            known = generate(decoder, [1], n)
            first = n if path == args.weights else min(n, 16)  # equal logits are rare, and rounding differs
            if theirs and not np.array_equal(theirs(n)[:first], known[:first]):
                raise SystemExit(f"the texts of {n} words differ: {theirs(n)} and {known}")
            state = decoder.start()

            def appended(state=state, known=known):
                state.rollback(0)
                for i in range(len(known) - 1):
                    state.append(known[None, i : i + 1])

            other = (lambda n=n: theirs(n)) if theirs else None
            for name, mine in (("generate", lambda n=n: generate(decoder, [1], n)), ("append", appended)):
                found = [pairs.timed(mine, 3) for _ in range(5)]
                each = f"{1e6 * np.median(found) / (n - 1):.1f}"
                ratio = table.add(f"{n} words, {name}", mine, other, args.rounds, each)
                ratios += [f"{n} words: {ratio:.2f}"] if name == "generate" else []
        if path == args.weights:
            other = (lambda: theirs(64)) if theirs else None
            table.add("64 words, layer by layer", lambda: generate(slow, [1], 64), other,
                      3, "-")  # fmt: skip
    if path != args.weights:
        seconds = x.nbytes / bandwidth(x.nbytes)
        table.note(f"One thread reads the {x.nbytes / 1e6:.0f} MB of weights in {1e6 * seconds:,.0f} us.")
    if args.rival:
        table.note(f"Ratios of generate: {'; '.join(ratios)} (target {target}).")
    if args.note:
        table.note(args.note)
    if args.write:
        table.write(file)


if __name__ == "__main__":
    main()
