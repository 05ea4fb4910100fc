"""Unrolled sparse coding: LISTA and its relatives as a Problem, the methods that they unroll, and their training."""

from problems.unrolled.analytic import analytic_weight, coherence
from problems.unrolled.classical import amp, decreasing, fista, ista
from problems.unrolled.codes import SparseCodes, nmse
from problems.unrolled.forms import ALISTA, LISTA, LISTACP, SUPPORT
from problems.unrolled.network import Unrolled
from problems.unrolled.staged import stages

__all__ = [
    "ALISTA",
    "LISTA",
    "LISTACP",
    "SUPPORT",
    "SparseCodes",
    "Unrolled",
    "amp",
    "analytic_weight",
    "coherence",
    "decreasing",
    "fista",
    "ista",
    "nmse",
    "stages",
]
