"""The types that the contracts speak of. docs/design.md has them in words.

An Array is NumPy's or, on a GPU, CuPy's. A Number is a Python float or, on a GPU, a 0-d array that nobody reads inside
a step. Rows are row numbers, (B,) int64, or None for all rows in order.
"""

from typing import Any, Protocol, TypeAlias

import numpy as np

Array: TypeAlias = Any
Number: TypeAlias = Any
Rows: TypeAlias = Any
State: TypeAlias = dict[str, Any]
Shift: TypeAlias = tuple[Any, Any]  # (how far, a 64-bit key or a direction of npopt/directions.py)


class Problem(Protocol):
    """What npopt's core asks of a problem; problems/base.py has defaults for the rest."""

    n: int | None
    dim: int
    dtype: np.dtype
    name: str

    def x0(self, rng: np.random.Generator) -> Array: ...

    def value(
        self, x: Array, rows: Rows = None, weights: Array | None = None, shift: Shift | None = None
    ) -> Number: ...

    def value_and_gradient(
        self,
        x: Array,
        rows: Rows = None,
        weights: Array | None = None,
        out: Array | None = None,
        inputs: Array | None = None,
        dinputs: Array | None = None,
    ) -> Number: ...

    def begin(self, t: int) -> None: ...

    def commit(self) -> None: ...

    def metrics(self, x: Array) -> dict[str, float]: ...

    def state(self) -> State: ...

    def load_state(self, state: State) -> None: ...
