# SPDX-License-Identifier: Apache-2.0
"""Weights of overlapping tiles sum to one; tiles anywhere are averaged by them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldfare.common.windows import BLENDS, Axis, axis_weights, fuse, plan, unity_weights


@given(
    size=st.integers(1, 150),
    tile=st.integers(1, 40),
    overlap=st.integers(0, 39),
    scale=st.integers(1, 3),
    blend=st.sampled_from(BLENDS),
    placement=st.sampled_from(["grid", "even"]),
)
def test_weights_sum_to_one_everywhere(
    size: int, tile: int, overlap: int, scale: int, blend: str, placement: str
) -> None:
    axis = plan((size,), tile, min(overlap, tile - 1), placement=placement).axes[0]
    total = np.zeros((axis.starts[-1] + tile) * scale)
    for start, weights in unity_weights(axis, blend, scale).items():
        assert weights.dtype == np.float32
        total[start * scale : (start + tile) * scale] += weights
    assert np.allclose(total[: size * scale], 1, atol=1e-6)


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("tile", [1, 2, 7, 64])
def test_windows_are_even_and_between_floor_and_one(blend: str, tile: int) -> None:
    window = axis_weights(blend, tile)
    assert np.allclose(window, window[::-1])
    assert window.max() == 1
    assert window.min() >= 1e-3


def test_gaussian_has_a_sigma_of_an_eighth_of_the_tile() -> None:
    """Of 65 elements the middle one is 32; sigma = 65 / 8."""
    window = axis_weights("gaussian", 65)
    assert window[32 + 8] == pytest.approx(np.exp(-0.5 * (8 / (65 / 8)) ** 2))


def test_an_index_without_tile_is_named() -> None:
    with pytest.raises(ValueError, match="index 4 is covered by no tile"):
        unity_weights(Axis(size=9, tile=4, starts=(0, 5), region=(0, 9)), "hann")
    with pytest.raises(ValueError, match="index 8 is covered by no tile"):
        unity_weights(Axis(size=9, tile=4, starts=(0, 4), region=(0, 9)), "hann")


@given(
    size=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    shift=st.integers(0, 3),
    blend=st.sampled_from(BLENDS),
)
def test_fused_tiles_of_an_array_are_the_array(size: list[int], shift: int, blend: str) -> None:
    """Tiles of 5, 2 apart, on a grid that starts before the array."""
    array = np.random.default_rng(0).standard_normal((2, *size)).astype(np.float32)
    padded = np.pad(array, [(0, 0), *[(shift, 6)] * len(size)])
    grid = np.meshgrid(*(np.arange(-shift, side, 2) for side in size), indexing="ij")
    starts = np.stack(grid, axis=-1).reshape(-1, len(size))
    tiles = [padded[:, *(slice(f + shift, f + shift + 5) for f in start)] for start in starts]
    assert np.abs(fuse(np.stack(tiles), starts, size, blend) - array).max() < 1e-5


def test_a_tile_outside_the_array_is_ignored() -> None:
    tiles = np.ones((3, 1, 4), np.float32) * np.array([1, 9, 9], np.float32)[:, None, None]
    assert fuse(tiles, np.array([[0], [4], [-4]]), (4,)).tolist() == [[1, 1, 1, 1]]


def test_the_first_voxel_without_tile_is_named() -> None:
    tiles = np.ones((2, 1, 4, 4), np.float32)
    with pytest.raises(ValueError, match=r"voxel \(0, 4\) is covered by no tile"):
        fuse(tiles, np.array([[0, 0], [4, 4]]), (8, 8))


@pytest.mark.parametrize(
    ("starts", "size", "message"),
    [
        (np.zeros((2, 1), int), (8, 8), "do not fit an array of 2 axes"),
        (np.zeros((1, 2), int), (8, 8), "do not fit"),
        (np.zeros((2, 3), int), (8, 8, 8), "do not fit an array of 3 axes"),
        (np.zeros((2, 2), int), (0, 8), r"size must be at least 1, got \(0, 8\)"),
    ],
)
def test_tiles_that_do_not_fit_are_refused(
    starts: np.ndarray, size: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fuse(np.ones((2, 1, 4, 4), np.float32), starts, size)


def test_an_unknown_blend_is_refused() -> None:
    with pytest.raises(ValueError, match=r"blend must be one of .*'linear'"):
        axis_weights("linear", 4)
