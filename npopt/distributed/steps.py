"""Optimizers on a node that has a part of x alone."""

import copy
from types import SimpleNamespace

from npopt.errors import UserError
from npopt.optimizers.base import Optimizer
from npopt.optimizers.by_segment import BySegment


def checked(owner, optimizer, segments=False):
    """The optimizer, if its steps on parts of x are those on the whole: element-wise, or, where the parts are whole
    `segments`, by segment."""
    whole = isinstance(optimizer, Optimizer) and not optimizer.parts
    if whole and (type(optimizer).step is Optimizer.step or segments and isinstance(optimizer, BySegment)):
        return optimizer
    kinds = "acts number by number (SGD, AdamW)" + " or segment by segment (LAMB)" * segments
    raise UserError(f"{owner}: a part of x wants an optimizer that {kinds}, got {optimizer!r}")


def started(optimizer, x, state=None, problem=None):
    """A copy of the optimizer, started on x, with this state if it is not None; problem: whose segments x has."""
    optimizer = copy.deepcopy(optimizer)
    optimizer.start(x, SimpleNamespace(problem=problem))
    if state is not None:
        optimizer.load_state(state)
    return optimizer
