# SPDX-License-Identifier: Apache-2.0
"""Rows are written once, in order, the same whatever the batch; memory holds one band."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldfare.common.windows import (
    BLENDS,
    Plan,
    band_bytes,
    fuse,
    plan,
    reflect_indices,
    stream,
)

Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]
Shape = tuple[int, ...]


def unchanged(batch: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return batch


def position_dependent(batch: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """A predictor whose answer depends on where in the tile a pixel lies, as networks' do."""
    ramp = np.linspace(0, 1, batch.shape[-1], dtype=np.float32)
    return np.sin(batch * 3) + ramp + starts.sum(axis=1).reshape(-1, 1, 1, 1) % 7


def reader(array: np.ndarray, tiles: Plan) -> Callable[[Shape], np.ndarray]:
    """Tiles of an array that is continued by reflection."""

    def read(start: Shape) -> np.ndarray:
        rows, columns = (
            reflect_indices(first, first + axis.tile, axis.size)
            for first, axis in zip(start, tiles.axes, strict=True)
        )
        return array[:, rows[:, None], columns]

    return read


def collect(array: np.ndarray, tiles: Plan, **options: Any) -> np.ndarray:
    """What `stream` makes of an array; checks that its rows come once and in order."""
    blocks: list[np.ndarray] = []
    row = options.get("from_row", 0)

    def write(first: int, block: np.ndarray) -> None:
        nonlocal row
        assert first == row
        row += block.shape[1]
        blocks.append(block)

    read = options.pop("read", None) or reader(array, tiles)
    predict = options.pop("predict", position_dependent)
    stream(read, predict, write, tiles, channels=len(array), **options)
    assert row == tiles.region_size[0] * options.get("scale", 1)
    return np.concatenate(blocks, axis=1)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(2).random((2, 75, 53), dtype=np.float32)


@settings(max_examples=40)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    tile=st.integers(1, 20),
    overlap=st.integers(0, 19),
    blend=st.sampled_from(BLENDS),
    placement=st.sampled_from(["grid", "even"]),
)
def test_streamed_rows_equal_tiles_fused_at_once(
    height: int, width: int, tile: int, overlap: int, blend: str, placement: str
) -> None:
    array = np.random.default_rng(3).random((2, height, width), dtype=np.float32)
    tiles = plan((height, width), tile, min(overlap, tile - 1), placement=placement)
    starts = [start for _, row in tiles.rows() for start in row]
    predicted = position_dependent(
        np.stack([reader(array, tiles)(start) for start in starts]), np.array(starts)
    )
    at_once = fuse(predicted, np.array(starts), (height, width), blend)
    assert np.abs(collect(array, tiles, blend=blend, batch=3) - at_once).max() < 1e-5


@settings(max_examples=40)
@given(batch=st.integers(1, 30), scale=st.integers(1, 3), data=st.data())
def test_result_depends_neither_on_the_batch_nor_on_a_resumption(
    batch: int, scale: int, data: st.DataObject
) -> None:
    image = np.random.default_rng(2).random((2, 75, 53), dtype=np.float32)
    tiles = plan(image.shape[1:], 16, 5, region=((3, 70), (0, 53)))
    from_row = data.draw(st.integers(0, 67 * scale - 1))

    def enlarged(batch: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return position_dependent(batch.repeat(scale, axis=2).repeat(scale, axis=3), starts)

    whole = collect(image, tiles, scale=scale, predict=enlarged)
    part = collect(image, tiles, scale=scale, predict=enlarged, batch=batch, from_row=from_row)
    assert np.array_equal(whole[:, from_row:], part)


def test_a_resumed_run_makes_the_batches_of_a_whole_one(image: np.ndarray) -> None:
    tiles = plan(image.shape[1:], 16, 5)
    whole: list[list[list[int]]] = []
    part: list[list[list[int]]] = []

    def noting(batches: list[list[list[int]]]) -> Predict:
        return lambda batch, starts: (batches.append(starts.tolist()), batch)[1]

    collect(image, tiles, batch=3, predict=noting(whole))
    collect(image, tiles, batch=3, from_row=40, predict=noting(part))
    assert part == [batch for batch in whole if batch[0][0] + 16 > 40]


def test_nothing_is_predicted_when_all_rows_were_written() -> None:
    """The last tile reaches beyond the array, so its end is no reason to predict it."""

    def never(*arguments: Any) -> Any:
        raise AssertionError(arguments)

    tiles, seen = plan((65, 40), 16, 4), []
    stream(
        never,
        never,
        never,
        tiles,
        channels=1,
        from_row=65,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (len(tiles), len(tiles))


def test_a_region_gets_what_the_whole_array_gets(image: np.ndarray) -> None:
    whole = collect(image, plan(image.shape[1:], 16, 5))
    part = plan(image.shape[1:], 16, 5, region=((20, 61), (7, 50)))
    assert np.array_equal(whole[:, 20:61, 7:50], collect(image, part))
    assert np.array_equal(whole[:, 33:61, 7:50], collect(image, part, from_row=13))


def test_predictor_gets_the_start_of_each_tile_in_the_whole_array(image: np.ndarray) -> None:
    """So that noise may be a function of the place: here the place itself is returned."""
    tiles = plan(image.shape[1:], 16, 5, region=((20, 61), (7, 50)))

    def place(batch: np.ndarray, starts: np.ndarray) -> np.ndarray:
        assert starts.dtype == np.int64
        rows, columns = (starts[:, i, None] + np.arange(16) for i in range(2))
        grid = np.broadcast_arrays(rows[:, :, None], columns[:, None, :])
        return np.stack(grid, axis=1).astype(np.float32)

    result = collect(image, tiles, predict=place, batch=2)
    assert np.abs(result - np.mgrid[20:61, 7:50]).max() < 1e-4


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("MPS backend out of memory"),
    ],
)
def test_running_out_of_memory_halves_the_batch(image: np.ndarray, error: Exception) -> None:
    tiles = plan(image.shape[1:], 16, 5)
    sizes: list[int] = []
    reads: list[Shape] = []

    def greedy(batch: np.ndarray, starts: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise error
        return position_dependent(batch, starts)

    def read(start: Shape) -> np.ndarray:
        reads.append(start)
        return reader(image, tiles)(start)

    result = collect(image, tiles, batch=5, predict=greedy, read=read)
    assert np.array_equal(result, collect(image, tiles))
    assert sizes[0] == 5
    assert set(sizes[1:]) == {1, 2}, "smaller batches from then on"
    assert len(reads) == len(set(reads)) == len(tiles), "no tile is read twice"


def test_running_out_of_memory_with_one_tile_is_an_error(image: np.ndarray) -> None:
    sizes: list[int] = []

    def hopeless(batch: np.ndarray, starts: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        raise MemoryError

    with pytest.raises(MemoryError):
        collect(image, plan(image.shape[1:], 16, 5), batch=9, predict=hopeless)
    assert sizes == [5, 2, 1], "half of the five tiles there were, not of nine"


def test_other_errors_are_not_taken_for_a_lack_of_memory(image: np.ndarray) -> None:
    def broken(batch: np.ndarray, starts: np.ndarray) -> np.ndarray:
        assert len(batch) == 4, "tried again"
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        collect(image, plan(image.shape[1:], 16, 5), batch=4, predict=broken)


def test_a_tile_that_is_not_read_costs_nothing_and_leaves_zeros() -> None:
    tiles = plan((8, 24), 8, 0)
    predicted: list[list[int]] = []
    blocks: dict[int, np.ndarray] = {}

    def predict(batch: np.ndarray, starts: np.ndarray) -> np.ndarray:
        predicted.extend(starts.tolist())
        return batch

    stream(
        lambda start: None if start == (0, 8) else np.ones((1, 8, 8), np.float32),
        predict,
        blocks.__setitem__,
        tiles,
        channels=1,
    )
    assert predicted == [[0, 0], [0, 16]]
    assert blocks[0][0, 0].tolist() == [1] * 8 + [0] * 8 + [1] * 8


def test_batches_are_filled_past_tiles_that_are_not_read() -> None:
    sizes: list[int] = []
    progress: list[tuple[int, int]] = []
    tiles = plan((8, 80), 8, 0)
    stream(
        lambda start: None if start[1] % 16 else np.ones((1, 8, 8), np.float32),
        lambda batch, starts: (sizes.append(len(batch)), batch)[1],
        lambda row, block: None,
        tiles,
        channels=1,
        batch=3,
        progress=lambda done, total: progress.append((done, total)),
    )
    assert sizes == [3, 2]
    assert progress == [(5, 10), (10, 10)]


def test_blocks_are_never_larger_than_the_band() -> None:
    tiles = plan((400, 30), 16, 4)
    largest = 0

    def write(row: int, block: np.ndarray) -> None:
        nonlocal largest
        largest = max(largest, block.nbytes)

    one = np.zeros((1, 16, 16), np.float32)
    stream(lambda start: one, unchanged, write, tiles, channels=1)
    assert largest <= band_bytes(tiles, channels=1) == 4 * 16 * 30


def test_band_bytes_of_the_documented_example() -> None:
    tiles = plan((9999, 4000), 64, 16)
    assert band_bytes(tiles, channels=3, scale=4) == 4 * 3 * 256 * 16_000 == 49_152_000
    assert band_bytes(tiles, channels=3, scale=(4, 1)) == 4 * 3 * 256 * 4000


def test_memory_is_two_bands_whatever_the_length() -> None:
    """Band and written copy, and a little for batch and weights."""
    one = np.ones((1, 64, 1000), np.float32)

    def peak_in_bands(length: int) -> float:
        tiles = plan((length, 16_000), (64, 1000), (48, 0))
        tracemalloc.start()
        try:
            stream(lambda start: one, unchanged, lambda row, block: None, tiles, channels=1)
            return tracemalloc.get_traced_memory()[1] / band_bytes(tiles, channels=1)
        finally:
            tracemalloc.stop()

    assert peak_in_bands(160) < 2.25
    assert peak_in_bands(1600) < 2.25


def test_written_blocks_stay_as_they_were_written(image: np.ndarray) -> None:
    """A writer may keep a block, for instance to compress it in another thread."""
    tiles = plan(image.shape[1:], 16, 5)
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    stream(
        reader(image, tiles),
        unchanged,
        lambda row, block: kept.append((block, block.copy())),
        tiles,
        channels=2,
    )
    assert all(np.array_equal(block, then) for block, then in kept)


def test_a_predictor_of_the_wrong_shape_is_named(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"returned \(3, 2, 16, 16\) for 4 tiles"):
        collect(image, plan(image.shape[1:], 16, 5), batch=4, predict=lambda b, s: b[:3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"batch": -2}, "batch must be at least 1, got -2"),
        ({"scale": 0}, "scale must be at least 1, got 0"),
        ({"scale": (2, -1)}, r"scale must be at least 1, got \(2, -1\)"),
        ({"scale": (2, 2, 2)}, "scale has 3 axes, the array 2"),
        ({"from_row": -1}, "from_row must be from 0 to 75, got -1"),
        ({"from_row": 76}, "from_row must be from 0 to 75, got 76"),
        ({"blend": "linear"}, "blend must be one of"),
    ],
)
def test_senseless_options_are_refused(
    image: np.ndarray, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        collect(image, plan(image.shape[1:], 16, 5), **options)
