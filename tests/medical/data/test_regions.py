# SPDX-License-Identifier: Apache-2.0
"""Label schemes: what numbers mean, conversion by meaning, regions there and back, JSON sidecar."""

import json
from pathlib import Path

import numpy as np
import pytest
from sample_volumes import labels

from fieldfare.common.errors import InputError
from fieldfare.medical.data import regions
from fieldfare.medical.volumes.images import read_labels

ENHANCING = {"brats2020": 4, "brats2023": 3, "brats2024": 3}


@pytest.mark.parametrize(("scheme", "enhancing"), ENHANCING.items())
def test_regions_are_nested_and_turn_back_exactly(scheme, enhancing):
    whole, core, inner = regions.to_regions(labels(enhancing), scheme)
    assert np.array_equal(whole, labels() > 0)
    assert np.array_equal(core, (labels() == 1) | (labels() == 4))
    assert np.array_equal(inner, labels() == 4)
    back = regions.to_labels(np.stack([whole, core, inner]), scheme)
    assert back.dtype == np.uint8
    assert np.array_equal(back, labels(enhancing))


def test_label_4_is_tumour_in_2020_and_cavity_in_2024():
    values = np.array([0, 1, 2, 4], np.uint8).reshape(4, 1, 1)
    assert regions.to_regions(values, "brats2020")[:, 3].all()
    assert not regions.to_regions(values, "brats2024")[:, 3].any()
    assert regions.region_labels("brats2020") == {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
    assert regions.region_labels("brats2024") == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}


def test_the_inner_region_wins_where_predictions_are_not_nested():
    predicted = np.random.default_rng(0).random((3, 6, 6, 6)) > 0.5
    whole, core, inner = regions.to_regions(regions.to_labels(predicted, "brats2023"), "brats2023")
    assert np.array_equal(inner, predicted[2])
    assert np.array_equal(core, predicted[1] | predicted[2])
    assert np.array_equal(whole, predicted.any(axis=0))
    with pytest.raises(ValueError, match="2 regions"):
        regions.to_labels(predicted[:2], "brats2023")


def test_labels_outside_the_scheme_are_named_with_the_scheme_that_fits():
    with pytest.raises(InputError, match=r"^a\.nii: holds 4, not in brats2023 .*\(brats2020 or "):
        regions.check_labels(labels(4), "brats2023", "a.nii")
    with pytest.raises(InputError, match=r"holds 3, not in brats2020 .*\(brats2023 or brats2024"):
        regions.to_regions(labels(3), "brats2020")
    with pytest.raises(InputError, match=r"holds -1, 9, not in .*correct the labels"):
        regions.check_labels(np.array([0, 1, -1, 9]), "brats2024")
    with pytest.raises(InputError, match=r"holds 5, 6, 7, 8, 9 and 290 more"):
        regions.check_labels(np.arange(300), "brats2024")
    with pytest.raises(InputError, match="choose brats2020, brats2023, brats2024"):
        regions.check_labels(labels(), "brats1999")


@pytest.mark.parametrize("target", ENHANCING)
@pytest.mark.parametrize("source", ENHANCING)
def test_relabelling_keeps_the_regions_and_turns_back(source, target):
    values = labels(ENHANCING[source])
    converted = regions.relabel(values, source, target)
    assert converted.dtype == np.uint8
    assert np.array_equal(regions.to_regions(values, source), regions.to_regions(converted, target))
    assert np.array_equal(regions.relabel(converted, target, source), values)


def test_a_cavity_is_not_turned_into_something_else():
    values = labels(3)
    values[0, 0, :3] = 4
    assert np.array_equal(regions.relabel(values, "brats2024", "brats2024"), values)
    with pytest.raises(InputError, match=r"^a: 3 voxels are RC \(label 4\), which brats2020 can"):
        regions.relabel(values, "brats2024", "brats2020", "a")


def test_little_enhancing_tumour_becomes_core():
    values = labels(4)
    amount = int((values == 4).sum())
    assert regions.replace_small_et(values, "brats2020", amount) is values
    repaired = regions.replace_small_et(values, "brats2020", amount + 1)
    assert repaired.dtype == np.uint8
    assert np.array_equal(repaired == 1, (values == 1) | (values == 4))
    assert (values == 4).sum() == amount, "the input was changed"
    none = np.zeros((3, 3, 3), np.uint8)
    assert regions.replace_small_et(none, "brats2020") is none


@pytest.mark.parametrize("name", ["seg.nii.gz", "seg.nii", "seg.nrrd"])
def test_the_sidecar_says_what_labels_mean(tmp_path: Path, name):
    path = regions.write_sidecar(tmp_path / name, "brats2024", model="tiny", notes=["t2 missing"])
    assert path == tmp_path / "seg.json"
    content = regions.read_sidecar(tmp_path / name)
    assert content == json.loads(path.read_text())
    assert content["label_scheme"] == "brats2024"
    assert content["labels"]["4"] == "RC"
    assert content["regions"]["WT"] == [1, 2, 3]
    assert content["model"] == "tiny"


def test_the_scheme_is_never_guessed(tmp_path: Path):
    path = tmp_path / "seg.nii.gz"
    with pytest.raises(InputError, match="give --labels brats2020"):
        regions.resolve_scheme(path, None)
    assert regions.resolve_scheme(path, "brats2020") == "brats2020"
    regions.write_sidecar(path, "brats2023")
    assert regions.resolve_scheme(path, None) == "brats2023"
    with pytest.raises(InputError, match=r"seg\.json says brats2023, not brats2020"):
        regions.resolve_scheme(path, "brats2020")


def test_other_json_files_are_not_sidecars(tmp_path: Path):
    path = tmp_path / "seg.nii.gz"
    (tmp_path / "seg.json").write_text('{"EchoTime": 17}')
    assert regions.read_sidecar(path) is None
    (tmp_path / "seg.json").write_text("{")
    with pytest.raises(InputError, match="not readable as JSON"):
        regions.read_sidecar(path)
    (tmp_path / "seg.json").write_text('{"label_scheme": "brats1999"}')
    with pytest.raises(InputError, match="brats1999 is unknown"):
        regions.read_sidecar(path)


def test_the_consensus_of_tcga_fg_6692_has_2477_core_20862_oedema_6840_enhancing_voxels(data):
    values = read_labels(data / "brain/TCGA-FG-6692/TCGA-FG-6692_seg.nii.gz").data
    sizes = [int(region.sum()) for region in regions.to_regions(values, "brats2020")]
    assert sizes == [2477 + 20862 + 6840, 2477 + 6840, 6840]
