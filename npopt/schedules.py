"""How far: the learning rate as a function of the step.

t counts steps from 0, and step t runs at schedule(t). The schedule is read before the update, so epoch e (from 0) uses
s(e). Schedules have no memory, so drawing a curve of one does not disturb it. Each has a unit: per="step" changes at
every step, per="epoch" holds a value through an epoch. Below, k is the step or the epoch, and T the length in the same
unit. The default of T is the whole run, if `stop` says how long that is. PyTorch, Keras and the papers count lengths
that differ by one here and there; ours are those of the equations.
"""

import math

from npopt.errors import UserError
from npopt.values import Value, number, whole

import numpy as np


def _unit(owner, per):
    if per not in ("step", "epoch"):
        raise UserError(f'{owner}: per must be "step" or "epoch", got {per!r}')
    return per


class Schedule(Value):
    """Base: a subclass gives `at(k)`. start(steps_per_epoch, steps) tells the run's length, steps may be None."""

    per = "step"
    length = None

    def start(self, steps_per_epoch: int, steps: int | None):
        self.steps_per_epoch, self.steps = steps_per_epoch, steps
        self.T = self.length
        if self.T is None and steps is not None:
            self.T = steps if self.per == "step" else -(-steps // steps_per_epoch)

    needs_length = False  # whether the rates depend on the length of the run

    def __call__(self, t: int) -> float:
        return self.at(t if self.per == "step" else t // self.steps_per_epoch)

    def rates(self, t: int, k: int) -> np.ndarray | None:
        """The rates of the k steps from t on, (k,) float64, for compiled loops; None if a rate is an array like x."""
        found = [self(u) for u in range(t, t + k)]
        return None if any(getattr(rate, "ndim", 0) for rate in found) else np.array(found, np.float64)

    def fraction(self, k):
        """k/T, at most 1."""
        if self.T is None:
            raise UserError(f"{self!r}: the length of the run is not known; pass length=, or stop by epochs or steps")
        return min(k / self.T, 1.0) if self.T else 1.0


class Constant(Schedule):
    """s = lr."""

    def __init__(self, lr):
        self.lr = number("Constant", "lr", lr, low=0)

    def at(self, k):
        return self.lr

    def rates(self, t, k):
        return np.full(k, self.lr, np.float64)


class Exponential(Schedule):
    """s(k) = max(floor, lr factor^k)."""

    def __init__(self, lr, factor, floor=0.0, per="epoch"):
        self.lr, self.factor = number("Exponential", "lr", lr, low=0), number("Exponential", "factor", factor, low=0)
        self.floor, self.per = number("Exponential", "floor", floor, low=0), _unit("Exponential", per)

    def at(self, k):
        return max(self.floor, self.lr * self.factor**k)


class Piecewise(Schedule):
    """s(k) = lr factor^(number of milestones <= k): with milestones (30, 60), epoch 30 is the first at lr factor."""

    def __init__(self, lr, milestones, factor=0.1, per="epoch"):
        self.lr, self.factor = number("Piecewise", "lr", lr, low=0), number("Piecewise", "factor", factor, low=0)
        self.per = _unit("Piecewise", per)
        if not isinstance(milestones, (list, tuple)):
            raise UserError(f"Piecewise: milestones must be a list of numbers such as (30, 60), got {milestones!r}")
        self.milestones = tuple(number("Piecewise", "a milestone", m, low=0) for m in milestones)
        if list(self.milestones) != sorted(set(self.milestones)):
            raise UserError(f"Piecewise: milestones must rise from 0 upwards, got {self.milestones}")

    def at(self, k):
        return self.lr * self.factor ** sum(m <= k for m in self.milestones)


class Polynomial(Schedule):
    """s(k) = end + (lr - end) (1 - k/T)^power, and end from k = T on."""

    def __init__(self, lr, power, end=0.0, length=None, per="step"):
        name = type(self).__name__
        self.lr, self.end = number(name, "lr", lr, low=0), number(name, "end", end, low=0)
        self.power, self.per = number(name, "power", power, low=0, open_low=True), _unit(name, per)
        self.length = None if length is None else whole(name, "length", length)

    def at(self, k):
        return self.end + (self.lr - self.end) * (1 - self.fraction(k)) ** self.power

    @property
    def needs_length(self):
        return self.length is None


class Linear(Polynomial):
    """s(k) = end + (lr - end) (1 - k/T)."""

    def __init__(self, lr, end=0.0, length=None, per="step"):
        super().__init__(lr, 1, end, length, per)


class Cosine(Schedule):
    """s(k) = end + (lr - end) (1 + cos(pi k/T)) / 2, and end from k = T on (PyTorch's climbs again).

    Loshchilov & Hutter, ICLR 2017, arXiv:1608.03983, equation 5, without restarts.
    """

    def __init__(self, lr, end=0.0, length=None, per="step"):
        self.lr, self.end = number("Cosine", "lr", lr, low=0), number("Cosine", "end", end, low=0)
        self.per, self.length = _unit("Cosine", per), None if length is None else whole("Cosine", "length", length)

    def at(self, k):
        return self.end + (self.lr - self.end) * (1 + math.cos(math.pi * self.fraction(k))) / 2

    @property
    def needs_length(self):
        return self.length is None


class InverseSquareRoot(Schedule):
    """s(k) = min(cap, lr (k+1)^(-1/2)).   With lr 1 and cap 0.01: Adafactor's relative step, t = k + 1.

    With a warm-up of W steps or epochs, s = min(cap, lr min((k+1)/W, sqrt(W/(k+1)))). It is a straight rise to lr at
    the W-th, and then the root as if it had run from the start. With lr = (d W)^(-1/2) this is Vaswani et al., NeurIPS
    2017, equation 3. WithWarmup(InverseSquareRoot(lr), W) starts the root anew and falls W times as fast.
    """

    def __init__(self, lr, cap=math.inf, per="step", warmup=0):
        self.lr, self.per = number("InverseSquareRoot", "lr", lr, low=0), _unit("InverseSquareRoot", per)
        self.cap = cap if cap == math.inf else number("InverseSquareRoot", "cap", cap, low=0)
        self.warmup = whole("InverseSquareRoot", "warmup", warmup, low=0)

    def at(self, k):
        W = max(self.warmup, 1)
        return min(self.cap, self.lr * min((k + 1) / W, math.sqrt(W / (k + 1))))


class CosineRestarts(Schedule):
    """SGDR, a cosine that starts anew. In cycle i, of length T_i = T_0 grow^i, after k' of its steps or epochs:

        s = end + (lr - end) (1 + cos(pi k' / T_i)) / 2

    `first` is T_0, in epochs, or in steps where unit="step". per="step" moves at every step, through fractions of an
    epoch, as the paper does. The restart runs at lr. Loshchilov & Hutter, ICLR 2017, arXiv:1608.03983, equation 5.
    """

    def __init__(self, lr, first, grow=1, end=0.0, unit="epoch", per="step"):
        self.lr, self.end = number("CosineRestarts", "lr", lr, low=0), number("CosineRestarts", "end", end, low=0)
        self.first = number("CosineRestarts", "first", first, low=0, open_low=True)
        self.grow = number("CosineRestarts", "grow", grow, low=1)
        self.unit, self.per = _unit("CosineRestarts", unit), _unit("CosineRestarts", per)

    def __call__(self, t):
        t = t if self.per == "step" else t // self.steps_per_epoch * self.steps_per_epoch
        k = (t if self.unit == "step" else t / self.steps_per_epoch) / self.first
        if self.grow == 1:  # cycle i starts at T_0 i
            cycle = math.floor(k + 1e-9)
            begin = cycle
        else:  # or at T_0 (grow^i - 1) / (grow - 1)
            cycle = math.floor(math.log1p(k * (self.grow - 1)) / math.log(self.grow) + 1e-9)
            begin = (self.grow**cycle - 1) / (self.grow - 1)
        done = max(0.0, k - begin) / self.grow**cycle
        return self.end + (self.lr - self.end) * (1 + math.cos(math.pi * done)) / 2


class JaggedCosine(Schedule):
    """A cosine over T steps that is warmed up again after every `every` steps: ReLoRA's, for runs that restart there.

        c(k) = end + (lr - end) (1 + cos(pi (k - first) / (T - first))) / 2
        s(k) = lr (k + 1) / first                               k < first
        s(k) = (j + 1) / warmup c(k - j + warmup)               j = k mod every < warmup, k >= every
        s(k) = c(k)                                             else

    first: the warm-up at the beginning, None: as long as the others. A warm-up ends where the cosine is at its end. T:
    the whole run, or `length`. Lialin et al., ICLR 2024, arXiv:2307.05695, section 3.
    """

    def __init__(self, lr, every, warmup, first=None, end=0.0, length=None):
        self.lr, self.end = number("JaggedCosine", "lr", lr, low=0), number("JaggedCosine", "end", end, low=0)
        self.every, self.warmup = whole("JaggedCosine", "every", every), whole("JaggedCosine", "warmup", warmup)
        self.first = self.warmup if first is None else whole("JaggedCosine", "first", first)
        self.length = None if length is None else whole("JaggedCosine", "length", length)
        if max(self.first, self.warmup) > self.every:
            raise UserError(f"JaggedCosine: a warm-up must end within {self.every} steps, got {first} and {warmup}")

    @property
    def needs_length(self):
        return self.length is None

    def cosine(self, k):
        """c(k)"""
        done = (min(k, self.T) - self.first) / max(self.T - self.first, 1)
        return self.end + (self.lr - self.end) * (1 + math.cos(math.pi * done)) / 2

    def at(self, k):
        self.fraction(0)  # raises where the length is not known
        if k < self.first:
            return self.lr * (k + 1) / self.first
        j = k % self.every
        if k >= self.every and j < self.warmup:
            return (j + 1) / self.warmup * self.cosine(k - j + self.warmup)
        return self.cosine(k)


class Cyclical(Schedule):
    """`half` steps up and `down` steps down (None: as many), again and again. After s steps of cycle c = 1, 2, ...:

        s(t) = low + (high - low) min(s / half, (half + down - s) / down) z

        shape "triangular"     z = 1
        shape "triangular2"    z = 2^-(c-1): half the height with every cycle
        shape "exp_range"      z = factor^t

    Smith, WACV 2017, arXiv:1506.01186, where both halves are equal; PyTorch has step_size_up and step_size_down.
    """

    SHAPES = ("triangular", "triangular2", "exp_range")

    def __init__(self, low, high, half, shape="triangular", factor=0.99994, down=None):
        self.low, self.high = number("Cyclical", "low", low, low=0), number("Cyclical", "high", high, low=0)
        self.half, self.factor = whole("Cyclical", "half", half), number("Cyclical", "factor", factor, low=0, high=1)
        if shape not in self.SHAPES:
            raise UserError(f"Cyclical: shape must be one of {', '.join(self.SHAPES)}, got {shape!r}")
        self.shape, self.down = shape, None if down is None else whole("Cyclical", "down", down)

    def at(self, t):
        up, down = self.half, self.down or self.half
        cycle, behind = divmod(t, up + down)
        z = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": self.factor**t}[self.shape]
        return self.low + (self.high - self.low) * min(behind / up, (up + down - behind) / down) * z


class OneCycle(Schedule):
    """One rise and one fall over T steps: high/divide -> high over the first `rise` T steps, then -> high/final.

    phases=3, the paper's form: high/divide -> high -> high/divide over rise T steps each, then -> high/final.

    Each piece is linear, or half a cosine where cosine=True (PyTorch's default). Step 0 runs at high/divide, step
    p = round(rise T) at high, and the last step, T - 1, at high/final. With three phases step 2 p runs at high/divide.
    p and 2 p are kept inside the run. A run of one step is at high/divide, one of two at high/divide and high/final.
    `mirrored(low, high)` is a momentum that goes the other way, and stays high in a third phase: pass it as
    vary={"beta": schedule.mirrored(0.85, 0.95)}.

    After Smith & Topin 2018, arXiv:1708.07120; two pieces are fastai's form. PyTorch (three_phase) ends at
    high/(divide final), and its pieces end one step earlier, at rise T - 1 and 2 rise T - 2.
    """

    def __init__(self, high, divide=25.0, final=1e4, rise=0.3, cosine=False, length=None, phases=2):
        self.high, self.divide = number("OneCycle", "high", high, low=0), number("OneCycle", "divide", divide, low=1)
        self.final = number("OneCycle", "final", final, low=1)
        if phases not in (2, 3):
            raise UserError(f"OneCycle: phases must be 2 or 3, got {phases!r}")
        self.phases = int(phases)
        self.rise = number("OneCycle", "rise", rise, low=0, high=1 / (phases - 1), open_low=True, open_high=True)
        self.cosine, self.length = bool(cosine), None if length is None else whole("OneCycle", "length", length)

    @property
    def needs_length(self):
        return self.length is None

    def between(self, t, values):
        """values = (at step 0, at the peak, at the last step)."""
        self.fraction(0)  # raises where the length is not known
        last, pieces = self.T - 1, self.phases
        if last < pieces:  # no room for a peak, or for a third phase
            pieces = 2
        if last <= 1:
            return values[0 if t == 0 else 2]
        peak = max(1, min(round(self.rise * self.T), (last - 1) // (pieces - 1)))
        knots = [(0, values[0]), (peak, values[1]), *[(2 * peak, values[0])] * (pieces - 2), (last, values[2])]
        i = max(j for j in range(pieces) if t >= knots[j][0])
        (begin, a), (end, b) = knots[i : i + 2]
        k = min(1.0, (t - begin) / (end - begin))
        return a + (b - a) * ((1 - math.cos(math.pi * k)) / 2 if self.cosine else k)

    def at(self, t):
        return self.between(t, (self.high / self.divide, self.high, self.high / self.final))

    def mirrored(self, low, high):
        """The schedule that is high where this one is low, at both ends, and low at its peak."""
        return Mirrored(self, low, high)


class Mirrored(Schedule):
    """high at step 0 and at the end, low at the peak of a OneCycle."""

    def __init__(self, cycle, low, high):
        self.cycle, self.low = cycle, number("Mirrored", "low", low, low=0)
        self.high = number("Mirrored", "high", high, low=0)

    @property
    def needs_length(self):
        return self.cycle.needs_length

    def start(self, steps_per_epoch, steps):
        super().start(steps_per_epoch, steps)
        self.cycle.start(steps_per_epoch, steps)

    def at(self, t):
        return self.cycle.between(t, (self.high, self.low, self.high))


class WithWarmup(Schedule):
    """A linear rise over W steps or epochs, then the schedule, whose own k and T count from the end of the warm-up.

        s(k) = begin + (schedule(0) - begin) (k+1)/W   for k < W

    Step 0 takes a small step; in the transformers library it runs at rate 0. The W-th step runs at schedule(0). The
    epochs of a schedule per epoch count from the end of the warm-up, too. InverseSquareRoot has a warm-up of its own.
    """

    @property
    def needs_length(self):
        return self.schedule.needs_length

    def __init__(self, schedule, length, begin=0.0, per="step"):
        self.schedule = as_schedule(schedule)
        self.length, self.per = whole("WithWarmup", "length", length), _unit("WithWarmup", per)
        self.begin = number("WithWarmup", "begin", begin, low=0)

    def start(self, steps_per_epoch, steps):
        super().start(steps_per_epoch, steps)
        self.lead = self.length * (1 if self.per == "step" else steps_per_epoch)
        self.schedule.start(steps_per_epoch, None if steps is None else max(steps - self.lead, 1))

    def __call__(self, t):
        if t >= self.lead:
            return self.schedule(t - self.lead)
        k = t if self.per == "step" else t // self.steps_per_epoch
        return self.begin + (self.schedule(0) - self.begin) * (k + 1) / self.length


def as_schedule(value):
    """A schedule as it is; a number as Constant."""
    return value if isinstance(value, Schedule) else Constant(value)
