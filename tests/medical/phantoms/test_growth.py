# SPDX-License-Identifier: Apache-2.0
"""The generator that judges: another anatomy, tumours that grow, contrasts by relaxation."""

import numpy as np
import pytest

from fieldfare.medical.data.intensities import brain_mask, normalise
from fieldfare.medical.data.regions import to_regions
from fieldfare.medical.phantoms import growth
from fieldfare.medical.phantoms.anatomy import Anatomy
from fieldfare.medical.phantoms.generate import make_phantom
from fieldfare.medical.phantoms.noise import Grid
from fieldfare.medical.phantoms.raters import visible_labels
from fieldfare.medical.phantoms.relaxation import TISSUES, Sequence

pytest.importorskip("nilearn", reason="NILEARN IS NOT INSTALLED: phantoms are NOT tested")

SPACING = 4.0


@pytest.fixture(scope="module")
def cases():
    """Phantoms of 16 seeds."""
    return [make_phantom(np.random.default_rng(seed), SPACING, "growth") for seed in range(16)]


def test_the_same_seed_gives_the_same_bytes(cases):
    again = make_phantom(np.random.default_rng(3), SPACING, "growth")
    assert again.images.tobytes() == cases[3].images.tobytes()
    assert again.labels.tobytes() == cases[3].labels.tobytes()
    other = make_phantom(np.random.default_rng(3), SPACING)
    assert not np.array_equal(other.images, again.images)


def test_labels_lie_in_the_brain_and_nest(cases):
    for case in cases:
        inside = brain_mask(case.images)
        assert 0.04 < inside.mean() < 0.25
        assert not case.labels[~inside].any()
        whole, core, enhancing = to_regions(case.labels, "brats2023")
        assert whole.any()
        assert (whole >= core).all()
        assert (core >= enhancing).all()


def test_all_kinds_occur_and_only_glioblastomas_enhance(cases):
    assert {case.kind for case in cases} == set(growth.KINDS)
    for case in cases:
        if case.kind != "glioblastoma":
            assert not (case.labels == 3).any()
    assert any((case.labels == 3).any() for case in cases)


def test_tumours_are_brighter_than_brain_on_flair_and_t2(cases):
    for channel in (2, 3):
        brighter = []
        for case in cases:
            image = normalise(case.images)[channel]
            rest = brain_mask(case.images) & (case.labels == 0)
            brighter.append(image[case.labels > 0].mean() - image[rest].mean())
        assert np.mean(np.array(brighter) > 0.3) > 0.85


def test_the_front_runs_at_the_speed_that_fishers_equation_has():
    """Twice the root of diffusion times growth: 2 * reach for each time unit, in white matter."""
    grid = Grid((0, 0, 0), (60, 12, 12), 2.0)
    ease = np.full(grid.shape, 4.0, np.float32)
    walls = [growth._between(ease, axis) / 4 for axis in range(3)]
    density = np.zeros(grid.shape, np.float32)
    density[:3] = 1
    places = []
    for turn in range(240):
        density = growth.grown(density, walls, 0.05)
        if turn in (119, 239):
            places.append(np.count_nonzero(density[:, 6, 6] > 0.5) * 2.0)
    speed = (places[1] - places[0]) / (120 * 0.05)
    assert speed == pytest.approx(4.0, rel=0.15)


def test_nothing_grows_through_a_wall_of_fluid():
    grid = Grid((0, 0, 0), (30, 20, 20), 2.0)
    white = np.ones(grid.shape, np.float32)
    white[14:16] = 0
    tissues = np.stack([white * 0, white, 1 - white])
    nothing = np.zeros(grid.shape, np.float32)
    anatomy = Anatomy(grid, tissues, nothing, nothing, nothing)
    tumour = growth.grow_tumour(np.random.default_rng(0), anatomy, np.array([14.0, 20.0, 20.0]))
    labels = visible_labels(tumour.fractions)
    assert labels[:14].any()
    assert not labels[16:].any()


def test_relaxation_orders_tissues_as_scanners_show_them():
    t1, t2 = Sequence(500, 12), Sequence(5000, 100)
    flair = Sequence(9000, 120, 2400)
    order = {
        name: sorted(("grey", "white", "fluid"), key=lambda of, s=s: s.signal(TISSUES[of]))
        for name, s in (("t1", t1), ("t2", t2), ("flair", flair))
    }
    assert order["t1"] == ["fluid", "grey", "white"]
    assert order["t2"] == ["white", "grey", "fluid"]
    assert order["flair"][0] == "fluid"
    assert flair.signal(TISSUES["oedema"]) > flair.signal(TISSUES["grey"])
