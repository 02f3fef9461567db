# SPDX-License-Identifier: Apache-2.0
"""rs-buildings infer on several scenes: dry run, resumption; on one: what it would make."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sample_scenes import write_town

from fieldfare.remote_sensing.buildings.cli import main

DEPTH = ("--depth", 1)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def scenes(tmp_path: Path) -> list[Path]:
    """Two towns."""
    return [write_town(tmp_path / name, name=name).image for name in ("east", "west")]


def test_a_dry_run_lists_what_would_be_made_and_writes_nothing(scenes, tmp_path):
    out = tmp_path / "out"
    arguments = ["-o", out, *DEPTH, "--format", "geojson", "--dry-run"]
    result = call("infer", *scenes, tmp_path / "north.tif", *arguments)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[-2:] for line in lines[1:3]] == [["to", "do"]] * 2
    assert lines[3].split()[-1] == "missing"
    assert "west.geojson" in result.stdout
    assert not out.exists()


def test_a_dry_run_of_one_names_the_files_it_would_make(scenes, tmp_path):
    made = [tmp_path / name for name in ("o.gpkg", "m.tif", "p.png")]
    arguments = ["-o", made[0], "--mask", made[1], "--preview", made[2], *DEPTH, "--dry-run"]
    result = call("infer", scenes[0], *arguments, "--json")
    plan = json.loads(result.stdout)
    assert plan["files"] == ", ".join(map(str, made))
    assert plan["tiles"] == 1
    assert not any(path.exists() for path in made)


def test_one_file_cannot_be_two_outputs(scenes, tmp_path):
    target = tmp_path / "o.gpkg"
    result = call("infer", scenes[0], "-o", target, "--mask", target)
    assert result.exit_code == 2
    assert "--output and --mask are one file" in result.stderr


def test_a_second_run_does_what_the_first_left(scenes, tmp_path):
    out = tmp_path / "out"
    arguments = ["-o", out, *DEPTH, "--format", "geojson", "--quiet", "--json"]
    first = json.loads(call("infer", scenes[0], tmp_path / "gone.tif", *arguments).stdout)
    assert (first["done"], first["failed"], first["skipped"]) == (1, 1, 0)
    second = json.loads(call("infer", *scenes, *arguments).stdout)
    assert (second["done"], second["failed"], second["skipped"]) == (1, 0, 1)
    assert sorted(path.name for path in out.glob("*.geojson")) == ["east.geojson", "west.geojson"]


@pytest.mark.parametrize("option", ["--mask", "--prob", "--preview"])
def test_what_several_scenes_cannot_have_is_one_line(scenes, tmp_path, option):
    result = call("infer", *scenes, "-o", tmp_path / "out", option, tmp_path / "x.tif")
    assert result.exit_code == 2
    assert "take one scene" in result.stderr
    assert not (tmp_path / "out").exists()
