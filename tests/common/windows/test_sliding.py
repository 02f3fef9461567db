# SPDX-License-Identifier: Apache-2.0
"""An identity predictor returns its input, whatever the tiling, in one to three dimensions."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldfare.common.windows import BLENDS, plan, sliding

Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]
Shape = tuple[int, ...]


@st.composite
def tilings(draw: st.DrawFn) -> tuple[Shape, Shape, Shape]:
    """Shapes of an array, its tiles and their overlap, in one to three dimensions."""
    dimensions = draw(st.integers(1, 3))
    longest = (200, 60, 20)[dimensions - 1]
    sides = st.integers(1, longest)
    size = tuple(draw(sides) for _ in range(dimensions))
    tile = tuple(draw(st.integers(1, (64, 32, 12)[dimensions - 1])) for _ in range(dimensions))
    return size, tile, tuple(draw(st.integers(0, side - 1)) for side in tile)


def repeat(*scales: int) -> Predict:
    """A predictor that enlarges each axis by repetition: the identity for scales of 1."""

    def predict(batch: np.ndarray, starts: np.ndarray) -> np.ndarray:
        for axis, scale in enumerate(scales, 2):
            batch = np.repeat(batch, scale, axis=axis)
        return batch

    return predict


@settings(max_examples=150)
@given(
    tiling=tilings(),
    batch=st.integers(1, 7),
    blend=st.sampled_from(BLENDS),
    placement=st.sampled_from(["grid", "even"]),
    scales=st.lists(st.integers(1, 3), min_size=3, max_size=3),
)
def test_identity_in_identity_out(
    tiling: tuple[Shape, Shape, Shape], batch: int, blend: str, placement: str, scales: list[int]
) -> None:
    size, tile, overlap = tiling
    scales = scales[: len(size)]
    array = np.random.default_rng(0).standard_normal((2, *size)).astype(np.float32)
    result = sliding(
        repeat(*scales),
        array,
        tile=tile,
        overlap=overlap,
        batch=batch,
        blend=blend,
        placement=placement,
        scale=scales,
    )
    wanted = repeat(*scales)(array[None], np.empty(0))[0]
    assert result.dtype == np.float32
    assert np.abs(result - wanted).max() < 1e-5


@pytest.mark.parametrize(
    ("size", "tile", "overlap"),
    [((97, 130), 64, 32), ((61, 70, 83), 32, 16), ((1000,), 256, 128), ((1, 1), 64, 16)],
)
def test_identity_on_usual_sizes(size: Shape, tile: int, overlap: int) -> None:
    array = np.random.default_rng(1).standard_normal((1, *size)).astype(np.float32)
    result = sliding(repeat(), array, tile=tile, overlap=overlap, batch=3)
    assert np.abs(result - array).max() < 1e-5


def test_progress_counts_every_tile() -> None:
    tiles = plan((40, 40), 16, 4)
    seen: list[tuple[int, int]] = []
    sliding(
        repeat(),
        np.zeros((1, 40, 40), np.float32),
        tile=16,
        overlap=4,
        batch=2,
        placement="grid",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (len(tiles), len(tiles))


def test_a_result_of_the_wrong_size_is_named() -> None:
    with pytest.raises(ValueError, match=r"returned \(1, 1, 4, 4\).*expected \(1, 1, 8, 8\)"):
        sliding(repeat(), np.zeros((1, 9, 9), np.float32), tile=4, overlap=1, scale=2)


def test_an_empty_array_is_refused() -> None:
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        sliding(repeat(), np.zeros((1, 0, 9), np.float32), tile=4, overlap=1)


def test_a_result_without_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        sliding(repeat(), np.zeros((1, 9, 9)), tile=4, overlap=1, channels=0)
