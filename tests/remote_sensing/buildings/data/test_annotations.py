# SPDX-License-Identifier: Apache-2.0
"""Labels of annotation tools, masks with unknown parts, folders of images and labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from pyproj import CRS
from rasterio.transform import from_bounds
from rasterio.warp import transform_bounds
from sample_rasters import write_raster
from sample_scenes import row, scenes_of, write_town

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.buildings.data.annotations import _decoded
from fieldfare.remote_sensing.buildings.data.labels import read_labels
from fieldfare.remote_sensing.buildings.evaluation.compare import compare_masks

CASES = Path(__file__).parents[2] / "cases"
BOX = [8, 4, 20, 4, 20, 12, 8, 12]


def coco(path: Path, *annotations: dict, name: str = "town.tif") -> Path:
    images = [{"id": 7, "file_name": name, "width": 256, "height": 256}]
    images.append({"id": 8, "file_name": "other.tif", "width": 9, "height": 9})
    found = [{"image_id": 7, "category_id": 1} | entry for entry in annotations]
    path.write_text(json.dumps({"images": images, "annotations": found}))
    return path


def test_coco_outlines_crowds_and_run_lengths(town, tmp_path):
    mask = np.zeros((256, 256), np.uint8)
    mask[30:40, 50:58] = 1
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel(), [0]])))
    runs = np.diff([0, *edges, mask.size]).tolist()
    path = coco(
        tmp_path / "labels.json",
        {"segmentation": [BOX], "iscrowd": 0},
        {"segmentation": {"counts": runs, "size": [256, 256]}},
        {"segmentation": [[100, 100, 120, 100, 120, 120]], "iscrowd": 1},
        {"segmentation": [BOX], "image_id": 8},
    )
    labels = read_labels(path, town.image)
    assert shapely.area(labels.polygons).tolist() == [96, 80]
    assert labels.polygons[1].bounds == (50, 30, 58, 40)
    assert shapely.area(labels.unknown).tolist() == [200]


def test_run_lengths_of_pycocotools_are_read():
    assert _decoded("52203") == [5, 2, 2, 2, 5]
    assert _decoded("PPYo1") != []


def test_coco_without_the_image_is_refused(town, tmp_path):
    path = coco(tmp_path / "labels.json", {"segmentation": [BOX]}, name="elsewhere.tif")
    with pytest.raises(InputError, match=r"names town\.tif 0 times"):
        read_labels(path, town.image)


def test_yolo_outlines_are_shares_of_the_sides(town, tmp_path):
    path = tmp_path / "town.txt"
    path.write_text("0 0.25 0.5 0.5 0.5 0.5 0.75 0.25 0.75\n\n")
    assert read_labels(path, town.image).polygons[0].bounds == (64, 128, 128, 192)
    path.write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(InputError, match="line 1: is a box"):
        read_labels(path, town.image)
    path.write_text("0 12 40 50 60 70 80\n")
    with pytest.raises(InputError, match="is no outline of YOLO"):
        read_labels(path, town.image)


def test_nodata_of_label_mask_nodata_is_unknown(tmp_path):
    path = CASES / "label_mask_nodata.tif"
    with rasterio.open(path) as mask:
        profile, values = mask.profile, mask.read(1)
    image = write_raster(
        tmp_path / "scene.tif",
        np.full((3, 512, 512), 90, np.uint8),
        crs=profile["crs"],
        transform=profile["transform"],
    )
    labels = read_labels(path, image)
    shape = (512, 512)
    built = labels.instances(0, 0, *shape, shape) > 0
    known = labels.known(0, 0, *shape, shape)
    assert built.sum() == 56_802
    assert (~known).sum() == 51_200
    assert np.array_equal(~known, values == 255)
    (scene,) = scenes_of(tmp_path, {"image": image, "labels": path, "split": "train"})
    _, valid = scene.read(0, 0, *shape, shape)
    assert np.array_equal(valid, known)


def test_a_mask_of_another_place_is_refused(town, tmp_path):
    elsewhere = town.transform @ rasterio.Affine.translation(3, 0)
    mask = write_raster(
        tmp_path / "mask.tif",
        town.mask[None].astype(np.uint8),
        crs="EPSG:32636",
        transform=elsewhere,
    )
    with pytest.raises(InputError, match=r"lies 3\.0 pixels away"):
        read_labels(mask, town.image)
    right = write_raster(
        tmp_path / "right.tif",
        town.mask[None].astype(np.uint8),
        crs="EPSG:32636",
        transform=town.transform,
    )
    with pytest.raises(InputError, match=r"lies 3\.0 pixels away"):
        compare_masks(right, mask)
    assert compare_masks(right, right)


def test_a_mask_in_another_coordinate_system_is_refused(tmp_path):
    """Of the same size and about the same ground, but turned by 2 degrees."""
    town = write_town(tmp_path, centre=(30.1, 55.0))
    with rasterio.open(town.image) as dataset:
        bounds = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
        height, width = dataset.shape
    mask = write_raster(
        tmp_path / "mask.tif",
        town.mask[None].astype(np.uint8),
        crs="EPSG:4326",
        transform=from_bounds(*bounds, width, height),
    )
    with pytest.raises(InputError, match=r"pixels away in another .*gdalwarp -r near"):
        read_labels(mask, town.image)


def test_one_coordinate_system_in_two_wordings_is_one(town, tmp_path):
    wording = CRS.from_epsg(32636).to_wkt("WKT1_ESRI")
    mask = write_raster(
        tmp_path / "mask.tif",
        town.mask[None].astype(np.uint8),
        crs=wording.replace("UTM_Zone_36N", "Some_Name"),
        transform=town.transform,
    )
    assert len(read_labels(mask, town.image).polygons) == len(town.boxes)


def test_a_folder_of_images_has_a_folder_of_masks(tmp_path):
    towns = [write_town(tmp_path / name, name=name) for name in ("east", "west")]
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for town in towns:
        town.image.rename(images / town.image.name)
        write_raster(
            masks / f"{town.image.stem}.png.tif".replace(".png", ""),
            town.mask[None].astype(np.uint8),
            crs="EPSG:32636",
            transform=town.transform,
        )
    entry = {"image": "images", "labels": "masks", "split": "train"}
    scenes = scenes_of(tmp_path, entry)
    assert [scene.area for scene in scenes] == ["east", "west"]
    assert all(len(scene.labels.polygons) for scene in scenes)
    (masks / "west.tif").unlink()
    with pytest.raises(InputError, match=r"west\.tif: .*holds no labels named west\.\*"):
        scenes_of(tmp_path, entry)


def test_a_layer_of_the_table_is_read(town, tmp_path):
    import geopandas as gpd

    path = tmp_path / "two.gpkg"
    frame = gpd.read_file(town.labels)
    frame.to_file(path, layer="buildings")
    frame.iloc[:1].to_file(path, layer="aoi")
    (scene,) = scenes_of(tmp_path, row(town, "train") | {"labels": path, "layer": "buildings"})
    assert len(scene.labels.polygons) == len(frame)
