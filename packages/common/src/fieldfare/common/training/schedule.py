# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules as pure functions of the step, so that a resumed run cannot drift."""

import math


def cosine_with_warmup(step: int, *, steps: int, peak: float, floor: float, warmup: int) -> float:
    """Learning rate at a step (0-based): linear over `warmup` steps, then half a cosine to `floor`.

    Source: SGDR, Loshchilov and Hutter 2016 (arXiv 1608.03983), eq. 5, without restarts.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * progress))
