# SPDX-License-Identifier: Apache-2.0
"""The reduction in floating point is Pillow's, and its transpose is its transpose."""

import numpy as np
import pytest
from PIL import Image

from fieldfare.remote_sensing.super_resolution.data.reduction import (
    gather,
    reduce_bicubic,
    reduce_valid,
    spread,
)


def pillow(image, scale):
    height, width = (side // scale for side in image.shape[-2:])
    size = (width, height)
    planes = [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC)) for plane in image
    ]
    return np.stack(planes)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(9, 14), (1, 5), (2, 1)])
def test_equals_pillow_up_to_the_border(scale, height, width):
    image = np.random.default_rng(0).random((2, scale * height, scale * width), np.float32)
    found = reduce_valid(image, np.ones((2, height, width), bool), scale)
    assert np.abs(found - pillow(image, scale)).max() < 1e-6


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_spread_is_the_transpose_of_gather(scale):
    rng = np.random.default_rng(1)
    high, low = rng.random((5 * scale, 7 * scale)), rng.random((5, 7))
    high, low = high.astype(np.float32), low.astype(np.float32)
    assert (gather(high, scale) * low).sum() == pytest.approx((high * spread(low, scale)).sum())


def test_missing_samples_weigh_nothing():
    rng = np.random.default_rng(2)
    valid = rng.random((1, 6, 6)) < 0.6
    image = np.where(valid.repeat(4, 1).repeat(4, 2), np.float32(7), np.float32(np.nan))
    assert np.allclose(reduce_valid(image, valid, 4)[valid], 7, atol=1e-5)


def test_sizes_that_are_no_multiple_are_refused():
    with pytest.raises(ValueError, match="not a multiple"):
        reduce_bicubic(np.zeros((9, 8, 3), np.uint8), 4)
