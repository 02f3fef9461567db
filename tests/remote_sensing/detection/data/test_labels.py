# SPDX-License-Identifier: Apache-2.0
"""Objects out of vector files, COCO and tables in pixels."""

import json

import geopandas as gpd
import numpy as np
import pytest
import shapely
from sample_objects import RADIUS, row, write_orchard, write_table

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.detection.data.labels import read_objects
from fieldfare.remote_sensing.detection.data.table import classes_of, read_table


@pytest.mark.parametrize("suffix", ["geojson", "gpkg", "fgb"])
def test_boxes_come_back_in_pixels_with_their_class(tmp_path, suffix):
    orchard = write_orchard(tmp_path, labels=suffix)
    objects = read_objects(orchard.labels, orchard.image)
    order = np.lexsort(objects.centres.T)
    expected = orchard.middles[np.lexsort(orchard.middles.T)]
    np.testing.assert_allclose(objects.centres[order], expected, atol=1e-3)
    np.testing.assert_allclose(objects.boxes[:, 2] - objects.boxes[:, 0], 2 * RADIUS, atol=1e-3)
    assert set(objects.names) == {"tree"}
    assert not objects.are_points.any()


@pytest.mark.parametrize("suffix", ["geojson", "csv"])
def test_points_have_no_extent_until_they_are_given_one(tmp_path, suffix):
    orchard = write_orchard(tmp_path, labels=suffix, points=True)
    objects = read_objects(orchard.labels, orchard.image)
    assert objects.are_points.all()
    boxes = objects.extended((20.0, 10.0))
    np.testing.assert_allclose(boxes[0, 2:] - boxes[0, :2], (20, 10), atol=1e-6)
    np.testing.assert_allclose(objects.centres, orchard.middles, atol=1e-3)


def test_labels_in_another_crs_land_on_the_same_pixels(tmp_path):
    orchard = write_orchard(tmp_path, labels="gpkg")
    moved = tmp_path / "degrees.gpkg"
    gpd.read_file(orchard.labels).to_crs(4326).to_file(moved)
    objects = read_objects(moved, orchard.image)
    np.testing.assert_allclose(objects.centres, orchard.middles, atol=0.05)


def test_outlines_become_boxes_around_them_and_lines_are_refused(tmp_path):
    orchard = write_orchard(tmp_path)
    frame = gpd.read_file(orchard.labels)
    middles = shapely.centroid(frame.geometry.to_numpy())
    round_ones = gpd.GeoDataFrame(geometry=shapely.buffer(middles, 3.0), crs=frame.crs)
    round_ones.to_file(tmp_path / "round.gpkg")
    objects = read_objects(tmp_path / "round.gpkg", orchard.image)
    np.testing.assert_allclose(objects.boxes[:, 3] - objects.boxes[:, 1], 20, atol=1e-3)
    x, y = middles[0].x, middles[0].y
    line = gpd.GeoDataFrame(geometry=[shapely.LineString([(x, y), (x + 3, y)])], crs=frame.crs)
    line.to_file(tmp_path / "line.gpkg")
    with pytest.raises(InputError, match="lines without area"):
        read_objects(tmp_path / "line.gpkg", orchard.image)


def coco(path, image, boxes, **more):
    annotations = [
        {"id": i, "image_id": 7, "category_id": 2, "bbox": box, **more}
        for i, box in enumerate(boxes)
    ]
    content = {
        "images": [{"id": 7, "file_name": f"some/{image.name}", "height": 160, "width": 224}],
        "categories": [{"id": 2, "name": "car"}],
        "annotations": annotations,
    }
    path.write_text(json.dumps(content))
    return path


def test_coco_boxes_are_left_top_width_height(tmp_path, orchard):
    objects = read_objects(
        coco(tmp_path / "c.json", orchard.image, [[1, 2, 30, 40]]), orchard.image
    )
    assert objects.boxes.tolist() == [[1, 2, 31, 42]]
    assert objects.names == ("car",)


def test_crowds_are_left_out_and_said(tmp_path, orchard):
    path = coco(tmp_path / "c.json", orchard.image, [[1, 2, 3, 4]], iscrowd=1)
    objects = read_objects(path, orchard.image)
    assert len(objects.boxes) == 0
    assert "1 crowds left out" in objects.messages[0]


@pytest.mark.parametrize("box", [[1, 2, 0, 4], [1, 2, float("nan"), 4], [1, 2, 3]])
def test_a_coco_box_without_extent_is_refused(tmp_path, orchard, box):
    with pytest.raises(InputError, match=r"c\.json"):
        read_objects(coco(tmp_path / "c.json", orchard.image, [box]), orchard.image)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,a\nx,1\n", "needs a header"),
        ("image,x,y\norchard.tif,1,here\n", "line 2: x, y must be numbers"),
        ("image,x,y\norchard.tif,1,inf\n", "line 2: x, y must be numbers"),
        ("image,left,top,right,bottom\norchard.tif,5,1,5,9\n", "left < right"),
    ],
)
def test_a_bad_table_of_pixels_is_one_line(tmp_path, orchard, text, message):
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_objects(path, orchard.image)


def test_an_image_that_the_table_does_not_name_has_no_object_and_that_is_said(tmp_path, orchard):
    path = tmp_path / "p.csv"
    path.write_text("image,x,y,class\nother.tif,1,2,tree\n")
    objects = read_objects(path, orchard.image)
    assert len(objects.boxes) == 0
    assert "names no object of orchard.tif" in objects.messages[0]


def test_a_changed_table_is_read_anew(tmp_path, orchard):
    path = tmp_path / "p.csv"
    path.write_text("tile,x,y\norchard,1,2\n")
    assert len(read_objects(path, orchard.image).boxes) == 1
    path.write_text("tile,x,y\norchard,1,2\norchard.tif,3,4\n")
    assert len(read_objects(path, orchard.image).boxes) == 2


def scenes_of(tmp_path, names):
    orchard = write_orchard(tmp_path)
    lines = "".join(f"orchard.tif,{10 * i},10,{name}\n" for i, name in enumerate(names))
    (tmp_path / "p.csv").write_text(f"image,x,y,class\n{lines}")
    table = write_table(tmp_path / "t.csv", row(orchard, "train") | {"labels": tmp_path / "p.csv"})
    return read_table(table, bands=3)[0]


def test_classes_are_those_that_the_labels_name(tmp_path):
    scenes = scenes_of(tmp_path, ["tree", "car", "tree"])
    assert classes_of(scenes, None) == ("car", "tree")
    assert classes_of(scenes, "tree") == ("tree",)
    assert scenes[0].labels.numbers(("tree",)).tolist() == [0, -1, 0]


def test_what_has_no_name_is_of_the_only_class(tmp_path):
    scenes = scenes_of(tmp_path, ["", ""])
    assert classes_of(scenes, None) == ("object",)
    assert classes_of(scenes, "tree") == ("tree",)
    assert scenes[0].labels.numbers(("tree",)).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("names", "wanted", "message"),
    [
        (["tree", ""], "tree,car", "no class"),
        (["tree"], "ship", "no training scene has an object of class ship"),
        (["tree"], "tree,tree", "different names"),
    ],
)
def test_wrong_classes_are_refused(tmp_path, names, wanted, message):
    with pytest.raises(InputError, match=message):
        classes_of(scenes_of(tmp_path, names), wanted)


def test_ground_in_two_splits_is_refused(tmp_path):
    one, other = (
        write_orchard(tmp_path, name=name, east=x) for name, x in (("a", 5e5), ("b", 5e5 + 9))
    )
    with pytest.raises(InputError, match="show the same ground"):
        read_table(write_table(tmp_path / "t.csv", row(one, "train"), row(other, "val")), bands=3)
