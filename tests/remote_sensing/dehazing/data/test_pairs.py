# SPDX-License-Identifier: Apache-2.0
"""Crops for training: clear and hazy ones of the same place, the same for the same draw."""

import numpy as np
import pytest
import torch

from fieldfare.common.errors import InputError
from fieldfare.common.training import Draw
from fieldfare.remote_sensing.dehazing.data.haze import HazeRange
from fieldfare.remote_sensing.dehazing.data.pairs import BandOrder, HazeDataset

PLAIN = BandOrder(reversed_share=0, single_share=0)


def dataset(haze=None, order=PLAIN):
    tile = np.random.default_rng(0).integers(0, 256, (40, 48, 3)).astype(np.uint8)
    return HazeDataset([tile], patch=16, haze=haze or HazeRange(), order=order)


def test_without_haze_both_crops_are_one():
    pairs = dataset(HazeRange(clear_share=1))
    crops = [pairs[Draw(0, (0, number))] for number in range(8)]
    for crop in crops:
        assert crop["clear"].shape == (3, 16, 16)
        assert torch.equal(crop["clear"], crop["hazy"])
    assert not torch.equal(crops[0]["clear"], crops[1]["clear"])


def test_haze_dims_contrast_and_a_draw_repeats_it():
    pairs = dataset(HazeRange(clear_share=0, cloud_share=0, thickness=(0.5, 1)))
    first, again = pairs[Draw(0, (3, 4))], pairs[Draw(0, (3, 4))]
    assert first["hazy"].std() < 0.8 * first["clear"].std()
    assert torch.equal(first["hazy"], again["hazy"])


def test_bands_are_shown_in_the_order_drawn():
    haze = HazeRange(clear_share=1)
    plain = dataset(haze)[Draw(0, (0, 0))]["clear"]
    reversed_ = dataset(haze, BandOrder(reversed_share=1, single_share=0))[Draw(0, (0, 0))]["clear"]
    single = dataset(haze, BandOrder(reversed_share=0, single_share=1))[Draw(0, (0, 0))]["clear"]
    assert torch.equal(reversed_, plain.flip(0))
    assert torch.equal(single[0], single[1])
    assert any(torch.equal(single[0], band) for band in plain)


def test_a_tile_smaller_than_the_crop_is_refused():
    with pytest.raises(InputError, match="12 x 20 is smaller"):
        HazeDataset(
            [np.zeros((12, 20, 3), np.uint8)], patch=16, haze=HazeRange(), order=BandOrder()
        )
