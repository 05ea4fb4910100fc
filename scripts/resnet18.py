"""Momentum SGD, Adam, AdamW on ResNet-18 at full width: in which order do they end, and where do they cross?   Task A2.

The customary order on pictures, momentum SGD first and Adam with an L2 term last, is a statement about long runs at
full width. `adam` shows the opposite after 600 steps at width 8. Here all 50,000 pictures are seen 30 times by the
whole network (11.2 M parameters), and the question is asked at every epoch.

Conventions: the L2 term l2/2 |x|^2 is part of the objective of momentum SGD and Adam, on all parameters. AdamW here
multiplies x by 1 - lr weight_decay. Rates are customary ones, not tuned here: cosine to 0, batch size 512, rates of
momentum SGD proportional to the batch (0.05 at 128). The pictures are JPEG copies of CIFAR-10's, which are harder.

Run time: --quick 10 s on 2 cores. --data real needs a GPU: --device gpu --compute float16; readme.txt of the results
says how long. A step of two cores takes four seconds.
"""

from lab import Entry, Experiment, Option, Part, Recipe, Undecided, larger, spreads
from lab.charts import by_epoch
from lab.figures import below, curves, panels, said
from lab.options import whole
from npopt import Adam, AdamW, Cosine, HeavyBall, RandomReshuffling, Stop
from problems.classifiers import resnet

experiment = Experiment(
    __doc__,
    task="A2",
    source="He et al., CVPR 2016; Kingma & Ba, ICLR 2015; Loshchilov & Hutter, ICLR 2019; Wilson et al., NeurIPS 2017",
    parts={"a": Part("ResNet-18, three methods, every epoch", "digits", "cifar-10-jpeg")},
    options=[
        Option("--width", type=whole(1, "width"), help="channels of the first stage (default: 64)"),
        Option("--compute", choices=("float32", "float16", "bfloat16"), default="float32",
               help="type of activations; the last two on a GPU (default: float32)"),
    ],
    seeds=3,
)

METHODS = {                                                     # optimizer, rate, l2 of the objective
    "momentum SGD": (HeavyBall(0.9), 0.2, 5e-4),
    "Adam": (Adam(), 1e-3, 5e-4),
    "AdamW": (AdamW(weight_decay=0.5), 1e-3, 0.0),
}
EPOCHS, BATCH, SCALE = 30, 512, 1024.0                          # SCALE: of the loss, with activations of two bytes


@experiment.runs
def runs(args):
    compute = None if args.compute == "float32" else args.compute
    for data in args.data_of("a"):
        width, rows = args.width or args.pick(64, 4), args.pick(None, 600)
        for method, (optimizer, lr, l2) in METHODS.items():
            problem = Recipe(resnet, data=data, width=width, rows=rows, l2=l2, compute=compute,
                             loss_scale=SCALE if compute else 1.0, metrics_batch=2000)
            yield Entry("a", problem, optimizer, RandomReshuffling(args.pick(BATCH, 64)), Cosine(lr), method=method,
                        stop=Stop(epochs=args.budget(EPOCHS, 5)), metrics=1)


# ----------------------------------------------------------------------------------------------------------- claims
def full(args):
    """Whether this is the experiment that the claims are about."""
    if args.quick or args.data_of("a") != ["cifar-10-jpeg"] or (args.width or 64) != 64 or args.budget(EPOCHS, 5) != 30:
        raise Undecided("it speaks of full width, all pictures and 30 epochs")


@experiment.claim("a-accuracy", "momentum SGD reaches 90 % on the test pictures",
                  expected=">= 90 % (mean over seeds); networks of this kind reach 93 to 95 % on the original pictures",
                  source="He et al., CVPR 2016")
def a_accuracy(results, args):
    full(args)
    ends = {m: 100 * runs.final("test_accuracy") for m, runs in results.select("a").groups("method")}
    return spreads(ends), ends["momentum SGD"].mean() >= 90


for one, two, source in (("momentum SGD", "Adam", "Wilson et al., NeurIPS 2017"),
                         ("momentum SGD", "AdamW", "customary results"),
                         ("AdamW", "Adam", "Loshchilov & Hutter, ICLR 2019")):
    @experiment.claim(f"a-{one}-{two}".lower().replace(" ", "-"), f"{one} ends above {two}",
                      expected="test accuracy above, beyond the noise over seeds", source=source)
    def a_order(results, args, one=one, two=two):
        full(args)
        return larger("a", one, two, "test_accuracy")(results)


@experiment.claim("a-early", "early on the order is another: after 3 epochs AdamW is above momentum SGD",
                  expected="test accuracy above for every seed", source="adam, part b: 600 steps at width 8")
def a_early(results, args):
    full(args)
    early = {m: 100 * results.select("a", method=m).at("test_accuracy", 3) for m in ("AdamW", "momentum SGD")}
    return spreads(early), bool((early["AdamW"] > early["momentum SGD"]).all())


# ---------------------------------------------------------------------------------------------------------- figures
@experiment.figure("curves.png", caption="ResNet-18, cosine, batch size 512, every epoch: training loss (of 2,000 "
                   "rows), training and test error, median and range over seeds.")
def curves_figure(results):
    figure, axes = panels(1, 3)
    by_epoch(axes, results.select("a"), logy=True)
    return below(figure, axes[0], 3, title=said(len(results.seeds)))


@experiment.figure("seconds.png", caption="Test accuracy by seconds of training steps, without evaluation.")
def seconds_figure(results):
    figure, ax = panels()
    some = results.select("a").with_column("accuracy", lambda c: 100 * c["test_accuracy"])
    curves(ax, some, "accuracy", x="seconds", ylabel="test accuracy [%]")
    return figure


if __name__ == "__main__":
    experiment.main()
