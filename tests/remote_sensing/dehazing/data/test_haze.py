# SPDX-License-Identifier: Apache-2.0
"""Synthetic haze: the scattering model, its colours, and noise that stays that of a sensor."""

import dataclasses

import numpy as np
import pytest

from fieldfare.remote_sensing.dehazing.data.haze import (
    WAVELENGTHS,
    Haze,
    HazeRange,
    hazy,
    noise_level,
    smooth_field,
)

ALWAYS = HazeRange(clear_share=0.0)
QUIET = np.zeros(3)


def uniform(thickness, exponent=0.0, light=0.8, side=32):
    field = np.full((side, side), thickness, np.float32)
    return Haze(field, exponent, np.full(3, light, np.float32))


def test_the_scattering_model_holds_at_every_pixel():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 56, 3)).astype(np.uint8)
    haze = dataclasses.replace(ALWAYS, cloud_share=0.0).draw((40, 56), 3, rng)
    through = haze.transmission(WAVELENGTHS).transpose(1, 2, 0)
    wanted = image * through + 255 * haze.light * (1 - through)
    assert np.abs(hazy(image, haze, rng, QUIET) - wanted).max() <= 0.5 + 1e-3


def test_no_thickness_changes_nothing_and_all_thickness_leaves_the_light():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    rng = np.random.default_rng(1)
    assert np.array_equal(hazy(image, uniform(0.0), rng, np.ones(3)), image)
    assert np.array_equal(hazy(image, None, rng, np.ones(3)), image)
    assert (hazy(image, uniform(50.0), rng, QUIET) == 204).all()


def test_air_dims_blue_by_the_fourth_power_and_cloud_alike():
    red, green, blue = -np.log(uniform(0.5, exponent=4).transmission(WAVELENGTHS)[:, 0, 0])
    assert green == pytest.approx(0.5, rel=1e-5)
    assert blue / red == pytest.approx((650 / 460) ** 4, rel=1e-4)
    grey = uniform(0.5).transmission(WAVELENGTHS)
    assert np.ptp(grey) == 0


def test_noise_behind_haze_is_that_of_the_sensor():
    rng = np.random.default_rng(0)
    image = (120 + 4 * rng.standard_normal((256, 256, 3))).round().astype(np.uint8)
    noise = noise_level(image)
    assert noise == pytest.approx(4, rel=0.15)
    seen = hazy(image, uniform(1.0, side=256), rng, noise).astype(float)
    assert seen.std(axis=(0, 1)) == pytest.approx(image.std(axis=(0, 1)), rel=0.15)
    dimmed = hazy(image, uniform(1.0, side=256), rng, QUIET).astype(float)
    assert dimmed.std() < 0.5 * image.std()


def test_texture_is_not_taken_for_noise():
    rng = np.random.default_rng(0)
    image = np.full((128, 128, 3), 100, np.uint8)
    image[:, 32:] = rng.integers(0, 256, (128, 96, 3))
    assert noise_level(image).max() < 1


def test_fields_are_smooth_uneven_and_fill_the_range():
    for seed in range(5):
        field = smooth_field((90, 121), np.random.default_rng(seed))
        assert field.shape == (90, 121)
        assert (field.min(), field.max()) == (0, 1)
        assert field.std() > 0.1
        assert np.abs(np.diff(field, axis=0)).max() < 0.15


def test_drawn_hazes_are_not_uniform_and_clouds_leave_clear_ground():
    rng = np.random.default_rng(0)
    clouds = dataclasses.replace(ALWAYS, cloud_share=1.0)
    drawn = [clouds.draw((64, 64), 3, rng) for _ in range(30)]
    assert all(cloud.exponent <= 0.3 for cloud in drawn)
    assert np.mean([cloud.thickness.min() == 0 for cloud in drawn]) > 0.7
    veils = [dataclasses.replace(ALWAYS, cloud_share=0.0).draw((64, 64), 3, rng) for _ in range(30)]
    assert all(veil.thickness.min() >= 0 for veil in veils)
    assert np.mean([np.ptp(veil.thickness) > 0.05 for veil in veils]) > 0.7
    assert max(veil.exponent for veil in veils) > 2


def test_a_share_of_draws_is_clear_and_a_seed_repeats_them():
    some = HazeRange(clear_share=0.5)
    drawn = [some.draw((16, 16), 3, np.random.default_rng(k)) for k in range(100)]
    assert 35 < sum(haze is None for haze in drawn) < 65
    again = [some.draw((16, 16), 3, np.random.default_rng(k)) for k in range(100)]
    for first, second in zip(drawn, again, strict=True):
        assert (first is None) == (second is None)
        if first is not None:
            assert np.array_equal(first.thickness, second.thickness)
