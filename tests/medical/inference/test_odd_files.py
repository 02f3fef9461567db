# SPDX-License-Identifier: Apache-2.0
"""Legal files as people have them give what the clean ones give, with the packaged model."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from base_case import BASE, affine, copy_case, values_of

from fieldfare.medical.data.cases import Case, find_case
from fieldfare.medical.data.regions import to_regions
from fieldfare.medical.evaluation.metrics import dice
from fieldfare.medical.inference.predict import Predictor, load_predictor
from fieldfare.medical.inference.run import InferSettings, open_case, plan, segment
from fieldfare.medical.options import DEFAULT_MODEL

SETTINGS = InferSettings()


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load_predictor(DEFAULT_MODEL, device="cpu", precision="fp32")[0]


def result_of(case: Case, predictor: Predictor) -> tuple[np.ndarray, list[str]]:
    job = open_case(case, SETTINGS, predictor)
    found = segment(job, SETTINGS, predictor, plan(job, SETTINGS, predictor))
    return to_regions(found.labels, SETTINGS.labels), job.notes


@pytest.fixture(scope="module")
def clean(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    regions, notes = result_of(find_case(copy_case(tmp_path_factory.mktemp("base"))), predictor)
    assert notes == []
    assert all(region.any() for region in regions)
    return regions


def save(path: Path, values: np.ndarray, grid: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(values, affine() if grid is None else grid), path)
    return path


def minus_1024(folder: Path) -> dict[str, Path]:
    # flair_background_minus1024
    values = values_of("flair").astype(np.int16)
    return {"flair": save(folder / "x.nii.gz", np.where(values == 0, -1024, values))}


def scanner_padding(folder: Path) -> dict[str, Path]:
    """Zeros where the scanner saw nothing, and -1024 around what it saw."""
    values = values_of("flair").astype(np.int16)
    padded = np.full_like(values, -1024)
    padded[:, 6:-6] = values[:, 6:-6]
    return {"flair": save(folder / "x.nii.gz", padded)}


def slope(folder: Path) -> dict[str, Path]:
    # t2_background_0p1: zero comes back as 0.04999
    image = nib.Nifti1Image(np.rint((values_of("t2") + 1000.0) * 4).astype(np.int16), affine())
    raw = bytearray(image.to_bytes())
    at = image.header.template_dtype.fields["scl_slope"][1]
    raw[at : at + 8] = np.array([0.25, -999.95], "<f4").tobytes()
    (folder / "x.nii").write_bytes(raw)
    return {"t2": folder / "x.nii"}


def hot_voxel(folder: Path) -> dict[str, Path]:
    # t1ce_hot_voxel
    values = values_of("t1ce").astype(np.float32)
    values[30, 30, 30] = 3e5
    return {"t1ce": save(folder / "x.nii.gz", values)}


def spike_in_the_corner(folder: Path) -> dict[str, Path]:
    values = values_of("flair").astype(np.float32)
    values[2, 3, 4] = 3e5
    return {"flair": save(folder / "x.nii.gz", values)}


def nan_background(folder: Path) -> dict[str, Path]:
    # t1_nan_background
    values = values_of("t1").astype(np.float32)
    return {"t1": save(folder / "x.nii.gz", np.where(values == 0, np.float32(np.nan), values))}


def z_scores(folder: Path) -> dict[str, Path]:
    values = values_of("t1").astype(np.float32)
    return {"t1": save(folder / "x.nii.gz", (values - values.mean()) / values.std())}


def other_axes(folder: Path) -> dict[str, Path]:
    # t2_other_axes
    turned = nib.as_closest_canonical(nib.load(BASE["t2"]))
    nib.save(turned, folder / "x.nii.gz")
    return {"t2": folder / "x.nii.gz"}


def permuted_axes(folder: Path) -> dict[str, Path]:
    grid = affine()[:, [2, 0, 1, 3]]
    return {"t2": save(folder / "x.nii.gz", values_of("t2").transpose(2, 0, 1), grid)}


def mgz(folder: Path) -> dict[str, Path]:
    # flair.mgz
    values = values_of("flair").astype(np.float32)
    nib.save(nib.MGHImage(values, affine()), folder / "x.mgz")
    return {"flair": folder / "x.mgz"}


@pytest.mark.parametrize(
    ("spoil", "least", "said"),
    [
        (minus_1024, 0.999, "flair: the background is -1024"),
        (scanner_padding, 0.999, "flair: the background is 0 and -1024"),
        (slope, 0.99, "t2: the background is 0.0"),
        (hot_voxel, 0.97, ""),
        (spike_in_the_corner, 0.999, ""),
        (nan_background, 0.999, "t1: 173650 voxels are NaN"),
        (z_scores, 0.999, "t1: the background is -0."),
        (other_axes, 1.0, ""),
        (permuted_axes, 1.0, ""),
        (mgz, 1.0, ""),
    ],
)
def test_the_result_is_that_of_clean_images(spoil, least, said, clean, predictor, tmp_path) -> None:
    case = copy_case(tmp_path / "case")
    for name, path in spoil(tmp_path).items():
        (case / f"ID_{name}.nii.gz").unlink()
        path.rename(case / f"ID_{name}{path.name[1:]}")
    regions, notes = result_of(find_case(case), predictor)
    for ours, theirs in zip(regions, clean, strict=True):
        assert dice(ours, theirs) >= least
    assert [said in note for note in notes] == [True] * bool(said), notes


def test_the_channels_of_the_decathlon_are_the_four_images(clean, predictor, tmp_path) -> None:
    # msd_four_channels
    order = ("flair", "t1w", "t1gd", "t2w")
    names = ("flair", "t1", "t1ce", "t2")
    path = save(tmp_path / "BRATS_001.nii.gz", np.stack([values_of(n) for n in names], -1))
    case = Case.from_channels(path, order)
    assert case.name == "BRATS_001"
    assert case.sources == [path]
    assert "flair, t1, t1ce, t2 in BRATS_001.nii.gz" in case.describe()
    regions, notes = result_of(case, predictor)
    assert np.array_equal(regions, clean)
    assert notes == []
