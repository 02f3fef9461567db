# SPDX-License-Identifier: Apache-2.0
"""rs-buildings as a user meets it: a bad input is one line and a code; nothing half-written."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner, Result
from sample_rasters import write_raster
from sample_scenes import Town, row, write_table, write_town

from fieldfare.common.weights import ModelCard, read_card, save_model_file
from fieldfare.remote_sensing.buildings.cli import main
from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
)
from fieldfare.remote_sensing.buildings.networks.models import TASK

TINY = {"encoder": "mobilenetv3_small_050", "decoder_channels": (16, 16, 16, 8, 8)}


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


def save(path: Path, config: NetworkConfig) -> Path:
    """A model of random weights that calls bright pixels buildings more often than dark ones."""
    torch.manual_seed(0)
    card = ModelCard(path.stem, TASK, "Random weights.", config.to_dict())
    save_model_file(path, BuildingNetwork(config).state_dict(), card)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "tiny.safetensors", NetworkConfig(**TINY))


@pytest.fixture(scope="module")
def lraspp(tmp_path_factory) -> Path:
    config = NetworkConfig(architecture="lraspp", outputs=("building",), **TINY)
    return save(tmp_path_factory.mktemp("model") / "lraspp.safetensors", config)


def damaged(path: Path) -> None:
    write_town(path.parent / "whole")
    (path.parent / "whole" / "town.tif").rename(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no such file"),
        (lambda p: p.mkdir(), "is a folder"),
        (lambda p: p.write_text("hello"), "not a readable raster"),
        (lambda p: write_raster(p, np.zeros((3, 5, 5), np.complex64)), "convert them to one of"),
        (lambda p: write_raster(p, np.zeros((1, 5, 5), np.uint8)), "takes 3 bands, not 1"),
    ],
)
def test_a_bad_scene_is_one_line(tmp_path, model, make, message):
    source = tmp_path / "in.tif"
    make(source)
    kept = len(list(tmp_path.iterdir()))
    line = refused(
        call("infer", source, "-o", tmp_path / "out.gpkg", "--model", model), tmp_path, kept=kept
    )
    assert message in line
    assert "in.tif" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "no_such_model"], "no model is named"),
        (["-o", "houses.shp"], "*.gpkg, *.parquet, *.geojson"),
        (["-o", "no/such/folder.gpkg"], "no such folder"),
        (["--bands", "1,2"], "takes 3 bands, not 2"),
        (["--bands", "1,2,7"], "has no band 7"),
        (["--window", "900,900,10,10"], "outside the raster"),
        (["--window", "0,0,9,9", "--bbox", "0,0,1,1"], "give one of them"),
        (["--range", "9:1"], "LOW:HIGH"),
        (["--overlap", "512"], "--overlap 512"),
        (["--mask", "nowhere/m.tif"], "no such folder"),
    ],
)
def test_a_bad_option_is_one_line(town, tmp_path, model, options, message):
    given = ["-o", tmp_path / "out.gpkg", "--model", model, *options]
    kept = len(list(tmp_path.iterdir()))
    assert message in refused(call("infer", town.image, *given), tmp_path, kept=kept)


def test_a_depth_that_a_model_does_not_have_is_one_line(town, tmp_path, lraspp):
    kept = len(list(tmp_path.iterdir()))
    result = call("infer", town.image, "-o", tmp_path / "o.gpkg", "--model", lraspp, "--depth", 2)
    assert "has only 4" in refused(result, tmp_path, kept=kept)


def test_infer_writes_all_that_is_asked_for(town, tmp_path, model):
    made = [tmp_path / name for name in ("o.gpkg", "m.tif", "p.tif", "p.png")]
    arguments = ["-o", made[0], "--mask", made[1], "--prob", made[2], "--preview", made[3]]
    result = call("infer", town.image, "--model", model, *arguments, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert all(path.exists() for path in made)
    found = gpd.read_file(made[0])
    assert told["buildings"] == len(found)
    with rasterio.open(made[2]) as probability:
        assert probability.descriptions == ("building", "edge")
    again = call("infer", town.image, "--model", model, "-o", made[0])
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr


def test_a_dry_run_writes_nothing(town, tmp_path, model):
    kept = len(list(tmp_path.iterdir()))
    result = call("infer", town.image, "-o", tmp_path / "o.gpkg", "--model", model, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "tiles: 1" in result.stdout
    assert len(list(tmp_path.iterdir())) == kept


def test_many_scenes_go_to_a_folder_and_a_bad_one_is_named(tmp_path, model):
    scenes = [write_town(tmp_path / name).image for name in ("one", "two")]
    scenes = [scene.rename(scene.with_name(f"{i}.tif")) for i, scene in enumerate(scenes)]
    broken = tmp_path / "broken.tif"
    broken.write_text("hello")
    folder = tmp_path / "out"
    arguments = ["-o", folder, "--model", model, "--format", "geojson", "--quiet"]
    result = call("infer", *scenes, broken, *arguments)
    assert result.exit_code == 3
    assert "broken.tif" in result.stderr
    assert sorted(path.name for path in folder.glob("*.geojson")) == ["0.geojson", "1.geojson"]


def test_an_encoder_that_is_unknown_or_without_weights_is_one_line(town, tmp_path):
    table = write_table(tmp_path / "t.csv", row(town, "train"))
    for options, message in (
        (["--encoder", "nosuchnet"], "close names"),
        (["--encoder", "b0"], "no package carries"),
        (["--loss", "bce+magic"], "--loss bce+magic"),
    ):
        result = call("train", table, "-o", tmp_path / "run", "--steps", 1, *options)
        assert result.exit_code == 2, result.output
        assert message in result.stderr


def test_training_gives_a_model_that_infer_takes(town, tmp_path):
    table = write_table(tmp_path / "t.csv", row(town, "train"))
    run = tmp_path / "run"
    options = ["--encoder", TINY["encoder"], "--encoder-weights", "none", "--patch", 128]
    result = call("train", table, "-o", run, "--steps", 2, "--batch", 2, *options)
    assert result.exit_code == 0, result.output
    card = read_card(run / "model.safetensors")
    assert card.config["encoder"] == TINY["encoder"]
    assert (run / "model.md").exists()
    target = tmp_path / "o.parquet"
    result = call("infer", town.image, "-o", target, "--model", run / "model.safetensors")
    assert result.exit_code == 0, result.output
    tuned = call(
        "train", table, "-o", tmp_path / "tuned", "--steps", 1, "--batch", 2, "--patch", 128,
        "--init", run / "model.safetensors",
    )  # fmt: skip
    assert tuned.exit_code == 0, tuned.output


def test_pem_is_trained_and_outlines_a_scene(town, tmp_path):
    table = write_table(tmp_path / "t.csv", row(town, "train"))
    run = tmp_path / "run"
    options = ["--architecture", "pem", "--encoder", TINY["encoder"], "--encoder-weights", "none"]
    options += ["--patch", 128, "--steps", 2]
    alone = call("train", table, "-o", run, "--batch", 1, *options)
    assert alone.exit_code == 2
    assert "pem needs two patches" in alone.stderr
    assert not run.exists()
    result = call("train", table, "-o", run, "--batch", 2, *options)
    assert result.exit_code == 0, result.output
    assert read_card(run / "model.safetensors").config["architecture"] == "pem"
    target = tmp_path / "o.parquet"
    found = call("infer", town.image, "-o", target, "--model", run / "model.safetensors", "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["trust"] is None
    assert target.exists()
    onnx = call("export", "--model", run / "model.safetensors", "-o", tmp_path / "a.onnx")
    assert onnx.exit_code == 2
    assert "no ONNX form" in onnx.stderr


def test_encoders_that_no_decoder_can_use_are_refused(town, tmp_path):
    table = write_table(tmp_path / "t.csv", row(town, "train"))
    options = ["--encoder", "slab_deit_tiny", "--encoder-weights", "none"]
    found = call("train", table, "-o", tmp_path / "run", *options)
    assert found.exit_code == 2
    assert "slab_deit_tiny has no features at stride" in found.stderr
    assert not (tmp_path / "run").exists()


def test_a_scene_and_a_few_labels_teach_a_model(town, tmp_path, model):
    run = tmp_path / "run"
    options = ["--init", model, "--steps", 2, "--batch", 2]
    first = call("train", town.image, town.labels, "-o", run, *options)
    assert first.exit_code == 0, first.output
    assert "what has no label is unknown" in first.stderr
    taught = (run / "model.safetensors").read_bytes()
    again = call("train", town.image, town.labels, "-o", run, *options)
    assert again.exit_code == 0, again.output
    assert (run / "model.safetensors").read_bytes() == taught
    result = call("train", town.image, town.labels, town.labels, "-o", run, *options)
    assert result.exit_code == 2
    assert "a table of scenes, or one scene and its labels" in result.stderr


def test_the_clean_stage_needs_a_model_and_reports_what_it_changed(tmp_path, model):
    towns = [
        write_town(tmp_path / name, centre=(32.6, 0.35 + 0.01 * i), name=name)
        for i, name in enumerate(("a", "b"))
    ]
    table = write_table(tmp_path / "t.csv", row(towns[0], "train"), row(towns[1], "test"))
    arguments = ["-o", tmp_path / "run", "--stage", "clean", "--steps", 1, "--batch", 2]
    result = call("adapt", table, *arguments)
    assert result.exit_code == 2
    assert "--init" in result.stderr
    result = call("adapt", table, *arguments, "--patch", 128, "--init", model)
    assert result.exit_code == 0, result.output
    assert "label shift" in result.stdout
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["sizes"][-1]["size_m2"] == "all"
    assert {"iou_before", "iou_after", "f1_before"} <= set(report["sizes"][0])


def test_eval_runs_depths_on_a_scene_and_writes_reports(town, tmp_path, model):
    folder = tmp_path / "report"
    depths = ["--depth", 1, "--depth", 4]
    result = call(
        "eval", town.labels, "--scene", town.image, "--model", model, *depths, "-o", folder
    )
    assert result.exit_code == 0, result.output
    with open(folder / "evaluation.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["depth"], r["set"]) for r in rows] == [
        (depth, name) for depth in "14" for name in ("pixels", "raw", "regularised")
    ]
    assert "gmacs" in result.stdout
    assert (folder / "evaluation.png").exists()


def test_eval_compares_polygons_and_masks_with_themselves(town: Town, tmp_path):
    result = call("eval", town.labels, "--prediction", town.labels, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows"][0]["object_f1"] == 1
    mask = write_raster(tmp_path / "mask.tif", town.mask[None].astype(np.uint8))
    result = call("eval", mask, "--prediction", mask, "--json")
    assert json.loads(result.stdout)["rows"][0]["building_iou"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --scene"),
        (["--prediction", "nothing.gpkg"], "no such file"),
        (["--prediction", "town.tif"], "two kinds"),
    ],
)
def test_eval_refuses_what_it_cannot_compare(town, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(town.image.parent)
    result = call("eval", town.labels, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")


def test_labels_elsewhere_are_one_line(town, tmp_path, model):
    far = write_town(tmp_path / "far", centre=(10, 50))
    result = call("eval", far.labels, "--scene", town.image, "--model", model)
    assert result.exit_code == 2
    assert "none of its" in result.stderr


def test_bench_lists_every_depth(model):
    result = call("bench", "--model", model, "--tile", 64, "--repeats", 2, "--json")
    assert result.exit_code == 0, result.output
    assert [r["depth"] for r in json.loads(result.stdout)["depths"]] == ["L1", "L2", "L3", "L4"]


def test_bench_lists_an_encoder_of_each_family(monkeypatch):
    from fieldfare.remote_sensing.buildings.commands import encoders

    small = {"MobileNetV3": TINY["encoder"], "ConvNeXt": "convnext_atto"}
    monkeypatch.setattr(encoders, "FAMILIES", small)
    result = call("bench", "--encoders", "--tile", 64, "--repeats", 2, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["encoders"]
    assert {r["family"]: r["encoder"] for r in rows} == small
    assert all(r["parameters"] > 0 and r["gmacs"] > 0 and r["median_s"] > 0 for r in rows)


def test_models_lists_packaged_models_with_their_depths():
    result = call("models", "--json")
    assert result.exit_code == 0, result.output
    models = json.loads(result.stdout)["models"]
    assert [len(m["depths"]) for m in models] == [4] * len(models)
    assert models


MEMORY = """
import resource, sys
from fieldfare.remote_sensing.buildings.cli import main
main(sys.argv[1:], standalone_mode=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_stays_flat_on_a_large_scene(tmp_path, lraspp):
    peaks = []
    for side in (512, 6000):
        path = tmp_path / f"{side}.tif"
        profile = {"driver": "GTiff", "height": side, "width": side, "count": 3, "dtype": "uint8"}
        profile |= {"tiled": True, "sparse_ok": True, "crs": "EPSG:32636"}
        transform = rasterio.Affine(0.15, 0, 500_000, 0, -0.15, 40_000)
        with rasterio.open(path, "w", **profile, transform=transform):
            pass
        arguments = ["infer", path, "-o", path.with_suffix(".gpkg"), "--model", lraspp, "--quiet"]
        answer = subprocess.run(
            [sys.executable, "-c", MEMORY, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(answer.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 300  # MB; arrays of the whole scene at 16 bytes a pixel: 576
