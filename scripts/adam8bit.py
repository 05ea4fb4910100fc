"""Does Adam need 32 bits for what it remembers? Maps of 8 bits, blocks and outliers, and 4 bits beyond.   A8.

Adam keeps two numbers for each weight. Dettmers et al. (ICLR 2022) keep each as a code of 8 bits: a map whose values
lie close together near 0 ("dynamic"), and a scale for each block of 2048 numbers, so that a huge number spoils its own
block alone. They find the same accuracy at the same hyper-parameters. What goes wrong is a linear map: of v it makes 0
where v is small, and the step m / (sqrt v + eps) is then m / eps. Here that is tried on networks that a CPU trains. An
encoder that has filled gaps in texts learns SST-2 (as in `adam_text`, after a fifth of its gaps), and a GPT of two
layers of 64 reads Shakespeare's characters. All methods have the rate of 32 bits. Arrays of 4096 numbers or more are
kept in codes, embeddings too, but for the two methods with the paper's stable embedding. The authors' code has a rule
that a small negative first moment does not become 0; with a linear map it would become a whole step, so the linear maps
go without it, but for one method.

Predicted (experiments on Gaussian numbers, computed beforehand): of 262,144 numbers with 3 outliers of ten thousand
times the size, the mean error of the others is 0.0088, 0.0118 and 0.103 for blocks of 256, of 2048 and one of all; with
a linear map 0.0087, 0.029 and 0.798. Of squares the linear map makes 11 to 17 % zeros, the dynamic one 0.1 to 0.16 %.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about half an hour.
"""

from types import SimpleNamespace

from figures.adam8bit import ARMS, FOUR, LINEAR, SAME, SIGNS, TENSOR, album
from lab import Entry, Experiment, Part, Recipe
from lab.claims import decided, listed, spreads
from lab.escapes import stepping
from lab.verdicts import Undecided, close, lower, within
from nn.networks import resnet18
from npopt import Adam, AdamW, Cosine, Linear, Quantised, RandomReshuffling, Stop, WithWarmup, backend
from npopt.codes import Code
from problems.encoders import BATCH, finetuned
from problems.language import gpt

import numpy as np

experiment = Experiment(
    __doc__,
    task="A8",
    source="Dettmers, Lewis, Shleifer & Zettlemoyer, ICLR 2022, arXiv:2110.02861",
    parts={
        "a": Part("fine-tuning an encoder: is it praise?", "opinions", "sst2-socher"),
        "b": Part("training a small GPT", "chain", "tinyshakespeare"),
        "c": Part("errors of maps and blocks: outliers that were planted"),
        "n": Part("errors of maps and blocks: what Adam keeps", "chain", "tinyshakespeare"),
        "s": Part("bytes of state of ResNet-18"),
    },
    seeds=3,
    quick_seeds=1,
    figures=album,
)

RATE = {"a": 1e-3, "b": 1e-3, "stable": 3e-3, "n": 3e-3}  # a: Adam's best one in adam_text; b: see the results
STABLE = "stable embedding, 32 bits", "stable embedding, blocks of 256"
PREDICTED = {  # mean error of what is no outlier
    ("dynamic", 256): 0.0088,
    ("dynamic", 2048): 0.0118,
    ("dynamic", None): 0.103,
    ("linear", 256): 0.0087,
    ("linear", 2048): 0.029,
    ("linear", None): 0.798,
}
NUMBERS, OUTLIERS, TIMES = 262_144, 3, 1e4
DRAWS = list(range(10))  # seeds of part c, which takes seconds
BESIDE = {"sst2-socher": "goemotions", "opinions": "moods"}


# ---------------------------------------------------------------------------------------------------- own functions
def kept(inner, method, **more):
    """The method of an arm: as it is, or with its state in codes, embeddings too."""
    return inner if ARMS[method] is None else Quantised(inner, **{"whole": (), **ARMS[method], **more})


def planted(seed, events, kind, block, outliers):
    """Errors of Gaussian numbers and of their squares, after a round trip."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(NUMBERS).astype(np.float32)
    squares, normal = a * a, np.ones(NUMBERS, bool)
    if outliers:
        places = rng.choice(NUMBERS, OUTLIERS, replace=False)
        a[places] *= np.float32(TIMES)
        normal[places] = False
    back = Code(kind, signs=False).quantise(backend.asarray(a), block).read()
    squared = Code(kind, False).quantise(backend.asarray(squares), block).read()
    back, squared = backend.to_host(back), backend.to_host(squared)
    return {
        "error": [float(np.abs(back - a)[normal].mean())],
        "zeros": [float((back[normal] == 0).mean())],
        "zero_squares": [float((squared == 0).mean())],
    }


def errors(m, v, signed, other, block, c1, c2, eps):
    """What a round trip does to a segment's m and v: largest error of m over its largest number, share of v that is 0
    beside an m that is not, mean change of the step over the mean step."""
    m_q, v_q = signed.quantise(m, block).read(), other.quantise(v, block).read()
    x = backend.xp(m)
    step, after = (c1 * a / (x.sqrt(c2 * b) + eps) for a, b in ((m, v), (m_q, v_q)))
    found = (
        abs(m_q - m).max() / abs(m).max(),
        ((v_q == 0) & (m_q != 0)).mean(),
        abs(after - step).mean() / abs(step).mean(),
    )
    return [backend.to_host(value) for value in found]


def natural(seed, events, data, steps, every, **size):
    """Columns of the errors that each arm would make of the m and v that AdamW keeps in 32 bits, at every so many
    steps: means over the segments of 4096 numbers or more, largest values of the error of m."""
    problem, optimizer = gpt(data, **size), AdamW(weight_decay=0.0)
    x = problem.x0(backend.generator(seed, "x0"))
    columns = {"step": []}
    for t, _ in enumerate(stepping(problem, x, optimizer, RandomReshuffling(16), RATE["n"], steps, seed), 1):
        if t % every:
            continue
        columns["step"].append(t)
        c1, c2 = 1 / (1 - optimizer.b1**t), 1 / (1 - optimizer.b2**t)
        for method, settings in ARMS.items():
            if settings is None or settings.get("stochastic"):
                continue
            o = Quantised(AdamW(), **settings)
            found = []
            for s in problem.segments:
                if s.size >= o.smallest:
                    pieces = (optimizer.slot(name)[s.slice] for name in "mv")
                    found.append(errors(*pieces, *o.codes(), o.block, c1, c2, optimizer.eps))
            for name, column in zip(("error", "zeros", "step_error"), np.array(found).T, strict=True):
                value = column.max() if name == "error" else column.mean()
                columns.setdefault(f"{name} {method}", []).append(float(value))
        if events is not None and events.progress is not None:
            events.progress(t / steps, t, 0.0)
    return columns


def state(seed, events, method, width):
    """Bytes of state a parameter."""
    network = resnet18(width=width)
    optimizer = kept(Adam(), method)
    optimizer.start(backend.zeros(network.dim, "float32"), SimpleNamespace(problem=network))
    return {"bytes": [optimizer.bytes() / network.dim]}


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    for data in args.data_of("a"):
        size = args.pick(dict(size=2000, length=24, features=96, layers=2, heads=4, passes=0.2),
                         dict(size=400, length=16, features=32, layers=1, heads=2, rate=3e-3, passes=1))  # fmt: skip
        size |= dict(rows=args.pick(1600, 100), held=args.pick(400, 100), test_rows=args.pick(1000, 100))
        problem = Recipe(finetuned, data=data, beside=BESIDE.get(data, data), start="learned", **size)
        epochs = args.budget(3, 1)
        steps = round(epochs * -(-size["rows"] // BATCH))
        schedule = WithWarmup(Linear(RATE["a"]), max(1, steps // 10))
        for method in ARMS:
            small = {"smallest": args.pick(4096, 512)} if ARMS[method] else {}
            yield Entry("a", problem, kept(Adam(), method, **small), RandomReshuffling(BATCH), schedule,
                        stop=Stop(epochs=epochs), metrics=1, keep=False, method=method)  # fmt: skip
    for data in args.data_of("b"):
        size = dict(length=args.pick(64, 16), features=args.pick(64, 32), layers=args.pick(2, 1), heads=4)
        size["held"] = args.pick(8000, 1000)
        for method in (*ARMS, *STABLE):
            arm, more = method, {}
            if method in STABLE:
                arm, more = ("32 bits", {}) if method == STABLE[0] else ("blocks of 256", dict(whole=("embedding",)))
            small = {"smallest": args.pick(4096, 512)} if ARMS[arm] else {}
            problem = Recipe(gpt, data=data, **size, **(dict(stable=True, tied=False) if method in STABLE else {}))
            some = dict(stop=Stop(steps=args.pick(600, 20)), metrics=args.pick(60, 10), per="step", method=method)
            optimizer = kept(AdamW(weight_decay=0.0), arm, **small, **more)
            lr = RATE["stable" if method in STABLE else "b"]
            yield Entry("b", problem, optimizer, RandomReshuffling(16), Cosine(lr), **some)
    for (kind, block), outliers in ((pair, n) for n in (True, False) for pair in PREDICTED):
        run = Recipe(planted, kind=kind, block=block, outliers=outliers)
        yield Entry("c", run=run, seeds=args.pick(DRAWS, DRAWS[:3]), kind=kind, block=block or "all", outliers=outliers)
    for data in args.data_of("n"):
        size = dict(length=64, features=64, layers=args.pick(2, 1), heads=4, held=0)
        run = Recipe(natural, data=data, steps=args.pick(600, 20), every=args.pick(50, 10), **size)
        yield Entry("n", run=run)
    for method in ARMS:
        yield Entry("s", run=Recipe(state, method=method, width=args.pick(64, 8)), seeds=[0], method=method)


# ----------------------------------------------------------------------------------------------------------- claims
def ends(results, part, column, *methods):
    return {method: results.select(part, method=method).final(column) for method in methods}


for part, name, column, margin, words in (
    ("a", "SST-2", "test_accuracy", 0.01, "test accuracy within 1 point"),
    ("b", "GPT", "validation_loss", 0.01, "held-out loss within 1 %"),
):
    for method in SAME:

        @experiment.claim(
            f"{part}-{method.replace(' ', '-')}",
            f"{name}: with a dynamic map and {method} Adam ends as with 32 bits",
            expected=f"{words} of 32 bits (95 %); false where they are farther apart",
            source="Dettmers et al. 2022, Table 1",
        )
        def same(results, part=part, column=column, margin=margin, method=method):
            found = ends(results, part, column, method, "32 bits")
            one, two = (v if part == "a" else np.log(v) for v in found.values())
            return decided(spreads(found), close(one, two, margin))


def worse(part, one, two, column, margin=0.0, log=True):
    """The function of a claim: method one ends above method two; runs that diverged did."""

    def judged(results):
        found = ends(results, part, column, one, two)
        a, b = (np.log(v) if log else v for v in found.values())
        if not np.isfinite(b).all():
            raise Undecided(f"{two} diverged")
        text = spreads(found)
        if not np.isfinite(a).all():
            lost = int((~np.isfinite(a)).sum())
            return f"{text}; {lost} of {len(a)} diverged", lost == len(a) or None
        return decided(text, lower(b, a, margin))

    return judged


for part, name, column in (("a", "SST-2", "train_loss"), ("b", "GPT", "validation_loss")):
    experiment.claim(
        f"{part}-linear",
        f"{name}: a linear map with one scale for an array is worse than 32 bits",
        expected="loss above, or diverged (95 %); false where below, or above by less than 1 %",
        source="Dettmers et al. 2022, Table 3",
    )(worse(part, LINEAR, "32 bits", column, 0.01))

experiment.claim(
    "b-signs",
    "GPT: the rule that small negative numbers keep their sign spoils the linear map",
    expected="held-out loss above that without it, or diverged (95 %); false where below, or above by less than 1 %",
    source="the rule is in the authors' code; with a linear map such a number becomes a whole step, 1/127 of the scale",
)(worse("b", SIGNS, "blocks of 2048, linear", "validation_loss", 0.01))

experiment.claim(
    "b-four",
    "GPT: with 4 bits a v that is never 0 is better than the dynamic map",
    expected="held-out loss of the dynamic map above (95 %); false where below, or above by less than 1 %",
    source="Li, Chen & Zhu, NeurIPS 2023, section 4.1",
)(worse("b", "4 bits, dynamic", FOUR, "validation_loss", 0.01))


@experiment.claim(
    "b-four-close",
    "GPT: with that, 4 bits end as 32 do",
    expected="held-out loss within 2 % (95 %); false where they are farther apart",
    source="Li, Chen & Zhu, NeurIPS 2023, of fine-tuning and translation",
)
def four_close(results):
    found = ends(results, "b", "validation_loss", FOUR, "32 bits")
    return decided(spreads(found), close(*(np.log(v) for v in found.values()), 0.02))


@experiment.claim(
    "b-stable",
    "GPT with a stable embedding: 8 bits end as 32 do",
    expected="held-out loss within 1 % (95 %); false where they are farther apart",
    source="Dettmers et al. 2022, section 2.3",
)
def b_stable(results):
    found = ends(results, "b", "validation_loss", *STABLE)
    return decided(spreads(found), close(*(np.log(v) for v in found.values()), 0.01))


@experiment.claim(
    "c-errors",
    "three outliers cost a dynamic map with blocks little, and a linear one with one scale everything",
    expected="mean error of the other numbers within 15 % of the predicted value for all six (95 %)",
    source="computed beforehand, see the question",
)
def c_errors(results):
    some = results.select("c", outliers=True)
    found = {pair: some.select(kind=pair[0], block=pair[1] or "all").final("error") for pair in PREDICTED}
    verdicts = [within(v / PREDICTED[pair], 0.85, 1.15) for pair, v in found.items()]
    return decided(listed({f"{k}, {b or 'all'}": f"{v.mean():.3g}" for (k, b), v in found.items()}), *verdicts)


@experiment.claim(
    "c-zeros",
    "a linear map makes 0 of many squares, a dynamic one of few",
    expected="without outliers, all three blocks: linear 11 to 17 %, dynamic 0.10 to 0.16 % (95 %, a tenth beyond)",
    source="computed beforehand; sqrt(1/510) of the largest number is rounded to 0",
)
def c_zeros(results):
    some, text, verdicts = results.select("c", outliers=False), {}, []
    for kind, low, high in (("linear", 0.11, 0.17), ("dynamic", 0.0010, 0.0016)):
        for block in (256, 2048, "all"):
            found = some.select(kind=kind, block=block).final("zero_squares")
            text[f"{kind}, {block}"] = f"{100 * found.mean():.2g} %"
            verdicts.append(within(found, 0.9 * low, 1.1 * high))
    return decided(listed(text), *verdicts)


@experiment.claim(
    "c-clean",
    "without outliers the linear map is the better one for numbers with signs",
    expected="blocks of 256: mean error below the dynamic map's (95 %); false where above",
    source="computed beforehand: 0.0060 and 0.0086 for blocks of 256",
)
def c_clean(results):
    some = results.select("c", outliers=False, block=256)
    found = {kind: some.select(kind=kind).final("error") for kind in ("linear", "dynamic")}
    return decided(spreads(found), lower(*found.values()))


@experiment.claim(
    "n-zeros",
    "of a GPT's v a linear map with one scale makes 0 where m is not; a dynamic one in blocks hardly ever does",
    expected="mean over all looks: above 10 % and below 1 % (95 %)",
    source="Dettmers et al. 2022, appendix F, of larger networks",
)
def n_zeros(results):
    some = results.select("n")
    found = {m: np.array([np.mean(run.columns[f"zeros {m}"]) for run in some]) for m in (LINEAR, "blocks of 256")}
    verdicts = within(found[LINEAR], low=0.10), within(found["blocks of 256"], high=0.01)
    return decided(spreads({m: 100 * v for m, v in found.items()}, " %"), *verdicts)


@experiment.claim(
    "n-blocks",
    "what Adam keeps of a GPT has outliers: smaller blocks change the step less",
    expected="mean change of the step, dynamic map: 256 below 2048 below one scale for an array (95 %)",
    source="Dettmers et al. 2022, section 2.1",
)
def n_blocks(results):
    some, order = results.select("n"), ("blocks of 256", "blocks of 2048", TENSOR)
    found = {m: np.array([np.mean(run.columns[f"step_error {m}"]) for run in some]) for m in order}
    a, b, c = found.values()
    return decided(spreads(found), lower(a, b), lower(b, c))


@experiment.claim(
    "s-bytes",
    "the state of ResNet-18 is a quarter of 32 bits', with 4 bits an eighth",
    expected="counted where it lies: 8 bytes a parameter; divided by at least 3.9 with 8 bits, by 7 with 4 bits",
    source="2 + 8 / block bytes a parameter",
)
def s_bytes(results, args):
    found = results.select("s").means("bytes")
    if args.quick:
        raise Undecided("it speaks of ResNet-18 at full width")
    ratios = {m: 8 / value for m, value in found.items()}
    wanted = {m: 1 if ARMS[m] is None else 7 if ARMS[m].get("bits") == 4 else 3.9 for m in ARMS}
    text = listed({m: f"{found[m]:.3f}" for m in found})
    return text, found["32 bits"] == 8 and all(ratios[m] >= wanted[m] for m in ARMS)


if __name__ == "__main__":
    experiment.main()
