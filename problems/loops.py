"""Compiling the loops of this package with numba: for exact argument types, kept on disk."""

import functools

import numba

# Sums over features may be reordered (SIMD); NaN and inf keep their meaning, so that a diverged run shows.
OPTIONS = {"error_model": "numpy", "fastmath": {"reassoc", "contract"}, "cache": True}


@functools.cache
def compiled(function, *signature):
    """The function for exactly these argument types: anything else is a TypeError, not another compilation."""
    return numba.njit(signature, **OPTIONS)(function)
