# SPDX-License-Identifier: Apache-2.0
"""One source for the compiled pass and for its pure-Python fallback.

A function marked `@compiled` is built by numba on its first call (some 30 seconds for all of them)
and cached on disk: in NUMBA_CACHE_DIR if that is set, else beside the source, else in the user's
cache folder; where none can be written, each run compiles anew and says so. Without numba (or with
FIELDFARE_PURE_PYTHON=1) the very same function runs undecorated. Two rules keep both equal: arrays
go through `view`, so that an index gives a Python int in the fallback and never a numpy scalar that
overflows; and no value leaves the signed 64-bit range except in a product that is masked at once.
A third keeps it fast: nothing allocates, and no slice is assigned (which may), so that numba need
count no references to arrays; for each packet, that took longer than all else.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from fieldfare.common.compiled import keep, source_stamp

numba: Any
try:
    import numba
except ImportError:  # the fallback is 50 to 100 times slower but gives the same flows
    numba = None

COMPILED = numba is not None and os.environ.get("FIELDFARE_PURE_PYTHON") != "1"
"""Whether functions marked `@compiled` are machine code."""

Octets = Sequence[int]
"""What `view` gives of an array of uint8."""

Function = TypeVar("Function", bound=Callable[..., Any])


_STAMP = source_stamp(__file__) if COMPILED else ""


def compiled(function: Function) -> Function:
    """Compile a function on its first call, or leave it as it is in the fallback."""
    return _build(function)


def _build(function: Function, **more: bool) -> Function:
    if not COMPILED:
        return function
    # _nrt: without numba's runtime, which counts references
    return cast(Function, keep(function, _STAMP, "the compiled capture reader", _nrt=False, **more))


def view(array: np.ndarray) -> Any:
    """What a compiled function takes for an array: itself, or its memoryview in the fallback."""
    return array if COMPILED else array.data


def inlined(function: Function) -> Function:
    """As `compiled`, for small steps of the pass: the code goes to where it is called."""
    return _build(function, forceinline=True)
