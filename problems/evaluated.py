"""A network in evaluation mode: outputs, metrics, statistics taken anew. Its training passes: problems/neural.py."""

from nn import Run
from npopt import backend

import numpy as np


class Evaluated:
    """Neural's methods in evaluation mode. It has network, feed, loss_function, plain, compute and metrics_batch."""

    def outputs(self, x, part="test", rows=None):
        """The network's outputs in evaluation mode, (B, *output_shape), a copy on the host; rows of that part."""
        size = self.metrics_batch
        if rows is None:
            batches = self.feed.walk(part, self.feed.count(part), size)
        else:
            rows = backend.asarray(rows)
            batches = [rows[first : first + size] for first in range(0, rows.shape[0], size)]
        found = np.concatenate([backend.to_host(z).copy() for z, _ in self._evaluate(x, part, batches)])
        if rows is None:
            found[np.concatenate([backend.to_host(b) for b in batches])] = found.copy()
        return found

    def _evaluate(self, x, part, batches):
        """(outputs, targets) of the rows of a part, batch by batch, in evaluation mode."""
        self.network.bind(self.check(x))
        carried = {}  # states of recurrent layers, of this walk alone
        for rows in batches:
            inputs, targets = self.feed.batch(part, rows)
            run = Run(compute=self.compute, rows=rows, pending=carried)
            yield self.network.forward(inputs, run)[0], targets

    def metrics(self, x):
        """train_loss, train_accuracy, test_loss, test_accuracy, and validation_* where rows are held out, without the
        l2 term; no accuracy for SquaredError. For the plain cross-entropy of Windows train_perplexity, ..., too: e to
        the mean loss of a token."""
        found = {}
        for part in self.feed.parts:
            count = self.feed.count(part)
            if part == "train":
                count = min(count, self.metrics_rows)
            loss, right, total = 0.0, 0.0, 0
            batches = self.feed.walk(part, count, self.metrics_batch)
            for z, t in self._evaluate(x, part, batches):  # summed there, read once
                more = self.loss_function.sums(z, t)
                loss, right, total = loss + more[0], right + more[1], total + more[2]
            total = total if isinstance(total, int) else float(backend.to_host(total))
            found[f"{part}_loss"] = backend.to_host(loss) / total
            if self.feed.perplexity and self.loss_function == self.plain:
                with np.errstate(over="ignore"):
                    found[f"{part}_perplexity"] = float(np.exp(found[f"{part}_loss"]))
            if self.loss_function.accuracy:
                found[f"{part}_accuracy"] = backend.to_host(right) / total
        return found

    def recalibrate(self, x, rows=None, batch=500):
        """Replace the running batch statistics by those of x over training rows (None: all), without augmentation or
        dropout. Layer by layer they are the mean and variance over all given rows, each batch normalised by itself."""
        network, gathered = self.network, {}
        if not network.recalibrates:
            return
        rows = backend.xp().arange(self.n) if rows is None else self._rows(rows)
        network.bind(self.check(x))
        run = Run(recalibrating=True, pending=gathered, compute=self.compute)
        for start in range(0, rows.shape[0], batch):
            network.forward(self.feed.batch("train", rows[start : start + batch])[0], run)
        network.recalibrate(gathered)
