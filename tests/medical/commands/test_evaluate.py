# SPDX-License-Identifier: Apache-2.0
"""med-seg eval and relabel as a user calls them."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result
from sample_volumes import GRIDS, labels, write_nifti, write_nrrd

from fieldfare.medical.cli import main
from fieldfare.medical.data.regions import read_sidecar, write_sidecar


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def shifted(enhancing: int = 4) -> np.ndarray:
    return np.roll(labels(enhancing), 1, axis=0)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    predicted = write_nifti(tmp_path / "predicted" / "P1.nii.gz", shifted())
    return predicted, write_nifti(tmp_path / "truth" / "P1_seg.nii.gz", labels())


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_two_files_give_a_row_for_each_region_and_the_definitions(pair):
    result = run("eval", *pair, "--labels", "brats2020", "--quiet")
    assert result.exit_code == 0, result.output
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:4]] == [
        ["P1", "WT"],
        ["P1", "TC"],
        ["P1", "ET"],
    ]
    assert "hd95:max: the larger of the two directed" in result.stdout


def test_the_result_is_one_json_object(pair):
    result = run("eval", *pair, "--labels", "brats2020", "--json", "--quiet")
    found = json.loads(result.stdout)
    assert found["cases"][0]["dice"] == pytest.approx(7 / 8)
    assert found["settings"]["truth_labels"] == ["brats2020"]


def test_folders_give_csv_json_and_box_plot(pair, tmp_path):
    write_nifti(pair[0].parent / "P2.nii.gz", labels())
    write_nifti(pair[1].parent / "P2_seg.nii.gz", labels())
    out = tmp_path / "out"
    folders = [path.parent for path in pair]
    result = run("eval", *folders, "--labels", "brats2020", "-o", out, "--hd", "pooled", "--quiet")
    assert result.exit_code == 0, result.output
    assert files(out) == ["boxplot.png", "evaluation.csv", "evaluation.json"]
    with (out / "evaluation.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [row["case"] for row in rows] == [
        *["P1"] * 3,
        *["P2"] * 3,
        *["mean"] * 3,
        *["median"] * 3,
    ]
    report = json.loads((out / "evaluation.json").read_text())
    assert report["settings"]["hd"] == "pooled"
    assert "hd95:pooled" in report["definitions"]


def test_each_file_may_have_a_scheme_of_its_own(tmp_path):
    predicted = write_nifti(tmp_path / "a.nii.gz", labels(3))
    truth = write_nifti(tmp_path / "b.nii.gz", labels(4))
    schemes = ("--labels", "brats2023", "--truth-labels", "brats2020")
    result = run("eval", predicted, truth, *schemes, "--json", "--quiet")
    assert [row["dice"] for row in json.loads(result.stdout)["cases"]] == [1, 1, 1]
    write_sidecar(predicted, "brats2023")
    write_sidecar(truth, "brats2020")
    result = run("eval", predicted, truth, "--json", "--quiet")
    assert [row["dice"] for row in json.loads(result.stdout)["cases"]] == [1, 1, 1]


def test_empty_regions_follow_the_policy_asked_for(tmp_path):
    values = labels()
    values[values == 4] = 1
    empty = write_nifti(tmp_path / "a.nii.gz", values)
    full = write_nifti(tmp_path / "b.nii.gz", labels())
    common = ("eval", empty, full, "--labels", "brats2020", "--json", "--quiet")
    plain, brats = (
        json.loads(run(*common, "--empty", policy).stdout)["cases"][2]
        for policy in ("nan", "brats")
    )
    assert (plain["dice"], plain["hd95_mm"]) == (0, None)
    assert (brats["dice"], brats["hd95_mm"]) == (0, 373)


def test_a_consensus_agrees_with_itself_on_real_data(data):
    truth = data / "brain" / "TCGA-DU-7294" / "TCGA-DU-7294_seg.nii.gz"
    result = run("eval", truth, truth, "--labels", "brats2020", "--json", "--quiet")
    assert [row["dice"] for row in json.loads(result.stdout)["cases"]] == [1, 1, None]


def bad_evaluations(tmp_path: Path, pair: tuple[Path, Path]) -> dict[str, tuple]:
    predicted, truth = pair
    scheme = ("--labels", "brats2020")
    fractions = write_nifti(tmp_path / "f.nii.gz", labels().astype(np.float32) / 3)
    moved = write_nifti(tmp_path / "m.nii.gz", labels(), GRIDS["oblique"])
    lonely = write_nifti(tmp_path / "lonely" / "Q.nii.gz", labels())
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    return {
        "no scheme": (predicted, truth),
        "wrong scheme": (predicted, truth, "--labels", "brats2023"),
        "no file": (tmp_path / "none.nii.gz", truth, *scheme),
        "float labels": (fractions, truth, *scheme),
        "another grid": (moved, truth, *scheme),
        "file and folder": (predicted, truth.parent, *scheme),
        "no partner": (lonely.parent, truth.parent, *scheme),
        "empty folder": (tmp_path / "empty", truth.parent, *scheme),
        "output is a file": (predicted, truth, *scheme, "-o", tmp_path / "file"),
        "unknown scheme": (predicted, truth, "--labels", "brats2019"),
        "negative tolerance": (predicted, truth, *scheme, "--tolerance", "-1"),
    }


KINDS = [
    *("no scheme", "wrong scheme", "no file", "float labels", "another grid", "file and folder"),
    *("no partner", "empty folder", "output is a file", "unknown scheme", "negative tolerance"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_one_line_and_nothing_is_written(kind, pair, tmp_path):
    arguments = bad_evaluations(tmp_path, pair)[kind]
    if "-o" not in arguments:
        arguments = (*arguments, "-o", tmp_path / "out")
    before = files(tmp_path)
    result = run("eval", *arguments, "--quiet")
    assert result.exit_code == 2, result.output
    assert len([line for line in result.stderr.splitlines() if line.startswith("Error")]) == 1
    assert files(tmp_path) == before
    assert not result.stdout


@pytest.mark.parametrize("grid", GRIDS)
def test_relabel_converts_by_meaning_and_keeps_the_grid(grid, tmp_path):
    source = write_nifti(tmp_path / "a.nii.gz", labels(4), GRIDS[grid])
    target = tmp_path / "b.nii.gz"
    result = run("relabel", source, "--from", "brats2020", "--to", "brats2023", "-o", target)
    assert result.exit_code == 0, result.output
    image = nib.load(target)
    np.testing.assert_array_equal(image.dataobj, labels(3))
    np.testing.assert_array_equal(image.affine, nib.load(source).affine)
    assert image.get_data_dtype() == np.uint8
    about = read_sidecar(target)
    assert about["label_scheme"] == "brats2023"
    assert about["labels"] == {"1": "NCR", "2": "ED", "3": "ET"}
    assert (about["relabelled_from"], about["source"]) == ("brats2020", "a.nii.gz")


def test_relabel_there_and_back_gives_the_same_and_asks_the_json_file(tmp_path):
    source = write_nifti(tmp_path / "a.nii.gz", labels(4))
    write_sidecar(source, "brats2020", model="tiny")
    there, back = tmp_path / "b.nrrd", tmp_path / "c.nii.gz"
    assert run("relabel", source, "--to", "brats2024", "-o", there).exit_code == 0
    assert run("relabel", there, "--to", "brats2020", "-o", back).exit_code == 0
    np.testing.assert_array_equal(nib.load(back).dataobj, labels(4))
    assert read_sidecar(back)["model"] == "tiny"


def bad_relabels(tmp_path: Path) -> dict[str, tuple]:
    good = write_nifti(tmp_path / "a.nii.gz", labels(4))
    said = write_nifti(tmp_path / "said.nii.gz", labels(3))
    write_sidecar(said, "brats2023")
    fractions = write_nifti(tmp_path / "f.nii.gz", labels().astype(np.float32) + 0.5)
    beside = write_nrrd(tmp_path / "beside.nrrd", labels(3))
    write_sidecar(beside, "brats2023")
    (tmp_path / "there.nii.gz").write_bytes(b"")
    (tmp_path / "other.json").write_text("{}")
    new, old = ("--to", "brats2023"), ("--from", "brats2020")
    out = tmp_path / "out.nii.gz"
    return {
        "labels outside": (good, "--from", "brats2023", "--to", "brats2020", "-o", out),
        "cavity": (good, "--from", "brats2024", *new, "-o", out),
        "no scheme": (good, *new, "-o", out),
        "contradiction": (said, *old, "--to", "brats2024", "-o", out),
        "float labels": (fractions, *old, *new, "-o", out),
        "no file": (tmp_path / "none.nii.gz", *old, *new, "-o", out),
        "the input": (good, *old, *new, "-o", good, "--overwrite"),
        "exists": (good, *old, *new, "-o", tmp_path / "there.nii.gz"),
        "json exists": (good, *old, *new, "-o", tmp_path / "other.nii.gz"),
        "json of the input": (beside, "--to", "brats2020", "-o", tmp_path / "beside.nii.gz"),
        "ending": (good, *old, *new, "-o", tmp_path / "out.mha"),
        "no folder": (good, *old, *new, "-o", tmp_path / "none" / "out.nii.gz"),
    }


SAYS = {
    "labels outside": "a.nii.gz: holds 4, not in brats2023",
    "cavity": "RC (label 4), which brats2023 cannot express",
    "no scheme": "give --from brats2020|brats2023|brats2024",
    "contradiction": "says brats2023, not brats2020; give --from brats2023",
    "float labels": "f.nii.gz: 960 voxels are no whole number",
    "no file": "none.nii.gz: no such file",
    "the input": "is the input",
    "exists": "there.nii.gz: already exists",
    "json exists": "other.json: already exists",
    "json of the input": "choose another name",
    "ending": "give a name in .nii.gz, .nii, .nrrd",
    "no folder": "no such folder",
}


@pytest.mark.parametrize("kind", SAYS)
def test_relabel_refuses_in_one_line_and_writes_nothing(kind, tmp_path):
    arguments = bad_relabels(tmp_path)[kind]
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    result = run("relabel", *arguments)
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1
    assert SAYS[kind] in result.stderr
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


def test_labels_whose_axes_run_otherwise_are_turned_before_they_are_compared(tmp_path):
    # eval of one place in the world: the numbers of equal masks, and of moved ones
    truth = write_nifti(tmp_path / "t.nii.gz", labels())
    turned = write_nifti(tmp_path / "p.nii.gz", labels()[::-1, ::-1], GRIDS["RAS"])
    affine = GRIDS["LPS"][:, [2, 0, 1, 3]]
    permuted = write_nifti(tmp_path / "q.nii.gz", shifted().transpose(2, 0, 1), affine)
    plain = write_nifti(tmp_path / "r.nii.gz", shifted())
    common = (truth, "--labels", "brats2020", "--json", "--quiet")
    rows = [json.loads(run("eval", path, *common).stdout)["cases"] for path in (turned, permuted)]
    assert [row["dice"] for row in rows[0]] == [1, 1, 1]
    wanted = json.loads(run("eval", plain, *common).stdout)["cases"]
    assert [(r["dice"], r["hd95_mm"], r["nsd"]) for r in rows[1]] == [
        (r["dice"], r["hd95_mm"], r["nsd"]) for r in wanted
    ]


def test_cases_of_one_side_only_are_left_out_on_request_and_counted(pair, tmp_path):
    write_nifti(pair[0].parent / "P2.nii.gz", labels())
    write_nifti(pair[1].parent / "P3_seg.nii.gz", labels())
    common = ("eval", *(path.parent for path in pair), "--labels", "brats2020", "--quiet")
    refused = run(*common)
    assert refused.exit_code == 2
    assert "--skip-missing" in refused.stderr
    result = run(*common, "--json", "--skip-missing")
    assert result.exit_code == 0, result.output
    assert "2 cases of one side only were left out: P2, P3" in result.stderr
    found = json.loads(result.stdout)
    assert {row["case"] for row in found["cases"]} == {"P1"}
    assert len(found["settings"]["skipped"]) == 2
    pair[0].unlink()
    assert run(*common, "--skip-missing").exit_code == 2, "no pair at all"
