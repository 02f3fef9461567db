# SPDX-License-Identifier: Apache-2.0
"""Run a predictor over tiles and hand out finished rows; memory holds one band of tiles."""

import math
from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np

from .blend import unity_weights
from .plan import Plan, plan, reflect_indices

Start = tuple[int, ...]


def stream(
    read: Callable[[Start], np.ndarray | None],
    predict: Callable[[np.ndarray, np.ndarray], np.ndarray],
    write: Callable[[int, np.ndarray], None],
    tiles: Plan,
    *,
    channels: int,
    scale: int = 1,
    batch: int = 1,
    blend: str = "gaussian",
    from_row: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Predict tile by tile, blend, and write rows of the region in order, each once.

    Tiles are accumulated in the order of the plan, whatever the batch, so the result does not
    depend on it beyond what `predict` does. The band in memory holds `band_bytes`. When `predict`
    runs out of memory (MemoryError, or an error of a class named OutOfMemoryError) the batch is
    halved and the tiles are tried again.

    Args:
        read: start of a tile -> (C, *window), the same shape for every tile, or None where nothing
            needs predicting (its part of the result is 0). The window may be larger than the tile
            where the predictor wants a margin. Tiles may reach beyond the array.
        predict: ((N, C, *window), starts (N, D) int64) -> (N, channels, *tile * scale).
        write: (first row of the region, block (channels, rows, *rest)), float32, all times scale.
        channels: of the result.
        scale: output elements for each input element, along every axis.
        from_row: first row wanted, in output elements of the region; earlier ones are not written
            and tiles above it not predicted. The rows written are the same as in a whole run.
        progress: (tiles done, tiles in all), tiles skipped by from_row counted as done.
    """
    weights = [unity_weights(axis, blend, scale) for axis in tiles.axes]
    first_axis = tiles.axes[0]
    tile_rows = first_axis.tile * scale
    region_rows = tiles.region_size[0] * scale
    rest = tuple(side * scale for side in tiles.region_size[1:])
    band = np.zeros((channels, tile_rows, *rest), np.float32)
    row_offset = first_axis.region[0] * scale
    written, done, size = from_row, 0, batch
    rows = list(tiles.rows())
    for index, (first, starts) in enumerate(rows):
        top = first * scale - row_offset
        if top + tile_rows <= from_row:
            done += len(starts)
            continue
        position = 0
        while position < len(starts):
            group = starts[position : position + size]
            present = [(s, image) for s in group if (image := read(s)) is not None]
            if present:
                try:
                    results = predict(
                        np.stack([image for _, image in present]),
                        np.array([start for start, _ in present], dtype=np.int64),
                    )
                except Exception as error:
                    if not _out_of_memory(error) or size == 1:
                        raise
                    size = max(1, size // 2)
                    continue
                for (start, _), result in zip(present, results, strict=True):
                    _accumulate(band, result, start, tiles, weights, scale)
            position += len(group)
            done += len(group)
            progress(done, len(tiles))
        following = region_rows
        if index + 1 < len(rows):
            following = rows[index + 1][0] * scale - row_offset
        finished = min(following, region_rows)
        if finished > written:
            write(written, band[:, written - top : finished - top].copy())
            written = finished
        shift = following - top
        band = np.concatenate([band[:, shift:], np.zeros_like(band[:, :shift])], axis=1)


def _accumulate(
    band: np.ndarray,
    result: np.ndarray,
    start: Start,
    tiles: Plan,
    weights: list[dict[int, np.ndarray]],
    scale: int,
) -> None:
    """Add one weighted tile to the band; what lies outside the region sideways is cut."""
    expected = (band.shape[0], *(side * scale for side in tiles.tile))
    if result.shape != expected:
        raise ValueError(f"the predictor returned {result.shape} for a tile, expected {expected}")
    into: list[slice] = [slice(None), slice(None)]
    cut: list[slice] = [slice(None), slice(None)]
    for axis, first in zip(tiles.axes[1:], start[1:], strict=True):
        low, high = max(first, axis.region[0]), min(first + axis.tile, axis.region[1])
        into.append(slice((low - axis.region[0]) * scale, (high - axis.region[0]) * scale))
        cut.append(slice((low - first) * scale, (high - first) * scale))
    window = reduce(np.multiply.outer, [w[s] for w, s in zip(weights, start, strict=True)])
    band[tuple(into)] += (result * window)[tuple(cut)]


def _out_of_memory(error: Exception) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, MemoryError) or "OutOfMemoryError" in names


def band_bytes(tiles: Plan, channels: int, scale: int = 1) -> int:
    """Bytes of the band that `stream` holds: channels x tile rows x width (x ...) in float32.

    While a band moves on, a second copy exists for a moment.
    """
    rest = math.prod(side * scale for side in tiles.region_size[1:])
    return 4 * channels * tiles.tile[0] * scale * rest


def sliding(
    predict: Callable[[np.ndarray, np.ndarray], np.ndarray],
    array: np.ndarray,
    *,
    tile: int | Sequence[int],
    overlap: int | Sequence[int],
    channels: int | None = None,
    scale: int = 1,
    batch: int = 1,
    blend: str = "gaussian",
    placement: str = "even",
) -> np.ndarray:
    """Predict an array in memory by tiles, continued by reflection beyond its ends.

    Args:
        predict: as for `stream`.
        array: (C, *size).
        channels: of the result; those of the array when None.

    Returns:
        (channels, *size * scale), float32.
    """
    tiles = plan(array.shape[1:], tile, overlap, placement=placement)
    channels = channels or array.shape[0]
    result = np.empty((channels, *(side * scale for side in array.shape[1:])), np.float32)

    def read(start: Start) -> np.ndarray:
        indices = [
            reflect_indices(first, first + axis.tile, axis.size)
            for first, axis in zip(start, tiles.axes, strict=True)
        ]
        return array[np.ix_(np.arange(array.shape[0]), *indices)]

    def write(row: int, block: np.ndarray) -> None:
        result[:, row : row + block.shape[1]] = block

    stream(read, predict, write, tiles, channels=channels, scale=scale, batch=batch, blend=blend)
    return result
