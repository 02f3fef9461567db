# SPDX-License-Identifier: Apache-2.0
"""Wall times of single calls, for tables of percentiles."""

import time
from collections.abc import Callable

import numpy as np

WARM_UP = 2


def wall_seconds(call: Callable[[], object], repeats: int) -> np.ndarray:
    """Seconds of each of `repeats` calls, after two that are not counted."""
    found = []
    for number in range(repeats + WARM_UP):
        began = time.perf_counter()
        call()
        if number >= WARM_UP:
            found.append(time.perf_counter() - began)
    return np.array(found)
