# SPDX-License-Identifier: Apache-2.0
"""A known shift of building labels is found again; labels are displaced by what was asked for."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import rasterio.features
import shapely
import torch
from rasterio import Affine
from rasterio.windows import Window
from sample_rasters import write_raster
from scipy import ndimage
from torch import nn

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.buildings.data.labels import Labels, read_labels
from fieldfare.remote_sensing.buildings.data.table import LabelledScene
from fieldfare.remote_sensing.buildings.evaluation.label_shift import (
    displace,
    label_shift,
    predicted_mask,
    scenes_shift,
)
from fieldfare.remote_sensing.buildings.networks.building_network import NetworkConfig
from fieldfare.remote_sensing.rasters.reading import ValueRange


def town(seed: int = 0, side: int = 8) -> np.ndarray:
    """Houses of 5 to 13 m on a jittered grid of 14 m, turned at random: metres, north up."""
    rng = np.random.default_rng(seed)
    houses = []
    for centre in np.argwhere(np.ones((side, side))) * 14.0 + rng.uniform(-2, 2, (side**2, 2)):
        half = rng.uniform(2.5, 6.5, 2)
        house = shapely.affinity.rotate(shapely.box(*-half, *half), rng.uniform(0, 90))
        houses.append(shapely.affinity.translate(house, *centre))
    return np.array(houses, object)


def merged(polygons: np.ndarray, gap: float) -> np.ndarray:
    """What lies within a gap of each other as one region."""
    union = shapely.union_all(shapely.buffer(polygons, gap / 2))
    return shapely.get_parts(shapely.buffer(union, -gap / 2))


class Looker(nn.Module):
    """Sees a building wherever the picture is bright."""

    def __init__(self, gsd: float) -> None:
        super().__init__()
        self.config = NetworkConfig(gsd=gsd)
        self.bias = nn.Parameter(torch.tensor(-0.5))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean(1, keepdim=True) + self.bias


def painted(folder: Path, polygons: np.ndarray, size: tuple[int, int], gsd: float) -> LabelledScene:
    """A scene whose buildings (in its pixels) are white, everything else black."""
    roofs = rasterio.features.rasterize(polygons, out_shape=size, dtype="uint8") * 255
    transform = Affine(gsd, 0, 500_000, 0, -gsd, 4_000_000)
    path = write_raster(folder / "town.tif", np.stack([roofs] * 3), transform=transform)
    window = Window(0, 0, size[1], size[0])
    return LabelledScene(
        path, Labels(polygons), "train", "town", window, (1, 2, 3), (gsd, gsd), ValueRange(0, 255)
    )


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.2, -2.1), (-1.3, 0.4), (-7.7, 8.3)])
def test_known_shift_is_found_with_dropped_labels_and_merged_predictions(shift):
    houses = town()
    seen = merged(houses, 2.5)
    assert len(seen) < 0.85 * len(houses)
    kept = np.random.default_rng(1).permutation(len(houses))[: round(0.7 * len(houses))]
    labels = shapely.transform(houses[kept], lambda xy: xy + shift)

    found = label_shift(seen, labels)

    assert found.pairs >= 15
    assert (found.dx_east_m, found.dy_north_m) == pytest.approx(shift, abs=0.2)
    assert found.distance_m == pytest.approx(np.hypot(*shift), abs=0.2)


@pytest.mark.parametrize(
    ("shift", "bearing"), [((0, 3), 0), ((3, 0), 90), ((0, -3), 180), ((-3, 0), 270), ((2, 2), 45)]
)
def test_direction_is_a_compass_bearing_towards_the_labels(shift, bearing):
    houses = town()
    found = label_shift(houses, shapely.transform(houses, lambda xy: xy + shift))
    assert (found.direction - bearing + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)
    assert found.spread_east_m == pytest.approx(0, abs=1e-6)


def test_towns_wider_than_a_block_are_searched_whole():
    houses = town(side=24)  # 336 m: beyond the first block
    far = shapely.get_coordinates(shapely.centroid(houses)).max(axis=1) > 256
    labels = shapely.transform(houses[far], lambda xy: xy + np.array([-4, 5]))
    found = label_shift(houses[far], labels)
    assert (found.dx_east_m, found.dy_north_m) == pytest.approx((-4, 5), abs=1e-6)
    assert found.pairs == far.sum()


def test_spread_tells_labels_that_lie_off_in_all_directions():
    houses = town()
    rng = np.random.default_rng(2)
    labels = np.array([shapely.affinity.translate(h, *rng.normal(0, 0.5, 2)) for h in houses])
    found = label_shift(houses, labels)
    assert min(found.spread_east_m, found.spread_north_m) > 2 * found.distance_m


def test_no_answer_from_too_few_buildings_or_from_another_town():
    houses = town()
    assert label_shift(houses[:4], houses[:4]) is None
    assert label_shift(houses, shapely.transform(houses, lambda xy: xy + 500)) is None
    assert label_shift(houses, houses[:0]) is None


@pytest.mark.parametrize("model_gsd", [0.3, 0.5])
def test_scene_with_displaced_labels_gives_the_displacement(tmp_path, model_gsd):
    gsd = 0.4
    pixels = shapely.transform(town(), lambda xy: (xy + 8) / gsd)
    scene = painted(tmp_path, pixels, (320, 320), gsd)
    wrong = displace(scene.labels, scene.gsd, shift_m=(2.5, -1.5), drop=0.3, seed=3)

    found = scenes_shift(Looker(model_gsd), [dataclasses.replace(scene, labels=wrong)] * 2)

    assert (found.dx_east_m, found.dy_north_m) == pytest.approx((2.5, -1.5), abs=0.1)
    assert found.pairs >= 50


def test_real_roofs_give_the_displacement(data, tmp_path):
    folder = data / "buildings" / "kampala_oam"
    gsd = 0.1493
    true = read_labels(folder / "labels.geojson", folder / "scene_A_z20.tif")
    scene = painted(tmp_path, true.polygons, (1024, 1536), gsd)
    wrong = displace(true, scene.gsd, shift_m=(1.5, 1.0), drop=0.3, seed=0)

    seen, _ = predicted_mask(Looker(0.3), scene)
    assert ndimage.label(seen)[1] < 0.9 * len(true.polygons)  # some roofs touch
    found = scenes_shift(Looker(0.3), [dataclasses.replace(scene, labels=wrong)])

    assert found.pairs >= 30
    assert (found.dx_east_m, found.dy_north_m) == pytest.approx((1.5, 1.0), abs=0.2)


def test_predicted_mask_has_no_seams_and_keeps_to_the_window(tmp_path):
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, 700, (300, 2))
    scene = painted(tmp_path, shapely.box(*centres.T, *(centres + 9).T), (720, 700), 0.3)
    part = dataclasses.replace(scene, window=Window(20, 10, 640, 600))
    seen, valid = predicted_mask(Looker(0.3), part)
    whole, _ = predicted_mask(Looker(0.3), scene)
    assert seen.shape == (600, 640)
    assert valid.all()
    np.testing.assert_array_equal(seen, whole[10:610, 20:660])
    np.testing.assert_array_equal(whole, scene.labels.instances(0, 0, 720, 700, (720, 700)) > 0)


def test_displace_moves_and_drops_what_was_asked_for():
    labels = Labels(shapely.box(*np.random.default_rng(0).uniform(0, 90, (2, 40)), 100, 100))
    moved = displace(labels, (0.5, 0.25), shift_m=(3, 1), drop=0.25, seed=5)
    assert len(moved.polygons) == 30
    back = shapely.transform(moved.polygons, lambda xy: xy - np.array([6, -4]))
    assert all(shapely.equals_exact(p, labels.polygons, 1e-9).any() for p in back)
    again = displace(labels, (0.5, 0.25), shift_m=(3, 1), drop=0.25, seed=5)
    assert shapely.equals(moved.polygons, again.polygons).all()
    other = displace(labels, (0.5, 0.25), shift_m=(3, 1), drop=0.25, seed=6)
    assert not shapely.equals_exact(moved.polygons, other.polygons).all()
    with pytest.raises(InputError, match=r"1\.5"):
        displace(labels, (1, 1), shift_m=(0, 0), drop=1.5, seed=0)
