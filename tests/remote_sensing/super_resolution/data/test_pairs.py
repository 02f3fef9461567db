# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldfare.common.errors import InputError
from fieldfare.common.training import Draw
from fieldfare.remote_sensing.super_resolution.data.pairs import PairDataset
from fieldfare.remote_sensing.super_resolution.data.reduction import reduce_bicubic

SCALE, PATCH, TIMES = 4, 6, 100


def smooth_tile(height=50, width=67, seed=0):
    """Smooth and unlike in each direction, so that a shifted or turned crop shows."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / a + y / b + c) for a, b, c in rng.uniform(3, 9, (3, 3))]
    return ((np.stack(waves, axis=-1) + 1) * 127).astype(np.uint8)


def dataset(tiles=None, final_share=0.3, own_share=0.4):
    return PairDataset(
        tiles or [smooth_tile(), smooth_tile(24, 40, 1)],
        scale=SCALE,
        patch=PATCH,
        times=TIMES,
        final_share=final_share,
        own_share=own_share,
    )


def draws(count):
    return [Draw(number % 2, (5, number)) for number in range(count)]


def test_the_same_draw_is_the_same_sample():
    for draw in draws(4):
        first, second = dataset()[draw], dataset()[draw]
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_different_draws_differ():
    pairs, (a, b) = dataset(), draws(3)[::2]
    assert not torch.equal(pairs[a]["high"], pairs[b]["high"])
    assert not torch.equal(pairs[a]["noise"], pairs[b]["noise"])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1), st.integers(0, 2**32))
def test_crops_are_aligned(index, number):
    sample = dataset()[Draw(index, (0, number))]
    assert sample["high"].shape == sample["noise"].shape == (3, PATCH * SCALE, PATCH * SCALE)
    assert sample["low"].shape == (3, PATCH, PATCH)
    assert 0 <= sample["high"].min() <= sample["high"].max() <= 1
    high = np.rint(sample["high"].numpy() * 255).astype(np.uint8).transpose(1, 2, 0)
    again = reduce_bicubic(high, SCALE).transpose(2, 0, 1)[:, 2:-2, 2:-2]
    low = np.rint(sample["low"].numpy() * 255)[:, 2:-2, 2:-2]
    # the filter reaches two pixels out, so that the inside knows nothing of the crop
    assert np.abs(again - low).max() <= 1


def test_all_eight_symmetries_are_drawn():
    tile = np.arange(24 * 24, dtype=np.uint16).reshape(24, 24, 1) // 3
    pairs = dataset([tile.astype(np.uint8)])
    seen = {pairs[Draw(0, (1, number))]["high"].numpy().tobytes() for number in range(80)}
    assert len(seen) == 8


def test_shares_of_final_and_own_draws():
    samples = [dataset([smooth_tile(24, 24)])[Draw(0, (2, number))] for number in range(600)]
    final = np.mean([int(sample["t"]) == TIMES for sample in samples])
    own = np.mean([bool(sample["own"]) for sample in samples])
    assert final == pytest.approx(0.3 + 0.7 / TIMES, abs=0.07)
    assert own == pytest.approx(0.4, abs=0.07)
    others = [int(sample["t"]) for sample in samples if int(sample["t"]) < TIMES]
    assert min(others) >= 1
    assert np.mean(others) == pytest.approx(50, abs=6)


@pytest.mark.parametrize(("share", "expected"), [(0.0, {False}), (1.0, {True})])
def test_shares_of_none_and_all(share, expected):
    pairs = dataset(final_share=share, own_share=share)
    samples = [pairs[draw] for draw in draws(20)]
    assert {bool(sample["own"]) for sample in samples} == expected
    if share:
        assert all(int(sample["t"]) == TIMES for sample in samples)


def test_a_tile_smaller_than_the_crop_is_refused():
    with pytest.raises(InputError, match="20 x 64 is smaller"):
        dataset([smooth_tile(23, 64)])


def test_reduction_equals_matlab_inside_and_with_mirrored_borders(reference):
    """In float32; at a border Pillow cuts the filter off, MATLAB mirrors the image."""
    expected = reference("resize")
    high = expected["hr"].numpy().transpose(1, 2, 0)
    wanted = expected["lr_matlab_bicubic_x4"].numpy().transpose(1, 2, 0)
    inside = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(reduce_bicubic(high, 4)[inside], wanted[inside], atol=1e-6)
    mirrored = np.pad(high, ((8, 8), (8, 8), (0, 0)), mode="symmetric")
    np.testing.assert_allclose(reduce_bicubic(mirrored, 4)[inside], wanted, atol=1e-6)


def test_reduction_of_uint8_is_within_one_grey_level_of_matlab_inside(reference):
    expected = reference("resize")
    high = np.rint(expected["hr"].numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
    wanted = expected["lr_matlab_bicubic_x4"].numpy().transpose(1, 2, 0) * 255
    assert np.abs(reduce_bicubic(high, 4) - wanted)[2:-2, 2:-2].max() < 1


def test_a_size_that_is_no_multiple_is_refused():
    with pytest.raises(ValueError, match="10 x 12 is not a multiple of 4"):
        reduce_bicubic(np.zeros((10, 12, 3), np.uint8), 4)
