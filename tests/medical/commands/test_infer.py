# SPDX-License-Identifier: Apache-2.0
"""med-seg infer over several cases: the plan, worker processes, resume, what is refused."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sample_networks import write_model
from sample_volumes import write_case

from fieldfare.common.weights import ModelCard, load_model_file, save_model_file
from fieldfare.medical.cli import main
from fieldfare.medical.commands.infer import infer
from fieldfare.medical.options import InferOptions


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def cases(tmp_path: Path) -> list[Path]:
    return [write_case(tmp_path / name, name=name) for name in ("A", "B")]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["infer", *map(str, arguments)])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_several_cases_by_two_workers_are_those_done_one_by_one_and_done_once(
    model: Path, cases: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    common = ("-o", out, "--model", model, "--json", "--quiet")
    first = run(*cases, *common, "--workers", 2)
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)["done"] == 2
    made = [f"{name}_seg{ending}" for name in ("A", "B") for ending in (".json", ".nii.gz")]
    assert names(out) == [*made, "manifest.jsonl"]

    alone = tmp_path / "alone.nii.gz"
    assert run(cases[0], "-o", alone, "--model", model, "--quiet").exit_code == 0
    assert (out / "A_seg.nii.gz").read_bytes() == alone.read_bytes()
    assert (out / "A_seg.json").read_text() == alone.with_name("alone.json").read_text()

    again = run(*cases, *common)
    assert again.exit_code == 0, again.output
    result = json.loads(again.stdout)
    assert (result["done"], result["skipped"]) == (0, 2)

    other = run(*cases, *common, "--threshold", "0.4")
    assert other.exit_code == 2
    assert "--overwrite" in other.stderr


def test_one_case_goes_into_a_folder_that_is_there(
    model: Path, cases: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    result = run(cases[0], "-o", out, "--model", model, "--quiet")
    assert result.exit_code == 0, result.output
    assert names(out) == ["A_seg.json", "A_seg.nii.gz", "manifest.jsonl"]


def test_dry_run_of_several_cases_lists_them_and_writes_nothing(
    model: Path, cases: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    common = (*cases, tmp_path / "C", "-o", out, "--model", model, "--dry-run")
    rows = json.loads(run(*common, "--json").stdout)["inputs"]
    assert [(row["input"], row["state"]) for row in rows] == [
        ("A", "to do"),
        ("B", "to do"),
        ("C", "missing"),
    ]
    assert rows[0]["outputs"] == f"{out / 'A_seg.nii.gz'}, {out / 'A_seg.json'}"
    assert "nothing was written" in run(*common).stdout
    assert not out.exists()


def test_dry_run_of_one_case_names_what_it_would_write(
    model: Path, cases: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "s.nii.gz"
    common = (cases[0], "-o", out, "--model", model, "--dry-run", "--report", tmp_path / "r.html")
    plan = json.loads(run(*common, "--json").stdout)
    assert plan["outputs"] == [str(tmp_path / name) for name in ("s.nii.gz", "s.json", "r.html")]
    assert plan["seconds"] >= 0
    text = run(*common).stdout
    assert "r.html" in text
    assert text.endswith("nothing was written\n")
    assert names(tmp_path) == ["A", "B"]


def test_what_cannot_go_into_a_folder_is_refused_before_anything_is_written(
    model: Path, cases: list[Path], tmp_path: Path
) -> None:
    card, tensors = load_model_file(model)
    other = tmp_path / "other.safetensors"
    save_model_file(other, tensors, ModelCard("other", "super-resolution", "", card.config))
    out = tmp_path / "out"
    twin = write_case(tmp_path / "twin" / "A")
    for arguments, said in (
        ((*cases, "--model", model, "--viewer"), "--viewer"),
        ((*cases, "--model", model, "--prob", "p.nii.gz"), "--prob"),
        ((*cases, "--model", other), "super-resolution"),
        ((*cases, twin, "--model", model), "two cases are named A"),
    ):
        result = run(*arguments, "-o", out)
        assert result.exit_code == 2, result.output
        assert said in result.stderr.splitlines()[-1]
        assert not out.exists()


def test_from_python_it_takes_the_same_options(
    model: Path, cases: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.nrrd"
    infer([cases[1]], InferOptions(output=out, model=str(model), quiet=True))
    assert capsys.readouterr().out.split() == [str(out), str(tmp_path / "s.json")]
