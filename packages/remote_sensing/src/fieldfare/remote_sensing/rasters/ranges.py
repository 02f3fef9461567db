# SPDX-License-Identifier: Apache-2.0
"""The range of values that a model sees, when a few pixels lie far from all others."""

import math
from dataclasses import dataclass

import numpy as np

from fieldfare.common.errors import InputError

from .reading import Scene, ValueRange

PERCENTILES = (2.0, 98.0)
"""Of the valid values: where the bulk of them lies. Clouds on 2 % of a scene do not move them."""

TAIL = 0.5
"""How far beyond these, as a share of what lies between, the extremes still belong to the bulk."""

SAMPLES = 4_000_000
"""How many values at most the percentiles are taken from."""


@dataclass(frozen=True)
class Spread:
    """Of a scene's valid values.

    Attributes:
        extremes: smallest and largest; None where there are none.
        bulk: the extremes, each moved to the last value within reach where it is an outlier.
    """

    extremes: ValueRange | None
    bulk: ValueRange


def spread_of(scene: Scene) -> Spread:
    """Read a scene once; memory is bounded.

    Raises:
        InputError: infinite values.
    """
    low, high, found = math.inf, -math.inf, []
    step = max(1, math.ceil(scene.height * scene.width * len(scene.bands) / SAMPLES))
    for values, valid in scene.blocks():
        inside = values[valid]
        if inside.size:
            low, high = min(low, float(inside.min())), max(high, float(inside.max()))
            found.append(inside[::step])
    if low > high:
        return Spread(None, ValueRange(0, 1))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{scene.path}: holds infinite values; set them to nodata first")
    return Spread(ValueRange(low, high), _bulk(low, high, np.concatenate(found)))


def _bulk(low: float, high: float, values: np.ndarray) -> ValueRange:
    first, last = (float(value) for value in np.percentile(values, PERCENTILES))
    reach = TAIL * (last - first)
    if last > first:
        within = values[(values >= first - reach) & (values <= last + reach)]
        low = low if low >= first - reach else float(within.min())
        high = high if high <= last + reach else float(within.max())
    return ValueRange(low, high if high > low else low + 1)
