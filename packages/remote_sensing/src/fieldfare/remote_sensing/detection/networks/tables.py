# SPDX-License-Identifier: Apache-2.0
"""LeYOLO's layers, one row each, for every size of it.

Source: LeYOLO, Hollard et al. 2024 (arXiv 2406.14239).
"""

import math
from dataclasses import dataclass
from typing import Literal

LARGEST = 576
"""Channels at width 1 that no layer exceeds."""

MULTIPLE = 8
"""Channels are rounded up to a multiple of this."""


@dataclass(frozen=True)
class Row:
    """One layer.

    Attributes:
        kind: convolution, inverted bottleneck, pooling, doubling, or concatenation.
        channels: given, at width 1; of `up` and `cat` they follow from the inputs.
        middle: channels inside a bottleneck; None leaves the widening out.
        skip: number of the layer that `cat` takes up beside the previous one.
    """

    kind: Literal["conv", "bottleneck", "sppf", "up", "cat"]
    channels: int = 0
    kernel: int = 1
    middle: int | None = None
    stride: int = 1
    skip: int = 0


def _ib(channels: int, kernel: int, middle: int | None, stride: int = 1) -> Row:
    return Row("bottleneck", channels, kernel, middle, stride)


def _conv(channels: int, kernel: int, stride: int) -> Row:
    return Row("conv", channels, kernel, stride=stride)


_UP = Row("up")
_STEM = (_conv(16, 3, 2), _conv(16, 1, 1), _ib(16, 3, None, 2), _ib(32, 3, 96, 2))

SMALLER = (
    *(*_STEM, _ib(32, 3, 96)),  # 4: stride 8
    *(_ib(64, 5, 96, 2), *[_ib(64, 5, 192)] * 4),  # 9: stride 16
    *(_ib(96, 5, 576, 2), *[_ib(96, 5, 576)] * 3, Row("sppf", 96)),  # 14: stride 32
    *(_UP, Row("cat", skip=9), *[_ib(64, 5, 128)] * 3),  # 19
    *(_UP, Row("cat", skip=4), _ib(32, 3, None), *[_ib(32, 3, 64)] * 2),  # 24
    *(_conv(64, 3, 2), Row("cat", skip=19), *[_ib(64, 5, 128)] * 3),  # 29
    *(_conv(96, 3, 2), Row("cat", skip=14), *[_ib(96, 5, 192)] * 3),  # 34
)
"""Nano and Small: layers 0 to 34."""

LARGER = (
    *(*_STEM, *[_ib(32, 3, 96)] * 2),  # 5: stride 8
    *(_ib(64, 5, 96, 2), *[_ib(64, 5, 192)] * 5),  # 11: stride 16
    *(_ib(96, 5, 576, 2), *[_ib(96, 5, 576)] * 4, Row("sppf", 96)),  # 17: stride 32
    *(_UP, Row("cat", skip=11), *[_ib(64, 5, 128)] * 4),  # 23
    *(_UP, Row("cat", skip=5), _ib(32, 3, None), *[_ib(32, 3, 64)] * 2, _ib(64, 5, 128)),  # 29
    *(_conv(64, 3, 2), Row("cat", skip=23), *[_ib(64, 5, 128)] * 4),  # 35
    *(_conv(96, 3, 2), Row("cat", skip=17), *[_ib(96, 5, 192)] * 3, _ib(64, 5, 128)),  # 41
)
"""Medium and Large: layers 0 to 41."""


@dataclass(frozen=True)
class Table:
    """A network up to its head.

    Attributes:
        rows: the layers in turn.
        width: factor on all channels.
        read: layers that the head looks at, of strides 8, 16 and 32.
    """

    rows: tuple[Row, ...]
    width: float
    read: tuple[int, int, int]

    def channels(self, count: int) -> int:
        """So many at width 1, scaled and rounded up."""
        return math.ceil(min(count, LARGEST) * self.width / MULTIPLE) * MULTIPLE


_AS_PUBLISHED = (27, 32, 37)

TABLES = {
    "leyolo_nano": Table(SMALLER, 1.0, (24, 29, 34)),
    "leyolo_small": Table(SMALLER, 1.33, (24, 29, 34)),
    "leyolo_medium": Table(LARGER, 1.33, _AS_PUBLISHED),
    "leyolo_large": Table(LARGER, 1.33, _AS_PUBLISHED),
    "leyolo_whole": Table(LARGER, 1.33, (29, 35, 41)),
}
"""By name. Medium and Large are one network for images of two sizes, 640 and 768; their heads read
the second of the finest blocks, the first of the middle ones and, at stride 32, a concatenation
before its blocks, so that layers 28, 29, 33 to 35 and 38 to 41 partly or wholly do nothing.
`leyolo_whole` reads the last blocks instead."""
