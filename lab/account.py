"""What a training step needs of memory, by kind: counted from shapes, and measured by what hands memory out.

    weights        x
    gradients      g and what else the estimator has of vectors; of a g in pieces, the most that is alive at a time
    states         what the optimizer keeps from step to step
    activations    what is alive between forward and backward: inputs, what layers keep, logits and their gradient
    workspace      measured alone: the highest point of a step, less all of these

Counted are bytes of arrays, each memory once. Measured is what NumPy and the pool (npopt/backend/allocator.py) lent
out, by tracemalloc, to which NumPy tells what it takes; on a GPU it is what CuPy's pool says. The pool rounds sizes up.
"""

import copy
import gc
import tracemalloc

import nn.release
from lab.progress import Doing
from lab.report import text_table
from npopt import Events, Minibatch, RandomReshuffling, Stop, backend, minimize
from npopt.backend import allocator
from npopt.errors import UserError

KINDS = ("weights", "gradients", "states", "activations", "workspace")
WARM = 2  # steps before the one that is measured: what is made once is there then


class Meter:
    """Bytes lent out since it was opened. `now()`; `most` since `forget()`, looked at whenever the pool is asked."""

    def __enter__(self):
        gc.collect()
        self.most = 0
        if backend.device() == "cpu":
            allocator.pool.release()
            allocator.spaces.free.clear()
            tracemalloc.start()
            self.empty = allocator.pool.empty
            allocator.pool.empty = self.watched
        self.first = self.lent()
        return self

    def __exit__(self, *_):
        if backend.device() == "cpu":
            del allocator.pool.empty  # the class has it again
            tracemalloc.stop()

    def watched(self, shape, dtype, slack):
        array = self.empty(shape, dtype, slack)
        self.look()
        return array

    @staticmethod
    def lent():
        if backend.device() != "cpu":
            return backend.memory()["device"]
        free = sum(size * len(blocks) for size, blocks in allocator.pool.free.items())
        free += sum(block[2] for block in allocator.spaces.free)
        return tracemalloc.get_traced_memory()[0] - free

    def now(self):
        return self.lent() - self.first

    def look(self):
        self.most = max(self.most, self.now())

    def forget(self):
        self.most = self.now()


def bytes_of(*things):
    """Bytes of all arrays in nested tuples, lists and dicts; arrays that share memory count once, by the largest."""
    found = {}

    def walk(thing):
        if isinstance(thing, (tuple, list)):
            for one in thing:
                walk(one)
        elif isinstance(thing, dict):
            walk(list(thing.values()))
        elif getattr(thing, "nbytes", 0) and hasattr(thing, "dtype"):
            owner = thing
            while getattr(owner, "base", None) is not None:
                owner = owner.base
            found[id(owner)] = max(found.get(id(owner), 0), thing.nbytes)

    walk(things)
    return sum(found.values())


class Account:
    """One step of a method on a problem, with an eye on what is alive in it.

    counted, measured: {kind: bytes}
    """

    def __init__(self, problem, optimizer, sampler, estimator, lr, seed=0):
        self.problem, self.seed, self.lr = problem, seed, lr
        self.optimizer, self.sampler, self.estimator = map(copy.deepcopy, (optimizer, sampler, estimator))
        self.pieces = self.between = 0
        problem.set_seed(seed)
        problem.reset()
        self.sampler.start(problem, seed)
        with Meter() as self.meter:
            self.run()

    def run(self):
        problem, estimator, meter, marks = self.problem, self.estimator, self.meter, [0]
        x = problem.x0(backend.generator(self.seed, "x0"))
        marks.append(meter.now())
        g = estimator.start(problem, x, self.seed)
        marks.append(meter.now())
        self.optimizer.start(x, estimator)
        marks.append(meter.now())
        for t, batch in enumerate(self.sampler.take(WARM + 1)):
            if t == WARM:
                gc.collect()
                held = meter.now()
                self.watch()
            problem.begin(t)
            loss = estimator(x, batch, out=g)
            self.optimizer.step(x, g, self.lr)
            problem.commit()
        most = meter.most
        self.unwatch()
        del loss
        first, second, third = (b - a for a, b in zip(marks, marks[1:], strict=False))
        self.measured = dict(weights=first, gradients=second + self.pieces, states=third)
        self.measured["activations"] = max(0, self.between - held)
        self.measured["workspace"] = most - sum(self.measured.values())
        vectors = bytes_of(g if hasattr(g, "dtype") else (), vars(estimator))
        self.counted = dict(weights=bytes_of(x), gradients=vectors + self.pieces, states=self.optimizer.bytes())
        self.counted |= dict(activations=self.kept(x, batch), workspace=None)
        if self.inner is not problem:  # the weights that do not move were there before
            for found in (self.measured, self.counted):
                found["weights"] += bytes_of(problem.whole)

    def watch(self):
        """Look at what is alive between forward and backward, and at what a g in pieces has alive."""
        self.made = nn.release.Handing.made
        account, made = self, self.made

        def seen(dz, weights):
            account.between = account.meter.now()

        def counted(handing, layer, name):
            gradient = made(handing, layer, name)
            account.pieces = max(account.pieces, bytes_of(handing.open, handing.waiting))
            account.meter.look()
            return gradient

        self.inner.seen, nn.release.Handing.made = seen, counted
        self.meter.forget()

    def unwatch(self):
        del self.inner.seen
        nn.release.Handing.made = self.made

    @property
    def inner(self):
        """The problem of the whole network."""
        return getattr(self.problem, "problem", self.problem)

    def kept(self, x, batch):
        """Bytes that a training pass on this batch leaves for its way back, counted array by array; 0 where the
        estimator takes no gradient."""
        problem, estimator = self.inner, self.estimator
        if not self.between:
            return 0
        names = getattr(estimator, "names", None)
        active = getattr(self.problem, "active", None)
        if names is not None:
            active = frozenset(problem.segments.select(names).names)
        whole = self.problem.place(x) if problem is not self.problem else x
        inputs, targets, run = problem._prepare(batch.rows, None)
        problem.network.bind(whole, nn.release.Release(problem.network), active)
        z, saved = problem.network.forward(inputs, run)
        _, dz = problem.loss_function.value_and_gradient(z, targets, batch.weights)
        return bytes_of(inputs, targets, saved, dz)

    def rows(self):
        """[kind, counted, measured] as texts, and their sums."""
        found = [[kind, size(self.counted[kind]), size(self.measured[kind])] for kind in KINDS]
        return [*found, ["highest", "", size(sum(self.measured.values()))]]


def size(count):
    """Bytes in words."""
    if count is None:
        return ""
    return f"{count / 1e6:,.2f} MB"


def account_of(make, optimizer, sampler=None, estimator=None, lr=0.0, seed=0):
    """The Account of a method on make(), after steps on another such problem: what is compiled then is there."""
    sampler, estimator = sampler or RandomReshuffling(64), estimator or Minibatch()
    problem = make()
    problem.metrics = lambda x: {}
    given = dict(sampler=sampler, schedule=lr, estimator=estimator, events=Events(None))
    minimize(problem, optimizer, **given, stop=Stop(steps=WARM))
    return Account(make(), optimizer, sampler, estimator, lr, seed)


def print_accounts(labelled):
    """The account of each method on each network of a grid: the first run of it."""
    seen, networks = set(), 0
    for entry, _ in labelled:
        key = entry.part, repr(entry.problem), type(entry.optimizer), repr(entry.estimator), repr(entry.sampler)
        if entry.problem is None or key in seen:
            continue
        seen.add(key)
        with Doing(f"measuring {entry.name}"):
            problem = entry.problem()
            if not hasattr(problem, "network"):
                continue
            networks += 1
            account = account_of(entry.problem, entry.optimizer, entry.sampler, entry.estimator)
        print(f"\n{problem.name}, {entry.sampler}, {entry.optimizer}")
        print(text_table(["", "counted", "measured"], account.rows()), flush=True)
    if not networks:
        raise UserError("--memory is for networks, and the chosen parts train none")
