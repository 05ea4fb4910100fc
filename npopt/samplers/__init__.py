"""Which rows, in which order, with which weights: one family a file."""

from npopt.samplers.base import Batch, Sampler
from npopt.samplers.by_class import ByClass
from npopt.samplers.importance import AdaptiveImportance, Importance
from npopt.samplers.replay import Replay
from npopt.samplers.sequential import Sequential
from npopt.samplers.uniform import RandomReshuffling, ShuffleOnce, WithReplacement

__all__ = [
    "AdaptiveImportance",
    "Batch",
    "ByClass",
    "Importance",
    "RandomReshuffling",
    "Replay",
    "Sampler",
    "Sequential",
    "ShuffleOnce",
    "WithReplacement",
]
