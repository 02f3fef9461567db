# SPDX-License-Identifier: Apache-2.0
"""Tiles whose middles share out a scene: each object is the business of one tile."""

from collections.abc import Iterator
from dataclasses import dataclass

from fieldfare.common.errors import InputError

from ..networks.leyolo import STRIDES

COARSEST = STRIDES[-1]

Range = tuple[int, int]


@dataclass(frozen=True)
class Tile:
    """One tile, in pixels of the scene.

    Attributes:
        start: row and column of its first pixel.
        shape: rows and columns; at the rim it is cut, to a multiple of the coarsest stride.
        rows, columns: half-open, of its middle, for which it answers.
    """

    start: tuple[int, int]
    shape: tuple[int, int]
    rows: Range
    columns: Range


@dataclass(frozen=True)
class Tiling:
    """Tiles over a part of a scene.

    Their middles lie side by side from the scene's first pixel on, whatever part is wanted, and all
    starts are multiples of the coarsest stride: what a network gives for a pixel depends on where
    the pixel lies within that. Tiles end at the scene's rim, as patches do in training: mirrored
    surroundings cost 0.013 of F1 on tiles of 154 m.

    Args:
        tile: side in pixels.
        overlap: that neighbours share; half of it on each side of a middle.
        rows, columns: half-open, of the wanted part.
        size: rows and columns of the scene.

    Raises:
        InputError: sides that do not fit the strides.
    """

    tile: int
    overlap: int
    rows: Range
    columns: Range
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if self.tile % COARSEST:
            raise InputError(f"--tile {self.tile}: must be a multiple of {COARSEST}")
        if not 0 <= self.overlap < self.tile or self.overlap % (2 * COARSEST):
            raise InputError(
                f"--overlap {self.overlap}: must be a multiple of {2 * COARSEST} "
                f"below --tile {self.tile}"
            )

    @property
    def step(self) -> int:
        """Side of a middle."""
        return self.tile - self.overlap

    def __len__(self) -> int:
        return len(self._numbers(self.rows)) * len(self._numbers(self.columns))

    def lines(self) -> Iterator[list[Tile]]:
        """The tiles, line by line from the top, each with its middle cut to the wanted part."""
        for row in self._numbers(self.rows):
            top, height = self._cut(row, self.size[0])
            line = []
            for column in self._numbers(self.columns):
                left, width = self._cut(column, self.size[1])
                middles = self._middle(row, self.rows), self._middle(column, self.columns)
                line.append(Tile((top, left), (height, width), *middles))
            yield line

    def _cut(self, number: int, length: int) -> tuple[int, int]:
        """First pixel and side of a tile along an axis."""
        first = number * self.step - self.overlap // 2
        end = min(first + self.tile, -(-length // COARSEST) * COARSEST)
        return max(first, 0), end - max(first, 0)

    def _numbers(self, wanted: Range) -> range:
        return range(wanted[0] // self.step, (wanted[1] - 1) // self.step + 1)

    def _middle(self, number: int, wanted: Range) -> Range:
        first, last = number * self.step, (number + 1) * self.step
        return max(first, wanted[0]), min(last, wanted[1])
