# SPDX-License-Identifier: Apache-2.0
"""A few labelled roofs: what counts as known around them, and what does not."""

import dataclasses

import numpy as np
import pytest
import torch
from sample_scenes import draw_boxes, row, scenes_of, write_town
from torch import nn

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.buildings.networks.building_network import NetworkConfig
from fieldfare.remote_sensing.buildings.training.few import KEPT, around_roofs, stay_near

HOUSES = [(100, 100, 40, 40), (100, 150, 40, 40), (60, 100, 20, 40), (160, 60, 30, 60)]
GIVEN = HOUSES[:1]


class Sees(nn.Module):
    """A network that finds chosen boxes, sure of some and unsure of others."""

    def __init__(self, sure, unsure, size):
        super().__init__()
        self.config = NetworkConfig(gsd=0.15)
        self.own = nn.Parameter(torch.zeros(()))
        self.logits = np.full(size, -6.0, np.float32)
        self.logits[draw_boxes(size, unsure)] = 0.5
        self.logits[draw_boxes(size, sure)] = 6.0

    def forward(self, image):
        assert image.shape[-2:] == self.logits.shape
        return torch.from_numpy(self.logits)[None, None]


def part_of(folder, sure, unsure, given=GIVEN, size=(220, 240)):
    town = write_town(folder, size=size, houses=HOUSES)
    (scene,) = scenes_of(folder, row(town, "train"))
    known = write_town(folder / "given", size=size, houses=given).labels
    (few,) = scenes_of(folder, {"image": town.image, "labels": known, "split": "train"})
    parts = around_roofs(
        dataclasses.replace(scene, labels=few.labels), Sees(sure, unsure, size), side=999
    )
    assert len(parts) == 1  # it holds the whole scene
    place = (0, 0, *size, size)
    return parts[0].labels.instances(*place) > 0, parts[0].labels.known(*place)


def test_unlabelled_roofs_are_not_background(tmp_path):
    """The model is sure of the second and not of the third; it sees no roof in the fields."""
    building, known = part_of(tmp_path, sure=HOUSES[:2], unsure=HOUSES[2:3])
    size = building.shape
    assert building[draw_boxes(size, GIVEN)].all()
    assert not building[draw_boxes(size, HOUSES[1:])].any()
    assert not known[draw_boxes(size, HOUSES[1:2])].any()
    far = draw_boxes(size, [(60, 100, 37, 40)]) & draw_boxes(size, HOUSES[2:3])
    assert not building[far].any()
    assert not known[far].any()
    fields = ~draw_boxes(size, [(r - 4, c - 4, h + 8, w + 8) for r, c, h, w in HOUSES[:3]])
    assert known[fields].all()
    assert not building[fields].any()


def test_a_rim_around_a_labelled_roof_is_background_where_the_model_sees_none(tmp_path):
    """A model that is unsure of everything but sees the second house, which is not labelled."""
    building, known = part_of(tmp_path, sure=[], unsure=[(0, 0, 220, 240)])
    size = building.shape
    line = draw_boxes(size, [(98, 98, 44, 44)]) & ~draw_boxes(size, GIVEN)
    assert known[line].mean() > 0.9  # at its corners the line is round
    assert not building[line].any()
    beyond = ~draw_boxes(size, [(97, 97, 46, 46)])
    assert not known[beyond].any()


def test_the_rim_is_wider_where_the_model_leans_to_ground(tmp_path):
    town_only = Sees([], [], (220, 240))
    town_only.logits[:] = -1.0  # 0.27: neither sure nor a building
    town = write_town(tmp_path, size=(220, 240), houses=GIVEN)
    (scene,) = scenes_of(tmp_path, row(town, "train"))
    (part,) = around_roofs(scene, town_only, side=999)
    known = part.labels.known(0, 0, 220, 240, (220, 240))
    reach = np.flatnonzero(known[120])
    assert reach.min() == 100 - 10  # 1.5 m of 0.15 m
    assert reach.max() == 139 + 10


def test_each_roof_lies_in_a_part_and_parts_in_the_scene(tmp_path):
    size = (600, 700)
    houses = [(r, c, 20, 24) for r in (3, 150, 560) for c in (0, 300, 340, 670)]
    town = write_town(tmp_path, size=size, houses=houses)
    (scene,) = scenes_of(tmp_path, row(town, "train"))

    class Blank(nn.Module):
        config = NetworkConfig(gsd=0.3)

        def forward(self, image):
            return image[:, :2] * 0 - 9

        def parameters(self):
            return iter([torch.zeros(())])

    parts = around_roofs(scene, Blank(), side=50)
    assert 6 <= len(parts) < len(houses) + 1
    covered = np.zeros(size, bool)
    for part in parts:
        window = part.window
        assert min(window.row_off, window.col_off) >= 0
        assert window.row_off + window.height <= size[0]
        assert window.col_off + window.width <= size[1]
        assert (window.height, window.width) == (100, 100)
        covered[window.row_off : window.row_off + 100, window.col_off : window.col_off + 100] = True
    assert covered[draw_boxes(size, houses)].all()
    assert len({str(part.identity) for part in parts}) == len(parts)


def test_a_scene_without_a_labelled_roof_is_refused(tmp_path):
    town = write_town(tmp_path, houses=[])
    (scene,) = scenes_of(tmp_path, row(town, "train"))
    with pytest.raises(InputError, match="no roof is labelled"):
        around_roofs(scene, Sees([], [], (256, 256)), side=100)


def test_a_part_of_what_training_changed_is_kept():
    start, trained = (nn.BatchNorm2d(3) for _ in range(2))
    with torch.no_grad():
        trained.weight.copy_(torch.tensor([1.0, 3.0, -1.0]))
        trained.running_mean.fill_(4.0)
        trained.num_batches_tracked.fill_(7)
    stay_near(trained, start)
    assert trained.weight.tolist() == pytest.approx([1, 1 + 2 * KEPT, 1 - 2 * KEPT])
    assert trained.running_mean.tolist() == pytest.approx([4 * KEPT] * 3)
    assert trained.num_batches_tracked == 7
    assert start.weight.tolist() == [1, 1, 1]
