# SPDX-License-Identifier: Apache-2.0
"""Backgrounds of any value, and normalisation that a spike does not change."""

import numpy as np
import pytest
from sample_volumes import head

from fieldfare.common.errors import InputError
from fieldfare.medical.data.intensities import normalise, without_background


def image() -> np.ndarray:
    return head(shape=(20, 20, 20)).astype(np.float32)


def test_a_background_of_0_is_left_as_it_is():
    values = image()
    same, notes = without_background(values)
    assert same is values
    assert notes == []


@pytest.mark.parametrize("background", [-1024.0, 0.0499878, -1.73, 5000.0, np.nan])
def test_any_other_background_becomes_0_and_no_tissue_does(background):
    values = image()
    inside = values != 0
    values[10, 10, 10] = 0  # tissue may be 0 then
    values[~inside] = background
    made, notes = without_background(values)
    assert not made[~inside].any()
    expected = inside if not np.isnan(background) else inside & (values != 0)
    assert np.array_equal(made != 0, expected)
    assert len(notes) == 1
    plain = image()
    difference = normalise(made[None])[0] - normalise(plain[None])[0]
    difference[10, 10, 10] = 0
    assert np.abs(difference[inside]).max() < 0.01


def test_noise_and_full_images_have_no_background():
    values = np.random.default_rng(0).normal(100, 20, (20, 20, 20)).astype(np.float32)
    same, notes = without_background(values)
    assert same is values
    assert notes == []


def test_nan_inside_the_image_is_damage():
    values = image()
    values[10, 10, 10] = np.nan
    with pytest.raises(InputError, match=r"a\.nii: 1 voxels inside it are NaN"):
        without_background(values, "a.nii")


@pytest.mark.parametrize("spike", [3e5, 3e38, -3e5])
def test_one_hot_voxel_changes_nothing_but_itself(spike):
    clean, hot = image(), image()
    hot[10, 10, 10] = spike
    before, after = normalise(np.stack([clean, hot]))
    differences = np.abs(before - after)
    differences[10, 10, 10] = 0
    assert differences.max() < 0.01
    assert np.abs(after).max() < 3


def test_a_constant_or_missing_image_stays_0():
    flat = np.zeros((2, 5, 5, 5), np.float32)
    flat[0, 2, 2, 2] = 7
    assert not normalise(flat).any()
