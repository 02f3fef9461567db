# SPDX-License-Identifier: Apache-2.0
"""Which scenes teach which expert, and how finer ones stand in."""

import functools

import numpy as np
import pytest
from sample_scenes import row, scenes_of, write_town

from fieldfare.common.errors import InputError
from fieldfare.common.training import Draw
from fieldfare.remote_sensing.buildings.data.patches import PatchDataset
from fieldfare.remote_sensing.buildings.data.sensors import (
    CoarserScene,
    as_coarse_as,
    pixel_of,
    provide,
)
from fieldfare.remote_sensing.buildings.networks.experts import nearest

EXPERTS = (0.15, 0.6)
CHOOSE = functools.partial(nearest, EXPERTS, gsd=0.15)


def towns(folder, *kinds):
    """Scenes of (split, metres per pixel), each somewhere else."""
    rows = [
        row(
            write_town(
                folder / str(number),
                size=(160, 240),
                gsd=gsd,
                centre=(32.6, 0.35 + 0.02 * number),
                name=f"t{number}",
            ),
            split,
        )
        for number, (split, gsd) in enumerate(kinds)
    ]
    return scenes_of(folder, *rows)


def choose(size):
    return CHOOSE(size)


def test_a_coarser_reading_is_the_average_enlarged(tmp_path):
    (scene,) = towns(tmp_path, ("train", 0.15))
    fine, valid = scene.read(0, 0, 160, 240, (160, 240))
    coarse, known = as_coarse_as(scene, 0.6).read(0, 0, 160, 240, (160, 240))
    assert coarse.shape == fine.shape
    assert valid.all()
    assert known.all()
    blocks = fine.reshape(40, 4, 60, 4, 3).mean(axis=(1, 3))
    again = coarse.reshape(40, 4, 60, 4, 3).mean(axis=(1, 3))
    steps = np.abs(np.diff(coarse.astype(float), axis=0)).max()
    assert np.abs(again - blocks).mean() < 6
    assert steps < np.abs(np.diff(fine.astype(float), axis=0)).max() / 2
    assert pixel_of(as_coarse_as(scene, 0.6)) == 0.6
    assert as_coarse_as(scene, 0.6).identity != scene.identity


def test_it_is_no_finer_than_its_raster_and_not_coarser_than_asked_for(tmp_path):
    (scene,) = towns(tmp_path, ("train", 0.15))
    asked = (0, 0, 160, 240, (20, 30))
    for one, other in zip(as_coarse_as(scene, 0.6).read(*asked), scene.read(*asked), strict=True):
        assert np.array_equal(one, other)


def test_scenes_of_both_sizes_are_left_as_they_are(tmp_path):
    scenes = towns(tmp_path, ("train", 0.15), ("train", 0.6))
    assert provide(scenes, EXPERTS, choose) == (scenes, [])


def test_an_expert_without_scenes_gets_finer_ones_and_that_is_said(tmp_path):
    scenes = towns(tmp_path, ("train", 0.15), ("val", 0.15), ("test", 0.15))
    found, messages = provide(scenes, EXPERTS, choose)
    added = found[len(scenes) :]
    assert [(scene.split, scene.pixel) for scene in added] == [("train", 0.6), ("val", 0.6)]
    assert [CHOOSE(pixel_of(scene)) for scene in added] == [1, 1]
    assert len(messages) == 2
    assert "0.6 m per pixel in the split train: finer ones are averaged to it" in messages[0]


def test_an_expert_that_nothing_can_teach_is_an_error(tmp_path):
    scenes = towns(tmp_path, ("train", 0.6), ("val", 0.6))
    with pytest.raises(InputError, match=r"--expert-gsd 0\.15: the table has no scene"):
        provide(scenes, EXPERTS, choose)


def test_an_expert_without_validation_is_said(tmp_path):
    scenes = towns(tmp_path, ("train", 0.15), ("train", 0.6), ("val", 0.6))
    found, messages = provide(scenes, EXPERTS, choose)
    assert found == scenes
    assert messages == [
        "no scene of about 0.15 m per pixel in the split val: that expert is not measured"
    ]


def test_each_expert_gets_about_as_many_patches(tmp_path):
    scenes = towns(tmp_path, ("train", 0.15), ("train", 0.6))
    data = PatchDataset(scenes, gsd=0.15, patch=64, outputs=("building",), zoom=1.2, choose=choose)
    drawn = [data[Draw(index, (0, index))]["expert"].item() for index in range(len(data))]
    assert drawn.count(0) == pytest.approx(drawn.count(1), rel=0.2)
    plain = PatchDataset(scenes, gsd=0.15, patch=64, outputs=("building",), zoom=1.2)
    assert "expert" not in plain[Draw(0, (0, 0))]
    assert len(plain) < len(data)


def test_a_coarser_scene_travels_to_another_process(tmp_path):
    import pickle

    (scene,) = towns(tmp_path, ("train", 0.15))
    coarse = as_coarse_as(scene, 0.6)
    first, _ = coarse.read(0, 0, 64, 64, (64, 64))
    again = pickle.loads(pickle.dumps(coarse))
    assert isinstance(again, CoarserScene)
    assert np.array_equal(again.read(0, 0, 64, 64, (64, 64))[0], first)
