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


def choose_range(
    scene: Scene, text: str | None, *, from_zero: bool = False
) -> tuple[ValueRange, bool]:
    """The values a model sees as 0 and 1, and whether some of the scene lie outside.

    A scene without valid pixels has 0:1.

    Args:
        text: `LOW:HIGH`; `auto`, which is `Spread.bulk`; or None for the preset of the sample type:
            0:255 for uint8, 0:1 for float32 within it, else auto.
        from_zero: auto starts at 0 where no value is below, for models to which darkness matters.

    Raises:
        InputError: infinite values.
    """
    spread = spread_of(scene)
    found, wanted = spread.extremes, spread.bulk
    if found is None:
        return wanted, False
    if text not in (None, "auto"):
        wanted = ValueRange.parse(str(text))
    elif text is None and scene.dtype == np.uint8:
        wanted = ValueRange(0, 255)
    elif text is None and scene.dtype.kind == "f" and found.low >= 0 and found.high <= 1:
        wanted = ValueRange(0, 1)
    elif from_zero and found.low >= 0:
        wanted = ValueRange(0, wanted.high if wanted.high > 0 else 1)
    return wanted, found.low < wanted.low or found.high > wanted.high


def _bulk(low: float, high: float, values: np.ndarray) -> ValueRange:
    first, last = (float(value) for value in np.percentile(values, PERCENTILES))
    reach = TAIL * (last - first)
    if last > first:
        within = values[(values >= first - reach) & (values <= last + reach)]
        low = low if low >= first - reach else float(within.min())
        high = high if high <= last + reach else float(within.max())
    return ValueRange(low, high if high > low else low + 1)
