"""What estimators share. An estimator is a value until `start`; then it is the optimizer's oracle as well."""

from npopt import backend
from npopt.values import Value


class Estimator(Value):
    """g = estimator.start(problem, x, seed); loss = estimator(x, batch, out=g).

    As the oracle it offers `problem`; `loss` of this step (set by the loop); `again(y, out)`, the estimate of the same
    batch at another point; `counts`: rows differentiated ("gradients"), rows evaluated ("values"), "bytes" sent;
    `skip`, True when no step may be taken; `compiled(optimizer, sampler)`, None or a function (x, rows, weights,
    rates) -> losses that runs len(rates) steps of one batch size with the trajectory of the loop.
    """

    loss = None
    skip = False

    def start(self, problem, x, seed):
        self.problem, self.counts, self.batch = problem, {"gradients": 0, "values": 0, "bytes": 0}, None
        return backend.xp(x).zeros_like(x)

    def __call__(self, x, batch, out):
        """Write the estimate at x for this batch into out; return the loss (a float; on a GPU a 0-d array)."""
        self.batch = batch
        return self.again(x, out)

    def again(self, y, out):
        raise ValueError(f"{type(self).__name__} does not say how it estimates; define again(self, y, out)")

    def compiled(self, optimizer, sampler):
        return None

    def state(self):
        return {"counts": dict(self.counts)}

    def load_state(self, state):
        self.counts.update({name: int(count) for name, count in state["counts"].items()})


class Wrapper(Estimator):
    """An estimator around `inner`: problem, counts and skip are the innermost's."""

    def start(self, problem, x, seed):
        g = self.inner.start(problem, x, seed)
        self.problem, self.counts, self.batch = problem, self.inner.counts, None
        return g

    @property
    def skip(self):
        return self.inner.skip

    def state(self):
        return {"inner": self.inner.state()}

    def load_state(self, state):
        self.inner.load_state(state["inner"])
