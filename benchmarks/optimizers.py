"""One step of every optimizer on 11.2 M float32 parameters, beside PyTorch's, and the memory that it moves beside a
copy.

    python benchmarks/optimizers.py --write

The parameters are ResNet-18's, in its 62 segments. PyTorch's side is its fused implementation where there is one on the
CPU, else the faster of foreach and the plain loop. Bytes moved: x is read and written, g is read, each state array is
read and written, once. There are two exceptions. Sophia's h is read alone: it is renewed every ten steps, which is not
timed. Lookahead's slow weights count in a fifth of the steps. What a method does more (norms, row means, SWATS' inner
products) is not counted, so GB/s are low there.
"""

from pairs import Table, alternate, arguments, timed, torch, unit  # isort: skip (before NumPy)

from types import SimpleNamespace

from nn.networks import resnet18
from npopt import (
    ASGD,
    EMA,
    LAMB,
    LARS,
    SGD,
    SWA,
    SWATS,
    AdaBound,
    Adadelta,
    Adafactor,
    AdaGrad,
    Adam,
    Adamax,
    AdamMini,
    AdamW,
    AMSBound,
    AMSGrad,
    HeavyBall,
    Lion,
    Lookahead,
    MixedClipping,
    Muon,
    NAdam,
    Nesterov,
    NormalisedMomentum,
    RAdam,
    RMSProp,
    Rprop,
    SophiaG,
    SophiaH,
    backend,
)

import numpy as np

LR = 1e-4
CASES = [  # ours, PyTorch's class, its arguments
    (SGD(), "SGD", {}),
    (HeavyBall(0.9), "SGD", {"momentum": 0.9}),
    (Nesterov(0.9), "SGD", {"momentum": 0.9, "nesterov": True}),
    (AdaGrad(), "Adagrad", {}),
    (RMSProp(), "RMSprop", {}),
    (RMSProp(centred=True, momentum=0.9), "RMSprop", {"centered": True, "momentum": 0.9}),
    (Adadelta(), "Adadelta", {}),
    (Adam(), "Adam", {}),
    (Adam(l2=1e-2), "Adam", {"weight_decay": 1e-2}),
    (AdamW(), "AdamW", {}),
    (AMSGrad(), "Adam", {"amsgrad": True}),
    (NAdam(), "NAdam", {}),
    (RAdam(), "RAdam", {}),
    (Adafactor(), "Adafactor", {}),
    (AdaBound(), None, {}),
    (AMSBound(), None, {}),
    (Lion(), None, {}),
    (AdamMini(), None, {}),
    (SophiaG(), None, {}),
    (SophiaH(), None, {}),
    (SWATS(), None, {}),
    (Adamax(), "Adamax", {}),
    (Rprop(), "Rprop", {}),
    (ASGD(), "ASGD", {}),
    (Muon(), None, {}),
    (LARS(), None, {}),
    (LAMB(), None, {}),
    (MixedClipping(1.0), None, {}),
    (NormalisedMomentum(), None, {}),
    (Lookahead(AdamW(), 5), None, {}),
    (EMA(AdamW()), None, {}),
    (SWA(AdamW(), 1), None, {}),
]
SPARED = {"SophiaG": 1.0, "SophiaH": 1.0, "Lookahead": 2 - 4 / 5}  # passes over a vector that a step saves


def theirs(name, arguments, tensors):
    """PyTorch's step, and which one it is: fused, else the faster of foreach and the plain loop."""
    kind, steps = getattr(torch.optim, name), {}
    for way in ("fused", "foreach", "plain"):
        try:
            optimizer = kind(
                [torch.nn.Parameter(t.clone()) for t in tensors],
                lr=LR,
                **arguments,
                **({way: True} if way != "plain" else {"foreach": False}),
            )
            for group in optimizer.param_groups:
                for p in group["params"]:
                    p.grad = torch.randn_like(p)
            optimizer.step()
        except (RuntimeError, TypeError, ValueError):
            continue
        steps[way] = optimizer.step
        if way == "fused":
            break
    best = min(steps, key=lambda way: min(timed(steps[way], 1) for _ in range(3)))
    return steps[best], best


def main():
    args = arguments(__doc__, rounds=9)
    args.add_argument("--only", default="", help="only optimizers whose printed form contains this")
    args = args.parse_args()
    backend.threads(args.threads)
    segments, rng = resnet18().segments, np.random.default_rng(0)
    x, g = (rng.standard_normal(segments.dim).astype("float32") for _ in range(2))
    oracle = SimpleNamespace(problem=SimpleNamespace(segments=segments), seed=0)
    rival = f"PyTorch {torch.__version__.split('+')[0]}" if torch else "no PyTorch"
    table = Table(
        f"One step on {segments.dim:,} float32 parameters, {args.threads} threads",
        "npopt",
        rival,
        ("form", "state B/param", "GB/s", "of copy"),
    )
    if torch:
        torch.set_num_threads(args.threads)
        tensors = [torch.from_numpy(x[s.slice].reshape(s.shape).copy()) for s in segments]
    other = np.empty_like(x)
    copied = min(timed(lambda: np.copyto(other, x), 1) for _ in range(20))
    speed, worst = 2 * x.nbytes / copied, {}
    for optimizer, name, settings in CASES:
        if args.only not in repr(optimizer):
            continue
        optimizer.start(x, oracle)
        optimizer.every = 1 << 30  # Sophia's estimates are gradients, not steps
        optimizer.t = 1000  # past every beginning, such as RAdam's
        state = optimizer.bytes()
        rival_step, way = theirs(name, settings, tensors) if torch and name else (None, "-")
        seconds = alternate(lambda o=optimizer: o.step(x, g, LR), rival_step, args.rounds)
        moved = (3 - SPARED.get(type(optimizer).__name__, 0.0)) * x.nbytes + 2 * state
        ratio = seconds[0] / seconds[1]
        title = f"{type(optimizer).__name__}{_short(optimizer)}"
        mine = float(np.median(seconds[0]))
        cells = f"{title:34}{unit(mine):>12}"
        if rival_step:
            low, high = np.percentile(ratio, (25, 75))
            worst[title] = float(np.median(ratio))
            cells += f"{unit(np.median(seconds[1])):>16}{np.median(ratio):>9.2f}{f'{low:.2f}-{high:.2f}':>16}"
        else:
            cells += f"{'-':>16}{'-':>9}{'-':>16}"
        cells += f"{way:>16}{state / x.size:>16.2f}{moved / mine / 1e9:>16.1f}{moved / mine / speed:>16.2f}"
        table.lines.append(cells)
        print(cells, flush=True)
    if worst:
        above = {k: v for k, v in worst.items() if v > 1}
        table.note(
            f"Target: at most 1.00 of PyTorch's best. Met by {len(worst) - len(above)} of {len(worst)}"
            + ("; above: " + ", ".join(f"{k} {v:.2f}" for k, v in above.items()) if above else "")
            + "."
        )
    table.note(
        f"A plain copy of the parameters moves {speed / 1e9:.1f} GB/s (to a second array; updates in place are "
        "cheaper)."
    )
    if args.write:
        table.write("optimizers.txt")


def _short(optimizer):
    """What tells two of a kind apart."""
    shown = {"centred": "centred", "momentum": "momentum", "l2": "l2"}
    found = [text for name, text in shown.items() if getattr(optimizer, name, 0)]
    return f" ({', '.join(found)})" if found else ""


if __name__ == "__main__":
    main()
