# SPDX-License-Identifier: Apache-2.0
"""How much of a scene holds data: what a job will really take."""

from dataclasses import dataclass

from fieldfare.common.windows import Plan

from .reading import Scene


@dataclass(frozen=True)
class Held:
    """What holds data.

    Attributes:
        tiles: number of them.
        share: of the rows of tiles.
    """

    tiles: int
    share: float


def held_by(scene: Scene, tiles: Plan, *, margin: int = 0, shift: tuple[int, int] = (0, 0)) -> Held:
    """Count the tiles that will be predicted; reads the scene unless every pixel holds data.

    Args:
        margin: pixels around a tile that are looked at too.
        shift: of the tiles against the scene's pixels.
    """
    if scene.dense:
        return Held(len(tiles), 1.0)
    found = rows = filled = 0
    for _, starts in tiles.rows():
        here = sum(
            bool(
                scene.read_around((row - shift[0], column - shift[1]), tiles.tile[0], margin)[
                    1
                ].any()
            )
            for row, column in starts
        )
        found, rows, filled = found + here, rows + 1, filled + bool(here)
    return Held(found, filled / rows)
