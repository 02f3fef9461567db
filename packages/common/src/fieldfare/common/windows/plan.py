# SPDX-License-Identifier: Apache-2.0
"""Where the tiles lie."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

PLACEMENTS = ("grid", "even")


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis.

    Attributes:
        size: length of the whole array.
        tile: length of each tile; the last tiles may reach beyond the array.
        starts: first index of every tile of the whole array, rising.
        region: half-open part of the array that is wanted.
    """

    size: int
    tile: int
    starts: tuple[int, ...]
    region: tuple[int, int]

    @property
    def chosen(self) -> tuple[int, ...]:
        """Starts of the tiles that touch the region."""
        first, last = self.region
        return tuple(start for start in self.starts if start < last and start + self.tile > first)


@dataclass(frozen=True)
class Plan:
    """Tiles over an N-D array: every combination of the axes' tiles."""

    axes: tuple[Axis, ...]

    @property
    def tile(self) -> tuple[int, ...]:
        """Shape of a tile."""
        return tuple(axis.tile for axis in self.axes)

    @property
    def region_size(self) -> tuple[int, ...]:
        """Shape of the wanted region."""
        return tuple(axis.region[1] - axis.region[0] for axis in self.axes)

    def __len__(self) -> int:
        return math.prod(len(axis.chosen) for axis in self.axes)

    def rows(self) -> Iterator[tuple[int, list[tuple[int, ...]]]]:
        """For each start along the first axis, the starts of all its tiles, in order."""
        for first in self.axes[0].chosen:
            others = itertools.product(*(axis.chosen for axis in self.axes[1:]))
            yield first, [(first, *rest) for rest in others]


def plan(
    size: Sequence[int],
    tile: int | Sequence[int],
    overlap: int | Sequence[int],
    *,
    placement: str = "grid",
    region: Sequence[tuple[int, int]] | None = None,
) -> Plan:
    """Lay equal tiles over an array.

    Args:
        size: shape of the whole array, without channels.
        tile, overlap: in elements, one for all axes or one each; 0 <= overlap < tile.
        placement: `grid` puts tiles at multiples of tile - overlap and lets the last reach beyond
            the array, so that a region gets the very tiles the whole array would; `even` spaces
            them evenly inside the array, as nnU-Net does (Isensee et al. 2021,
            doi 10.1038/s41592-020-01008-z), best for small volumes.
        region: half-open ranges of the part that is wanted; all when None.

    Raises:
        ValueError: a size, tile, overlap, region or placement that makes no sense.
    """
    dimensions = len(size)
    if not dimensions:
        raise ValueError("size () has no axes")
    tiles = per_axis(tile, dimensions, "tile")
    overlaps = per_axis(overlap, dimensions, "overlap")
    regions = list(region) if region is not None else [(0, length) for length in size]
    if placement not in PLACEMENTS:
        raise ValueError(f"placement must be one of {PLACEMENTS}, got {placement!r}")
    if len(regions) != dimensions:
        raise ValueError(f"region has {len(regions)} axes, the array {dimensions}")
    axes = []
    for length, side, shared, wanted in zip(size, tiles, overlaps, regions, strict=True):
        if length < 1:
            raise ValueError(f"size must be at least 1, got {length}")
        if side < 1:
            raise ValueError(f"tile must be at least 1, got {side}")
        if not 0 <= shared < side:
            raise ValueError(f"overlap must be from 0 to tile - 1 = {side - 1}, got {shared}")
        if not 0 <= wanted[0] < wanted[1] <= length:
            raise ValueError(f"region {wanted} lies outside 0 to {length}")
        starts = (_grid if placement == "grid" else _even)(length, side, side - shared)
        axes.append(Axis(length, side, starts, (wanted[0], wanted[1])))
    return Plan(tuple(axes))


def per_axis(value: int | Sequence[int], dimensions: int, name: str) -> tuple[int, ...]:
    """One number for each axis, from one for all or from a sequence of the right length."""
    values = (value,) * dimensions if isinstance(value, int | np.integer) else tuple(value)
    if len(values) != dimensions:
        raise ValueError(f"{name} has {len(values)} axes, the array {dimensions}")
    return values


def _grid(size: int, tile: int, step: int) -> tuple[int, ...]:
    count = max(0, math.ceil((size - tile) / step)) + 1
    return tuple(index * step for index in range(count))


def _even(size: int, tile: int, step: int) -> tuple[int, ...]:
    if size <= tile:
        return (0,)
    count = math.ceil((size - tile) / step) + 1
    return tuple(round(index * (size - tile) / (count - 1)) for index in range(count))


def reflect_indices(start: int, stop: int, size: int) -> np.ndarray:
    """Indices into an axis of length `size` that continue it by reflection, without repeated ends.

    Equals `numpy.pad(mode="reflect")` and works for any range and size, length 1 included.

    Returns:
        (stop - start,) int64, values 0 to size - 1.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    period = max(2 * (size - 1), 1)
    folded = np.arange(start, stop) % period
    return np.where(folded < size, folded, period - folded)
