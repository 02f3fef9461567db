# SPDX-License-Identifier: Apache-2.0
"""Degradations do what they are named after, and the same draw always the same."""

from dataclasses import replace

import numpy as np
import pytest

from fieldfare.common.training import Draw
from fieldfare.remote_sensing.super_resolution.data.degradations import (
    KERNELS,
    Degradation,
    DegradationRange,
    degrade,
)
from fieldfare.remote_sensing.super_resolution.data.pairs import LONGEST_STRIDE, PairDataset
from fieldfare.remote_sensing.super_resolution.data.reduction import reduce_bicubic


def tile(side=128, channels=3):
    """Texture of every scale."""
    rng, image = np.random.default_rng(0), np.zeros((side, side, channels))
    for size in (2, 4, 8, 16, 32):
        coarse = rng.normal(0, 12, (side // size, side // size, channels))
        image += coarse.repeat(size, 0).repeat(size, 1)
    return np.rint(image + 128).clip(0, 255).astype(np.uint8)


def made(**how):
    return degrade(tile(), 4, Degradation(**how), np.random.default_rng(1)).astype(float)


def detail(image):
    """Mean square of the diagonal Laplacian."""
    return np.square(np.diff(np.diff(image, axis=0), axis=1)).mean()


def test_nothing_is_the_clean_reduction_up_to_rounding():
    assert np.abs(made() - reduce_bicubic(tile(), 4)).max() <= 1


def test_blur_softens_and_sharpening_crispens():
    assert detail(made(blur_sigma=0.8)) < 0.5 * detail(made())
    assert detail(made(sharpen_amount=1.0)) > 1.5 * detail(made())


def test_noise_has_the_strength_it_is_given():
    plain, noisy = made(), made(noise_sigma=5)
    assert (noisy - plain).std() == pytest.approx(5, rel=0.1)
    grey = made(noise_sigma=5, grey_noise=True) - plain
    assert np.ptp(grey, axis=2).max() <= 1


def test_compression_moves_little_at_high_and_more_at_low_quality():
    plain = made()
    fine, coarse = (np.abs(made(jpeg_quality=q) - plain).mean() for q in (95, 20))
    assert 0 < fine < coarse
    image = degrade(tile(channels=4), 4, Degradation(jpeg_quality=60), np.random.default_rng(1))
    assert image.shape == (32, 32, 4)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_keeps_the_mean(kernel):
    assert made(kernel=kernel).mean() == pytest.approx(tile().mean(), abs=0.5)


@pytest.mark.parametrize(("how", "said"), [({"kernel": "sinc"}, "one of"), ({}, "multiple")])
def test_what_makes_no_sense_is_refused(how, said):
    with pytest.raises(ValueError, match=said):
        degrade(tile()[: 128 - 2 * (said == "multiple")], 4, Degradation(**how), None)


def test_draws_stay_within_the_range_and_a_share_is_clean():
    range_ = DegradationRange(0.6, blur_sigma=0.5, noise_sigma=2, sharpen_amount=1, jpeg_quality=70)
    found = [range_.draw(np.random.default_rng(k)) for k in range(400)]
    made_so = [how for how in found if how]
    assert len(made_so) / 400 == pytest.approx(0.6, abs=0.08)
    for name in ("blur_sigma", "noise_sigma", "sharpen_amount"):
        values = [getattr(how, name) for how in made_so]
        assert min(values) == 0
        assert 0.9 * getattr(range_, name) < max(values) <= getattr(range_, name)
    qualities = {how.jpeg_quality for how in made_so}
    assert min(qualities - {0}) >= 70
    assert replace(range_, share=0).draw(np.random.default_rng(0)) is None


def pairs(degradations):
    return PairDataset(
        [tile()],
        scale=4,
        patch=8,
        times=100,
        final_share=0.5,
        own_share=0.5,
        degradations=degradations,
    )


def test_degradations_change_the_input_alone_and_repeat():
    clean, degraded = pairs(None), pairs(DegradationRange(1.0))
    for number in range(5):
        draw = Draw(0, (3, number))
        first, second, plain = degraded[draw], degraded[draw], clean[draw]
        assert all(bool((first[key] == second[key]).all()) for key in first)
        assert bool((first["high"] == plain["high"]).all())
        assert 0 <= int(first["shift"].min()) <= int(first["shift"].max()) < LONGEST_STRIDE
