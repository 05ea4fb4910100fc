"""The linear models by name: least squares, LASSO, elastic net, and logistic regression, binary and multinomial."""

from npopt.penalties import L1
from npopt.values import number
from problems.linear import labels
from problems.linear.losses import Logit, Softmax, Squared
from problems.linear.model import LinearModel

import numpy as np


class LeastSquares(LinearModel):
    """f(x) = 1/(2n) |X w + c - y|^2 + l2/2 |w|^2, y real.

    Smooth with L = lmax(X'X)/n + l2, rows with L_i = |x_i|^2 + l2, strongly convex with mu = lmin(X'X)/n + l2.
    """

    def __init__(self, X, y, l2=0.0, intercept=False, **more):
        super().__init__(X, y, Squared(), l2, intercept, **more)


class Lasso(LeastSquares):
    """F(x) = 1/(2n) |X w + c - y|^2 + l1 |w|_1, the 1/2 and the 1/n included; the intercept c is not penalised.

    With l1 >= |X'(y - mean)|_inf / n (without an intercept: |X'y|_inf / n) the minimiser is w = 0. scikit-learn's alpha
    is l1; the form 1/2 |X w - y|^2 + lam |w|_1 of many papers has lam = n l1.
    """

    def __init__(self, X, y, l1, intercept=False, **more):
        self.l1 = number(type(self).__name__, "l1", l1, low=0)
        super().__init__(X, y, 0.0, intercept, regulariser=L1(l1), **more)


class ElasticNet(LeastSquares):
    """F(x) = 1/(2n) |X w + c - y|^2 + l1 |w|_1 + l2/2 |w|^2; the l2 term is part of the smooth f, and of every f_i.

    scikit-learn's alpha and l1_ratio are l1 = alpha l1_ratio, l2 = alpha (1 - l1_ratio).
    """

    def __init__(self, X, y, l1, l2, intercept=False, **more):
        self.l1 = number(type(self).__name__, "l1", l1, low=0)
        super().__init__(X, y, l2, intercept, regulariser=L1(l1), **more)


class Logistic(LinearModel):
    """f(x) = (1/n) sum_i log(1 + exp(-y_i (w.x_i + c))) + l2/2 |w|^2, labels -1 and +1, or 0 (taken as -1) and 1;

    or, with labels 0, ..., C-1 and C > 2, the multinomial (1/n) sum_i (log sum_k exp(z_ik) - z_{i y_i}) + l2/2 |W|^2,
    z_i = W x_i + c, x = (W flattened, c). Smooth with L = lmax(X'X)/(4n) + l2 (binary) or /(2n) (multinomial).

    `predict` answers in the labels that were given; host_y, y and targets() hold -1 and +1, or the classes.
    """

    def __init__(self, X, y, l2=0.0, intercept=False, **more):
        super().__init__(X, y, logistic_loss, l2, intercept, **more)


def logistic_loss(where, y):
    """The loss that the labels y ask for."""
    return Logit() if np.unique(y).size <= 2 else Softmax(len(labels.many(where, y)))
