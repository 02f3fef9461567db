# SPDX-License-Identifier: Apache-2.0
"""What the parts of a drawn tumour look like: the order that radiology knows, in every kind."""

import numpy as np
import pytest
from scipy import ndimage

from fieldfare.medical.phantoms.anatomy import Anatomy
from fieldfare.medical.phantoms.contrasts import PLAIN, _bleeding, _necrosis, draw_intensities
from fieldfare.medical.phantoms.lesions import KINDS, Lesion, Tumour, _lobed, draw_tumour
from fieldfare.medical.phantoms.noise import Grid
from fieldfare.medical.phantoms.raters import OEDEMA, visible_labels

GRID = Grid((0, 0, 0), (24, 24, 24), 2.0)
DRAWS = 150


@pytest.fixture(scope="module")
def drawn():
    """(kind, intensities by modality) of many cases."""
    rng = np.random.default_rng(0)
    return [(kind, draw_intensities(rng, kind)) for kind in KINDS for _ in range(DRAWS)]


@pytest.fixture
def anatomy():
    """White matter throughout, under a slab of cortex."""
    tissues = np.zeros((3, *GRID.shape), np.float32)
    tissues[1], tissues[:, :, :, 18:] = 1, 0
    tissues[0, :, :, 18:] = 1
    nothing = np.zeros(GRID.shape, np.float32)
    return Anatomy(GRID, tissues, nothing, nothing, nothing)


def lesion(kind, **changes):
    given = {"radius": 7.0, "oedema": 8.0, "shift": 0.0, "enhances": False} | changes
    return Lesion(kind, np.array([24.0, 24.0, 24.0]), **given)


def test_oedema_is_brighter_than_healthy_tissue_on_t2_and_flair_and_not_on_t1(drawn):
    for _, of in drawn:
        for name in ("t2", "flair"):
            assert of[name].oedema > max(of[name].grey, of[name].white)
        assert of["t2"].oedema < of["t2"].fluid
        assert of["t1"].oedema < 1.1  # of white matter


def test_what_is_fluid_lies_between_the_core_and_fluid_on_flair_and_is_dark_on_t1(drawn):
    for _, of in drawn:
        flair, t1, t2 = of["flair"], of["t1"], of["t2"]
        assert flair.fluid <= flair.liquid <= flair.core
        assert t1.liquid < t1.grey
        assert t2.liquid == t2.fluid


def test_a_core_without_an_enhancing_rim_holds_more_water_than_its_oedema(drawn):
    for kind, of in drawn:
        if kind in PLAIN:
            assert of["t1"].core < of["t1"].oedema
            assert of["t2"].core > of["t2"].oedema
    darker = [of["t2"].core < of["t2"].oedema for kind, of in drawn if kind == "ring"]
    assert 0.05 < np.mean(darker) < 0.5  # dense with cells


def test_modalities_agree_on_how_much_water_oedema_holds(drawn):
    dark = [(it["t1"].grey - it["t1"].oedema) / it["t1"].grey for _, it in drawn]
    bright = [(t2.oedema - t2.grey) / (t2.fluid - t2.grey) for t2 in (it["t2"] for _, it in drawn)]
    assert 0.4 < np.corrcoef(dark, bright)[0, 1] < 0.98


def test_oedema_spares_the_cortex(anatomy):
    """Where it would reach as far in white matter and in grey."""
    shares = []
    for seed in range(12):
        tumour = draw_tumour(np.random.default_rng(seed), anatomy, [lesion("ring")])
        labels = visible_labels(tumour.fractions) == OEDEMA
        # 18 is the first slice of cortex, as far above the middle as 6 is below it.
        shares.append((labels[:, :, 18:21].sum(), labels[:, :, 4:7].sum()))
    cortex, white = np.sum(shares, axis=0)
    assert white > 100
    assert cortex < 0.8 * white


def test_lobes_make_one_lump():
    away = GRID.points() - np.float32(24)
    volumes = []
    for seed in range(20):
        inside = _lobed(np.random.default_rng(seed), away, 10.0) < 10
        assert ndimage.label(inside)[1] == 1
        volumes.append(inside.sum())
    assert max(volumes) > 1.5 * min(volumes)


def test_fluid_and_blood_lie_in_the_core_alone():
    fractions = np.zeros((3, *GRID.shape), np.float32)
    fractions[0, 8:12, 8:12, 8:12], fractions[1, 12:16], fractions[2, 8:12, 8:12, 12] = 1, 1, 1
    tumour = Tumour(fractions, "cystic")
    wet = _necrosis(np.random.default_rng(0), GRID, tumour)
    assert wet.max() <= 1
    assert wet[fractions[0] > 0].mean() > 0.4
    assert not wet[fractions[0] == 0].any()
    spots = [_bleeding(np.random.default_rng(seed), GRID, fractions) for seed in range(60)]
    assert 0.05 < np.mean([bool(one.any()) for one in spots]) < 0.4
    assert not any(one[(fractions[0] + fractions[2]) == 0].any() for one in spots)
