# SPDX-License-Identifier: Apache-2.0
"""The dark channel prior, step by step."""

import numpy as np
import pytest

from fieldfare.remote_sensing.dehazing.inference.dark_channel import (
    KEPT,
    LEAST_TRANSMISSION,
    PATCH,
    RADIUS,
    dark_channel,
    guided_filter,
    haze_light,
    remove_haze,
    transmission,
)


def scene(side=160, seed=0):
    """Clear ground with something dark near every pixel."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(0.2, 0.8, (3, side, side)).astype(np.float32)
    image[:, ::5, ::5] = 0
    return image


def everywhere(image):
    return [(image, np.ones(image.shape[1:], bool))]


def test_the_dark_channel_is_the_smallest_value_of_any_band_nearby():
    image = np.ones((2, 40, 40), np.float32)
    image[1, 20, 20] = 0.25
    dark = dark_channel(image)
    half = PATCH // 2
    assert (dark[20 - half : 21 + half, 20 - half : 21 + half] == 0.25).all()
    assert dark.sum() == pytest.approx(40 * 40 - 0.75 * PATCH**2)


def test_the_light_is_that_of_the_thickest_haze_not_of_white_roofs():
    image = scene()
    image[:, 40:60, 40:60] = np.array([0.7, 0.75, 0.8])[:, None, None]
    image[:, 100:105, 100:105] = 1  # smaller than the window: its dark channel is dark
    assert haze_light(everywhere(image)) == pytest.approx([0.7, 0.75, 0.8])
    assert haze_light([(image, np.zeros(image.shape[1:], bool))]) is None


def test_parts_of_a_scene_give_one_light():
    image = scene()
    image[:, 10:40, 10:40] = 0.9
    parts = [(image[:, :80], np.ones((80, 160), bool)), (image[:, 80:], np.ones((80, 160), bool))]
    assert haze_light(parts) == pytest.approx([0.9] * 3)


def test_the_guided_filter_keeps_a_constant_and_the_edges_of_the_guide():
    guide = np.zeros((3 * RADIUS, 3 * RADIUS), np.float32)
    guide[:, 90:] = 1
    assert guided_filter(guide, np.full(guide.shape, 0.3)) == pytest.approx(0.3)
    noisy = guide + 0.2 * np.random.default_rng(0).standard_normal(guide.shape)
    smoothed = guided_filter(guide, noisy)
    assert np.abs(smoothed - guide).max() < 0.1
    assert smoothed[:, 90:].mean() - smoothed[:, :90].mean() > 0.9


def test_even_haze_is_found_and_taken_off():
    clear, light = scene(), np.array([0.85, 0.9, 0.95], np.float32)
    through = 0.5
    seen = clear * through + light[:, None, None] * (1 - through)
    found = transmission(seen, light)
    assert found.mean() == pytest.approx(1 - KEPT * (1 - through), abs=0.01)
    restored = remove_haze(seen, light)
    assert np.abs(restored - clear).mean() < 0.25 * np.abs(seen - clear).mean()


def test_under_pure_haze_the_result_is_finite():
    light = np.ones(3, np.float32)
    image = np.ones((3, 40, 40), np.float32)
    assert transmission(image, light).min() == pytest.approx(LEAST_TRANSMISSION)
    assert remove_haze(image, light) == pytest.approx(1)
