"""The loop, and what a long run needs around it: stretches, timing, columns, checkpoints, reasons to stop."""

import copy
import functools
import math
import os
import time

from npopt import backend, checkpoint, code, identity
from npopt.contracts import Array, Problem
from npopt.errors import UserError
from npopt.estimators import Estimator, Minibatch
from npopt.optimizers import Optimizer
from npopt.optimizers.base import Witness
from npopt.precautions import check_arguments, check_varied, starting_point, warn_of_long_steps
from npopt.run import ENDS, Events, Interrupt, Run, Stop, made, on_host, versions
from npopt.samplers import RandomReshuffling, Sampler
from npopt.schedules import Constant, Schedule, as_schedule
from npopt.state import check_fits
from npopt.values import printed, whole

import numpy as np

STRETCH, LONGEST = 0.5, 8192  # seconds of steps between two looks at clock and losses, and how many at most
DEFAULTS = (RandomReshuffling, Minibatch, Constant)  # named below, and used only where nothing else is given


def code_of_loop():
    """The definitions that every run reaches (npopt/code.py). The definitions behind its arguments are not among them,
    and neither are those that do the searching."""
    finders = code_of_loop, code.reached, code.digest, identity.roots, identity.of_problem
    return code.reached([minimize], (*finders, *DEFAULTS))


def minimize(
    problem: Problem,
    optimizer: Optimizer,
    sampler: Sampler | None = None,
    schedule: Schedule | float = 0.1,
    estimator: Estimator | None = None,
    vary: dict | None = None,
    stop: Stop | dict | None = None,
    *,
    seed: int = 0,
    x: Array | None = None,
    events: Events | dict | None = None,
) -> Run:
    """Run one method on one problem.

    problem: see problems/base.py. optimizer, sampler, schedule, estimator: values, copied before they are started;
    the defaults are RandomReshuffling(min(64, n)), Constant(0.1) (a number is Constant) and Minibatch().
    vary: {"beta": schedule}, hyper-parameters of the optimizer that follow a schedule of their own.
    stop: a Stop or a dict of its arguments; default 10 epochs.
    seed: of x0, of the order of rows, of dropout and augmentation.
    x: the start, shape (problem.dim,), float32 or float64, copied; the problem then goes on with what it has gathered
    (batch-norm statistics). Default: problem.x0, with the problem as if it were new.
    events: an Events or a dict of its arguments. With a checkpoint path the run resumes from that file if it exists. It
    then ends bit for bit where it would have ended without a break (same device, same number of threads). Compiled
    steps on sparse rows bring all of x up to date when a stretch ends, and that rounds. So a run that was stopped in
    mid-epoch and is prolonged later, or has other events, may differ in the last bit.

    Returns a Run. Ctrl-C ends the stretch at hand (half a second, or one long step), saves the checkpoint and returns
    the run so far, reason "interrupted"; another Ctrl-C, two seconds later or more, raises KeyboardInterrupt at once. A
    loss or an x that is not finite stops the run.
    """
    check_arguments(problem, optimizer, sampler, estimator, vary)
    given = dict(sampler=sampler, schedule=schedule, estimator=estimator, vary=vary, stop=stop, events=events)
    return _Loop(problem, optimizer, seed=whole("minimize", "seed", seed, low=0), x=x, **given).run()


class _Loop:
    read, write = staticmethod(checkpoint.load), staticmethod(checkpoint.save)

    def __init__(self, problem, optimizer, *, seed, x, sampler, schedule, estimator, vary, stop, events):
        self.problem, self.seed = problem, seed
        self.optimizer = copy.deepcopy(optimizer)
        if sampler is None and problem.n is not None:
            sampler = RandomReshuffling(min(64, problem.n))
        self.sampler, self.schedule = copy.deepcopy(sampler), copy.deepcopy(as_schedule(schedule))
        self.estimator = copy.deepcopy(Minibatch() if estimator is None else estimator)
        self.vary = {name: copy.deepcopy(as_schedule(s)) for name, s in (vary or {}).items()}
        self.stop = made(Stop, stop, dict(epochs=10))
        self.events = made(Events, events, {})
        self.x = starting_point(problem, x, self.seed)
        self.given = "" if x is None else printed(backend.to_host(self.x))
        self.sampler.start(problem, self.seed)
        self.steps_per_epoch = self.sampler.steps_per_epoch
        self.total = self.stop.total(self.steps_per_epoch)
        for s in (self.schedule, *self.vary.values()):
            s.start(self.steps_per_epoch, self.total)
        check_varied(optimizer, self.vary, max(1, self.total or self.steps_per_epoch) - 1)
        self.g = self.estimator.start(problem, self.x, self.seed)
        self.optimizer.start(self.x, self.estimator)
        steady = not self.vary and self.schedule.rates(0, 1) is not None
        self.compiled = self.estimator.compiled(self.optimizer, self.sampler) if steady else None
        if self.compiled:
            self.g = None  # the compiled loop needs no gradient vector
        self.watched = bool(not self.compiled and hasattr(self.g, "dtype") and Witness.methods(self.optimizer))
        warn_of_long_steps(self)
        self.t, self.seconds, self.columns, self.reason = 0, 0.0, {}, None
        self.loss_sum, self.loss_count, self.last_loss, self.length = 0.0, 0, math.nan, 1
        method = dict(optimizer=optimizer, sampler=sampler, schedule=as_schedule(schedule))
        self.config = self.described(**method, estimator=Minibatch() if estimator is None else estimator)

    def described(self, **method):
        """What a checkpoint must share with the run that goes on from it."""
        found = {
            "problem": self.problem.name,
            **{name: repr(value) for name, value in method.items()},
            "vary": {name: repr(s) for name, s in self.vary.items()},
            "seed": self.seed,
            "dtype": self.x.dtype.name,
            "dim": int(self.x.size),
            "n": self.problem.n,
            "device": backend.device(),
            "threads": backend.threads(),
        }
        if any(s.needs_length for s in (self.schedule, *self.vary.values())):
            found["steps"] = self.total  # a longer run has another schedule: no continuing
        return found

    @property
    def diverged(self):
        return (self.reason or "").startswith("diverged")

    # ---------------------------------------------------------------------------------------------- saving and loading
    @functools.cached_property
    def made_of(self):
        """Hashes of what the config only names. A checkpoint must agree with them, too."""
        methods = (self.optimizer, self.sampler, self.schedule, self.estimator, self.vary)
        found = code.reached(identity.roots(self.problem, *methods)) | code_of_loop()
        return {"problem": identity.of_problem(self.problem), "code": code.digest(found), "start": self.given}

    def state(self):
        return {
            "format": 2,
            "config": self.config,
            "made_of": self.made_of,
            "x": self.x,
            "t": self.t,
            "seconds": self.seconds,
            "columns": self.columns,
            "reason": self.reason if self.diverged or self.reason in ENDS else None,
            "loss": [self.loss_sum, self.loss_count, self.last_loss],
            "optimizer": self.optimizer.state(),
            "estimator": self.estimator.state(),
            "sampler": self.sampler.state(),
            "problem": self.problem.state(),
        }

    def load_state(self, state, path):
        check_fits(self.state(), ("epoch", "step", "seconds", *self.estimator.counts, "lr", "loss"), state, path)
        self.x[...] = backend.asarray(state["x"], self.x.dtype)
        self.t, self.seconds, self.columns = state["t"], state["seconds"], state["columns"]
        self.loss_sum, self.loss_count, self.last_loss = state["loss"]
        for name in ("optimizer", "estimator", "sampler", "problem"):
            getattr(self, name).load_state(state[name])
        self.reason = state["reason"]
        if self.reason in ENDS and self.stop.ended(self.columns) != self.reason:
            self.reason = None  # this call asks for more than that one did

    # -------------------------------------------------------------------------------------------------- the five lines
    def steps(self, k):
        """The next k batches; returns the losses of the steps taken. Nothing here reads a device."""
        problem, optimizer, estimator, sampler = self.problem, self.optimizer, self.estimator, self.sampler
        schedule, x, g, t, vary, losses = self.schedule, self.x, self.g, self.t, self.vary, []
        limit, counts = self.stop.evaluations, estimator.counts
        for batch in sampler.take(k):
            problem.begin(t)
            lr = schedule(t)
            for name, s in vary.items():
                setattr(optimizer, name, s(t))
            loss = estimator(x, batch, out=g)
            estimator.loss = loss
            if loss.__class__ is float and loss - loss != 0 and not estimator.skip:
                losses.append(loss)  # inf or NaN (a device is read later)
                break
            if sampler.learns:
                sampler.observe(batch, problem)
            if not estimator.skip:
                optimizer.step(x, g, lr)
                problem.commit()
                losses.append(loss)
                t += 1
            if limit is not None and counts["gradients"] + counts["values"] >= limit:
                break
        self.t = t
        return losses

    def compiled_steps(self, due):
        """A compiled stretch: up to `due`, the end of the epoch, or LONGEST steps of it, whichever comes first.

        Where it ends does not depend on the clock: a stretch rounds as a whole, and a run has to be repeatable.
        """
        sampler, counts, t = self.sampler, self.estimator.counts, self.t
        done = sampler.taken % self.steps_per_epoch
        k = self.steps_per_epoch - done
        if sampler.size * self.steps_per_epoch > sampler.n and k > 1:
            k -= 1  # a short last batch is a stretch of its own
        k = min(k, LONGEST - done % LONGEST, *(bound - t for bound in (due, self.total) if bound is not None))
        if self.stop.evaluations is not None:
            left = self.stop.evaluations - counts["gradients"] - counts["values"]
            k = min(k, max(1, math.ceil(left / sampler.size)))
        started = self.optimizer.t
        losses = self.compiled(self.x, *sampler.span(k), self.schedule.rates(t, k))
        made = len(losses) - (not np.isfinite(losses[-1]))  # the step of a bad loss, the last, was not made
        sampler.taken += len(losses)
        self.t, self.optimizer.t = t + made, started + made
        self.problem.begin(t + len(losses) - 1)
        return losses

    # -------------------------------------------------------------------------------------------------------- the rest
    def row(self, measured=True):
        """Append a row of columns, the state after step t, and return them."""
        rate = self.schedule(max(self.t - 1, 0))
        row = {
            "epoch": self.sampler.taken / self.steps_per_epoch,
            "step": self.t,
            "seconds": self.seconds,
            **self.estimator.counts,
            "lr": math.nan if getattr(rate, "ndim", 0) else float(backend.to_host(rate)),
            "loss": self.loss_sum / self.loss_count if self.loss_count else math.nan,
            **self.estimator.shown,
        }
        if measured:
            answer = self.optimizer.answer(self.x)
            if answer is self.x or not hasattr(self.problem, "recalibrate"):
                row.update(self.problem.metrics(answer))
            else:  # an average of iterates has batch statistics of its own
                kept = self.problem.state()
                self.problem.recalibrate(answer)
                row.update(self.problem.metrics(answer))
                self.problem.load_state(kept)
            if self.events.variance:
                row["variance"] = self.estimator.variance(answer, self.sampler.probabilities)
        for name in [*row, *self.columns]:
            self.columns.setdefault(name, [math.nan] * len(self.columns.get("epoch", ())))
        for name, column in self.columns.items():
            column.append(row.get(name, math.nan))
        self.loss_sum, self.loss_count = 0.0, 0
        return self.columns

    def budgets(self):
        counts = self.estimator.counts
        return self.stop.budgets(self.total, self.t, counts["gradients"] + counts["values"], self.seconds)

    def finished(self):
        """The reason why no further step is due, or None. Time and evaluations are looked at between stretches."""
        return next((reason for reason, done, most in self.budgets() if most is not None and done >= most), None)

    def stretch(self, due):
        """Make some steps, up to the step `due` at most, and time them. Their losses are read once."""
        k = self.length
        for bound in (due, self.total):
            if bound is not None and bound != math.inf:
                k = min(k, bound - self.t)
        witness, k = (self.witness(), 1) if self.watched else (None, k)
        backend.synchronize()
        start = time.perf_counter()
        first = self.t
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            losses = self.compiled_steps(due) if self.compiled else self.steps(k)
        losses = on_host(losses)
        took = time.perf_counter() - start
        self.seconds += took
        if witness and self.t > first:
            self.watched = False
            witness.check(self.optimizer, self.x, self.g, self.schedule(first))
        if len(losses) == self.length and not self.compiled:  # aim at STRETCH seconds
            self.length = min(LONGEST, max(1, int(self.length * min(4.0, STRETCH / max(took, 1e-9)))))
        if self.compiled:  # in order, too: cumsum adds one by one
            bad = np.flatnonzero(~np.isfinite(losses))
            good = losses[: bad[0]] if bad.size else losses
            self.loss_sum = float(np.cumsum(np.append(self.loss_sum, good))[-1])
        else:
            good = []
            for loss in losses:  # in order: a resumed run must round alike
                if loss - loss != 0:  # inf or NaN
                    break
                self.loss_sum += loss
                good.append(loss)
        i = len(good)
        self.loss_count += i
        if i < len(losses):
            return f"diverged: the loss is {losses[i]} at step {first + i}"
        self.last_loss = float(losses[-1]) if i else self.last_loss
        return None

    def witness(self):
        """A Witness of the next step, or None where its rate is 0."""
        rate = self.schedule(self.t)
        return Witness(self.optimizer, self.x) if hasattr(rate, "dtype") or rate else None

    def fraction(self):
        return min(1.0, max([0.0] + [done / most for _, done, most in self.budgets() if most]))

    def run(self):
        path, events = self.events.checkpoint, self.events
        if path is not None and os.path.isdir(path):
            raise UserError(
                f"minimize: {os.fspath(path)!r} is a folder; a checkpoint is a file, such as "
                f"{os.path.join(path, 'run.npz')!r}"
            )
        if path is not None:
            checkpoint.writable(path)
        if path is not None and os.path.exists(path):
            self.load_state(self.read(path), path)
        over = self.reason is not None
        with Interrupt() as interrupt:
            if not self.columns:
                self.reason = self.stop.ended(self.row())
            due, saved = events.next(self.t, self.steps_per_epoch), time.perf_counter()
            while self.reason is None:
                self.reason = self.finished() or self.stretch(due)
                if events.progress is not None:
                    events.progress(self.fraction(), self.sampler.taken / self.steps_per_epoch, self.last_loss)
                if self.reason is None and self.t >= due:
                    self.event()
                    due = events.next(self.t, self.steps_per_epoch)
                if interrupt.asked and self.reason is None:
                    self.reason = "interrupted"
                elif path is not None and self.reason is None and time.perf_counter() - saved >= events.seconds:
                    self.write(path, self.state())
                    saved = time.perf_counter()
            # A run that merely came to its end can be continued by a longer `stop`: its checkpoint lacks the last row.
            if self.reason not in ("interrupted", *ENDS) and not self.diverged and not self.finite():
                self.reason = f"diverged: x is not finite after step {self.t - 1}"
            if self.diverged and not over:
                self.row(measured=False)
            if path is not None:
                self.write(path, self.state())
            if self.reason != "interrupted" and self.columns["step"][-1] != self.t:
                self.reason = self.stop.ended(self.row()) or self.reason
        return self.result()

    def finite(self):
        return bool(backend.to_host(backend.xp(self.x).isfinite(self.x).all()))

    def event(self):
        """Measure the row that is due, and look whether the target is met or x is no longer finite."""
        if not self.finite():
            self.reason = f"diverged: x is not finite after step {self.t - 1}"
        else:
            self.reason = self.stop.ended(self.row())

    def result(self):
        config = {**self.config, "stop": repr(self.stop), "versions": versions()}
        answer = self.optimizer.answer(self.x)
        loop = "compiled" if self.compiled else "python"
        return Run(self.columns, self.x, answer, self.reason, config, loop)
