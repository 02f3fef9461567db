# SPDX-License-Identifier: Apache-2.0
"""Every element is covered; the grid is the same for the whole array and a part of it."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldfare.common.windows import plan, reflect_indices


@st.composite
def sides(draw: st.DrawFn) -> tuple[int, int, int]:
    """Length of an axis, its tile and the overlap."""
    tile = draw(st.integers(1, 70))
    return draw(st.integers(1, 400)), tile, draw(st.integers(0, tile - 1))


@given(side=sides(), placement=st.sampled_from(["grid", "even"]))
def test_tiles_cover_an_axis_with_at_least_the_overlap(
    side: tuple[int, int, int], placement: str
) -> None:
    size, tile, overlap = side
    starts = plan((size,), tile, overlap, placement=placement).axes[0].starts
    assert starts[0] == 0
    assert starts[-1] + tile >= size
    assert all(1 <= gap <= tile - overlap for gap in np.diff(starts))


@given(side=sides())
def test_even_tiles_stay_inside_where_the_array_is_large_enough(side: tuple[int, int, int]) -> None:
    size, tile, overlap = side
    starts = plan((size,), tile, overlap, placement="even").axes[0].starts
    assert starts[-1] == max(0, size - tile)


@given(side=sides())
def test_grid_tiles_lie_at_multiples_of_the_step(side: tuple[int, int, int]) -> None:
    size, tile, overlap = side
    starts = plan((size,), tile, overlap).axes[0].starts
    assert not any(start % (tile - overlap) for start in starts)
    assert all(start + overlap < size for start in starts[1:]), "no tile without pixels of its own"


@given(side=sides(), data=st.data())
def test_a_region_has_just_the_tiles_that_touch_it(
    side: tuple[int, int, int], data: st.DataObject
) -> None:
    size, tile, overlap = side
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first + 1, size))
    whole = plan((size,), tile, overlap)
    part = plan((size,), tile, overlap, region=((first, last),))
    wanted = set(range(first, last))
    touching = {s for s in whole.axes[0].starts if wanted & set(range(s, s + tile))}
    assert set(part.axes[0].chosen) == touching
    assert wanted <= {index for s in touching for index in range(s, s + tile)}


def test_nnunet_steps_of_a_brain_volume() -> None:
    """240 x 240 x 155 in patches of 128, half overlapping: 3 x 3 x 2, evenly spaced."""
    tiles = plan((240, 240, 155), 128, 64, placement="even")
    assert [axis.starts for axis in tiles.axes] == [(0, 56, 112), (0, 56, 112), (0, 27)]
    assert len(tiles) == 18


def test_even_steps_are_rounded_to_the_nearest() -> None:
    """Steps of 8 / 3: 0, 2.67, 5.33, 8."""
    assert plan((12,), 4, 1, placement="even").axes[0].starts == (0, 3, 5, 8)


def test_numbers_of_numpy_are_numbers() -> None:
    assert plan((9,), np.int64(4), np.int32(1)) == plan((9,), 4, 1)


@pytest.mark.parametrize(
    ("size", "tile", "overlap", "message"),
    [
        ((0, 5), 4, 1, "size must be at least 1, got 0"),
        ((5, -3), 4, 1, "size must be at least 1, got -3"),
        ((), 4, 1, "no axes"),
        ((9, 9), 0, 0, "tile must be at least 1, got 0"),
        ((9, 9), (4, -2), 1, "tile must be at least 1, got -2"),
        ((9, 9), 4, 4, "overlap must be from 0 to tile - 1 = 3, got 4"),
        ((9, 9), 4, -1, "got -1"),
        ((9, 9), (4, 4, 4), 1, "tile has 3 axes"),
        ((9, 9), 4, (1,), "overlap has 1 axes"),
    ],
)
def test_senseless_plans_are_refused(
    size: tuple[int, ...], tile: int | tuple[int, ...], overlap: int | tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan(size, tile, overlap)


def test_senseless_placements_and_regions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"placement must be one of .*'random'"):
        plan((9,), 4, 1, placement="random")
    with pytest.raises(ValueError, match=r"region \(3, 12\) lies outside 0 to 9"):
        plan((9,), 4, 1, region=((3, 12),))
    with pytest.raises(ValueError, match="region has 1 axes, the array 2"):
        plan((9, 9), 4, 1, region=((3, 8),))


@given(size=st.integers(2, 30), before=st.integers(0, 90), after=st.integers(0, 90))
def test_reflection_equals_numpy_pad(size: int, before: int, after: int) -> None:
    wanted = np.pad(np.arange(size), (before, after), mode="reflect")
    assert np.array_equal(reflect_indices(-before, size + after, size), wanted)


def test_reflection_of_a_single_element_repeats_it() -> None:
    with np.errstate(all="raise"):
        assert reflect_indices(-3, 4, 1).tolist() == [0] * 7


def test_reflection_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        reflect_indices(0, 4, 0)


def test_windows_do_not_need_torch() -> None:
    code = "import sys, fieldfare.common.windows; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
