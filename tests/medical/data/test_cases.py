# SPDX-License-Identifier: Apache-2.0
"""Cases: both naming schemes, what is missing or doubled, one grid, normalisation."""

from pathlib import Path

import numpy as np
import pytest
from sample_volumes import GRIDS, SHAPE, head, labels, write_case, write_nifti, write_nrrd

from fieldfare.common.errors import InputError
from fieldfare.medical.data import cases, intensities
from fieldfare.medical.data.cases import Case, find_case
from fieldfare.medical.data.loading import load
from fieldfare.medical.data.naming import MODALITIES

OLD = ("_t1", "_t1ce", "_t2", "_flair")
NEW = ("-t1n", "-t1c", "-t2w", "-t2f")


def refused(call, *arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffixes", [OLD, NEW, tuple(s.upper() for s in OLD)])
def test_both_naming_schemes_are_found(tmp_path, suffixes):
    write_case(tmp_path, suffixes)
    write_nifti(tmp_path / "P1_seg.nii.gz", labels())
    (tmp_path / "notes_t1.txt").write_text("no volume")
    (tmp_path / "._P1_t1.nii.gz").write_text("what macOS leaves on foreign disks")
    case = find_case(tmp_path)
    assert case.name == "P1"
    assert [case.files[m].name for m in MODALITIES] == [f"P1{s}.nii.gz" for s in suffixes]
    assert [path.name for path in case.ignored] == ["P1_seg.nii.gz"]
    assert f"t1ce P1{suffixes[1]}.nii.gz" in case.describe()
    assert "ignored P1_seg.nii.gz" in case.describe()
    assert cases.find_labels(tmp_path) == tmp_path / "P1_seg.nii.gz"


def test_formats_and_plain_names_mix(tmp_path):
    write_nrrd(tmp_path / "t1.nrrd", head(0))
    write_nifti(tmp_path / "t1ce.nii", head(1))
    write_nifti(tmp_path / "flair.nii.gz", head(3))
    case = find_case(tmp_path)
    assert case.name == tmp_path.name
    assert case.missing == ("t2",)
    assert "no t2" in case.describe()
    loaded = load(case, allow_missing=True)
    assert np.array_equal(loaded.images[0], head(0))


def test_a_missing_modality_is_refused_with_what_was_found_or_becomes_zeros(tmp_path):
    write_case(tmp_path, OLD[:2])
    case = find_case(tmp_path)
    message = refused(load, case)
    assert "t2 (t2 or t2w), flair (flair or t2f) missing" in message
    assert "found t1 (P1_t1.nii.gz), t1ce (P1_t1ce.nii.gz)" in message
    assert "--allow-missing" in message
    loaded = load(case, allow_missing=True)
    assert loaded.present.tolist() == [True, True, False, False]
    assert not loaded.images[2:].any()
    assert sum("is missing" in note for note in loaded.notes) == 2


def test_a_doubled_modality_is_refused_with_both_files(tmp_path):
    write_case(tmp_path)
    write_nifti(tmp_path / "P1-t1c.nii.gz", head(5))
    message = refused(find_case, tmp_path)
    assert "2 files of t1ce: P1-t1c.nii.gz, P1_t1ce.nii.gz" in message


def test_files_of_two_patients_are_not_mixed(tmp_path):
    write_case(tmp_path, OLD[:2], name="P1")
    write_case(tmp_path, OLD[2:], name="P2")
    assert "images of 2 cases (P1, P2)" in refused(find_case, tmp_path)


def test_folders_without_images_say_what_they_hold(tmp_path):
    assert "no such folder" in refused(find_case, tmp_path / "none")
    assert "found no .nii.gz" in refused(find_case, tmp_path)
    write_case(tmp_path / "P1")
    assert "folders only (P1)" in refused(find_case, tmp_path)
    assert "is a file" in refused(find_case, tmp_path / "P1" / "P1_t1.nii.gz")
    write_nifti(tmp_path / "brain.nii.gz", head())
    assert "found brain.nii.gz" in refused(find_case, tmp_path)


def test_doubled_label_files_are_refused(tmp_path):
    assert cases.find_labels(tmp_path) is None
    for name in ("P1_seg.nii.gz", "P1-seg.nii"):
        write_nifti(tmp_path / name, labels())
    assert "2 label files" in refused(cases.find_labels, tmp_path)


def test_files_can_be_named_one_by_one(tmp_path):
    write_case(tmp_path)
    paths = {m: tmp_path / f"P1{s}.nii.gz" for m, s in zip(MODALITIES, OLD, strict=True)}
    assert Case.from_files(**paths).files == find_case(tmp_path).files
    assert "both --t1 and --t2" in refused(Case.from_files, t1=paths["t1"], t2=paths["t1"])
    assert "no image given" in refused(Case.from_files)


def test_images_are_loaded_in_the_order_of_modalities_on_the_grid_of_t1ce(tmp_path):
    loaded = load(find_case(write_case(tmp_path)))
    assert loaded.images.dtype == np.float32
    assert np.array_equal(loaded.images, np.stack([head(seed) for seed in range(4)]))
    assert loaded.present.all()
    assert loaded.reference.path == tmp_path / "P1_t1ce.nii.gz"
    assert loaded.notes == []


def test_differing_grids_are_refused_or_resampled_on_request(tmp_path):
    write_case(tmp_path)
    write_nifti(tmp_path / "P1_t2.nii.gz", head(2), GRIDS["oblique"])
    write_nifti(tmp_path / "P1_flair.nii.gz", head(3)[:, :, 1:-1])
    case = find_case(tmp_path)
    message = refused(load, case)
    assert "t2 differs from t1ce: orientation LAS against LPS" in message
    assert "flair differs from t1ce: shape 12x10x6 against 12x10x8" in message
    assert "--resample-to t1ce" in message
    loaded = load(case, resample_to="t1ce")
    assert np.array_equal(loaded.images[:2], np.stack([head(seed) for seed in range(2)]))
    assert sum("resampled" in note for note in loaded.notes) == 2
    onto = load(case, resample_to="flair")
    assert onto.images.shape == (4, 12, 10, 6)
    assert onto.reference.path == tmp_path / "P1_flair.nii.gz"


def test_resampling_needs_a_modality_that_is_there_and_overlap(tmp_path):
    write_case(tmp_path, OLD[:2])
    far = GRIDS["LPS"].copy()
    far[0, 3] += 60
    write_nifti(tmp_path / "P1_t1.nii.gz", head(), far)
    case = find_case(tmp_path)
    assert "has only t1 (" in refused(load, case, resample_to="flair", allow_missing=True)
    assert "does not overlap" in refused(load, case, resample_to="t1ce", allow_missing=True)


def test_a_suspicious_header_and_a_skull_become_notes(tmp_path):
    far = GRIDS["LPS"].copy()
    far[1, 3] += 400
    for suffix in OLD:
        noise = np.random.default_rng(0).integers(1, 900, SHAPE).astype(np.int16)
        write_nifti(tmp_path / f"P1{suffix}.nii.gz", noise, far)
    case = find_case(tmp_path)
    message = refused(load, case)
    assert "the skull was not stripped (t1 3 ml, 100% of the image" in message
    assert "HD-BET" in message
    assert "--force" in message
    notes = load(case, force=True).notes
    assert len(notes) == 2, "one note for the same finding in all four"
    assert notes[0].startswith("t1, t1ce, t2, flair: the header puts the image at")
    assert "skull" in notes[1]


def test_normalised_brains_have_mean_0_and_deviation_1_whatever_the_scale():
    images = np.stack([head(seed) for seed in range(4)]).astype(np.float32)
    images[3] = 0
    normal = intensities.normalise(images)
    assert normal.dtype == np.float32
    for image, result in zip(images[:3], normal[:3], strict=True):
        assert result[image != 0].mean() == pytest.approx(0, abs=1e-5)
        assert result[image != 0].std() == pytest.approx(1, abs=1e-5)
        assert not result[image == 0].any()
    assert not normal[3].any()
    np.testing.assert_allclose(intensities.normalise(images * 7), normal, atol=1e-4)


def test_negative_voxels_belong_to_the_brain():
    images = np.zeros((4, *SHAPE), np.float32)
    images[1, 3, 3, 3], images[2, 4, 4, 4] = -5, 5
    assert np.argwhere(intensities.brain_mask(images)).tolist() == [[3, 3, 3], [4, 4, 4]]


def test_the_native_case_is_refused_and_resampled_on_request(data: Path):
    case = find_case(data / "brain" / "TCGA-FG-6692_native")
    message = refused(load, case)
    assert "shape 208x256x26 against 256x224x26" in message
    assert "the skull was not stripped" in refused(load, case, resample_to="t1ce")
    loaded = load(case, resample_to="t1ce", force=True)
    assert loaded.images.shape == (4, 256, 224, 26)
    # Images of one head lie over each other once their headers are followed, and no better turned.
    t1ce, flair = loaded.images[1], loaded.images[3]
    likeness = [
        np.corrcoef(t1ce.ravel(), image.ravel())[0, 1]
        for image in (flair, flair[::-1], flair[:, ::-1], flair[:, :, ::-1])
    ]
    assert likeness[0] > 0.5
    assert likeness[0] == max(likeness)


@pytest.mark.parametrize(
    ("name", "present"),
    [("TCGA-DU-7294", 4), ("BraTS-GLI-00001-000", 4), ("AURORA-METS-001", 2)],
)
def test_real_cases_of_both_schemes_are_found(data: Path, name, present):
    case = find_case(data / "brain" / name)
    assert case.name == name
    assert len(case.files) == present
