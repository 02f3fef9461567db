# SPDX-License-Identifier: Apache-2.0
"""The table of cases: splits and folds by patient, labels that are truth."""

import numpy as np
import pytest
from ball_cases import write_ball_case, write_table
from sample_volumes import write_nifti

from fieldfare.common.errors import InputError
from fieldfare.medical.data.regions import write_sidecar
from fieldfare.medical.data.table import parse_fold, read_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight cases of five patients."""
    base = tmp_path_factory.mktemp("cases")
    for number in range(8):
        write_ball_case(base / f"C{number}", number)
    return base


PATIENTS = ("a", "a", "b", "c", "c", "c", "d", "e")


def read(table, **options):
    return read_table(table, **({"scheme": "brats2023"} | options))


def refused(call, *arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_become_cases(folder):
    rows = [("C0", "train", "a"), ("C2", "val", ""), ("C3", "test", "c")]
    found = read(write_table(folder / "rows.csv", *rows))
    assert [case.split for case in found] == ["train", "val", "test"]
    assert [case.patient for case in found] == ["a", "C2", "c"]
    assert found[0].labels == folder / "C0" / "C0-seg.nii.gz"
    assert found[0].scheme == "brats2023"
    assert found[0].identity != found[1].identity


def test_a_patient_in_two_splits_is_refused(folder):
    table = write_table(folder / "leak.csv", ("C0", "train", "a"), ("C1", "val", "a"))
    assert "patient a is in two splits" in refused(read, table)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_folds_are_disjoint_and_complete_by_patient(folder, n):
    rows = [(f"C{number}", "", patient) for number, patient in enumerate(PATIENTS)]
    rows[7] = ("C7", "test", "e")
    table = write_table(folder / "folds.csv", *rows)
    held_out = []
    for k in range(1, n + 1):
        found = read(table, fold=(k, n))
        assert [case.split for case in found][7] == "test"
        patients = {s: {c.patient for c in found if c.split == s} for s in ("train", "val")}
        assert not patients["train"] & patients["val"]
        assert patients["train"] | patients["val"] == set("abcd")
        assert patients["val"]
        held_out += sorted(patients["val"])
        assert found == read(table, fold=(k, n))
    assert sorted(held_out) == list("abcd")


def test_impossible_folds_are_refused(folder):
    table = write_table(folder / "few.csv", ("C0", "train", "a"), ("C2", "val", "b"))
    for fold in ((1, 3), (0, 2), (3, 2), (1, 1)):
        assert f"--fold {fold[0]}/{fold[1]}" in refused(read, table, fold=fold)
    assert parse_fold("2/5") == (2, 5)
    assert parse_fold(None) is None
    for text in ("2", "2/", "-1/5", "a/b", "1/5/2"):
        assert text in refused(parse_fold, text)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("C9", "train", ""), "no such folder"),
        (("", "train", ""), "line 2: case is empty"),
        (("C0", "training", ""), "split 'training' must be one of train, val, test"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(folder, row, said):
    assert said in refused(read, write_table(folder / "bad.csv", row))


def test_tables_that_are_none_are_refused(folder, tmp_path):
    assert "no such file" in refused(read, tmp_path / "none.csv")
    assert "needs a header and rows" in refused(read, write_table(tmp_path / "empty.csv"))
    (tmp_path / "other.csv").write_text("image,label\na,b\n")
    assert "case,split,patient" in refused(read, tmp_path / "other.csv")
    (tmp_path / "volume.csv").write_bytes(bytes(range(128, 256)))
    assert "not a CSV" in refused(read, tmp_path / "volume.csv")


def test_a_case_twice_is_refused(folder):
    table = write_table(folder / "twice.csv", ("C0", "train", "a"), ("./C0", "val", "b"))
    assert "line 3: the case of line 2 again" in refused(read, table)


def test_a_case_without_labels_is_refused(tmp_path):
    case = write_ball_case(tmp_path / "C0")
    (case / "C0-seg.nii.gz").unlink()
    table = write_table(tmp_path / "cases.csv", ("C0", "train", "a"))
    assert "C0: no labels" in refused(read, table)


def test_labels_without_a_scheme_are_refused_and_the_json_file_gives_it(tmp_path):
    case = write_ball_case(tmp_path / "C0")
    table = write_table(tmp_path / "cases.csv", ("C0", "train", "a"))
    assert "give --labels" in refused(read, table, scheme=None)
    write_sidecar(case / "C0-seg.nii.gz", "brats2023")
    assert read(table, scheme=None)[0].scheme == "brats2023"
    assert "says brats2023" in refused(read, table, scheme="brats2020")


def test_a_result_of_the_command_is_not_taken_for_truth(tmp_path):
    case = write_ball_case(tmp_path / "C0")
    table = write_table(tmp_path / "cases.csv", ("C0", "train", "a"))
    write_sidecar(case / "C0-seg.nii.gz", "brats2023", model="reversible_unet_phantom")
    message = refused(read, table)
    assert "is a result of med-seg" in message
    assert "reversible_unet_phantom" in message


def test_a_missing_modality_is_refused_but_for_modality_dropout(tmp_path):
    case = write_ball_case(tmp_path / "C0")
    (case / "C0-t2w.nii.gz").unlink()
    table = write_table(tmp_path / "cases.csv", ("C0", "train", "a"))
    message = refused(read, table)
    assert "no t2;" in message
    assert "--modality-dropout" in message
    assert read(table, allow_missing=True)[0].images.missing == ("t2",)
    assert len(read(table, modalities=("t1", "flair"))[0].images.files) == 2


def test_only_label_files_count(tmp_path):
    """An image whose name says nothing is no truth."""
    case = write_ball_case(tmp_path / "C0")
    write_nifti(case / "C0-prob.nii.gz", np.zeros((4, 4, 4), np.float32))
    table = write_table(tmp_path / "cases.csv", ("C0", "train", "a"))
    assert read(table)[0].labels.name == "C0-seg.nii.gz"
