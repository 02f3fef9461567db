# SPDX-License-Identifier: Apache-2.0
"""rs-sr infer on several rasters: dry run, workers, resumption."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sample_rasters import smooth, write_raster

from fieldfare.remote_sensing.super_resolution.cli import main


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def scenes(tmp_path: Path) -> list[Path]:
    """Three rasters of 12 x 12 pixels."""
    values = smooth(3, 12, 12, 0, 255).astype(np.uint8)
    return [write_raster(tmp_path / f"{name}.tif", values) for name in "abc"]


def test_a_dry_run_lists_what_would_be_made_and_writes_nothing(scenes, tmp_path):
    scenes[2].unlink()
    result = call("infer", *scenes, "-o", tmp_path / "out", "--model", "bicubic", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "a_x4.tif" in result.stdout
    assert "missing" in result.stdout
    assert "nothing was written" in result.stdout
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_one_names_the_files_it_would_make(scenes, tmp_path, tiny_model):
    target = tmp_path / "o.tif"
    arguments = ["--model", tiny_model, "--uncertainty", 2, "--dry-run", "--json"]
    result = call("infer", scenes[0], "-o", target, *arguments)
    plan = json.loads(result.stdout)
    assert plan["files"] == f"{target}, {tmp_path / 'o_std.tif'}"
    assert plan["output"] == "48 x 48"
    assert plan["seconds"] >= 0
    assert len(list(tmp_path.iterdir())) == 3


def test_two_workers_enlarge_several_rasters_and_a_second_run_goes_on(scenes, tmp_path):
    out = tmp_path / "out"
    arguments = ["-o", out, "--model", "bicubic", "--quiet", "--json"]
    first = json.loads(call("infer", *scenes[:2], *arguments, "--workers", 2).stdout)
    assert (first["done"], first["failed"], first["skipped"]) == (2, 0, 0)
    made = {path.name: path.read_bytes() for path in out.glob("*.tif")}
    assert made.keys() == {"a_x4.tif", "b_x4.tif"}

    second = json.loads(call("infer", *scenes, *arguments).stdout)
    assert (second["done"], second["failed"], second["skipped"]) == (1, 0, 2)
    assert all((out / name).read_bytes() == values for name, values in made.items())

    other = call("infer", *scenes, *arguments, "--layout", "gtiff", "--seed", 1)
    assert other.exit_code == 2
    assert "--overwrite" in other.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preview", "p.png"], "--preview takes one input"),
        (["--bbox", "0,0,1,1"], "--bbox: takes one input"),
        (["--model", "no_such_model"], "no model is named"),
    ],
)
def test_what_several_inputs_cannot_have_is_one_line(scenes, tmp_path, options, message):
    result = call("infer", *scenes, "-o", tmp_path / "out", "--model", "bicubic", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()
