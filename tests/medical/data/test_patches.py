# SPDX-License-Identifier: Apache-2.0
"""Training data: cases made ready once, patches with foreground, augmentation that keeps truth."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest
import torch
from ball_cases import SIDE, affine, ball, images, write_ball_case, write_table
from sample_volumes import write_nifti

from fieldfare.common.errors import InputError
from fieldfare.common.training import Draw
from fieldfare.medical.data import augmentation
from fieldfare.medical.data import patches as data
from fieldfare.medical.data.augmentation import Augmentation
from fieldfare.medical.data.patches import (
    CachedCase,
    DataSettings,
    PatchDataset,
    cache_cases,
    load_sample,
)
from fieldfare.medical.data.table import read_table
from fieldfare.medical.networks.config import NetworkConfig

CONFIG = NetworkConfig(spacing=4.0)
STILL = Augmentation.off()
GEOMETRY = dataclasses.replace(STILL, flip=0.5, warp=1.0, bend=0.5)


def case_of(folder, **options):
    """The case of a folder, as the table gives it."""
    table = write_table(folder.parent / "one.csv", (folder.name, "train", ""))
    return read_table(table, **({"scheme": "brats2023"} | options))[0]


def saved(folder, image: np.ndarray, depth: np.ndarray) -> CachedCase:
    """A cached case of these arrays."""
    case = CachedCase("made", folder / "image.npy", folder / "depth.npy")
    np.save(case.image, image.astype(np.float16))
    np.save(case.depth, depth.astype(np.uint8))
    return case


def draws(count: int, seed: int = 0):
    return [Draw(0, (seed, number)) for number in range(count)]


@pytest.fixture
def sparse(tmp_path):
    """A large volume with 27 voxels of each tissue, far apart: a patch of 8 holds them seldom."""
    depth = np.zeros((48, 48, 48), np.uint8)
    for value, corner in ((1, 8), (2, 22), (3, 36)):
        depth[corner : corner + 3, corner : corner + 3, corner : corner + 3] = value
    return saved(tmp_path, np.ones((4, *depth.shape)), depth)


def test_a_case_is_made_ready_as_inference_does(tmp_path):
    sample = load_sample(case_of(write_ball_case(tmp_path / "C0")), CONFIG)
    assert sample.image.shape == (4, SIDE - 2, SIDE - 2, SIDE - 2)  # cut to the brain
    assert sample.image.dtype == np.float16
    values = sample.image.astype(np.float64)
    assert values.mean(axis=(1, 2, 3)) == pytest.approx(np.zeros(4), abs=1e-2)
    assert values.std(axis=(1, 2, 3)) == pytest.approx(np.ones(4), abs=1e-2)
    assert np.unique(sample.depth).tolist() == [0, 1, 2, 3]


def test_depth_counts_regions_and_follows_the_axes(tmp_path):
    """Labels 2, 1, 3 are oedema, core, enhancing: depths 1, 2, 3; RAS files are turned to LPS."""
    labels = ball((8, 12, 14), 6)
    labels[0] = labels[-1] = 0
    case = write_ball_case(tmp_path / "C0", labels=labels)
    wanted = np.array([0, 2, 1, 3])[labels][1:-1, 1:-1, 1:-1]
    assert np.array_equal(load_sample(case_of(case), CONFIG).depth, wanted)
    turned = tmp_path / "C1"
    grid = affine()
    grid[:3, 0] *= -1
    grid[:3, 1] *= -1
    for name, values in zip(("t1", "t1ce", "t2", "flair"), images(labels), strict=True):
        write_nifti(turned / f"C1_{name}.nii.gz", values[::-1, ::-1], grid)
    write_nifti(turned / "C1_seg.nii.gz", labels[::-1, ::-1], grid)
    assert np.array_equal(load_sample(case_of(turned), CONFIG).depth, wanted)


def test_the_network_s_spacing_is_taken(tmp_path):
    case = case_of(write_ball_case(tmp_path / "C0", labels=ball((12, 12, 12), 8)))
    sample = load_sample(case, NetworkConfig(spacing=8.0))
    assert sample.image.shape == (4, *[(SIDE - 2) // 2] * 3)
    fine = load_sample(case, CONFIG)
    assert (sample.depth > 0).mean() == pytest.approx((fine.depth > 0).mean(), rel=0.1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda labels: labels.astype(np.float32) / 3, "are no whole number"),
        (lambda labels: labels + np.uint8(3) * (labels == 3), "holds 6, not in brats2023"),
        (lambda labels: labels[1:], "not on the grid of the images"),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path, change, said):
    case = write_ball_case(tmp_path / "C0")
    path = case / "C0-seg.nii.gz"
    write_nifti(path, change(ball((12, 12, 12), 6)), affine())
    with pytest.raises(InputError, match=said) as caught:
        cache_cases([case_of(case)], CONFIG, tmp_path / "ready", quiet=True)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "ready").exists()


def test_whole_numbers_stored_as_floats_are_labels(tmp_path):
    case = write_ball_case(tmp_path / "C0")
    wanted = load_sample(case_of(case), CONFIG).depth
    labels = np.asarray(data.read_labels(case / "C0-seg.nii.gz").data, np.float32)
    write_nifti(case / "C0-seg.nii.gz", labels, affine())
    assert np.array_equal(load_sample(case_of(case), CONFIG).depth, wanted)


def test_cases_are_made_ready_once_and_again_when_a_file_changes(tmp_path, monkeypatch):
    folder = write_ball_case(tmp_path / "C0")
    ready, load, made = tmp_path / "ready", data.load_sample, []

    def counted(case, config, **options):
        made.append(case.images.name)
        return load(case, config, **options)

    monkeypatch.setattr(data, "load_sample", counted)
    first = cache_cases([case_of(folder)], CONFIG, ready, quiet=True)
    assert cache_cases([case_of(folder)], CONFIG, ready, quiet=True) == first
    assert len(made) == 1
    write_nifti(folder / "C0-seg.nii.gz", ball((12, 12, 12), 7), affine())
    second = cache_cases([case_of(folder)], CONFIG, ready, quiet=True)
    assert len(made) == 2
    assert not np.array_equal(second[0].open().depth, first[0].open().depth)


def test_patches_hold_tumour_as_often_as_promised(sparse):
    def rate(foreground, augment=STILL):
        settings = DataSettings((8, 8, 8), foreground, augmentation=augment)
        dataset = PatchDataset([sparse], settings)
        return np.mean([bool(dataset[draw]["depth"].any()) for draw in draws(200)])

    base = rate(0.0)
    assert base < 0.2
    assert rate(1.0) == 1
    assert rate(0.5) == pytest.approx(0.5 + 0.5 * base, abs=0.1)
    assert rate(1.0, Augmentation()) > 0.97  # a warp may turn a lone voxel out of the patch


def test_every_tissue_is_drawn_as_often_as_the_others(tmp_path):
    """Although there are 1000 voxels of one and 1 of another."""
    depth = np.zeros((40, 40, 40), np.uint8)
    depth[2:12, 2:12, 2:12] = 1
    depth[20:22, 20:22, 20:22] = 2
    depth[32, 32, 32] = 3
    case = saved(tmp_path, np.ones((4, *depth.shape)), depth)
    settings = DataSettings((4, 4, 4), 1.0, augmentation=STILL)
    dataset = PatchDataset([case], settings)
    found = np.zeros(4)
    for draw in draws(300):
        found[np.unique(dataset[draw]["depth"].numpy())] += 1
    assert found[1:] == pytest.approx([100, 100, 100], abs=30)


def test_a_case_without_tumour_gives_patches_too(tmp_path):
    case = saved(tmp_path, np.ones((4, 12, 12, 12)), np.zeros((12, 12, 12)))
    dataset = PatchDataset([case], DataSettings((8, 8, 8), 1.0))
    assert not dataset[Draw(0, (0, 0))]["depth"].any()


def test_a_case_smaller_than_the_patch_is_continued_with_zeros(tmp_path):
    depth = ball((5, 5, 5), 4, side=10)
    case = saved(tmp_path, np.ones((4, 10, 10, 10)), depth)
    settings = DataSettings((16, 8, 16), 0.5, augmentation=STILL)
    for draw in draws(10):
        patch = PatchDataset([case], settings)[draw]
        assert patch["image"].shape == (4, 16, 8, 16)
        assert patch["image"].sum() == 4 * 10 * 8 * 10


@pytest.mark.parametrize("size", [(16, 16, 16), (20, 12, 16), (16, 20)])
def test_image_and_truth_stay_aligned(tmp_path, size):
    """A case whose image is its truth stays so: turned, scaled, bent and mirrored."""
    depth = 3 * (ball((15, 14, 16), 12, side=30) > 0)
    depth[9:14, 8:20, 8:20] = 0
    case = saved(tmp_path, np.repeat(depth[None] > 0, 4, axis=0), depth)
    dataset = PatchDataset([case], DataSettings(size, 0.5, augmentation=GEOMETRY))
    plain = PatchDataset([case], DataSettings(size, 0.5, augmentation=STILL))
    changed = 0
    for draw in draws(20):
        patch = dataset[draw]
        assert patch["image"].shape == (4, *size)
        assert patch["depth"].shape == size
        for channel in patch["image"]:
            # They differ by how the two are interpolated, on some voxels of the outline.
            assert ((channel >= 0.5) == (patch["depth"] > 0)).float().mean() > 0.97
        changed += not torch.equal(patch["depth"], plain[draw]["depth"])
    assert changed > 15


def test_mirroring_alone_keeps_image_equal_to_truth(tmp_path):
    depth = ball((15, 14, 16), 12, side=30)
    case = saved(tmp_path, np.repeat(depth[None], 4, axis=0), depth)
    augment = dataclasses.replace(STILL, flip=0.5)
    for size in ((16, 16, 16), (16, 16)):
        dataset = PatchDataset([case], DataSettings(size, 0.5, augmentation=augment))
        for draw in draws(12):
            patch = dataset[draw]
            assert torch.equal(patch["image"][2], patch["depth"].float())


def test_a_warp_by_nothing_is_none():
    image, depth = torch.randn(2, 12, 10, 14), torch.randint(0, 4, (12, 10, 14)).to(torch.uint8)
    still = dataclasses.replace(Augmentation(), degrees=0.0, scale=1.0, bend=0.0)
    for plane in ((0, 1), (0, 2), (1, 2)):
        size = (depth.shape[plane[0]] - 4, depth.shape[plane[1]] - 4)
        cut = [slice(2, -2) if axis in plane else slice(None) for axis in range(3)]
        rng = np.random.default_rng(0)
        found, labels = augmentation.warp_plane(image, depth, plane, size, rng, still)
        assert torch.allclose(found, image[:, *cut], atol=1e-5)
        assert torch.equal(labels, depth[*cut])


def test_looks_change_the_brain_and_nothing_else():
    every = Augmentation(noise=1, blur=1, low_resolution=1, brightness=1, contrast=1, gamma=1)
    for shape in ((4, 12, 12, 12), (4, 16, 16)):
        image = torch.randn(shape)
        image[:, :3] = 0
        image[1] = 0  # a modality that is missing
        before = image.clone()
        found = augmentation.change_looks(image, np.random.default_rng(1), every)
        assert not found[:, :3].any()
        assert not found[1].any()
        assert torch.isfinite(found).all()
        for channel in (0, 2, 3):
            assert (found[channel, 3:] - before[channel, 3:]).abs().mean() > 0.1
        off = augmentation.change_looks(
            before.clone(), np.random.default_rng(1), Augmentation.off()
        )
        assert torch.equal(off, before)


def test_modality_dropout_never_drops_all():
    counts = np.zeros(5, int)
    for number in range(400):
        image = torch.ones(4, 2, 2, 2)
        rng = np.random.default_rng((7, number))
        dropped = augmentation.modality_dropout(image, rng, 0.5)
        assert [bool(channel.any()) for channel in image] == (~dropped).tolist()
        counts[dropped.sum()] += 1
    assert counts[4] == 0
    assert counts[0] == pytest.approx(200, abs=40)
    assert counts[1:4] == pytest.approx([67, 67, 67], abs=30)


def test_modality_dropout_counts_only_what_there_is():
    for number in range(50):
        image = torch.zeros(4, 2, 2, 2)
        image[[0, 3]] = 1
        dropped = augmentation.modality_dropout(image, np.random.default_rng(number), 1.0)
        assert dropped.sum() == 1
        assert not dropped[[1, 2]].any()
        alone = torch.zeros(4, 2, 2, 2)
        alone[2] = 1
        augmentation.modality_dropout(alone, np.random.default_rng(number), 1.0)
        assert alone[2].all()


def test_a_patch_depends_on_its_draw_alone(sparse):
    settings = DataSettings((8, 8, 8), modality_dropout=0.5)
    one, other = PatchDataset([sparse], settings), PatchDataset([sparse], settings)
    patches = [one[draw] for draw in draws(6)]
    torch.manual_seed(99)
    for draw, patch in reversed(list(zip(draws(6), patches, strict=True))):
        again = other[draw]
        assert all(torch.equal(patch[name], again[name]) for name in patch)
    assert any(not torch.equal(patches[0]["image"], patch["image"]) for patch in patches[1:])


def test_slices_have_foreground_too(sparse):
    settings = DataSettings((12, 10), 1.0, augmentation=STILL)
    dataset = PatchDataset([sparse], settings)
    for draw in draws(30):
        patch = dataset[draw]
        assert patch["image"].shape == (4, 12, 10)
        assert patch["depth"].any()


def test_heads_with_their_skull_are_refused_as_in_inference(tmp_path):
    folder = write_ball_case(tmp_path / "C0")
    for path in folder.glob("*.nii.gz"):
        if "seg" not in path.name:
            values = np.asarray(nib.load(path).dataobj, np.float32)
            air = np.random.default_rng(0).uniform(1, 20, values.shape)
            write_nifti(path, np.where(values == 0, air, values), affine())
    case = case_of(folder)
    with pytest.raises(InputError, match="skull was not stripped"):
        load_sample(case, CONFIG)
    assert load_sample(case, CONFIG, force=True).depth.any()
    ready = tmp_path / "ready"
    cache_cases([case], CONFIG, ready, force=True, quiet=True)
    with pytest.raises(InputError, match="skull was not stripped"):
        cache_cases([case], CONFIG, ready, quiet=True)  # not found ready
