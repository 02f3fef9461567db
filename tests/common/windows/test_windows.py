# SPDX-License-Identifier: Apache-2.0
"""An identity predictor returns its input, whatever the tiling; rows are written once, in order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldfare.common.windows import (
    BLENDS,
    band_bytes,
    plan,
    reflect_indices,
    sliding,
    stream,
    unity_weights,
)


@st.composite
def tilings(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Shapes of an array, its tiles and their overlap, in one to three dimensions."""
    dimensions = draw(st.integers(1, 3))
    longest = (200, 60, 20)[dimensions - 1]
    sides = st.integers(1, longest)
    size = tuple(draw(sides) for _ in range(dimensions))
    tile = tuple(draw(st.integers(1, (64, 32, 12)[dimensions - 1])) for _ in range(dimensions))
    return size, tile, tuple(draw(st.integers(0, side - 1)) for side in tile)


def repeat(scale: int):
    """A predictor that enlarges by repetition: the identity for scale 1."""

    def predict(batch: np.ndarray, starts: np.ndarray) -> np.ndarray:
        for axis in range(2, batch.ndim):
            batch = np.repeat(batch, scale, axis=axis)
        return batch

    return predict


@settings(max_examples=150)
@given(
    tiling=tilings(),
    batch=st.integers(1, 7),
    blend=st.sampled_from(BLENDS),
    placement=st.sampled_from(["grid", "even"]),
    scale=st.integers(1, 3),
)
def test_identity_in_identity_out(tiling, batch, blend, placement, scale):
    size, tile, overlap = tiling
    array = np.random.default_rng(0).standard_normal((2, *size)).astype(np.float32)
    result = sliding(
        repeat(scale),
        array,
        tile=tile,
        overlap=overlap,
        batch=batch,
        blend=blend,
        placement=placement,
        scale=scale,
    )
    wanted = repeat(scale)(array[None], np.empty(0))[0]
    assert np.abs(result - wanted).max() < 1e-5


@pytest.mark.parametrize(
    ("size", "tile", "overlap"),
    [((97, 130), 64, 32), ((61, 70, 83), 32, 16), ((1000,), 256, 128), ((1, 1), 64, 16)],
)
def test_identity_on_usual_sizes(size, tile, overlap):
    array = np.random.default_rng(1).standard_normal((1, *size)).astype(np.float32)
    result = sliding(repeat(1), array, tile=tile, overlap=overlap, batch=3)
    assert np.abs(result - array).max() < 1e-5


def position_dependent(batch: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """A predictor whose answer depends on where in the tile a pixel lies, as networks' do."""
    ramp = np.linspace(0, 1, batch.shape[-1], dtype=np.float32)
    return np.sin(batch * 3) + ramp + starts.sum(axis=1).reshape(-1, 1, 1, 1) % 7


def collect(array, tiles, *, batch=1, from_row=0, predict=position_dependent):
    """Run `stream` over an array with reflection; returns {first row: block}."""
    blocks = {}

    def read(start):
        rows, columns = (
            reflect_indices(first, first + axis.tile, axis.size)
            for first, axis in zip(start, tiles.axes, strict=True)
        )
        return array[:, rows[:, None], columns]

    stream(
        read,
        predict,
        lambda row, block: blocks.setdefault(row, block),
        tiles,
        channels=len(array),
        batch=batch,
        from_row=from_row,
    )
    return blocks


def joined(blocks) -> np.ndarray:
    """Blocks that follow one another without gap or overlap, as one array."""
    row = min(blocks)
    for first in sorted(blocks):
        assert first == row
        row += blocks[first].shape[1]
    return np.concatenate([blocks[first] for first in sorted(blocks)], axis=1)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(2).random((2, 75, 53), dtype=np.float32)


def test_result_does_not_depend_on_the_batch(image):
    tiles = plan(image.shape[1:], 16, 5)
    alone = joined(collect(image, tiles))
    assert np.array_equal(alone, joined(collect(image, tiles, batch=7)))


@pytest.mark.parametrize("from_row", [1, 16, 40, 74])
def test_resumed_rows_equal_those_of_a_whole_run(image, from_row):
    tiles = plan(image.shape[1:], 16, 5)
    whole = joined(collect(image, tiles))
    assert np.array_equal(whole[:, from_row:], joined(collect(image, tiles, from_row=from_row)))


def test_a_region_gets_what_the_whole_array_gets(image):
    whole = joined(collect(image, plan(image.shape[1:], 16, 5)))
    part = plan(image.shape[1:], 16, 5, region=((20, 61), (7, 50)))
    assert np.array_equal(whole[:, 20:61, 7:50], joined(collect(image, part)))


def test_running_out_of_memory_halves_the_batch(image):
    tiles = plan(image.shape[1:], 16, 5)
    sizes = []

    class OutOfMemoryError(RuntimeError):
        pass

    def greedy(batch, starts):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise OutOfMemoryError
        return position_dependent(batch, starts)

    result = joined(collect(image, tiles, batch=5, predict=greedy))
    assert np.array_equal(result, joined(collect(image, tiles)))
    assert max(sizes) == 5
    assert set(sizes[2:]) <= {1, 2}


def test_running_out_of_memory_with_one_tile_is_an_error(image):
    def hopeless(batch, starts):
        raise MemoryError

    with pytest.raises(MemoryError):
        collect(image, plan(image.shape[1:], 16, 5), batch=4, predict=hopeless)


def test_a_tile_that_is_not_read_costs_nothing_and_leaves_zeros():
    tiles = plan((8, 24), 8, 0)
    predicted, blocks = [], {}

    def predict(batch, starts):
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


def test_blocks_are_never_larger_than_the_band():
    tiles = plan((400, 30), 16, 4)
    image = np.zeros((1, 400, 30), np.float32)
    largest = max(block.nbytes for block in collect(image, tiles).values())
    assert largest <= band_bytes(tiles, channels=1) == 4 * 16 * 30


def test_progress_counts_every_tile(image):
    tiles, seen = plan((40, 40), 16, 4), []
    stream(
        lambda start: np.zeros((1, 16, 16), np.float32),
        lambda batch, starts: batch,
        lambda row, block: None,
        tiles,
        channels=1,
        batch=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (len(tiles), len(tiles))


def test_a_predictor_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"returned \(1, 4, 4\).*expected \(1, 8, 8\)"):
        sliding(lambda b, s: b, np.zeros((1, 9, 9), np.float32), tile=4, overlap=1, scale=2)


@given(size=st.integers(2, 30), before=st.integers(0, 25), after=st.integers(0, 25))
def test_reflection_equals_numpy_pad(size, before, after):
    wanted = np.pad(np.arange(size), (before, after), mode="reflect")
    assert np.array_equal(reflect_indices(-before, size + after, size), wanted)


def test_reflection_of_a_single_element_repeats_it():
    assert reflect_indices(-3, 4, 1).tolist() == [0] * 7


@given(tiling=tilings(), blend=st.sampled_from(BLENDS))
def test_weights_sum_to_one_everywhere(tiling, blend):
    size, tile, overlap = tiling
    axis = plan(size, tile, overlap).axes[0]
    total = np.zeros(axis.starts[-1] + axis.tile)
    for start, weights in unity_weights(axis, blend).items():
        total[start : start + axis.tile] += weights
    assert np.allclose(total[: axis.size], 1, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 5), 4, 1), "size must be at least 1, got 0"),
        (((9, 9), 4, 4), "got 4"),
        (((9, 9), 4, -1), "got -1"),
        (((9, 9), (4, 4, 4), 1), "tile has 3 axes"),
    ],
)
def test_senseless_plans_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan(*arguments)


def test_senseless_names_are_refused():
    with pytest.raises(ValueError, match="placement"):
        plan((9,), 4, 1, placement="random")
    with pytest.raises(ValueError, match="blend"):
        sliding(repeat(1), np.zeros((1, 9), np.float32), tile=4, overlap=1, blend="linear")
    with pytest.raises(ValueError, match="region"):
        plan((9,), 4, 1, region=((3, 12),))
