# SPDX-License-Identifier: Apache-2.0
"""rs-sr as a user meets it: a bad input is one line and a code; nothing half-written is left."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner, Result
from PIL import Image
from sample_rasters import smooth, write_raster

from fieldfare.common.weights import read_card
from fieldfare.remote_sensing.super_resolution.cli import main
from fieldfare.remote_sensing.super_resolution.networks.ediffsr import EDiffSR, EDiffSRConfig


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result: Result, folder: Path, *, code: int = 2, kept: int) -> str:
    """Assert one line, the exit code, no traceback and no new file; returns the line."""
    assert result.exit_code == code, result.output
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
        (lambda p: p.write_bytes(b""), "not a readable raster"),
        (lambda p: write_raster(p, np.full((1, 5, 5), np.inf, np.float32)), "infinite values"),
        (lambda p: write_raster(p, np.zeros((1, 5, 5), np.complex64)), "convert them to one of"),
        (lambda p: write_raster(p, np.zeros((1, 5, 5), np.float64)), "convert them to one of"),
    ],
)
def test_a_bad_raster_is_one_line(tmp_path, make, message):
    source = tmp_path / "in.tif"
    make(source)
    kept = len(list(tmp_path.iterdir()))
    result = call("infer", source, "-o", tmp_path / "out.tif", "--model", "bicubic")
    line = refused(result, tmp_path, kept=kept)
    assert message in line
    assert "in.tif" in line


def test_a_truncated_raster_is_one_line(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (3, 300, 300)).astype(np.uint8)
    source = write_raster(tmp_path / "in.tif", values, tiled=True, compress="deflate")
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    result = call("infer", source, "-o", tmp_path / "out.tif", "--model", "bicubic")
    assert "in.tif" in refused(result, tmp_path, kept=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "no_such_model"], "no model is named"),
        (["--model", "missing.safetensors"], "no such file"),
        (["--bands", "1,9"], "has no band 9"),
        (["--window", "500,500,10,10"], "outside the raster"),
        (["--range", "wrong"], "LOW:HIGH"),
        (["--overlap", "64"], "--overlap 64"),
        (["--uncertainty", "3"], "has no randomness"),
        (["--window", "0,0,9,9", "--bbox", "0,0,1,1"], "give one of them"),
        (["--preview", "nowhere/p.png"], "no such folder"),
    ],
)
def test_a_bad_option_is_one_line(rgb, tmp_path, options, message):
    given = ["--model", "bicubic", *options]
    result = call("infer", rgb, "-o", tmp_path / "out.tif", *given)
    assert message in refused(result, tmp_path, kept=1)


def test_an_existing_output_is_kept_unless_overwritten(rgb, tmp_path):
    target = tmp_path / "out.tif"
    target.write_text("mine")
    result = call("infer", rgb, "-o", target, "--model", "bicubic")
    assert "--overwrite" in refused(result, tmp_path, kept=2)
    assert target.read_text() == "mine"
    result = call("infer", rgb, "-o", target, "--model", "bicubic", "--overwrite")
    assert result.exit_code == 0
    assert rasterio.open(target).width == 208


def test_the_input_is_never_overwritten(rgb, tmp_path):
    result = call("infer", rgb, "-o", rgb, "--model", "bicubic", "--overwrite")
    assert "is an input" in refused(result, tmp_path, kept=1)


def test_an_output_folder_that_is_missing_is_one_line(rgb, tmp_path):
    result = call("infer", rgb, "-o", tmp_path / "no" / "out.tif", "--model", "bicubic")
    assert "no such folder" in refused(result, tmp_path, kept=1)


def test_corrupt_and_pickled_weights_are_refused(rgb, tmp_path):
    corrupt = tmp_path / "corrupt.safetensors"
    corrupt.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00garbage")
    pickled = tmp_path / "pickled.safetensors"
    pickled.write_bytes(pickle.dumps({"a": 1}))
    for weights in (corrupt, pickled):
        result = call("infer", rgb, "-o", tmp_path / "out.tif", "--model", weights)
        assert "not a readable safetensors file" in refused(result, tmp_path, kept=3)


def test_a_full_disk_is_one_line_and_leaves_nothing(rgb, tmp_path, monkeypatch):
    from fieldfare.remote_sensing.rasters import rows

    def full(*_, **__):
        raise OSError(28, "No space left on device", "out.tif")

    monkeypatch.setattr(rows.np, "savez", full)
    result = call("infer", rgb, "-o", tmp_path / "out.tif", "--model", "bicubic")
    assert "disk is full" in refused(result, tmp_path, code=1, kept=1)


def test_ctrl_c_before_the_first_rows_leaves_nothing(rgb, tmp_path, monkeypatch):
    from fieldfare.remote_sensing.super_resolution.inference import run as inference

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(inference, "restore_bands", interrupted)
    result = call("infer", rgb, "-o", tmp_path / "out.tif", "--model", "bicubic")
    refused(result, tmp_path, code=130, kept=1)


def test_one_pixel(tmp_path):
    source = write_raster(tmp_path / "in.tif", np.full((3, 1, 1), 77, np.uint8))
    assert call("infer", source, "-o", tmp_path / "o.tif", "--model", "bicubic").exit_code == 0
    assert (rasterio.open(tmp_path / "o.tif").read() == 77).all()


def test_without_a_crs_the_result_has_none(tmp_path):
    Image.fromarray(smooth(3, 9, 9, 0, 255).astype(np.uint8).transpose(1, 2, 0)).save(
        tmp_path / "in.png"
    )
    result = call("infer", tmp_path / "in.png", "-o", tmp_path / "o.tif", "--model", "bicubic")
    assert result.exit_code == 0, result.output
    with rasterio.open(tmp_path / "o.tif") as after:
        assert after.crs is None
        assert after.shape == (36, 36)


def test_json_is_one_object_on_stdout(rgb, tmp_path):
    target = tmp_path / "out.tif"
    result = call("infer", rgb, "-o", target, "--model", "bicubic", "--json")
    answer = json.loads(result.stdout)
    assert answer["width"] == 208
    assert answer["output"] == str(target)


def test_dry_run_writes_nothing(rgb, tmp_path, tiny_model):
    result = call("infer", rgb, "-o", tmp_path / "out.tif", "--model", tiny_model, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "tiles: 1" in result.stdout
    assert len(list(tmp_path.iterdir())) == 1


def test_preview_shows_before_and_after(rgb, tmp_path):
    picture = tmp_path / "p.png"
    arguments = ["-o", tmp_path / "out.tif", "--model", "bicubic", "--preview", picture]
    assert call("infer", rgb, *arguments).exit_code == 0
    assert Image.open(picture).size == (2 * 208 + 24, 26 + 160 + 16)


@pytest.mark.slow
def test_many_inputs_go_into_a_folder_and_a_bad_one_fails_alone(rgb, tmp_path):
    bad = tmp_path / "bad.tif"
    bad.write_text("no raster")
    result = call("infer", rgb, bad, "-o", tmp_path / "out", "--model", "bicubic", "--quiet")
    assert result.exit_code == 3, result.output
    assert "failed: bad" in result.stderr
    assert rasterio.open(tmp_path / "out" / "rgb_x4.tif").width == 208
    assert not (tmp_path / "out" / "bad_x4.tif").exists()


def test_bbox_is_in_the_rasters_coordinates(rgb, tmp_path):
    with rasterio.open(rgb) as source:
        left, top = source.transform * (8, 4)
        right, bottom = source.transform * (24, 20)
    box = f"{left},{bottom},{right},{top}"
    arguments = ["-o", tmp_path / "o.tif", "--model", "bicubic", "--bbox", box]
    assert call("infer", rgb, *arguments).exit_code == 0
    assert rasterio.open(tmp_path / "o.tif").bounds == pytest.approx((left, bottom, right, top))


def test_convert_accepts_a_full_size_published_checkpoint_and_round_trips(tmp_path):
    torch.manual_seed(0)
    published = {f"module.{k}": v for k, v in EDiffSR().state_dict().items()}
    source, target = tmp_path / "180000_G.pth", tmp_path / "x.safetensors"
    torch.save(published, source)
    result = call("convert", source, "-o", target)
    assert result.exit_code == 0, result.output
    assert "20,403,719 parameters" in result.stderr
    from fieldfare.remote_sensing.super_resolution.networks.model import load_model

    model, card = load_model(str(target))
    assert card == read_card(target)
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, published[f"module.{name}"])


def test_convert_reports_what_does_not_fit(tmp_path):
    state = EDiffSR(
        EDiffSRConfig(width=16, encoder_blocks=(1,), middle_blocks=1, decoder_blocks=(1,))
    ).state_dict()
    state["surplus.weight"] = state.pop("ending.bias")
    torch.save(state, tmp_path / "x.pth")
    result = call("convert", tmp_path / "x.pth", "-o", tmp_path / "x.safetensors")
    line = refused(result, tmp_path, kept=1)
    assert "1 missing: ending.bias; 1 unexpected: surplus.weight" in line


def test_a_checkpoint_with_code_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return print, ("executed",)

    torch.save({"a": Payload()}, tmp_path / "x.pth")
    result = call("convert", tmp_path / "x.pth", "-o", tmp_path / "x.safetensors")
    assert "could run code" in refused(result, tmp_path, kept=1)
    assert "executed" not in result.output


def test_train_resumes_and_its_model_is_usable(tmp_path, rgb):
    tiles = tmp_path / "tiles"
    tiles.mkdir()
    for number in range(3):
        values = smooth(3, 48, 48, 0, 255 - 20 * number).astype(np.uint8)
        write_raster(tiles / f"{number}.tif", values)
    arguments = ["-o", tmp_path / "run", "--patch", "8", "--batch", "1", "--precision", "fp32"]
    result = call("train", tiles, *arguments, "--steps", "2", "--device", "cpu", "--quiet")
    assert result.exit_code == 0, result.output
    model = tmp_path / "run" / "model.safetensors"
    assert read_card(model).seed == 0
    assert {path.name for path in model.parent.iterdir()} == {
        "checkpoint.pt",
        "learning_curve.png",
        "log.csv",
        "model.md",
        "model.safetensors",
    }
    infer = ["infer", rgb, "-o", tmp_path / "o.tif", "--model", model, "--steps", "1"]
    assert call(*infer, "--window", "0,0,8,8").exit_code == 0
    for change in (["--steps", "9"], ["--steps", "2", "--cpem", "folded"]):
        result = call("train", tiles, *arguments, *change, "--device", "cpu", "--quiet")
        assert result.exit_code == 2
        assert "other settings" in result.stderr


def test_the_papers_prior_enhancement_trains_and_restores(tmp_path, rgb):
    tiles = tmp_path / "tiles"
    tiles.mkdir()
    for number in range(2):
        write_raster(tiles / f"{number}.tif", smooth(3, 48, 48, 0, 255).astype(np.uint8))
    arguments = ["-o", tmp_path / "run", "--patch", "8", "--batch", "1", "--precision", "fp32"]
    result = call("train", tiles, *arguments, "--cpem", "folded", "--steps", "1", "--quiet")
    assert result.exit_code == 0, result.output
    model = tmp_path / "run" / "model.safetensors"
    infer = ["infer", rgb, "-o", tmp_path / "o.tif", "--model", model, "--precision", "fp32"]
    assert call(*infer, "--window", "0,0,9,7").exit_code == 0
    assert rasterio.open(tmp_path / "o.tif").shape == (36, 28)


def test_eval_measures_and_writes_reports(tmp_path, tiny_model):
    folder = tmp_path / "test"
    folder.mkdir()
    for number in range(2):
        write_raster(folder / f"{number}.tif", smooth(3, 96, 96, 0, 255).astype(np.uint8))
    result = call(
        "eval", folder, "--model", tiny_model, "--steps", "1", "--steps", "2",
        "-o", tmp_path / "report", "--json", "--quiet",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    means = json.loads(result.stdout)["means"]
    assert [row["model"] for row in means] == ["bicubic", "tiny 1 step", "tiny 2 steps"]
    assert means[0]["psnr"] > 25
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "evaluation.csv", "evaluation.json", "contact_sheet.png",
    }  # fmt: skip


def test_eval_of_an_empty_folder_is_one_line(tmp_path):
    assert "holds no .tif" in refused(call("eval", tmp_path), tmp_path, kept=0)


@pytest.mark.slow
def test_export_agrees_with_torch(tmp_path, tiny_model):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    result = call("export", "--model", tiny_model, "--tile", "8", "-o", tmp_path / "m.onnx")
    assert result.exit_code == 0, result.output
    assert "agree within" in result.stderr
    assert (tmp_path / "m.onnx").stat().st_size > 100_000


def test_bench_prints_cost_and_time(tiny_model):
    result = call("bench", "--model", tiny_model, "--tile", "8", "--repeats", "2", "--json")
    answer = json.loads(result.stdout)
    assert answer["parameters"] > 1e4
    assert answer["macs_per_step"] > 1e6
