# SPDX-License-Identifier: Apache-2.0
"""Phantoms: the same seed the same case, labels that fit, statistics of brains with gliomas."""

import sys

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import ndimage

from fieldfare.common.errors import InputError
from fieldfare.medical.cli import main
from fieldfare.medical.commands import phantom as command
from fieldfare.medical.data.cases import find_case, find_labels
from fieldfare.medical.data.intensities import brain_mask, normalise
from fieldfare.medical.data.loading import load
from fieldfare.medical.data.regions import read_sidecar, resolve_scheme, to_regions
from fieldfare.medical.data.table import read_table
from fieldfare.medical.phantoms import anatomy as anatomies
from fieldfare.medical.phantoms.anatomy import EXTENT, Pose, grid_shape, load_atlas
from fieldfare.medical.phantoms.generate import make_phantom, write_case
from fieldfare.medical.phantoms.noise import Grid
from fieldfare.medical.volumes.images import read_labels

pytest.importorskip("nilearn", reason="NILEARN IS NOT INSTALLED: phantoms are NOT tested")

SPACING = 4.0


@pytest.fixture(scope="module")
def cases():
    """Phantoms of 24 seeds."""
    return [make_phantom(np.random.default_rng(seed), SPACING) for seed in range(24)]


def test_the_same_seed_gives_the_same_bytes(cases):
    again = make_phantom(np.random.default_rng(3), SPACING)
    assert again.images.tobytes() == cases[3].images.tobytes()
    assert again.labels.tobytes() == cases[3].labels.tobytes()
    assert not np.array_equal(cases[3].images, cases[4].images)


def test_the_noise_of_numpy_itself_is_not_touched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make_phantom(np.random.default_rng(0), 8.0)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_images_are_finite_whole_numbers_of_at_least_one_in_the_brain(cases):
    for case in cases:
        assert case.images.dtype == np.float32
        assert np.isfinite(case.images).all()
        for image in case.images:
            inside = image[image != 0]
            assert inside.min() >= 1
            assert np.array_equal(inside, np.rint(inside))
            assert len(np.unique(inside)) > 50  # rounding must not flatten a contrast


def test_outside_the_brain_all_is_0(cases):
    for case in cases:
        brain = brain_mask(case.images)
        assert 0.04 < brain.mean() < 0.25
        assert (case.images[:, ~brain] == 0).all()
        assert not any(side.any() for side in (brain[0], brain[-1], brain[:, 0], brain[:, -1]))


def test_labels_lie_in_the_brain_and_nest(cases):
    for case in cases:
        assert case.labels.dtype == np.uint8
        assert not (case.labels[~brain_mask(case.images)]).any()
        whole, core, enhancing = to_regions(case.labels, "brats2023")
        assert whole.any()
        assert (whole >= core).all()
        assert (core >= enhancing).all()


def test_volumes_are_those_of_brains_and_gliomas(cases):
    ml = SPACING**3 / 1000
    brains = [brain_mask(case.images).sum() * ml for case in cases]
    tumours = [(case.labels > 0).sum() * ml for case in cases]
    assert min(brains) > 700
    assert max(brains) < 2100
    assert 1100 < np.median(brains) < 1700
    assert max(tumours) < 350
    assert 5 < np.median(tumours) < 90


def test_kinds_without_and_with_enhancement_both_occur(cases):
    enhancing = [bool((case.labels == 3).any()) for case in cases]
    assert 0.25 < np.mean(enhancing) < 0.9
    assert all(not (c.labels == 3).any() for c in cases if c.kind == "non-enhancing")
    assert len({case.kind for case in cases}) >= 4


def test_tumours_are_brighter_than_brain_on_flair_and_t2_and_rims_on_t1ce(cases):
    flair, t2, rims = [], [], []
    for case in cases:
        images = normalise(case.images)
        rest = brain_mask(case.images) & (case.labels == 0)
        tumour, rim = case.labels > 0, case.labels == 3
        flair.append(images[3][tumour].mean() - images[3][rest].mean())
        t2.append(images[2][tumour].mean() - images[2][rest].mean())
        if rim.sum() > 8:
            rims.append(images[1][rim].mean() - images[1][rest].mean())
    assert np.mean(np.array(flair) > 0.5) > 0.85
    assert np.mean(np.array(t2) > 0) > 0.85
    assert np.mean(np.array(rims) > 0.3) > 0.8  # some enhance weakly


def test_the_faint_rim_that_images_show_is_labelled(cases):
    """Just outside the labels FLAIR is brain again: what is left there is no tumour."""
    steps = []
    for case in cases:
        flair = normalise(case.images)[3]
        tumour = case.labels > 0
        if tumour.sum() < 100:
            continue
        outside = ndimage.binary_dilation(tumour) & ~tumour & brain_mask(case.images)
        far = brain_mask(case.images) & ~ndimage.binary_dilation(tumour, iterations=4)
        steps.append(
            (flair[outside].mean() - flair[far].mean()) / (flair[tumour].mean() - flair[far].mean())
        )
    assert np.median(steps) < 0.25


def test_scales_of_modalities_differ_by_orders(cases):
    medians = [np.median(image[image != 0]) for case in cases for image in case.images]
    assert max(medians) / min(medians) > 10


@pytest.mark.parametrize("spacing", [3.0, 5.0])
def test_spacing_gives_the_grid_and_the_affine(spacing):
    case = make_phantom(np.random.default_rng(1), spacing)
    assert case.labels.shape == grid_shape(spacing) == case.images.shape[1:]
    assert np.allclose(np.array(case.labels.shape) * spacing, EXTENT, atol=spacing)
    assert np.allclose(np.abs(np.diag(case.affine)), [spacing] * 3 + [1])
    assert np.sign(np.diag(case.affine)).tolist() == [-1, -1, 1, 1]  # LPS


def test_a_millimetre_gives_the_grid_of_brats():
    assert grid_shape(1.0) == (240, 240, 155)


def test_the_box_that_is_drawn_holds_the_brain():
    """What the margin cuts off would be missing without a trace."""
    atlas = load_atlas()
    brain = np.argwhere(atlas.maps[:3, ::8, ::8, ::8].sum(axis=0) > 0.5) * 8
    for seed in range(20):
        pose = Pose(np.random.default_rng(seed), atlas)
        grid = pose.grid(SPACING)
        places = np.array([pose.to_phantom(voxel) for voxel in brain]) / SPACING - grid.first
        assert ((places >= 0) & (places < grid.shape)).all(axis=1).mean() > 0.995


def test_pose_and_its_inverse_agree():
    atlas = load_atlas()
    pose = Pose(np.random.default_rng(2), atlas)
    voxel = np.array([40, 90, 70])
    point = pose.to_phantom(voxel).astype(np.float32).reshape(3, 1, 1, 1)
    assert np.allclose(pose.to_atlas(point).ravel(), voxel, atol=1e-3)


@pytest.mark.parametrize("scale", [4.0, 8.0, 14.0])
def test_noise_has_deviation_1_and_changes_over_its_scale(scale):
    rng = np.random.default_rng(0)
    grid = Grid((0, 0, 0), (60, 60, 40), 2.0)
    fields = [grid.noise(rng, scale) for _ in range(20)]
    assert np.std(fields) == pytest.approx(1, abs=0.1)
    near = np.mean([(field[1:] * field[:-1]).mean() for field in fields])
    step = min(30, round(4 * scale / grid.spacing))
    far = np.mean([(field[step:] * field[:-step]).mean() for field in fields])
    assert near > 0.5
    assert abs(far) < 0.25


@pytest.mark.parametrize("naming", ["brats2020", "brats2023"])
def test_a_written_case_is_found_and_read_back(tmp_path, cases, naming):
    write_case(tmp_path / "P-1", cases[0], naming)
    case = find_case(tmp_path / "P-1")
    assert not case.missing
    loaded = load(case)
    assert np.array_equal(loaded.images, cases[0].images)
    assert np.allclose(loaded.reference.affine, cases[0].affine)
    labels = find_labels(tmp_path / "P-1")
    assert np.array_equal(read_labels(labels).data, cases[0].labels)
    assert resolve_scheme(labels, None) == "brats2023"
    assert "model" not in read_sidecar(labels)


def run(*arguments):
    return CliRunner().invoke(main, ["phantom", *map(str, arguments)])


def contents(folder):
    """Every label and image of a folder, by name."""
    return {
        path.name: np.asarray(read_labels(path).data)
        for path in sorted(folder.glob("phantom_*/*_seg.nii.gz"))
    } | {case.name: load(find_case(case)).images for case in sorted(folder.glob("phantom_*"))}


def test_the_command_writes_a_table_that_training_reads(tmp_path):
    done = run("-o", tmp_path / "p", "--count", 3, "--val", 1, "--spacing", 8, "--quiet")
    assert done.exit_code == 0, done.output
    found = read_table(tmp_path / "p" / "cases.csv")
    assert [case.split for case in found] == ["train", "train", "val"]
    assert len({case.patient for case in found}) == 3
    assert {case.scheme for case in found} == {"brats2023"}


def test_an_interrupted_run_resumes_and_gives_the_same(tmp_path, monkeypatch):
    settings = ("--count", 3, "--spacing", 8, "--seed", 5, "--quiet")
    assert run("-o", tmp_path / "whole", *settings).exit_code == 0
    calls = []

    def stops(folder, phantom, naming):
        calls.append(folder)
        write_case(folder, phantom, naming)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(command, "write_case", stops)
        assert run("-o", tmp_path / "parts", *settings).exit_code == 130
    left = [path.name for path in (tmp_path / "parts").iterdir() if path.is_dir()]
    assert left == ["phantom_0000"]  # nothing of the one that was interrupted
    first = (tmp_path / "parts/phantom_0000/phantom_0000_seg.nii.gz").stat().st_mtime_ns
    assert run("-o", tmp_path / "parts", *settings).exit_code == 0
    assert (tmp_path / "parts/phantom_0000/phantom_0000_seg.nii.gz").stat().st_mtime_ns == first
    whole, parts = contents(tmp_path / "whole"), contents(tmp_path / "parts")
    assert len(whole) == 6
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)


def test_a_folder_of_other_settings_is_refused(tmp_path):
    assert run("-o", tmp_path / "p", "--count", 1, "--spacing", 8, "--quiet").exit_code == 0
    refused = run("-o", tmp_path / "p", "--count", 1, "--spacing", 8, "--seed", 9, "--quiet")
    assert refused.exit_code == 2
    assert len(refused.output.strip().splitlines()) == 1


def test_without_nilearn_one_line_says_what_to_install(tmp_path, monkeypatch):
    anatomies.load_atlas.cache_clear()
    monkeypatch.setitem(sys.modules, "nilearn", None)
    try:
        with pytest.raises(InputError, match=r"pip install 'fieldfare-medical\[phantom\]'"):
            make_phantom(np.random.default_rng(0), 8.0)
        refused = run("-o", tmp_path / "p", "--count", 1, "--spacing", 8)
        assert refused.exit_code == 2
        assert len(refused.output.strip().splitlines()) == 1
        assert not (tmp_path / "p").exists()
    finally:
        anatomies.load_atlas.cache_clear()
