# SPDX-License-Identifier: Apache-2.0
"""rs-dehaze as a user meets it: a bad input is one line and a code, nothing half-written stays."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file
from sample_rasters import smooth, write_raster

from fieldfare.common.weights import read_card
from fieldfare.remote_sensing.dehazing.cli import main
from fieldfare.remote_sensing.dehazing.networks.model import load_model

PUBLISHED = Path(__file__).parents[2] / "reference" / "deanet" / "tiny_a.safetensors"


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
    result = call("infer", source, "-o", tmp_path / "out.tif", "--model", "dark-channel")
    line = refused(result, tmp_path, kept=kept)
    assert message in line
    assert "in.tif" in line


def test_a_truncated_raster_is_one_line(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (3, 300, 300)).astype(np.uint8)
    source = write_raster(tmp_path / "in.tif", values, tiled=True, compress="deflate")
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    result = call("infer", source, "-o", tmp_path / "out.tif", "--model", "dark-channel")
    assert "in.tif" in refused(result, tmp_path, kept=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "no_such_model"], "no model is named"),
        (["--model", "missing.safetensors"], "no such file"),
        (["--model", "ediffsr_small_x4"], "no model is named"),
        (["--bands", "1,9"], "has no band 9"),
        (["--window", "500,500,10,10"], "outside the raster"),
        (["--range", "wrong"], "LOW:HIGH"),
        (["--overlap", "256"], "--overlap 256"),
        (["--window", "0,0,9,9", "--bbox", "0,0,1,1"], "give one of them"),
        (["--preview", "nowhere/p.png"], "no such folder"),
        (["--preview", "p.jpg"], "*.png"),
    ],
)
def test_a_bad_option_is_one_line(rgb, tmp_path, options, message):
    given = ["--model", "dark-channel", *options]
    result = call("infer", rgb, "-o", tmp_path / "out.tif", *given)
    assert message in refused(result, tmp_path, kept=1)


def test_too_small_a_tile_for_the_model_is_one_line(rgb, tmp_path, tiny_dehazer):
    given = ["-o", tmp_path / "out.tif", "--model", tiny_dehazer, "--tile", "16", "--overlap", "4"]
    assert "takes 32 or more" in refused(call("infer", rgb, *given), tmp_path, kept=1)
    result = call("bench", "--model", tiny_dehazer, "--tile", "16")
    assert "takes 32 or more" in refused(result, tmp_path, kept=1)


def test_an_output_that_is_no_geotiff_is_one_line(rgb, tmp_path):
    result = call("infer", rgb, "-o", tmp_path / "out.jpg", "--model", "dark-channel")
    assert "*.tif" in refused(result, tmp_path, kept=1)


def test_an_existing_output_is_kept_unless_overwritten(rgb, tmp_path):
    target = tmp_path / "out.tif"
    target.write_text("mine")
    result = call("infer", rgb, "-o", target, "--model", "dark-channel")
    assert "--overwrite" in refused(result, tmp_path, kept=2)
    assert target.read_text() == "mine"
    result = call("infer", rgb, "-o", target, "--model", "dark-channel", "--overwrite")
    assert result.exit_code == 0
    assert rasterio.open(target).width == 52


def test_the_input_is_never_overwritten(rgb, tmp_path):
    result = call("infer", rgb, "-o", rgb, "--model", "dark-channel", "--overwrite")
    assert "is an input" in refused(result, tmp_path, kept=1)


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
    result = call("infer", rgb, "-o", tmp_path / "out.tif", "--model", "dark-channel")
    assert "disk is full" in refused(result, tmp_path, code=1, kept=1)


def test_ctrl_c_before_the_first_rows_leaves_nothing(rgb, tmp_path, monkeypatch):
    from fieldfare.remote_sensing.dehazing.inference import run as inference

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(inference, "finite", interrupted)
    result = call("infer", rgb, "-o", tmp_path / "out.tif", "--model", "dark-channel")
    refused(result, tmp_path, code=130, kept=1)


def test_one_pixel(tmp_path, tiny_dehazer):
    source = write_raster(tmp_path / "in.tif", np.full((3, 1, 1), 77, np.uint8))
    for number, model in enumerate(["dark-channel", tiny_dehazer]):
        target = tmp_path / f"{number}.tif"
        given = ["-o", target, "--model", model, "--tile", "32", "--overlap", "8"]
        assert call("infer", source, *given).exit_code == 0
        assert rasterio.open(target).shape == (1, 1)


def test_json_is_one_object_on_stdout(rgb, tmp_path):
    target = tmp_path / "out.tif"
    result = call("infer", rgb, "-o", target, "--model", "dark-channel", "--json")
    answer = json.loads(result.stdout)
    assert (answer["width"], answer["height"]) == (52, 40)
    assert answer["output"] == str(target)


def test_dry_run_writes_nothing(rgb, tmp_path, tiny_dehazer):
    result = call("infer", rgb, "-o", tmp_path / "out.tif", "--model", tiny_dehazer, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "tiles: 1" in result.stdout
    assert len(list(tmp_path.iterdir())) == 1


def test_preview_shows_before_and_after(rgb, tmp_path):
    picture = tmp_path / "p.png"
    arguments = ["-o", tmp_path / "out.tif", "--model", "dark-channel", "--preview", picture]
    assert call("infer", rgb, *arguments).exit_code == 0
    assert Image.open(picture).size == (2 * 52 + 24, 26 + 40 + 16)


@pytest.mark.slow
def test_many_inputs_go_into_a_folder_and_a_bad_one_fails_alone(rgb, tmp_path):
    bad = tmp_path / "bad.tif"
    bad.write_text("no raster")
    result = call("infer", rgb, bad, "-o", tmp_path / "out", "--model", "dark-channel", "--quiet")
    assert result.exit_code == 3, result.output
    assert "failed: bad" in result.stderr
    assert rasterio.open(tmp_path / "out" / "rgb_clear.tif").width == 52
    assert not (tmp_path / "out" / "bad_clear.tif").exists()


@pytest.mark.parametrize("deployed", [False, True])
def test_convert_takes_both_forms_of_a_published_checkpoint(tmp_path, deployed):
    published = load_file(PUBLISHED)
    state = {k.removeprefix("sd."): v for k, v in published.items() if k.startswith("sd.")}
    source, target = tmp_path / "published.pk", tmp_path / "x.safetensors"
    if deployed:
        torch.save(state, source)
        call("convert", source, "-o", target)
        from fieldfare.common.blocks.fuse import fuse

        network = fuse(load_model(str(target))[0])
        for name in [name for name in state if ".conv1." in name]:
            del state[name]
        levels = {"encode1": "down_level1", "encode2": "down_level2", "middle": "level3"}
        levels |= {"decode2": "up_level2", "decode1": "up_level1"}
        for ours, theirs in levels.items():
            for number, block in enumerate(getattr(network, ours), 1):
                state[f"{theirs}_block{number}.conv1.weight"] = block.detail.weight.detach()
                state[f"{theirs}_block{number}.conv1.bias"] = block.detail.bias.detach()
        target.unlink()
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, source)
    result = call("convert", source, "-o", target)
    assert result.exit_code == 0, result.output
    assert "width 4, blocks [4, 4, 8, 4, 4]" in result.stderr
    network, card = load_model(str(target))
    assert card == read_card(target)
    found = network(published["in.x"]).detach()
    assert found.numpy() == pytest.approx(published["out.y"].numpy(), abs=1e-4)


def test_convert_reports_what_does_not_fit(tmp_path):
    state = {k.removeprefix("sd."): v for k, v in load_file(PUBLISHED).items() if k[:3] == "sd."}
    state["surplus.weight"] = state.pop("up3.0.bias")
    torch.save(state, tmp_path / "x.pk")
    result = call("convert", tmp_path / "x.pk", "-o", tmp_path / "x.safetensors")
    line = refused(result, tmp_path, kept=1)
    assert "1 missing: end.bias; 1 unexpected: surplus.weight" in line


def test_convert_refuses_another_network(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "x.pk")
    result = call("convert", tmp_path / "x.pk", "-o", tmp_path / "x.safetensors")
    assert "holds no DEA-Net" in refused(result, tmp_path, kept=1)


def tiles(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    for number in range(count):
        values = smooth(3, 70, 70, 0, 255 - 20 * number).astype(np.uint8)
        write_raster(folder / f"{number}.tif", values)
    return folder


def test_train_resumes_and_its_model_is_usable(tmp_path, rgb):
    given = tiles(tmp_path / "tiles")
    arguments = ["-o", tmp_path / "run", "--patch", "64", "--batch", "1", "--precision", "fp32"]
    arguments += ["--device", "cpu", "--quiet"]
    result = call("train", given, *arguments, "--steps", "2")
    assert result.exit_code == 0, result.output
    model = tmp_path / "run" / "model.safetensors"
    assert read_card(model).seed == 0
    assert "Haze" in read_card(model).data
    assert {path.name for path in model.parent.iterdir()} == {
        "checkpoint.pt",
        "learning_curve.png",
        "log.csv",
        "model.md",
        "model.safetensors",
    }
    assert call("infer", rgb, "-o", tmp_path / "o.tif", "--model", model).exit_code == 0
    for change in (["--steps", "9"], ["--steps", "2", "--clear-share", "0"]):
        result = call("train", given, *arguments, *change)
        assert result.exit_code == 2
        assert "other settings" in result.stderr
    more = ["-o", tmp_path / "more", *arguments[2:], "--init", model, "--steps", "1"]
    assert call("train", given, *more).exit_code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--patch", "80"], "smaller than the crop"), (["--patch", "32"], "takes 64 or more")],
)
def test_a_crop_that_does_not_fit_is_one_line(tmp_path, options, message):
    given = tiles(tmp_path / "tiles")
    result = call("train", given, "-o", tmp_path / "run", "--steps", "1", *options)
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_eval_measures_and_writes_reports(tmp_path, tiny_dehazer):
    given = tiles(tmp_path / "test", 2)
    result = call(
        "eval", given, "--model", tiny_dehazer, "--tile", "64", "--overlap", "16",
        "-o", tmp_path / "report", "--json", "--quiet",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    means = json.loads(result.stdout)["means"]
    assert [row["model"] for row in means] == ["hazy input", "dark-channel", "tiny"]
    assert means[0]["clear"] is None
    assert 5 < means[0]["psnr"] < 40
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "evaluation.csv", "evaluation.json", "contact_sheet.png",
    }  # fmt: skip


def test_eval_of_pairs_takes_their_own_haze(tmp_path, tiny_dehazer):
    clear, hazy = tmp_path / "clear", tmp_path / "hazy"
    tiles(clear, 2)
    tiles(hazy, 1)
    arguments = ["eval", tmp_path, "--model", tiny_dehazer, "--json", "--quiet"]
    assert "1.tif: missing" in refused(call(*arguments), tmp_path, kept=2)
    write_raster(hazy / "1.tif", np.full((3, 70, 70), 200, np.uint8))
    means = json.loads(call(*arguments).stdout)["means"]
    write_raster(hazy / "0.tif", np.full((3, 70, 70), 200, np.uint8))
    assert json.loads(call(*arguments).stdout)["means"][0]["psnr"] < means[0]["psnr"]


def test_eval_of_an_empty_folder_is_one_line(tmp_path):
    result = call("eval", tmp_path, "--model", "dark-channel")
    assert "holds no .tif" in refused(result, tmp_path, kept=0)


@pytest.mark.slow
def test_export_agrees_with_torch(tmp_path, tiny_dehazer):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    result = call("export", "--model", tiny_dehazer, "--tile", "32", "-o", tmp_path / "m.onnx")
    assert result.exit_code == 0, result.output
    assert "agree within" in result.stderr
    result = call("export", "--model", tiny_dehazer, "--tile", "33", "-o", tmp_path / "n.onnx")
    assert "multiple of 8" in result.stderr


def test_bench_prints_cost_and_time(tiny_dehazer):
    result = call("bench", "--model", tiny_dehazer, "--tile", "32", "--repeats", "2", "--json")
    answer = json.loads(result.stdout)
    assert answer["parameters"] > 1e3
    assert answer["macs"] > 1e5


def test_models_lists_the_baseline():
    assert "dark-channel" in call("models").stdout
