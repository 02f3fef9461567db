# SPDX-License-Identifier: Apache-2.0
"""Run a predictor over tiles and hand out finished rows; memory holds one band of tiles."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .blend import product, unity_weights
from .plan import Plan, per_axis, plan, reflect_indices

Start = tuple[int, ...]
Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]


def stream(
    read: Callable[[Start], np.ndarray | None],
    predict: Predict,
    write: Callable[[int, np.ndarray], None],
    tiles: Plan,
    *,
    channels: int,
    scale: int | Sequence[int] = 1,
    batch: int = 1,
    blend: str = "gaussian",
    from_row: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Predict tile by tile, blend, and write rows of the region in order, each once.

    Tiles are accumulated in float32 in the order of the plan, whatever the batch, so the result
    does not depend on it beyond what `predict` does. A batch never spans two rows of tiles: a
    resumed run so makes the batches of a whole one. When `predict` runs out of memory the batch is
    halved, for good, and the tiles are predicted again without being read again.

    Memory: the band (`band_bytes`), a copy of the rows being written (at most the band again),
    and the windows and results of one batch. Only the weights of the first axis grow with it, by
    about 8 bytes a row at half overlap.

    Args:
        read: start of a tile in input elements -> (C, *window), the same shape for every tile, or
            None where nothing needs predicting: that costs nothing and counts as 0, towards which
            its neighbours fade where they overlap it. The window may be larger than the tile
            where the predictor wants a margin. Tiles may reach beyond the array.
        predict: ((N, C, *window), starts (N, D) int64) -> (N, channels, *tile * scale).
        write: (first row of the region, block (channels, rows, *rest)), float32, all times scale.
        channels: of the result.
        scale: output elements for each input element, one for all axes or one each.
        batch: most tiles predicted together.
        from_row: first row wanted, in output elements of the region; earlier ones are not written
            and tiles above it not predicted. The rows written are the same as in a whole run.
        progress: (tiles done, tiles in all), tiles skipped by from_row counted as done.

    Raises:
        ValueError: an argument that makes no sense, or results of an unexpected shape.
        MemoryError, or what `predict` raised: out of memory with a single tile.
    """
    scales = _scales(tiles, scale)
    for name, value in (("channels", channels), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    region_rows = tiles.region_size[0] * scales[0]
    if not 0 <= from_row <= region_rows:
        raise ValueError(f"from_row must be from 0 to {region_rows}, got {from_row}")
    weights = [unity_weights(axis, blend, s) for axis, s in zip(tiles.axes, scales, strict=True)]
    shape = (channels, *(side * s for side, s in zip(tiles.tile, scales, strict=True)))
    rest = (side * s for side, s in zip(tiles.region_size[1:], scales[1:], strict=True))
    band = np.zeros((channels, shape[1], *rest), np.float32)
    tops = [(first - tiles.axes[0].region[0]) * scales[0] for first in tiles.axes[0].chosen]
    ends = [*tops[1:], region_rows]
    batches = _Batches(read, predict, batch, shape)
    written, done = from_row, 0
    for (_, starts), top, end in zip(tiles.rows(), tops, ends, strict=True):
        if top + shape[1] <= from_row or from_row == region_rows:
            done += len(starts)
            progress(done, len(tiles))
            continue
        for count, results in batches.predicted(starts):
            for start, result in results:
                _accumulate(band, result, start, tiles, weights, scales)
            done += count
            progress(done, len(tiles))
        if end > written:
            write(written, band[:, written - top : end - top].copy())
            written = end
        _move_up(band, end - top)


def _scales(tiles: Plan, scale: int | Sequence[int]) -> tuple[int, ...]:
    scales = per_axis(scale, len(tiles.axes), "scale")
    if min(scales) < 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    return scales


class _Batches:
    """Reads tiles and predicts them in batches, which shrink where memory runs out."""

    def __init__(
        self,
        read: Callable[[Start], np.ndarray | None],
        predict: Predict,
        size: int,
        shape: tuple[int, ...],
    ) -> None:
        self.read, self.predict, self.size, self.shape = read, predict, size, shape

    def predicted(
        self, starts: Sequence[Start]
    ) -> Iterator[tuple[int, list[tuple[Start, np.ndarray]]]]:
        """One row of tiles; batches are filled up past tiles that are not read.

        Yields:
            (tiles done since the last time, [(start, result), ...]), in order.
        """
        waiting: list[tuple[Start, np.ndarray]] = []
        skipped = 0
        for position, start in enumerate(starts, 1):
            image = self.read(start)
            if image is None:
                skipped += 1
            else:
                waiting.append((start, image))
            while len(waiting) >= self.size or (waiting and position == len(starts)):
                results = self._first(waiting)
                done = [start for start, _ in waiting[: len(results)]]
                del waiting[: len(results)]
                yield len(done) + skipped, list(zip(done, results, strict=True))
                skipped = 0
        if skipped:
            yield skipped, []

    def _first(self, waiting: list[tuple[Start, np.ndarray]]) -> np.ndarray:
        """Results of the first tiles that wait, as many as memory allows."""
        while True:
            group = waiting[: self.size]
            starts = np.array([start for start, _ in group], dtype=np.int64)
            try:
                results = self.predict(np.stack([image for _, image in group]), starts)
            except Exception as error:
                if len(group) == 1 or not _out_of_memory(error):
                    raise
                self.size = len(group) // 2
                continue
            if results.shape != (len(group), *self.shape):
                raise ValueError(
                    f"the predictor returned {results.shape} for {len(group)} tiles, "
                    f"expected {(len(group), *self.shape)}"
                )
            return results


def _accumulate(
    band: np.ndarray,
    result: np.ndarray,
    start: Start,
    tiles: Plan,
    weights: list[dict[int, np.ndarray]],
    scales: tuple[int, ...],
) -> None:
    """Add one weighted tile to the band; what lies outside the region sideways is cut."""
    into: list[slice] = [slice(None), slice(None)]
    cut: list[slice] = [slice(None), slice(None)]
    for axis, first, scale in zip(tiles.axes[1:], start[1:], scales[1:], strict=True):
        low, high = max(first, axis.region[0]), min(first + axis.tile, axis.region[1])
        into.append(slice((low - axis.region[0]) * scale, (high - axis.region[0]) * scale))
        cut.append(slice((low - first) * scale, (high - first) * scale))
    window = product([of[first] for of, first in zip(weights, start, strict=True)])
    band[tuple(into)] += (result * window)[tuple(cut)]


def _move_up(band: np.ndarray, shift: int) -> None:
    """Drop the first rows and let zeros follow, in pieces that need no second band."""
    kept = max(band.shape[1] - shift, 0)
    for plane in band:
        for row in range(0, kept, shift):
            stop = min(row + shift, kept)
            plane[row:stop] = plane[row + shift : stop + shift]
        plane[kept:] = 0


def _out_of_memory(error: Exception) -> bool:
    """Known without importing a framework: torch names the class for accelerators only."""
    if isinstance(error, MemoryError):
        return True
    names = {kind.__name__ for kind in type(error).__mro__}
    said = str(error) if isinstance(error, RuntimeError) else ""
    return "OutOfMemoryError" in names or "can't allocate memory" in said or "out of memory" in said


def band_bytes(tiles: Plan, channels: int, scale: int | Sequence[int] = 1) -> int:
    """Bytes of the band that `stream` holds: channels x tile rows x width (x ...) in float32.

    For 3 channels, tiles of 64 rows, 4000 columns and scale 4: 4 * 3 * 256 * 16,000 = 49 MB.
    """
    scales = _scales(tiles, scale)
    sides = (tiles.tile[0], *tiles.region_size[1:])
    return 4 * channels * math.prod(side * s for side, s in zip(sides, scales, strict=True))


def sliding(
    predict: Predict,
    array: np.ndarray,
    *,
    tile: int | Sequence[int],
    overlap: int | Sequence[int],
    channels: int | None = None,
    scale: int | Sequence[int] = 1,
    batch: int = 1,
    blend: str = "gaussian",
    placement: str = "even",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Predict an array in memory by tiles, continued by reflection beyond its ends.

    Args:
        predict, batch, blend, progress: as for `stream`.
        array: (C, *size).
        tile, overlap, placement: as for `plan`.
        channels: of the result; those of the array when None.

    Returns:
        (channels, *size * scale), float32.
    """
    tiles = plan(array.shape[1:], tile, overlap, placement=placement)
    scales = _scales(tiles, scale)
    channels = array.shape[0] if channels is None else channels
    sides = (side * s for side, s in zip(array.shape[1:], scales, strict=True))
    result = np.empty((channels, *sides), np.float32)

    def read(start: Start) -> np.ndarray:
        indices = [
            reflect_indices(first, first + axis.tile, axis.size)
            for first, axis in zip(start, tiles.axes, strict=True)
        ]
        found: np.ndarray = array[np.ix_(np.arange(array.shape[0]), *indices)]
        return found

    def write(row: int, block: np.ndarray) -> None:
        result[:, row : row + block.shape[1]] = block

    stream(
        read,
        predict,
        write,
        tiles,
        channels=channels,
        scale=scales,
        batch=batch,
        blend=blend,
        progress=progress,
    )
    return result
