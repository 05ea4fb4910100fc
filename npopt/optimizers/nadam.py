"""NAdam: after Dozat, ICLR 2016 workshop, "Incorporating Nesterov momentum into Adam", Algorithm 2; PyTorch's form."""

from npopt.backend import elementwise
from npopt.optimizers.adam import check_moments
from npopt.optimizers.base import Optimizer
from npopt.values import number


@elementwise
def nadam(x, m, v, g, lr, b1, b2, eps, ahead, now, c2):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    x = x - lr * (ahead * m + now * g) / (sqrt(c2 * v) + eps)  # noqa: F821
    return x, m, v


class NAdam(Optimizer):
    """m <- b1 m + (1-b1) g            v <- b2 v + (1-b2) g^2            vh = v / (1-b2^t)
    x <- x - lr (mu_(t+1) m / (1 - P_(t+1)) + (1-mu_t) g / (1 - P_t)) / (sqrt(vh) + eps),    P_t = mu_1 ... mu_t

        decay > 0    mu_t = b1 (1 - 0.96^(decay t) / 2)      the warm-up of the paper, decay = 0.004
        decay None   mu_t = b1                               Adam with Nesterov's look-ahead and nothing else

    As in PyTorch and Keras m runs with b1 throughout; Algorithm 2 has m <- mu_t m + (1 - mu_t) g, and b2 v / (1 - b2^t)
    for vh.
    """

    arrays = ("m", "v")
    never_negative = ("v",)
    numbers = {"product": 1.0}  # P_t

    def __init__(self, b1=0.9, b2=0.999, eps=1e-8, decay=0.004):
        self.b1, self.b2, self.eps = check_moments("NAdam", b1, b2, eps)
        self.decay = None if decay is None else number("NAdam", "decay", decay, low=0)

    def mu(self, t):
        return self.b1 if self.decay is None else self.b1 * (1 - 0.5 * 0.96 ** (self.decay * t))

    def step(self, x, g, lr):
        self.product *= self.mu(self.t + 1)
        super().step(x, g, lr)

    def update(self, x, g, lr, m, v):
        mu, following = self.mu(self.t), self.mu(self.t + 1)
        ahead, now = following / (1 - self.product * following), (1 - mu) / (1 - self.product)
        nadam(x, m, v, g, lr, self.b1, self.b2, self.eps, ahead, now, 1 / (1 - self.b2**self.t))
