# SPDX-License-Identifier: Apache-2.0
"""The dural sinuses of phantoms: on the brain, bright with contrast agent, dark without."""

import numpy as np
import pytest
from scipy import ndimage

from fieldfare.medical.data.naming import MODALITIES
from fieldfare.medical.phantoms.anatomy import Anatomy, load_atlas
from fieldfare.medical.phantoms.contrasts import draw_contrasts
from fieldfare.medical.phantoms.lesions import Tumour
from fieldfare.medical.phantoms.mimics import draw_mimics
from fieldfare.medical.phantoms.noise import Grid
from fieldfare.medical.phantoms.relaxation import draw_relaxation
from fieldfare.medical.phantoms.sinuses import REACH, draw_blood, near_sinus

GRID = Grid((0, 0, 0), (24, 24, 24), 2.0)


@pytest.fixture
def near():
    """A sinus along the first axis; the middle is 10 mm from the corner."""
    away = GRID.points()[1:] - np.float32(10)
    return np.clip(1 - np.sqrt((away**2).sum(axis=0)) / REACH, 0, 1).astype(np.float32)


def test_they_lie_on_the_surface_of_the_atlas_as_far_left_as_right():
    pytest.importorskip("nilearn", reason="NILEARN IS NOT INSTALLED: sinuses are NOT tested")
    maps = load_atlas().maps
    brain, sinus = maps[:3].sum(axis=0) > 0.5, maps[4] > 1 - 4 / REACH
    away = ndimage.distance_transform_edt(~brain) + ndimage.distance_transform_edt(brain)
    assert np.median(away[sinus]) < 5
    assert 0.2 < (brain & sinus).sum() / sinus.sum() < 0.8
    left, right = np.array_split(sinus.sum(axis=(1, 2)), 2)
    assert 0.7 < left.sum() / right.sum() < 1.4  # the middle plane counts to one side


def test_nearness_falls_to_0_over_the_reach():
    confluence = np.array([[0, -98, -14], [0, -98 - REACH / 2, -14], [0, 0, 0]], np.float32)
    assert near_sinus(confluence) == pytest.approx([1, 0.5, 0], abs=0.1)


def test_blood_is_a_tube_of_2_to_7_mm_about_the_middle(near):
    for seed in range(10):
        blood = draw_blood(np.random.default_rng(seed), GRID, near)
        radius = np.sqrt(blood.sum(axis=(1, 2)) * GRID.spacing**2 / np.pi)
        assert 0 < radius.mean() < 9
        assert blood[:, 5, 5].mean() > 0.5
        assert not blood[near == 0].any()


@pytest.mark.parametrize("draw", [draw_contrasts, draw_relaxation])
def test_contrast_agent_makes_them_brighter_than_without(near, draw):
    tissues = np.zeros((3, *GRID.shape), np.float32)
    tissues[1] = 1
    nothing = np.zeros(GRID.shape, np.float32)
    anatomy = Anatomy(GRID, tissues, nothing, near, nothing)
    tumour = Tumour(np.zeros((3, *GRID.shape), np.float32), "ring")
    shares = dict.fromkeys(MODALITIES, 0.0)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        mimics = draw_mimics(rng, anatomy)
        blood, far = mimics.blood > 0.9, near == 0
        images = draw(rng, anatomy, tumour, mimics)
        for name, image in zip(MODALITIES, images, strict=True):
            shares[name] += image[blood].mean() / image[far].mean() / 8
    assert shares["t1ce"] > 1.3
    assert all(shares[name] < 0.9 for name in ("t1", "t2", "flair"))
