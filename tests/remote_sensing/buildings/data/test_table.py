# SPDX-License-Identifier: Apache-2.0
"""The table of scenes: what it refuses, and that no ground lies in two splits."""

import numpy as np
import pytest
from rasterio import Affine
from sample_rasters import write_raster
from sample_scenes import KAMPALA, row, scenes_of, write_table, write_town

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.buildings.data.table import read_table

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


# The table


def test_a_row_becomes_a_scene(tmp_path):
    town = write_town(tmp_path)
    (scene,) = scenes_of(tmp_path, row(town, "train", area="north", window="10 20 100 120"))
    window = scene.window
    assert (window.row_off, window.col_off, window.height, window.width) == (10, 20, 100, 120)
    assert (scene.split, scene.area, scene.bands) == ("train", "north", (1, 2, 3))
    assert scene.gsd == pytest.approx((0.15, 0.15), rel=1e-3)
    assert (scene.values.low, scene.values.high) == (0, 255)


def test_paths_are_relative_to_the_table_and_the_area_is_the_name_of_the_image(tmp_path):
    write_town(tmp_path / "sub", name="east")
    (scene,) = scenes_of(
        tmp_path, {"image": "sub/east.tif", "labels": "sub/east.geojson", "split": "val"}
    )
    assert scene.area == "east"


def test_what_was_done_to_the_labels_is_said_once(tmp_path):
    town = write_town(tmp_path, label_crs=None, label_format="gpkg")
    rows = [row(town, "train", window="0 0 100 100"), row(town, "train", window="99 0 100 100")]
    _, messages = read_table(write_table(tmp_path / "t.csv", *rows), bands=3)
    assert len(messages) == 1
    assert "has no CRS" in messages[0]


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path):
    town = write_town(tmp_path)
    table = write_table(tmp_path / "t.csv", row(town, "train"))
    table.write_text("\ufeff" + table.read_text().replace("\n", "\r\n"), encoding="utf-8")
    assert len(read_table(table, bands=3)[0]) == 1


@pytest.mark.parametrize("text", ["", "image,labels,split\n", "image,split\na.tif,train\n"])
def test_a_table_without_rows_or_columns_is_refused(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=r"t\.csv: needs a header and rows with the columns"):
        read_table(tmp_path / "t.csv", bands=3)


def test_files_that_are_no_table_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        read_table(tmp_path / "none.csv", bands=3)
    (tmp_path / "t.csv").write_bytes(b"image,labels,split\n\xff\xfe\x00,b,train\n")
    with pytest.raises(InputError, match=r"t\.csv"):
        read_table(tmp_path / "t.csv", bands=3)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"split": "training"}, "line 2: split 'training' must be one of train, val, test"),
        ({"split": ""}, "line 2: split '' must be"),
        ({"window": "1 2 3"}, "line 2: window must be four numbers"),
        ({"window": "0 0 ten 10"}, "line 2: window must be four numbers"),
        ({"window": "0 0 -10 10"}, "line 2: window"),
        ({"window": "0 0 0 10"}, "line 2: window"),
        ({"window": "-5 0 10 10"}, "line 2: window"),
        ({"window": "300 0 10 10"}, r"town\.tif: the window lies outside"),
        ({"image": "none.tif"}, r"none\.tif: no such file"),
        ({"labels": "none.geojson"}, r"none\.geojson: no such file"),
        ({"image": ""}, "line 2: image"),
        ({"labels": ""}, "line 2: labels"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused(tmp_path, more, message):
    town = write_town(tmp_path)
    with pytest.raises(InputError, match=message):
        scenes_of(tmp_path, row(town, "train", window="") | more)


def test_a_row_that_breaks_off_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("split,image,labels\ntrain,town.tif\n")
    write_town(tmp_path)
    with pytest.raises(InputError, match="line 2: labels"):
        read_table(tmp_path / "t.csv", bands=3)


def test_without_crs_the_table_must_state_the_pixel_size(tmp_path):
    town = write_town(tmp_path, crs=None)
    with pytest.raises(InputError, match=r"town\.tif: has no CRS; state .* column gsd"):
        scenes_of(tmp_path, row(town, "train"))
    for text in ("-1", "0", "inf", "fine"):
        with pytest.raises(InputError, match=f"line 2: gsd {text} must be metres"):
            scenes_of(tmp_path, row(town, "train", gsd=text))
    assert scenes_of(tmp_path, row(town, "train", gsd="0.3"))[0].gsd == (0.3, 0.3)


def test_too_few_bands_are_refused_and_further_ones_left_out(tmp_path):
    town = write_town(tmp_path, bands=2)
    with pytest.raises(InputError, match=r"town\.tif: has 2 bands, the network takes 3"):
        scenes_of(tmp_path, row(town, "train"))
    assert scenes_of(tmp_path, row(town, "train"), bands=1)[0].bands == (1,)


# Splits


def test_an_area_in_two_splits_is_refused_by_name(tmp_path):
    one, other = write_town(tmp_path / "a"), write_town(tmp_path / "b", centre=(33.1, 0.35))
    with pytest.raises(InputError, match="area north is in two splits"):
        scenes_of(tmp_path, row(one, "train", area="north"), row(other, "val", area="north"))
    rows = [row(one, "train", area="north"), row(other, "train", area="north")]
    assert len(scenes_of(tmp_path, *rows)) == 2


def test_images_of_one_name_are_told_apart_in_the_column_area(tmp_path):
    one, other = write_town(tmp_path / "a"), write_town(tmp_path / "b", centre=(33.1, 0.35))
    with pytest.raises(InputError, match=r"area town is in two splits.* in the column area"):
        scenes_of(tmp_path, row(one, "train", area=""), row(other, "val", area=""))
    rows = [row(one, "train", area="south"), row(other, "val", area="north")]
    assert len(scenes_of(tmp_path, *rows)) == 2


PLACES = [("EPSG:32636", KAMPALA), ("EPSG:32636", (30.5, 55.0)), ("EPSG:4326", (30.5, 55.0))]
"""The second lies far from the meridian of its zone: its rows run 2 degrees off east."""


@pytest.mark.parametrize(("crs", "centre"), [*PLACES, ("EPSG:3857", KAMPALA), (None, KAMPALA)])
def test_windows_side_by_side_may_be_in_two_splits(tmp_path, crs, centre):
    town = write_town(tmp_path, crs=crs, centre=centre)
    gsd = {} if crs else {"gsd": 0.15}
    left = row(town, "train", area="left", window="0 0 256 128", **gsd)
    upper = row(town, "val", area="upper", window="0 128 128 128", **gsd)
    lower = row(town, "test", area="lower", window="128 128 128 128", **gsd)
    assert len(scenes_of(tmp_path, left, upper, lower)) == 3


@pytest.mark.parametrize(("crs", "centre"), [*PLACES, ("EPSG:3857", KAMPALA), (None, KAMPALA)])
@pytest.mark.parametrize("window", ["0 120 256 136", "100 0 9 256", "0 0 256 256", "50 50 9 9"])
def test_windows_that_overlap_are_refused(tmp_path, crs, centre, window):
    town = write_town(tmp_path, crs=crs, centre=centre)
    gsd = {} if crs else {"gsd": 0.15}
    with pytest.raises(InputError, match=r"town\.tif \(train\) and town\.tif \(test\): show the"):
        scenes_of(
            tmp_path,
            row(town, "train", area="left", window="0 0 256 128", **gsd),
            row(town, "test", area="right", window=window, **gsd),
        )


def test_a_turned_raster_is_compared_as_it_lies(tmp_path):
    town = write_town(tmp_path)
    turned = town.transform * Affine.rotation(40)
    values = np.zeros((3, *town.shape), np.uint8)
    image = write_raster(tmp_path / "turned.tif", values, crs="EPSG:32636", transform=turned)
    mask = write_raster(tmp_path / "mask.tif", values[:1], crs="EPSG:32636", transform=turned)
    rows = [
        {"image": image, "labels": mask, "split": split, "area": split, "window": window}
        for split, window in (("train", "0 0 256 128"), ("val", "0 128 256 128"))
    ]
    assert len(scenes_of(tmp_path, *rows)) == 2
    rows[1]["window"] = "0 120 256 128"
    with pytest.raises(InputError, match="show the same ground"):
        scenes_of(tmp_path, *rows)


@pytest.mark.parametrize("crs", ["EPSG:32636", "EPSG:4326", "EPSG:3857", "EPSG:32635"])
def test_two_files_of_the_same_ground_are_refused_whatever_their_crs(tmp_path, crs):
    one = write_town(tmp_path / "a", name="one")
    other = write_town(tmp_path / "b", name="other", crs=crs, gsd=0.3, size=(60, 60))
    with pytest.raises(InputError, match=r"one\.tif \(train\) and other\.tif \(val\): show the"):
        scenes_of(tmp_path, row(one, "train"), row(other, "val"))
    assert len(scenes_of(tmp_path, row(one, "train"), row(other, "train"))) == 2


@pytest.mark.parametrize("crs", ["EPSG:32636", "EPSG:4326", "EPSG:32635", "EPSG:32618"])
def test_two_files_of_unlike_ground_are_not(tmp_path, crs):
    one = write_town(tmp_path / "a", name="one", centre=(30.5, 55.0))
    # 256 pixels of 0.15 m are 38.4 m, or 0.00060 degrees of longitude here
    place = (-74.0, 40.0) if crs == "EPSG:32618" else (30.5 + 0.00064, 55.0)
    other = write_town(tmp_path / "b", name="other", crs=crs, centre=place)
    assert len(scenes_of(tmp_path, row(one, "train"), row(other, "val"))) == 2


def test_files_without_crs_are_told_apart_by_name_only(tmp_path):
    one = write_town(tmp_path / "a", name="one", crs=None)
    other = write_town(tmp_path / "b", name="other", crs=None)
    placed = write_town(tmp_path / "c", name="placed")
    rows = [row(one, "train", gsd=0.2), row(other, "val", gsd=0.2), row(placed, "test")]
    assert len(scenes_of(tmp_path, *rows)) == 3
