# SPDX-License-Identifier: Apache-2.0
"""The baseline: maxima of greenness."""

import numpy as np
from sample_objects import draw

from fieldfare.remote_sensing.detection.evaluation.greenness import (
    Maxima,
    green_maxima,
    greenness,
)

PLACES = np.array([(30.0, 30.0), (90.0, 44.0), (64.0, 100.0)])


def test_each_green_disc_is_found_once_in_its_middle():
    image = draw(PLACES, 128, 128) / 255.0
    found = green_maxima(image, 0.3, Maxima(blur=1.5, apart=3.0, least=0.1))
    near = np.abs(found[:, None] - PLACES[None]).max(-1)
    assert found.shape == (3, 2)
    assert (near.min(0) <= 1.5).all()


def test_brightness_counts_against_greenness_where_it_is_asked_for():
    image = draw(PLACES, 128, 128) / 255.0
    grass = image.copy()
    grass[:, 90:120, 10:40] = np.array([0.45, 0.95, 0.4])[:, None, None]
    plain = green_maxima(grass, 0.3, Maxima(1.5, 3.0, 0.3, dark=0.0))
    dark = green_maxima(grass, 0.3, Maxima(1.5, 3.0, 0.3, dark=0.8))
    on_grass = [((p[:, 0] < 40) & (p[:, 1] > 90)).any() for p in (plain, dark)]
    assert on_grass == [True, False]


def test_greenness_by_hand():
    image = np.array([0.2, 0.6, 0.2])[:, None, None]
    np.testing.assert_allclose(greenness(image), 0.8, rtol=1e-6)
    np.testing.assert_allclose(greenness(image / 7), 0.8, rtol=1e-6)


def test_grey_is_not_green():
    assert len(green_maxima(np.full((3, 32, 32), 0.5), 0.6)) == 0
