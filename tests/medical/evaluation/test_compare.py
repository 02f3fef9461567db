# SPDX-License-Identifier: Apache-2.0
"""Label files against label files: tables, reports, pairing by case, raters with a consensus."""

import csv
import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fieldfare.common.errors import InputError
from fieldfare.medical.evaluation import compare as evaluation
from fieldfare.medical.evaluation.compare import Rules

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])

# Dice of the five raters with the consensus in 3 digits, as the data's own description has it.
RATERS = {
    "hnfnetv1-20": (0.978, 0.953, 0.974),
    "isen-20": (0.914, 0.967, 0.946),
    "sanet0-20": (0.980, 0.972, 0.989),
    "scan-20": (0.910, 0.959, 0.927),
    "yixinmpl-20": (0.941, 0.967, 0.943),
}


def tumour(shift: int = 0, *, enhancing: bool = True) -> np.ndarray:
    labels = np.zeros((24, 20, 16), np.uint8)
    labels[4 + shift : 16 + shift, 4:16, 4:12] = 2
    labels[6 + shift : 12 + shift, 6:12, 5:10] = 1
    if enhancing:
        labels[6 + shift : 12 + shift, 6:12, 5:7] = 4
    return labels


def write(path: Path, labels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, affine), path)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    predicted = write(tmp_path / "predicted" / "A.nii.gz", tumour(1))
    return predicted, write(tmp_path / "truth" / "A_seg.nii.gz", tumour())


def test_a_case_has_one_row_for_each_region_in_ml_and_mm(pair):
    rows = evaluation.evaluate_case(*pair, "brats2020")
    assert [(row["case"], row["region"]) for row in rows] == [
        ("A", "WT"),
        ("A", "TC"),
        ("A", "ET"),
    ]
    assert rows[0]["truth_ml"] == pytest.approx(12 * 12 * 8 * 2 / 1000)
    assert rows[1]["truth_ml"] == pytest.approx(6 * 6 * 5 * 2 / 1000)
    assert [row["dice"] for row in rows] == pytest.approx([11 / 12, 5 / 6, 5 / 6])
    assert [row["hd95_mm"] for row in rows] == [1, 1, 1]
    assert [row["lesions_found"] for row in rows] == [1, 1, 1]


def test_the_scheme_says_what_label_4_means(pair):
    enhancing = evaluation.evaluate_case(*pair, "brats2020")[2]
    assert enhancing["truth_ml"] > 0
    resected = evaluation.evaluate_case(*pair, "brats2024")[2]
    assert resected["truth_ml"] == 0
    assert math.isnan(resected["dice"])


def test_a_case_without_enhancing_tumour_is_worth_what_the_policy_says(tmp_path: Path):
    truth = write(tmp_path / "B_seg.nii.gz", tumour(enhancing=False))
    perfect, false = truth, write(tmp_path / "B.nii.gz", tumour())
    for policy, wanted in (("nan", (math.nan, math.nan)), ("brats", (1.0, 0.0))):
        rules = Rules(empty=policy)
        row = evaluation.evaluate_case(perfect, truth, "brats2020", rules)[2]
        np.testing.assert_equal((row["dice"], row["hd95_mm"]), wanted)
    row = evaluation.evaluate_case(false, truth, "brats2020", Rules(empty="brats"))[2]
    assert (row["dice"], row["hd95_mm"], row["lesions_false"]) == (0, 373, 1)


def test_other_grids_are_refused_with_both_names(tmp_path: Path, pair):
    moved = AFFINE.copy()
    moved[0, 3] = 7
    for name, labels, affine in (
        ("shape.nii.gz", tumour()[:-1], AFFINE),
        ("moved.nii.gz", tumour(), moved),
        ("spacing.nii.gz", tumour(), np.eye(4)),
    ):
        other = write(tmp_path / name, labels, affine)
        with pytest.raises(InputError, match=f"{name}.*A_seg"):
            evaluation.evaluate_case(other, pair[1], "brats2020")


def test_summary_leaves_nan_out_and_says_of_how_many(tmp_path: Path):
    rows = []
    for name, enhancing in (("A", True), ("B", False)):
        truth = write(tmp_path / f"{name}_seg.nii.gz", tumour(enhancing=enhancing))
        rows += evaluation.evaluate_case(truth, truth, "brats2020")
    summary = evaluation.summarise(rows)
    lines = {(row["case"], row["region"]): row for row in summary}
    assert len(lines) == 6
    assert lines["mean", "ET"]["dice"] == 1
    counts = ("cases", "dice_cases", "hd95_cases")
    assert [lines["mean", "ET"][key] for key in counts] == [2, 1, 1]
    assert [lines["median", "WT"][key] for key in counts] == [2, 2, 2]


def test_reports_hold_the_rows_and_name_every_definition(tmp_path: Path, pair):
    rules = Rules(hd="pooled", lesions="one_to_one")
    rows = evaluation.evaluate_folder([pair], "brats2020", rules)
    paths = evaluation.write_reports(
        tmp_path / "new" / "reports", rows, rules, settings={"labels": "brats2020"}
    )
    assert sorted(path.name for path in paths["csv"].parent.iterdir()) == [
        "boxplot.png",
        "evaluation.csv",
        "evaluation.json",
    ]
    with paths["csv"].open() as table:
        lines = list(csv.DictReader(table))
    assert [line["case"] for line in lines] == ["A"] * 3 + ["mean"] * 3 + ["median"] * 3
    assert float(lines[0]["dice"]) == rows[0]["dice"]
    report = json.loads(paths["json"].read_text())
    assert report["cases"] == rows
    assert set(report["definitions"]) == {
        "dice",
        "hd95:pooled",
        "nsd",
        "empty:nan",
        "lesions:one_to_one",
    }
    assert report["settings"]["labels"] == "brats2020"
    assert report["settings"]["tolerance_mm"] == 1
    assert paths["png"].read_bytes().startswith(b"\x89PNG")


def test_reports_of_a_region_without_any_score_are_strict_json(tmp_path: Path):
    nothing = np.zeros((3, 8, 8, 8), bool)
    rows = evaluation.evaluate_regions(nothing, nothing, (1, 1, 1), case="empty")
    paths = evaluation.write_reports(tmp_path, rows)

    def refuse(word: str):
        raise AssertionError(f"{word} is no JSON")

    report = json.loads(paths["json"].read_text(), parse_constant=refuse)
    assert report["summary"][0]["dice"] is None
    assert "empty,WT,nan,nan,nan" in paths["csv"].read_text()


def test_folders_are_paired_by_case(tmp_path: Path):
    for name in ("A", "B-000"):
        write(tmp_path / "ours" / f"{name}.nii.gz", tumour())
    write(tmp_path / "flat" / "A_seg.nii.gz", tumour())
    write(tmp_path / "flat" / "B-000-seg.nii", tumour())
    write(tmp_path / "nested" / "A" / "A_seg.nii.gz", tumour())
    write(tmp_path / "nested" / "A" / "A_t1.nii.gz", tumour())
    write(tmp_path / "nested" / "B-000" / "B-000-seg.nii.gz", tumour())
    for truth in ("flat", "nested"):
        pairs = evaluation.pair_files(tmp_path / "ours", tmp_path / truth)
        assert [evaluation.case_name(path) for path, _ in pairs] == ["A", "B-000"]
        assert [evaluation.case_name(path) for _, path in pairs] == ["A", "B-000"]
        assert evaluation.unpaired(tmp_path / "ours", tmp_path / truth) == []
    assert evaluation.pair_files(Path("a.nii"), Path("b.nii")) == [(Path("a.nii"), Path("b.nii"))]


@pytest.mark.parametrize(
    ("ours", "truth", "words"),
    [
        (["A.nii"], ["A_seg.nii", "C_seg.nii"], "C_seg.nii.*no labels of case C"),
        (["A.nii", "C.nii"], ["A_seg.nii"], "C.nii.*no labels of case C"),
        (["A.nii", "A_seg.nii"], ["A.nii"], "same case A"),
        ([], ["A.nii"], "holds no"),
    ],
)
def test_cases_without_partner_are_named(tmp_path: Path, ours, truth, words):
    for folder, names in (("ours", ours), ("truth", truth)):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    with pytest.raises(InputError, match=words):
        evaluation.pair_files(tmp_path / "ours", tmp_path / "truth")
    with pytest.raises(InputError, match="two files or two folders"):
        evaluation.pair_files(tmp_path / "ours", tmp_path / "truth" / "A.nii")


def test_five_raters_agree_with_their_consensus_as_described(data: Path):
    case = data / "brain" / "TCGA-FG-6692"
    raters = sorted((case / "raters").iterdir())
    rows = evaluation.agreement(raters, case / "TCGA-FG-6692_seg.nii.gz", "brats2020")
    got = {row["rater"]: [row[region] for region in evaluation.REGIONS] for row in rows}
    for rater, wanted in RATERS.items():
        assert got[rater] == pytest.approx(wanted, abs=5.1e-4)
    assert got["mean"] == pytest.approx(np.mean([got[rater] for rater in RATERS], axis=0))


def test_raters_who_rightly_see_no_enhancing_tumour_agree_by_the_rule_of_brats(tmp_path: Path):
    consensus = write(tmp_path / "A_seg.nii.gz", tumour(enhancing=False))
    raters = [consensus, write(tmp_path / "false.nii.gz", tumour())]
    for empty, wanted in (("nan", [math.nan, 0, 0]), ("brats", [1, 0, 0.5])):
        rows = evaluation.agreement(raters, consensus, "brats2020", empty=empty)
        np.testing.assert_equal([row["ET"] for row in rows], wanted)


def test_agreement_needs_a_rater(tmp_path: Path):
    with pytest.raises(InputError, match="no raters"):
        evaluation.agreement([], tmp_path / "A_seg.nii.gz", "brats2020")
