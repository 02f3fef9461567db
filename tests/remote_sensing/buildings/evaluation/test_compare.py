# SPDX-License-Identifier: Apache-2.0
"""Comparisons of files and scenes: published numbers, properties, what the reports hold."""

import csv
import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio.transform import from_origin

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.buildings.evaluation import compare as evaluation
from fieldfare.remote_sensing.buildings.evaluation.compare import compare_masks, evaluate_scene
from fieldfare.remote_sensing.buildings.evaluation.footprints import (
    compare_footprints,
    compare_spacenet,
)
from fieldfare.remote_sensing.buildings.evaluation.reports import (
    pool,
    size_table,
    table,
    write_reports,
)

UTM = "EPSG:32636"
GRID = from_origin(450_000, 40_000, 0.5, 0.5)
HOUSES = [(4, 4, 24, 30), (40, 6, 70, 26), (10, 50, 30, 90), (50, 50, 56, 58)]
"""Top, left, bottom and right in pixels of 0.5 m: 130, 150, 200 and 12 m2."""


def outlines(shift: float = 0.0, **columns) -> gpd.GeoDataFrame:
    """The houses, moved to the right by so many pixels."""
    polygons = [
        shapely.box(*(GRID * (left + shift, bottom)), *(GRID * (right + shift, top)))
        for top, left, bottom, right in HOUSES
    ]
    return gpd.GeoDataFrame(columns, geometry=polygons, crs=UTM)


def mask(shift: int = 0, shape: tuple[int, int] = (100, 120)) -> np.ndarray:
    drawn = np.zeros(shape, np.uint8)
    for top, left, bottom, right in HOUSES:
        drawn[top:bottom, left + shift : right + shift] = 1
    return drawn


def write(path: Path, values: np.ndarray, **profile) -> Path:
    settings = {"crs": UTM, "transform": GRID, "dtype": values.dtype} | profile
    height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=height, width=width, **settings
    ) as sink:
        sink.write(values, 1)
    return path


@pytest.fixture
def probability(tmp_path: Path) -> Path:
    """A perfect map as `rs-buildings infer --prob` writes it."""
    return write(tmp_path / "prob.tif", mask() * np.uint8(250), nodata=255)


def of_set(rows: list[dict], name: str) -> dict:
    (row,) = [row for row in rows if row["set"] == name]
    return row


@pytest.fixture(scope="module")
def hf_fcn_tiles(data) -> list:
    """Evaluations of the predictions of HF-FCN on the 10 test tiles."""
    folder = data / "buildings" / "massachusetts_test"
    return compare_masks(folder / "hf_fcn_prob", folder / "masks")


@pytest.fixture
def hf_fcn(hf_fcn_tiles) -> dict:
    """Their pooled row."""
    assert len(hf_fcn_tiles) == 10
    return table(hf_fcn_tiles)[-1]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("building_iou", 0.7205),
        ("background_iou", 0.9317),
        ("mean_iou", 0.8261),
        ("accuracy", 0.9419),
        ("pixel_f1", 0.8376),
        ("pixel_precision", 0.8736),
        ("pixel_recall", 0.8043),
    ],
)
def test_hf_fcn_on_massachusetts_has_building_iou_0_7205(hf_fcn, column, expected) -> None:
    assert hf_fcn["scene"] == "all"
    assert round(hf_fcn[column], 4) == expected


def test_hf_fcn_on_massachusetts_breaks_even_at_0_8416_and_relaxed_0_9642(hf_fcn) -> None:
    assert round(hf_fcn["break_even"], 4) == 0.8416
    assert round(hf_fcn["relaxed_break_even"], 4) == 0.9642


def test_hf_fcn_curves_are_the_published_ones(data, hf_fcn_tiles) -> None:
    folder = data / "buildings" / "massachusetts_test"
    pixels = pool(hf_fcn_tiles)[0].sets["pixels"].pixels
    for curve, rho in zip(pixels.curves, (0, 3), strict=True):
        name = f"Zuo-HF-FCN-ACCV16_pre_rec_ch0_relax_{rho}.npy"
        published = np.load(folder / "published_pr" / name)
        ours = np.stack(curve.precision_recall(), axis=1)
        # the published ones were made before rounding to 8 bits, which tells at the very ends
        np.testing.assert_allclose(ours[16:240], published[16:240], atol=1e-3)
        np.testing.assert_allclose(ours[128], published[128], atol=1e-6)
        np.testing.assert_allclose(ours[0], published[0], atol=1e-6)


@pytest.mark.parametrize(
    ("area", "f1", "counts"),
    [("AOI_2_Vegas", 0.8861, (35, 2, 7)), ("AOI_5_Khartoum", 0.4444, (52, 55, 75))],
)
def test_spacenet_golden_has_f1_0_8861_in_vegas_and_0_4444_in_khartoum(
    data, area, f1, counts
) -> None:
    folder = data / "buildings" / "spacenet"
    files = (folder / "SN2_sample_preds.csv", folder / "SN2_sample_truth.csv")
    (row,) = [row for row in table(compare_spacenet(*files)) if row["scene"] == area]
    assert round(row["object_f1"], 4) == f1
    assert (row["tp"], row["fp"], row["fn"]) == counts


def test_two_annotators_agree_alike_from_both_sides(data) -> None:
    folder = data / "buildings" / "polygons"
    one, other = (gpd.read_file(folder / f"{name}-labels.geojson") for name in ("matt", "seamus"))
    (forth,) = table([compare_footprints({"raw": one}, other)])
    (back,) = table([compare_footprints({"raw": other}, one)])
    assert forth["object_f1"] == pytest.approx(back["object_f1"])
    assert forth["polis"] == pytest.approx(back["polis"], rel=1e-3)
    assert 0.5 < forth["object_f1"] < 0.9
    assert 0 < forth["polis"] < 2  # metres, though the files are in degrees


def test_perfect_scene_is_1_throughout(probability: Path) -> None:
    sets = {"raw": outlines(confidence=[0.9, 0.8, 0.7, 0.6]), "regularised": outlines()}
    rows = table([evaluate_scene(probability, sets, outlines())])
    assert [row["set"] for row in rows] == ["pixels", "raw", "regularised"]
    for row in rows:
        assert row["building_iou"] == row["mean_iou"] == row["relaxed_recall"] == 1
        assert row["boundary_px"] == 2  # 1 m
    for row in rows[1:]:
        assert (row["object_f1"], row["tp"], row["count_error"]) == (1, 4, 0)
        assert row["polis"] == pytest.approx(0, abs=1e-6)
    assert rows[1]["ap75"] == 1
    assert rows[2]["ap75"] is None  # nothing ranks them


def test_moved_footprints_lose_what_they_do_not_cover(probability: Path) -> None:
    rows = table([evaluate_scene(probability, {"raw": outlines(2.0)}, outlines())])
    assert of_set(rows, "pixels")["building_iou"] == 1
    drawn, moved = mask().astype(bool), mask(2).astype(bool)
    raw = of_set(rows, "raw")
    assert raw["building_iou"] == (drawn & moved).sum() / (drawn | moved).sum()
    assert raw["relaxed_precision"] == 1  # within 3 pixels
    assert 0.4 < raw["polis"] < 1  # 2 pixels of 0.5 m, less where corners stay on the outline


def test_labels_in_degrees_are_the_same_labels(probability: Path) -> None:
    sets = {"raw": outlines(1.0)}
    here = table([evaluate_scene(probability, sets, outlines())])
    there = table(
        [evaluate_scene(probability, {"raw": sets["raw"].to_crs(4326)}, outlines().to_crs(3857))]
    )
    for one, other in zip(here, there, strict=True):
        for column in ("building_iou", "object_f1", "polis"):
            assert one[column] == (other[column] and pytest.approx(other[column], rel=1e-3))


def test_missing_pixels_do_not_count(tmp_path: Path) -> None:
    levels = mask() * np.uint8(250)
    levels[45:] = 255  # the third house wholly hidden from row 45 on; the fourth starts at 50
    path = write(tmp_path / "prob.tif", levels, nodata=255)
    wrong_below = outlines().iloc[:3]
    rows = table([evaluate_scene(path, {"raw": wrong_below}, outlines())])
    for row in rows:
        assert row["building_iou"] == row["accuracy"] == 1
    raw = of_set(rows, "raw")
    assert (raw["tp"], raw["fp"], raw["fn"]) == (3, 0, 0)


def test_buildings_outside_the_raster_do_not_count(tmp_path: Path) -> None:
    levels = mask()[:, :40] * np.uint8(250)  # the third house ends outside at column 90
    path = write(tmp_path / "prob.tif", levels, nodata=255)
    rows = table([evaluate_scene(path, {"raw": outlines()}, outlines(0.0))])
    assert of_set(rows, "raw")["tp"] == 2
    assert of_set(rows, "raw")["fn"] == 0


def test_blocks_make_no_difference(probability: Path, monkeypatch) -> None:
    sets, labels = {"raw": outlines(3.0)}, outlines(1.0)
    whole = table([evaluate_scene(probability, sets, labels)])
    monkeypatch.setattr(evaluation, "BLOCK", 37)
    assert table([evaluate_scene(probability, sets, labels)]) == whole


def test_small_buildings_and_size_bins(probability: Path) -> None:
    result = evaluate_scene(probability, {"raw": outlines()}, outlines(), min_area=20)
    assert of_set(table([result]), "raw")["tp"] == 3
    counted = {row["from_m2"]: row["truths"] for row in size_table([result])}
    assert counted == {0: 0, 25: 0, 50: 0, 100: 2, 200: 1}


def test_without_crs_a_pixel_has_the_size_it_is_given(tmp_path: Path) -> None:
    profile = {"crs": None, "transform": rasterio.Affine.identity(), "nodata": 255}
    path = write(tmp_path / "prob.tif", mask() * np.uint8(250), **profile)
    boxes = [shapely.box(left, top, right, bottom) for top, left, bottom, right in HOUSES]
    labels = gpd.GeoDataFrame(geometry=boxes)
    result = evaluate_scene(path, {"raw": labels}, labels, gsd=0.5)
    raw = of_set(table([result]), "raw")
    assert (raw["building_iou"], raw["tp"], raw["boundary_px"]) == (1, 4, 2)
    assert [row["truths"] for row in size_table([result])] == [1, 0, 0, 2, 1]


@pytest.mark.parametrize(("found", "true"), [(0, 0), (0, 4), (4, 0)])
def test_nothing_found_and_nothing_there(tmp_path: Path, found: int, true: int) -> None:
    levels = mask() * np.uint8(250 if found else 0)
    path = write(tmp_path / "prob.tif", levels, nodata=255)
    result = evaluate_scene(path, {"raw": outlines().iloc[:found]}, outlines().iloc[:true])
    raw = of_set(table([result]), "raw")
    assert (raw["tp"], raw["fp"], raw["fn"]) == (0, found, true)
    assert raw["building_iou"] == (0 if found or true else None)
    write_reports(tmp_path / "report", [result])


def test_a_building_cut_in_two_by_missing_pixels_stays_one(tmp_path: Path) -> None:
    levels = mask() * np.uint8(250)
    levels[:, 65:67] = 255  # through the middle of the third house
    levels[10, 49] = 255  # touches its corner
    path = write(tmp_path / "prob.tif", levels, nodata=255)
    raw = of_set(table([evaluate_scene(path, {"raw": outlines()}, outlines())]), "raw")
    assert (raw["tp"], raw["fp"], raw["fn"], raw["polis"]) == (4, 0, 0, 0)


def test_invalid_footprints_are_repaired(probability: Path) -> None:
    frame = outlines()
    bow_tie = shapely.Polygon(
        [GRID * corner for corner in ((90, 70), (99, 79), (99, 70), (90, 79))]
    )
    frame.loc[4] = [bow_tie]
    (_, raw) = table([evaluate_scene(probability, {"raw": frame}, outlines(), min_area=0)])
    assert (raw["tp"], raw["fp"]) == (4, 2)  # two triangles


def test_region_cuts_both_sides() -> None:
    left = shapely.box(*(GRID * (0, 100)), *(GRID * (40, 0)))
    result = compare_footprints({"raw": outlines(1.0)}, outlines(), region=left)
    assert table([result])[0]["tp"] == 2


def test_footprints_without_crs_are_refused() -> None:
    with pytest.raises(InputError, match="raw: have no CRS"):
        compare_footprints({"raw": outlines().set_crs(None, allow_override=True)}, outlines())


def test_pooled_row_is_that_of_one_large_image(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder, shift in ((ours, 3), (theirs, 0)):
        folder.mkdir()
        for index, rows in enumerate((slice(0, 30), slice(30, 100))):
            Image.fromarray(mask(shift)[rows] * np.uint8(255)).save(folder / f"{index}.png")
    whole = write(tmp_path / "ours.tif", mask(3)), write(tmp_path / "theirs.tif", mask())
    pooled, (single,) = table(compare_masks(ours, theirs))[-1], table(compare_masks(*whole))
    assert pooled["scene"] == "all"
    for column in ("building_iou", "mean_iou", "accuracy", "pixel_f1"):
        assert pooled[column] == single[column]


def test_masks_of_0_and_1_have_no_break_even(tmp_path: Path) -> None:
    ours, theirs = write(tmp_path / "a.tif", mask(1), nodata=0), write(tmp_path / "b.tif", mask())
    (row,) = table(compare_masks(ours, theirs))
    drawn, moved = mask().astype(bool), mask(1).astype(bool)
    assert row["building_iou"] == (drawn & moved).sum() / (drawn | moved).sum()
    assert row["accuracy"] > 0.9  # nodata 0 is background, not a hole
    assert row["break_even"] is None


def test_unequal_sizes_and_missing_partners_are_refused(tmp_path: Path) -> None:
    small = write(tmp_path / "small.tif", mask()[:50])
    whole = write(tmp_path / "whole.tif", mask())
    with pytest.raises(InputError, match=r"120 x 50 pixels, but .*120 x 100"):
        compare_masks(small, whole)
    other = tmp_path / "other"
    other.mkdir()
    write(other / "small.tif", mask()[:50])
    with pytest.raises(InputError, match=r"holds no whole\.tif"):
        compare_masks(tmp_path, other)
    wide = write(tmp_path / "float.tif", mask().astype(np.float32))
    with pytest.raises(InputError, match="is float32"):
        compare_masks(wide, whole)
    with pytest.raises(InputError, match="is float32"):
        evaluate_scene(wide, {}, outlines())


def test_a_table_that_is_not_spacenet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="needs a CSV with ImageId"):
        compare_spacenet(path, path)


def test_reports_hold_every_row_and_define_every_number(tmp_path: Path, probability: Path) -> None:
    sets = {"raw": outlines(1.0, confidence=[0.9, 0.8, 0.7, 0.6]), "regularised": outlines()}
    results = [
        evaluate_scene(probability, sets, outlines(), scene=scene, model="m", depth=depth)
        for scene in ("a", "b")
        for depth in (2, 4)
    ]
    written = write_reports(tmp_path / "report", results)
    names = [path.name for path in written]
    assert names == ["evaluation.csv", "evaluation.json", "size_bins.csv", "evaluation.png"]
    with open(written[0], newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (4 + 2) * 3
    assert [row["scene"] for row in rows[-3:]] == ["all"] * 3
    report = json.loads(written[1].read_text())
    assert [row["set"] for row in report["rows"]] == [row["set"] for row in rows]
    described = set(report["definitions"]) | {"scene", "model", "depth", "set"}
    assert set(rows[0]) <= described
    with Image.open(written[3]) as picture:
        assert picture.width > 4 * 120


def test_picture_shows_the_same_ground_of_a_finer_scene(tmp_path: Path, probability: Path) -> None:
    finer = from_origin(450_000, 40_000, 0.25, 0.25)
    roofs = mask().repeat(2, 0).repeat(2, 1) * np.uint8(255)
    image = write(tmp_path / "image.tif", roofs, transform=finer)
    panels = evaluate_scene(probability, {"raw": outlines()}, outlines(), image=image).panels
    assert list(panels) == ["scene", "pixels", "raw"]
    assert (panels["scene"][..., 0] == mask() * 255).all()
