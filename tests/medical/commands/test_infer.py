# SPDX-License-Identifier: Apache-2.0
"""med-seg infer over several cases: the plan, worker processes, resume, what is refused."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sample_networks import write_model
from sample_volumes import head, write_case, write_nifti

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


def test_a_case_whose_image_changed_in_place_is_done_anew(
    model: Path, cases: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    common = (*cases, "-o", out, "--model", model, "--json", "--quiet")
    assert run(*common).exit_code == 0
    before = [(out / f"{name}_seg.nii.gz").read_bytes() for name in "AB"]
    write_nifti(cases[1] / "B_t2.nii.gz", head(99))  # the folder itself is as old as before
    result = json.loads(run(*common).stdout)
    assert (result["done"], result["skipped"]) == (1, 1)
    after = [(out / f"{name}_seg.nii.gz").read_bytes() for name in "AB"]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_notes_are_told_beside_their_case_and_counted(
    model: Path, cases: list[Path], tmp_path: Path
) -> None:
    values = head(1).astype(np.float32)
    values[values == 0] = np.nan
    write_nifti(cases[0] / "A_t1.nii.gz", values)
    (cases[1] / "B_t2.nii.gz").unlink()
    alone = run(cases[0], "-o", tmp_path / "a.nii.gz", "--model", model, "--quiet")
    notes = [line.removeprefix("warning: ") for line in alone.stderr.splitlines() if line]
    assert any("NaN" in note for note in notes)
    result = run(*cases, "-o", tmp_path / "out", "--model", model, "--json", "--quiet")
    assert result.exit_code == 3
    for note in notes:
        assert f"warning: A: {note}" in result.stderr.splitlines()
    assert f"{len(notes)} warnings, of 1 of 1 cases" in result.stderr
    assert json.loads(result.stdout)["warnings"] == len(notes)


def test_each_case_has_its_report_picture_and_probabilities_and_one_page_lists_them(
    model: Path, cases: list[Path], tmp_path: Path
) -> None:
    folders = {name: tmp_path / "new" / name for name in ("out", "report", "png", "prob")}
    more = [part for name in ("report", "png", "prob") for part in (f"--{name}", folders[name])]
    common = (*cases, "-o", folders["out"], "--model", model, "--quiet", *more)
    assert run(*common).exit_code == 0
    assert names(folders["report"]) == ["A.html", "B.html", "index.html"]
    assert names(folders["png"]) == ["A.png", "B.png"]
    assert names(folders["prob"]) == ["A_prob.nii.gz", "B_prob.nii.gz"]
    page = (folders["report"] / "index.html").read_text(encoding="utf-8")
    links = [html.unescape(link) for link in re.findall(r'<a href="([^"]*)"', page)]
    assert links == ["A.html", "../png/A.png", "B.html", "../png/B.png"]
    assert all((folders["report"] / link).is_file() for link in links)
    alone = tmp_path / "p.nii.gz"
    assert (
        run(cases[0], "-o", tmp_path / "s.nii.gz", "--prob", alone, "--model", model).exit_code == 0
    )
    assert (folders["prob"] / "A_prob.nii.gz").read_bytes() == alone.read_bytes()
    again = json.loads(run(*common, "--json").stdout)
    assert (again["done"], again["skipped"]) == (0, 2)
    (folders["report"] / "index.html").write_text("somebody's own page")
    refused = run(*common)
    assert refused.exit_code == 2
    assert "index.html: already exists" in refused.stderr


def test_a_name_without_ending_is_a_folder_that_is_made(
    model: Path, cases: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "results"
    assert run(cases[0], "-o", out, "--model", model, "--quiet").exit_code == 0
    assert names(out) == ["A_seg.json", "A_seg.nii.gz", "manifest.jsonl"]


def test_4d_files_are_cases_where_the_channels_are_named(model: Path, tmp_path: Path) -> None:
    values = np.stack([head(seed) for seed in (3, 0, 1, 2)], -1)
    files = [write_nifti(tmp_path / f"BRATS_00{n}.nii.gz", values) for n in (1, 2)]
    folder = write_case(tmp_path / "P1")
    common = ("--model", model, "--quiet")
    order = ("--channels", "FLAIR,T1w,T1gd,T2w")
    assert run(folder, "-o", tmp_path / "a.nii.gz", *common).exit_code == 0
    one = run(files[0], *order, "-o", tmp_path / "b.nii.gz", *common)
    assert one.exit_code == 0, one.output
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    many = run(*files, *order, "-o", tmp_path / "out", *common)
    assert many.exit_code == 0, many.output
    assert "BRATS_002_seg.nii.gz" in names(tmp_path / "out")
    for arguments, said in (
        ((files[0],), "--channels"),
        ((files[0], "--channels", "t1,t2", "--allow-missing"), "not trained with modalities"),
        ((files[0], "--channels", "t1,t1,t2,flair"), "name each channel once"),
        (("--t1", files[0], "--channels", "t1,t2"), "name the 4D file as CASE"),
    ):
        result = run(*arguments, "-o", tmp_path / "c.nii.gz", *common)
        assert result.exit_code == 2, result.output
        assert said in result.stderr.splitlines()[-1]


def test_heads_with_their_skull_are_refused_unless_forced(model: Path, tmp_path: Path) -> None:
    for seed, name in enumerate(("t1", "t1ce", "t2", "flair")):
        noise = np.random.default_rng(seed).integers(1, 900, (12, 10, 8)).astype(np.int16)
        write_nifti(tmp_path / "P" / f"P_{name}.nii.gz", noise)
    common = (tmp_path / "P", "-o", tmp_path / "s.nii.gz", "--model", model, "--quiet")
    result = run(*common)
    assert result.exit_code == 2
    assert "the skull was not stripped" in result.stderr
    assert "HD-BET" in result.stderr
    assert not (tmp_path / "s.nii.gz").exists()
    forced = run(*common, "--force")
    assert forced.exit_code == 0, forced.output
    assert "warning: the skull was not stripped" in forced.stderr


def test_nan_from_the_network_is_an_error(
    model: Path, cases: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fieldfare.medical.inference.predict import Predictor

    def broken(self: Predictor, images: object) -> object:
        return self.network(images) * float("nan")

    monkeypatch.setattr(Predictor, "_logits", broken)
    result = run(cases[0], "-o", tmp_path / "s.nii.gz", "--model", model, "--quiet")
    assert result.exit_code == 1
    assert "the network gave NaN for finite images" in result.stderr
    assert not (tmp_path / "s.nii.gz").exists()


def test_a_dry_run_reads_headers_only(model: Path, cases: list[Path], tmp_path: Path) -> None:
    """An image cut short is not noticed; one on another grid is, for its header says so."""
    path = cases[0] / "A_flair.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    common = (cases[0], "-o", tmp_path / "s.nii.gz", "--model", model, "--dry-run", "--json")
    result = run(*common)
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["network_grid"].startswith("12x15x16 voxels of 1x1x1 mm")
    assert plan["tiles"] == 1
    assert names(tmp_path) == ["A", "B"]
    write_nifti(path, head(0, (8, 10, 9)))
    other = run(*common)
    assert other.exit_code == 2
    assert "not on one grid (flair differs from t1ce: shape 8x10x9" in other.stderr
