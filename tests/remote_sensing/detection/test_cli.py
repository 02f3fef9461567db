# SPDX-License-Identifier: Apache-2.0
"""rs-detect as a user meets it: a bad input is one line and a code; nothing half-written."""

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from click.testing import CliRunner, Result
from sample_objects import row, save_tiny, write_orchard, write_table
from sample_rasters import write_raster

from fieldfare.common.weights import read_card
from fieldfare.remote_sensing.detection.cli import main
from fieldfare.remote_sensing.detection.networks.models import load_model

TILE = ("--tile", 128, "--overlap", 64)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result: Result, folder: Path, *, kept: int) -> str:
    """Assert one line, code 2, no traceback and no new file; returns the line."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.output
    assert len(list(folder.iterdir())) == kept, list(folder.iterdir())
    return lines[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no such file"),
        (lambda p: p.mkdir(), "is a folder"),
        (lambda p: p.write_text("hello"), "not a readable raster"),
        (lambda p: write_raster(p, np.zeros((3, 5, 5), np.complex64)), "convert them to one of"),
        (lambda p: write_raster(p, np.zeros((1, 5, 5), np.uint8)), "takes 3 bands, not 1"),
        (
            lambda p: write_raster(
                p,
                np.zeros((3, 5, 5), np.uint8),
                transform=write_orchard_transform(30.0),
            ),
            "cannot be seen in so coarse",
        ),
    ],
)
def test_a_bad_scene_is_one_line(tmp_path, detector, make, message):
    source = tmp_path / "in.tif"
    make(source)
    kept = len(list(tmp_path.iterdir()))
    result = call("infer", source, "-o", tmp_path / "o.gpkg", "--model", detector)
    line = refused(result, tmp_path, kept=kept)
    assert message in line
    assert "in.tif" in line


def write_orchard_transform(gsd):
    from rasterio import Affine

    return Affine(gsd, 0, 5e5, 0, -gsd, 4e6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "o.shp"], "name it *.gpkg, *.parquet, *.geojson, *.geoparquet, *.json"),
        (["-o", "o.gpkg", "--tile", 100], "multiple of 32"),
        (["-o", "o.gpkg", "--overlap", 100], "multiple of 64"),
        (["-o", "o.gpkg", "--preview", "p.tif"], "name it *.png"),
        (["-o", "o.gpkg", "--model", "none_such"], "none_such"),
        (["-o", "o.gpkg", "--range", "9:3"], "--range"),
        (["-o", "o.gpkg", "--window", "500,500,10,10"], "outside the raster"),
        (["-o", "o.gpkg", "--bands", "1,2"], "takes 3 bands"),
    ],
)
def test_a_bad_option_is_one_line(tmp_path, detector, orchard, arguments, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = len(list(tmp_path.iterdir()))
    result = call("infer", orchard.image, "--model", detector, *arguments)
    assert message in refused(result, tmp_path, kept=kept)


@pytest.mark.parametrize("value", ["0", "1", "1.5", "x"])
@pytest.mark.parametrize("option", ["--threshold", "--nms"])
def test_shares_lie_between_0_and_1(tmp_path, orchard, option, value):
    result = call("infer", orchard.image, "-o", tmp_path / "o.gpkg", option, value)
    assert result.exit_code == 2
    assert option in result.stderr


def test_an_existing_output_is_kept_unless_told_otherwise(tmp_path, detector, orchard):
    target = tmp_path / "o.gpkg"
    target.write_text("precious")
    arguments = ["infer", orchard.image, "-o", target, "--model", detector, *TILE]
    assert "--overwrite" in call(*arguments).stderr
    assert target.read_text() == "precious"
    assert call(*arguments, "--overwrite").exit_code == 0
    assert len(gpd.read_file(target)) > 0


def test_the_result_as_json_with_a_picture(tmp_path, detector, orchard):
    made = [tmp_path / "o.json", tmp_path / "p.png"]
    arguments = ["-o", made[0], "--preview", made[1], "--model", detector, *TILE, "--json"]
    result = json.loads(call("infer", orchard.image, *arguments).stdout)
    assert result["objects"] == len(json.loads(made[0].read_text())["annotations"])
    assert result["classes"] == {"tree": result["objects"]}
    assert made[1].exists()


def test_a_dry_run_writes_nothing(tmp_path, detector, orchard):
    before = sorted(tmp_path.iterdir())
    arguments = ["-o", tmp_path / "o.gpkg", "--model", detector, *TILE, "--dry-run", "--json"]
    plan = json.loads(call("infer", orchard.image, *arguments).stdout)
    assert plan["tiles"] == 12
    assert sorted(tmp_path.iterdir()) == before


def test_several_scenes_go_to_a_folder_and_a_second_run_does_the_rest(tmp_path, detector):
    scenes = [write_orchard(tmp_path / name, name=name).image for name in ("east", "west")]
    out = tmp_path / "out"
    arguments = ["-o", out, "--model", detector, *TILE, "--format", "json", "--quiet", "--json"]
    first = json.loads(call("infer", scenes[0], tmp_path / "gone.tif", *arguments).stdout)
    assert (first["done"], first["failed"], first["skipped"]) == (1, 1, 0)
    second = json.loads(call("infer", *scenes, *arguments).stdout)
    assert (second["done"], second["failed"], second["skipped"]) == (1, 0, 1)
    single = tmp_path / "single.json"
    assert call("infer", scenes[1], "-o", single, "--model", detector, *TILE).exit_code == 0
    assert single.read_bytes() == (out / "west.json").read_bytes()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = []
    for number, split in enumerate(("train", "val", "test")):
        orchard = write_orchard(
            tmp_path / "data", name=split, east=5e5 + 1000 * number, points=True
        )
        rows.append(row(orchard, split))
    return write_table(tmp_path / "t.csv", *rows)


def test_train_writes_a_model_that_eval_measures_and_infer_takes(tmp_path, table):
    start, run = save_tiny(tmp_path / "start.safetensors"), tmp_path / "trees"
    schedule = ["--steps", 2, "--batch", 2, "--patch", 64, "--quiet"]
    result = call("train", table, "-o", run, "--init", start, *schedule)
    assert result.exit_code == 0, result.output
    model = run / "model.safetensors"
    card = read_card(model)
    assert (card.name, card.config["point_size"]) == ("trees", 6.0)
    assert card.metrics[0].name == "f1"
    assert "5 objects" in card.data
    network, _ = load_model(str(model))
    assert network.config.threshold == card.config["threshold"]
    out = tmp_path / "scores"
    result = call("eval", table, "--model", model, "--baseline", *TILE, "-o", out, "--json")
    rows = json.loads(result.stdout)["rows"]
    assert [(r["area"], r["model"], r["objects"]) for r in rows] == [
        ("test", "model", 5),
        ("test", "greenness", 5),
    ]
    assert (out / "evaluation.png").exists()


def test_a_fresh_network_learns_the_classes_of_the_labels(tmp_path, table):
    schedule = ["--steps", 1, "--batch", 2, "--patch", 64, "--quiet", "--gsd", 0.5]
    result = call("train", table, "-o", tmp_path / "run", *schedule)
    assert result.exit_code == 0, result.output
    config = load_model(str(tmp_path / "run" / "model.safetensors"))[0].config
    assert (config.network, config.classes, config.gsd) == ("leyolo_nano", ("tree",), 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--patch", 100], "multiple of 32"),
        (["--classes", "ship"], "no training scene has an object of class ship"),
        (["--init", "none_such"], "none_such"),
    ],
)
def test_train_refuses_before_it_makes_a_folder(tmp_path, table, arguments, message):
    kept = len(list(tmp_path.iterdir()))
    result = call("train", table, "-o", tmp_path / "run", *arguments)
    assert message in refused(result, tmp_path, kept=kept)


def test_a_model_of_other_classes_is_no_start(tmp_path, table):
    start = save_tiny(tmp_path / "start.safetensors", classes=("car", "ship"))
    result = call("train", table, "-o", tmp_path / "run", "--init", start, "--classes", "tree")
    assert "train a fresh network" in result.stderr
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--split", "all"], "must be one of train, val, test"), (["--model", "x"], "x")],
)
def test_eval_refuses_what_it_cannot_measure(tmp_path, table, detector, arguments, message):
    result = call("eval", table, "--model", detector, *arguments)
    assert message in refused(result, tmp_path, kept=len(list(tmp_path.iterdir())))


def test_eval_of_a_split_without_scenes_is_refused(tmp_path, detector):
    path = write_table(tmp_path / "t.csv", row(write_orchard(tmp_path), "train"))
    result = call("eval", path, "--model", detector)
    assert result.exit_code == 2
    assert "no scene in the split test" in result.stderr


def test_models_lists_the_packaged_one_with_its_scores_and_cost():
    (model,) = json.loads(call("models", "--json").stdout)["models"]
    assert (model["name"], model["classes"]) == ("leyolo_nano_trees", "tree")
    assert {metric["name"] for metric in model["metrics"]} == {"f1", "precision", "recall"}
    assert model["cost"][0]["parameters"] == 1_088_451


def test_bench_tells_cost_and_time(detector):
    result = json.loads(
        call("bench", "--model", detector, "--tile", 64, "--repeats", 2, "--json").stdout
    )
    assert result["tile"] == 64
    assert result["gmacs"] > 0
    assert result["median_s"] > 0


@pytest.mark.slow
def test_the_exported_network_agrees(tmp_path, detector):
    pytest.importorskip("onnxruntime")
    target = tmp_path / "o.onnx"
    result = call("export", "--model", detector, "-o", target, "--tile", 64)
    assert result.exit_code == 0, result.output
    assert target.exists()


def test_export_refuses_a_tile_that_does_not_fit(tmp_path, detector):
    pytest.importorskip("onnxruntime")
    result = call("export", "--model", detector, "-o", tmp_path / "o.onnx", "--tile", 100)
    assert "multiple of 32" in refused(result, tmp_path, kept=0)
