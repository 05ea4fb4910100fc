"""Figures of book_optimizers: two forms of momentum, both comparisons by epoch, and estimates of curvature."""

from lab import Album
from lab.figures import curves, look, mark, named, panels, reference

import numpy as np

album = Album()
LOSSES, PRINTED = (2.223, 2.129), 0.347  # training, test; test accuracy: after one epoch


@album.figure(
    "forms.png",
    caption="One epoch of 784-512-64-10: test loss and test accuracy with the text's momentum and with the class's, "
    "which is the text's at a tenth of the rate (median and quartiles of the seeds). Dotted: what the book prints.",
)
def forms_figure(results):
    figure, axes = panels(1, 2)
    lines = (("test_loss", "test loss", LOSSES[1]), ("test_accuracy", "test accuracy", PRINTED))
    for ax, (column, text, printed) in zip(axes, lines, strict=True):
        curves(ax, results.select("a"), column, ylabel=text, legend=False)
        mark(ax, printed, f"book: {printed:g}", 0.45)
        named(ax)
    return figure


def compared(results, part):
    """Training loss and test accuracy by epoch, without the untrained network."""
    figure, axes = panels(1, 2)
    runs = results.select(part)
    for ax, column, text in zip(axes, ("train_loss", "test_accuracy"), ("training loss", "test accuracy"), strict=True):
        curves(ax, runs, column, ylabel=text, logy=column == "train_loss", legend=False)
        ax.set_xlim(0.9, None)
        late = np.concatenate([run.columns[column][1:] for run in runs])
        low, high = np.nanpercentile(late, (0, 98))
        ax.set_ylim(*((low / 1.05, high * 1.05) if column == "train_loss" else (np.percentile(late, 2) - 0.01, None)))
        named(ax)
    return figure


@album.figure(
    "comparison.png",
    caption="784-256-192-128-64-10 with GELU at the book's rates (SGD 0.01, Adam 1e-3, Lion 1e-4; Adafactor: min(0.01, "
    "1/sqrt t) of each matrix's size), from the first epoch on: training loss and test accuracy (median and quartiles "
    "of the seeds).",
)
def comparison_figure(results):
    return compared(results, "b")


@album.figure(
    "cnn.png",
    caption="The book's convolutional network on 2,000 pictures of cifar-10-jpeg, at the book's rates, from the first "
    "epoch on (median and quartiles of the seeds).",
)
def cnn_figure(results):
    return compared(results, "e")


@album.figure(
    "diagonal.png",
    caption="A quadratic in 20 variables: relative error of two estimates of the Hessian's diagonal by the number of "
    "samples; one line a seed. Dotted: 1/sqrt(samples).",
)
def diagonal_figure(results):
    figure, ax = panels(size=(7.5, 4.8))
    labels = {"signs": "z (H z),\nrandom signs", "squares": "squared gradients,\nbest scale"}
    for i, (name, label) in enumerate(labels.items()):
        for k, run in enumerate(results.select("c")):
            ax.plot(run.columns["samples"], run.columns[name], label="_" if k else label, lw=1, **look(i))
    ax.set(xscale="log", yscale="log", xlabel="samples", ylabel="relative error")
    reference(ax, (10, 10_000), 0.005, -0.5)
    named(ax)
    return figure
