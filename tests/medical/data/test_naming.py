# SPDX-License-Identifier: Apache-2.0
"""Names of data sets and programs, and which of several images of a modality is meant."""

import json

import numpy as np
import pytest
from sample_formats import write_series
from sample_volumes import GRIDS, head, labels, write_case, write_nifti

from fieldfare.common.errors import InputError
from fieldfare.medical.data.cases import Case, find_case, find_labels
from fieldfare.medical.data.loading import load
from fieldfare.medical.data.naming import MODALITIES

SCHEMES = {
    "BIDS": ("sub-01_T1w", "sub-01_ce-gadolinium_T1w", "sub-01_T2w", "sub-01_FLAIR"),
    "BIDS session": tuple(
        f"sub-01_ses-2_{rest}"
        for rest in ("run-1_T1w", "ce-GD_run-1_T1w", "space-T1w_T2w", "acq-3d_FLAIR")
    ),
    "UPENN-GBM": tuple(f"UPENN-GBM-00001_11_{m}" for m in ("T1", "T1GD", "T2", "FLAIR")),
    "FeTS": tuple(f"P1_brain_{m}" for m in ("t1", "t1gd", "t2", "flair")),
    "LUMIERE": ("T1", "CT1", "T2", "FLAIR"),
    "LUMIERE registered": tuple(f"{m}_r2s_bet_reg" for m in ("T1", "CT1", "T2", "FLAIR")),
    "CaPTk": tuple(f"{m}_to_SRI_brain" for m in ("T1", "T1CE", "T2", "FL")),
    "UCSF-PDGM": tuple(f"UCSF-PDGM-0004_{m}" for m in ("T1", "T1c", "T2", "FLAIR")),
    "nnU-Net": tuple(f"BraTS_001_{number:04d}" for number in range(4)),
    "BraTS 2024": tuple(f"BraTS-GLI-00005-100-{m}" for m in ("t1n", "t1c", "t2w", "t2f")),
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_four_are_found_by_every_scheme(tmp_path, scheme):
    for seed, name in enumerate(SCHEMES[scheme]):
        write_nifti(tmp_path / f"{name}.nii.gz", head(seed))
    case = find_case(tmp_path)
    assert [case.files[m].name for m in MODALITIES] == [f"{n}.nii.gz" for n in SCHEMES[scheme]]
    loaded = load(case)
    assert np.array_equal(loaded.images, np.stack([head(seed) for seed in range(4)]))
    assert [("only numbered" in note) for note in loaded.notes] == [True] * (scheme == "nnU-Net")


def test_what_is_no_modality_is_left_out(tmp_path):
    write_case(tmp_path, ("_T1", "_T1c", "_T2", "_FLAIR"), name="U")
    others = ("T1_bias", "SWI", "ADC", "DTI_eddy_FA", "brain_segmentation", "T1_unstripped", "ct")
    for other in others:
        write_nifti(tmp_path / f"U_{other}.nii.gz", head(7))
    write_nifti(tmp_path / "U_tumor_segmentation.nii.gz", labels())
    case = find_case(tmp_path)
    assert case.name == "U"
    assert case.files["t1"].name == "U_T1.nii.gz"
    assert len(case.ignored) == len(others) + 1
    assert find_labels(tmp_path) == tmp_path / "U_tumor_segmentation.nii.gz"


def test_of_captks_images_the_stripped_ones_are_meant(tmp_path):
    for seed, name in enumerate(("T1", "T1CE", "T2", "FL")):
        write_nifti(tmp_path / f"{name}_to_SRI.nii.gz", head(seed + 4))
        write_nifti(tmp_path / f"{name}_to_SRI_brain.nii.gz", head(seed))
    case = find_case(tmp_path)
    assert case.files["flair"].name == "FL_to_SRI_brain.nii.gz"
    assert len(case.ignored) == 4


def test_a_bids_subject_stands_for_its_anat_folder(tmp_path):
    write_case(tmp_path / "sub-01" / "anat", ("_T1w", "_ce-gd_T1w", "_T2w", "_FLAIR"), "sub-01")
    assert len(find_case(tmp_path / "sub-01").files) == 4


def test_folders_of_dicom_are_found_by_their_names(tmp_path):
    for seed, name in enumerate(("T1", "T1ce", "T2", "FLAIR")):
        write_series(tmp_path / name, head(seed), GRIDS["LPS"], number=seed + 1)
    (tmp_path / "t1_notes").mkdir()
    case = find_case(tmp_path)
    assert case.files["flair"] == tmp_path / "FLAIR"
    assert len(case.sources) == 32
    assert np.array_equal(load(case).images, np.stack([head(seed) for seed in range(4)]))


@pytest.mark.parametrize("channels", [("t1", "t1"), ("t1", "pd"), ("",)])
def test_channels_are_modalities_each_once(tmp_path, channels):
    path = write_nifti(tmp_path / "a.nii.gz", np.stack([head(), head(1)], -1))
    with pytest.raises(InputError, match="name each channel once"):
        Case.from_channels(path, channels)
    with pytest.raises(InputError, match="no such file"):
        Case.from_channels(tmp_path / "b.nii.gz", ("t1", "t2"))


@pytest.mark.parametrize("key", ["channel_names", "modality"])
@pytest.mark.parametrize("above", [False, True])
def test_numbers_mean_what_dataset_json_says(tmp_path, key, above):
    folder = tmp_path / "imagesTr"
    folder.mkdir()
    for number in range(4):
        write_nifti(folder / f"P_{number:04d}.nii.gz", head(number))
    told = {"0": "FLAIR", "1": "T1w", "2": "T1Gd", "3": "T2w"}  # as the Decathlon's brains
    place = tmp_path if above else folder
    (place / "dataset.json").write_text(json.dumps({key: told, "labels": {"0": "x"}}))
    case = find_case(folder)
    order = ("t1", "t1ce", "t2", "flair")
    assert [case.files[name].name[2:6] for name in order] == ["0001", "0002", "0003", "0000"]
    assert not case.notes


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"channel_names": {"0": "CT"}}', '{"modality": {"0": "T1", "1": "T1"}}']
)
def test_a_dataset_json_that_says_nothing_leaves_the_usual_order_and_its_warning(tmp_path, text):
    for number in range(4):
        write_nifti(tmp_path / f"P_{number:04d}.nii.gz", head(number))
    (tmp_path / "dataset.json").write_text(text)
    case = find_case(tmp_path)
    assert case.files["flair"].name == "P_0003.nii.gz"
    assert any("only numbered" in note for note in case.notes)
