# SPDX-License-Identifier: Apache-2.0
"""Training patches: boxes stay on their objects whatever is done to the image."""

import numpy as np
import pytest
import torch
from sample_objects import GSD, RADIUS, row, write_orchard, write_table
from sample_rasters import write_raster

from fieldfare.common.errors import InputError
from fieldfare.common.training import Draw
from fieldfare.remote_sensing.detection.data import patches
from fieldfare.remote_sensing.detection.data.augmentation import orient, relight
from fieldfare.remote_sensing.detection.data.patches import PatchDataset, read_part
from fieldfare.remote_sensing.detection.data.table import read_table


def dataset(tmp_path, *, points=False, patch=96, zoom=1.25, **more):
    orchard = write_orchard(tmp_path, points=points, **more)
    scenes, _ = read_table(write_table(tmp_path / "t.csv", row(orchard, "train")), bands=3)
    return PatchDataset(
        scenes,
        gsd=GSD,
        patch=patch,
        classes=("tree",),
        point_size=2 * RADIUS * GSD,
        zoom=zoom,
    )


@pytest.mark.parametrize("points", [False, True])
def test_the_middle_of_every_box_is_green_and_beside_it_there_is_ground(tmp_path, points):
    data = dataset(tmp_path, points=points)
    seen = 0
    for number in range(30):
        item = data[Draw(number % len(data), (0, number))]
        image, known = item["image"].numpy(), item["classes"].numpy() == 0
        green = image[1] - (image[0] + image[2]) / 2
        for left, top, right, bottom in item["boxes"].numpy()[known]:
            x, y = int((left + right) / 2), int((top + bottom) / 2)
            if min(right - left, bottom - top) < 14:
                continue  # cut by the rim
            inside = green[y, x]
            corner = green[min(95, int(bottom)), min(95, int(right))]
            assert inside > corner + 0.02
            seen += 1
    assert seen > 20


def test_a_draw_gives_the_same_patch_again_and_another_draw_another(tmp_path):
    data = dataset(tmp_path)
    one, again, other = (data[Draw(0, (0, number))] for number in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["image"], other["image"])


def test_a_scene_smaller_than_the_patch_is_continued_without_objects(tmp_path):
    item = dataset(tmp_path, patch=256, zoom=1.0)[Draw(0, (0, 0))]
    assert item["image"].shape == (3, 256, 256)
    assert (item["classes"] == 0).sum() == 5


def test_too_many_objects_for_a_patch_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(patches, "MOST", 2)
    with pytest.raises(InputError, match="smaller --patch"):
        dataset(tmp_path, patch=224, zoom=1.0)[Draw(0, (0, 0))]


def test_objects_on_missing_pixels_do_not_count_and_these_are_filled(tmp_path):
    orchard = write_orchard(tmp_path)
    scenes, _ = read_table(write_table(tmp_path / "t.csv", row(orchard, "train")), bands=3)
    whole, _, classes = read_part(
        scenes[0], (0, 0, 160, 224), GSD, classes=("tree",), point_size=6.0
    )
    assert len(classes) == 5
    values = (whole * 255).round().astype(np.uint8).transpose(2, 0, 1)
    values[:, :60, :60] = 0
    write_raster(
        orchard.image,
        values,
        nodata=0,
        transform=orchard_transform(orchard.image),
    )
    scenes, _ = read_table(write_table(tmp_path / "t.csv", row(orchard, "train")), bands=3)
    image, _, left = read_part(scenes[0], (0, 0, 160, 224), GSD, classes=("tree",), point_size=6.0)
    assert len(left) == 4
    assert image[:60, :60].min() > 0.1


def orchard_transform(path):
    import rasterio

    with rasterio.open(path) as dataset:
        return dataset.transform


def test_boxes_turn_with_the_image():
    image = np.zeros((8, 8, 3))
    image[1:3, 4:8] = 1.0
    boxes = np.array([[4.0, 1.0, 8.0, 3.0]])
    shapes = set()
    for seed in range(40):
        turned, (box,) = orient(image, boxes, np.random.default_rng(seed))
        left, top, right, bottom = box.astype(int)
        assert turned[top:bottom, left:right].min() == 1.0
        assert turned.sum() == image.sum()
        shapes.add(tuple(box))
    assert len(shapes) == 8


def test_light_stays_within_its_range():
    rng = np.random.default_rng(0)
    for _ in range(20):
        image = relight(rng.random((16, 16, 3)).astype(np.float32), rng)
        assert image.dtype == np.float32
        assert 0 <= image.min() <= image.max() <= 1
