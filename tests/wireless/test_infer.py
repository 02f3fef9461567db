# SPDX-License-Identifier: Apache-2.0
"""`infer` of wl-precode and wl-power on many files, resumed, planned, and quiet."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from fieldfare.wireless.cell_free import cli as power_cli
from fieldfare.wireless.channel import cli as channel_cli
from fieldfare.wireless.precoding import cli as precode_cli

COMMANDS = {"precode": precode_cli.main, "power": power_cli.main}
METHODS = {"precode": "rzf", "power": "fractional"}
RESULTS = {"precode": "W", "power": "mu"}


def run(command: str, *arguments: object) -> Result:
    return CliRunner().invoke(COMMANDS[command], [str(argument) for argument in arguments])


@pytest.fixture(params=list(COMMANDS))
def command(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def files(command: str, tmp_path: Path) -> list[Path]:
    """Two files of two sizes, fit for the command."""
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    kind = ("--channel", "cell-free", "--aps", 6) if command == "power" else ()
    for seed, path in enumerate(paths):
        given = ("gen", "-o", path, "--count", 3, "--users", 2 + seed, "--seed", seed, *kind)
        done = CliRunner().invoke(channel_cli.main, [str(argument) for argument in given])
        assert done.exit_code == 0, done.output
    return paths


def many(command: str, files: list[Path], folder: Path, *options: object) -> dict[str, object]:
    """The summary of a run over all files."""
    method = METHODS[command]
    done = run(command, "infer", *files, "-o", folder, "--method", method, "--json", *options)
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_many_files_give_the_bytes_that_each_gives_alone(
    command: str, files: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    assert many(command, files, folder, "--workers", 2)["done"] == 2
    for path in files:
        alone, result = tmp_path / "alone.npz", f"{path.stem}_{RESULTS[command]}.npz"
        done = run(command, "infer", path, "-o", alone, "--method", METHODS[command], "--overwrite")
        assert done.exit_code == 0, done.output
        assert (folder / result).read_bytes() == alone.read_bytes()
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    numbers = {line["key"]: line["numbers"] for line in lines if line.get("status") == "done"}
    assert set(numbers) == {"a", "b"}
    told = [part for found in numbers.values() for part in found.items()]
    assert all(value for name, value in told if name != "fronthaul_pilots")  # 0 of local precoding


def test_a_run_goes_on_where_it_stopped_and_a_bad_file_costs_only_itself(
    command: str, files: list[Path], tmp_path: Path
) -> None:
    bad, folder, method = tmp_path / "bad.npz", tmp_path / "out", METHODS[command]
    np.savez(bad, G=np.ones(3))
    folder.mkdir()  # one file into a folder that is there goes the same way
    assert many(command, files[:1], folder)["done"] == 1
    done = run(command, "infer", *files, bad, "-o", folder, "--method", method, "--json")
    assert done.exit_code == 3
    assert "bad.npz" in done.stderr
    found = json.loads(done.stdout)
    assert (found["skipped"], found["done"], found["failed"]) == (1, 1, 1)
    assert (folder / f"b_{RESULTS[command]}.npz").exists()
    changed = many(command, files, folder, "--batch", 2)  # changes no result
    assert (changed["skipped"], changed["done"]) == (2, 0)
    other = run(command, "infer", *files, "-o", folder, "--method", method, "--power", 3)
    assert other.exit_code == 2
    assert "power" in other.stderr
    again = many(command, files, folder, "--no-resume", "--overwrite")
    assert (again["skipped"], again["done"]) == (0, 2)


def test_a_wrong_model_is_refused_before_anything_is_written(
    command: str, files: list[Path], tmp_path: Path
) -> None:
    done = run(command, "infer", *files, "-o", tmp_path / "out", "--model", "none_such")
    assert done.exit_code == 2
    assert "none_such" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_dry_run_tells_sizes_time_and_memory_and_writes_nothing(
    command: str, files: list[Path], tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    target = tmp_path / "out.npz"
    done = run(command, "infer", files[1], "-o", target, "--dry-run", "--json", "--batch", 2)
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    assert next(plan[name] for name in ("channels", "networks") if name in plan) == 3
    assert (plan["users"], plan["method"], plan["batch"]) == (3, "icgnn", 2)
    assert plan["seconds"] < 10
    done = run(command, "infer", files[1], "-o", target, "--batch", 2)
    with np.load(target) as found:
        assert plan["output_bytes"] == sum(found[name].nbytes for name in found.files)
    assert plan["memory_bytes"] > plan["output_bytes"]
    target.unlink()
    done = run(command, "infer", files[1], "-o", target, "--dry-run")
    assert "nothing was written" in done.stdout
    done = run(command, "infer", *files, "-o", tmp_path / "out", "--dry-run", "--json")
    assert [row["state"] for row in json.loads(done.stdout)["inputs"]] == ["to do", "to do"]
    assert sorted(tmp_path.iterdir()) == before


def test_one_file_is_never_written_over_itself(
    command: str, files: list[Path], tmp_path: Path
) -> None:
    before = files[0].read_bytes()
    for options in ((), ("--overwrite",), ("--dry-run",)):
        done = run(command, "infer", files[0], "-o", files[0], *options)
        assert done.exit_code == 2
        assert "is an input" in done.stderr
    assert files[0].read_bytes() == before


def test_quiet_leaves_out_the_notes(tmp_path: Path) -> None:
    source, target = tmp_path / "h.npz", tmp_path / "w.npz"
    given = ["gen", "-o", str(source), "--users", "2", "--antennas", "32", "--count", "50"]
    CliRunner().invoke(channel_cli.main, given)
    said = run("precode", "infer", source, "-o", target)
    assert "guard: RZF was the better on" in said.stderr
    quiet = run("precode", "infer", source, "-o", target, "--overwrite", "--quiet")
    assert quiet.exit_code == 0
    assert not quiet.stderr
