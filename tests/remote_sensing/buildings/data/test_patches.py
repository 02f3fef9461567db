# SPDX-License-Identifier: Apache-2.0
"""Training data: whether image and truth show the same ground, whatever is done to them."""

import pickle

import albumentations as A
import numpy as np
import pytest
import torch
from rasterio import Affine
from sample_rasters import write_raster
from sample_scenes import draw_boxes, row, scenes_of, street_grid, write_town
from scipy import ndimage
from torch.utils.data import DataLoader

from fieldfare.common.errors import InputError
from fieldfare.common.training import Draw, DrawSampler
from fieldfare.remote_sensing.buildings.data.patches import (
    PatchDataset,
    augmentation,
    seed_each,
    truth_maps,
)

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

OUTPUTS = ("building", "edge")


def dataset(scenes, patch=96, gsd=0.15, zoom=1.6, outputs=OUTPUTS):
    return PatchDataset(list(scenes), gsd=gsd, patch=patch, outputs=outputs, zoom=zoom)


def geometry_only(patches):
    """The same patches without light, colour, blur and turning."""
    patches.augment = A.Compose([A.CenterCrop(patches.patch, patches.patch)])
    return patches


def draws(patches, count, seed=0):
    return [patches[Draw(number % len(patches), (seed, number))] for number in range(count)]


def overlap(sample, truth, shift=(0, 0)):
    """IoU of a truth with what is bright, halfway between the truth's two mean grey levels."""
    grey = sample["image"].mean(dim=0).numpy()
    known = np.roll(truth, shift, (0, 1))
    bright = grey > (grey[truth].mean() + grey[~truth].mean()) / 2
    return (bright & known).sum() / (bright | known).sum()


# Reading


@pytest.mark.parametrize("factor", [0.4, 0.5, 1, 1.3, 2])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (3.3, 7.6), (40.5, 20.25)])
def test_image_and_labels_of_a_part_lie_on_each_other(tmp_path, factor, top, left):
    """The roofs' share of each pixel and their centre of gravity, over 16 houses."""
    houses = [(r + 8, c + 5, 22, 26) for r in range(0, 160, 40) for c in range(0, 160, 40)]
    town = write_town(tmp_path, size=(210, 200), houses=houses)
    (scene,) = scenes_of(tmp_path, row(town, "train"))
    shape = (round(160 * factor), round(150 * factor))
    image, valid = scene.read(top, left, 160, 150, shape)
    assert image.shape == (*shape, 3)
    assert image.dtype == np.uint8
    assert valid.all()
    truth = scene.labels.instances(top, left, 160, 150, shape) > 0
    fine = scene.labels.instances(top, left, 160, 150, (shape[0] * 8, shape[1] * 8)) > 0
    share = fine.reshape(shape[0], 8, shape[1], 8).mean(axis=(1, 3))
    level = (image.mean(axis=2) - 60) / 140
    outline = (truth & ~ndimage.binary_erosion(truth)).sum()
    assert np.abs(level - share).sum() < 0.3 * outline + 0.04 * share.size
    near = ndimage.binary_dilation(share > 0, iterations=2)
    for axis in (0, 1):
        place = np.indices(shape)[axis]
        ours, theirs = ((place * part).sum() / part.sum() for part in (level * near, share))
        assert ours == pytest.approx(theirs, abs=0.1)


def test_wide_integers_are_brought_into_the_range_of_the_scene(tmp_path):
    town = write_town(tmp_path, dtype="uint16")
    (scene,) = scenes_of(tmp_path, row(town, "train"))
    image, _ = scene.read(0, 0, 256, 256, (256, 256))
    assert image[town.mask].mean() > 220
    assert image[~town.mask].mean() < 35


@pytest.mark.parametrize(
    ("dtype", "kind", "declared"),
    [
        ("uint8", "nodata", True),
        ("uint8", "alpha", True),
        ("uint16", "nodata", True),
        ("float32", "nan", True),
        ("float32", "nan", False),  # NaN speaks for itself
    ],
)
@pytest.mark.parametrize("factor", [0.5, 1, 1.5])
def test_missing_pixels_are_known_to_be_missing(tmp_path, dtype, kind, declared, factor):
    nodata = {"nodata": 0, "alpha": None, "nan": np.nan}[kind]
    hole = (20, 30, 40, 50)
    town = write_town(
        tmp_path,
        size=(120, 120),
        dtype=dtype,
        nodata=nodata,
        alpha=kind == "alpha",
        missing=hole,
        houses=[],
    )
    if not declared:
        values = np.full((3, 120, 120), 0.3, np.float32)
        values[:, draw_boxes((120, 120), [hole])] = np.nan
        write_raster(town.image, values, crs="EPSG:32636", transform=town.transform)
    (scene,) = scenes_of(tmp_path, row(town, "train"))
    side = round(120 * factor)
    image, valid = scene.read(0, 0, 120, 120, (side, side))
    wanted = ~draw_boxes((side, side), [tuple(length * factor for length in hole)])
    rim = ndimage.binary_dilation(~wanted, iterations=2) & ~ndimage.binary_erosion(~wanted)
    assert (valid == wanted)[~rim].all()
    grey = image[valid].astype(float)
    assert np.ptp(grey) < 40 or dtype == "uint16"  # that is stretched to 0..255


# Patches


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("town")
    towns = [
        write_town(folder / str(i), size=(320, 360), houses=street_grid((320, 360), i))
        for i in (0, 1)
    ]
    return dataset(scenes_of(folder, *(row(town, "train") for town in towns)))


def test_a_sample_has_the_shapes_and_ranges_that_are_promised(patches):
    for sample in draws(patches, 8):
        assert sample["image"].shape == (3, 96, 96)
        assert sample["truth"].shape == (2, 96, 96)
        assert sample["weight"].shape == (96, 96)
        assert {tensor.dtype for tensor in sample.values()} == {torch.float32}
        assert 0 <= sample["image"].min() <= sample["image"].max() <= 1
        assert set(sample["truth"].unique().tolist()) <= {0, 1}
        assert (sample["weight"] == 1).all()
        building, edge = sample["truth"]
        assert (edge <= building).all()


def test_an_epoch_is_as_many_patches_as_cover_the_scenes(patches):
    assert len(patches) == pytest.approx(2 * 320 * 360 / 96**2, abs=2)
    assert sum(number == 0 for number in patches.index) == len(patches) / 2


def test_the_same_draw_is_the_same_sample(patches):
    for number in range(6):
        draw = Draw(number, (3, number))
        first = patches[draw]
        patches[Draw(5, (9, 9))]
        again = patches[draw]
        assert all(torch.equal(first[key], again[key]) for key in first)


def test_other_draws_differ(patches):
    base = patches[Draw(0, (3, 0))]
    for other in (Draw(0, (3, 1)), Draw(0, (4, 0))):
        assert not torch.equal(base["image"], patches[other]["image"])
        assert not torch.equal(base["truth"], patches[other]["truth"])


def test_image_and_truth_stay_aligned_under_all_augmentations(patches):
    samples = draws(patches, 80)
    truths = [sample["truth"][0].numpy() > 0 for sample in samples]
    assert min(truth.sum() for truth in truths) > 100
    here = [overlap(s, t) for s, t in zip(samples, truths, strict=True)]
    assert np.mean(here) > 0.95
    assert min(here) > 0.8
    for shift in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        beside = np.mean([overlap(s, t, shift) for s, t in zip(samples, truths, strict=True)])
        assert beside < np.mean(here) - 0.03


def test_all_eight_symmetries_are_drawn():
    """With the turning by any angle left out; the picture has none of its own."""
    augment = augmentation(16, 1)
    square = A.Compose([t for t in augment.transforms if isinstance(t, A.CenterCrop | A.D4)])
    picture = np.arange(23 * 23, dtype=np.uint16).reshape(23, 23, 1).astype(np.uint8)
    seen = set()
    for number in range(100):
        seed_each(square, np.random.default_rng(number))
        seen.add(square(image=picture)["image"].tobytes())
    assert len(seen) == 8


def test_a_part_of_the_patches_is_as_blurred_as_enlarged_imagery():
    """Fine stripes: some patches hardly show them any more."""
    picture = np.zeros((92, 92, 3), np.uint8)
    picture[:, ::4], picture[:, 1::4] = 200, 200
    augment = augmentation(64, 3)
    left = []
    for number in range(60):
        seed_each(augment, np.random.default_rng(number))
        found = augment(image=picture, masks=[])["image"].astype(float).mean(axis=2)
        left.append(max(np.abs(np.diff(found, axis=axis)).mean() for axis in (0, 1)))
    assert np.mean(np.array(left) < 0.5 * np.median(left)) > 0.05


def test_each_augmentation_is_drawn_for_itself():
    """Seeded with one number, albumentations takes all its yes-or-no decisions alike."""
    augment = augmentation(16, 3)
    happened = []
    for name in ("Affine", "RandomGamma", "RGBShift", "ToGray", "ImageCompression", "GaussNoise"):
        (transform,) = (t for t in augment.transforms if type(t).__name__ == name)
        own = transform.get_params
        transform.get_params = lambda name=name, own=own: happened.append(name) or own()
    image = np.full((23, 23, 3), 90, np.uint8)
    rows = []
    for number in range(600):
        happened.clear()
        seed_each(augment, np.random.default_rng(number))
        augment(image=image)
        rows.append([n in happened for n in ("Affine", "RandomGamma", "RGBShift", "GaussNoise")])
    table = np.array(rows, float)
    assert table.mean(axis=0) == pytest.approx([0.5, 0.3, 0.4, 0.2], abs=0.08)
    correlation = np.corrcoef(table.T) - np.eye(4)
    assert np.abs(correlation).max() < 0.2


def test_grey_and_many_band_images_are_augmented(tmp_path):
    for bands in (1, 2, 4, 6):
        town = write_town(tmp_path / str(bands), bands=bands)
        scenes = scenes_of(tmp_path, row(town, "train"), bands=bands)
        for sample in draws(dataset(scenes), 30):
            assert sample["image"].shape == (bands, 96, 96)


def test_pixels_without_data_weigh_nothing(tmp_path):
    """The part without data is black, the rest bright: what is dark must be what weighs 0."""
    town = write_town(
        tmp_path,
        size=(300, 300),
        nodata=0,
        missing=(0, 0, 300, 150),
        houses=[(0, 0, 300, 300)],
    )
    patches = dataset(scenes_of(tmp_path, row(town, "train")))
    shares = []
    for sample in draws(patches, 40):
        known = sample["weight"].numpy() > 0
        shares.append(known.mean())
        if 0.1 < shares[-1] < 0.9:
            assert overlap(sample, known) > 0.85
    assert 0.3 < np.mean(shares) < 0.7
    assert min(shares) < 0.1
    assert max(shares) > 0.9


@pytest.mark.parametrize("size", [(40, 50), (96, 96), (300, 20), (1, 1), (500, 7)])
def test_scenes_smaller_than_a_patch_are_continued(tmp_path, size):
    houses = [(size[0] * 0.25, size[1] * 0.25, size[0] * 0.4, size[1] * 0.4)]
    town = write_town(tmp_path, size=size, houses=houses)
    for sample in draws(dataset(scenes_of(tmp_path, row(town, "train"))), 10):
        assert sample["image"].shape == (3, 96, 96)
        assert (sample["weight"] == 1).all()
        truth = sample["truth"][0].numpy() > 0
        if truth.any() and min(size) >= 20:
            assert overlap(sample, truth) > 0.75


def test_every_part_of_a_scene_of_one_patch_is_seen(tmp_path):
    """Which it is not where the scene is continued on one side only and the middle cut out."""
    town = write_town(tmp_path, size=(96, 96), houses=[(0, 0, 12, 12)])
    patches = geometry_only(dataset(scenes_of(tmp_path, row(town, "train")), zoom=1.0))
    for sample in draws(patches, 3):
        assert (sample["truth"][0].numpy() > 0)[:12, :12].all()


def test_the_window_of_a_scene_is_not_left(tmp_path):
    houses = [(0, 0, 256, 100), (0, 200, 256, 56)]  # right and left of the window only
    town = write_town(tmp_path, houses=houses)
    scenes = scenes_of(tmp_path, row(town, "train", window="30 100 200 100"))
    for sample in draws(dataset(scenes), 30):
        assert not sample["truth"].any()


def sizes_of_houses(patches, count=40):
    """Pixels of each house that lies wholly within a patch."""
    found = []
    for sample in draws(patches, count):
        numbers, total = ndimage.label(sample["truth"][0].numpy())
        rim = {*numbers[0], *numbers[-1], *numbers[:, 0], *numbers[:, -1]}
        found += [(numbers == i).sum() for i in range(1, total + 1) if i not in rim]
    return found


@pytest.mark.parametrize("gsd", [0.15, 0.3])
def test_mixed_pixel_sizes_of_the_same_ground_give_houses_of_one_size(tmp_path, gsd):
    fine = [(r + 8, c + 6, 20, 24) for r in range(0, 480, 40) for c in range(0, 480, 40)]
    coarse = [tuple(side / 2 for side in box) for box in fine]
    towns = [
        write_town(tmp_path / "fine", size=(480, 480), gsd=0.15, houses=fine),
        write_town(tmp_path / "coarse", size=(240, 240), gsd=0.3, houses=coarse),
    ]
    sets = [
        geometry_only(dataset(scenes_of(tmp_path, row(town, "train")), gsd=gsd, zoom=1.0))
        for town in towns
    ]
    assert len(sets[0]) == len(sets[1])
    wanted = 20 * 24 * (0.15 / gsd) ** 2
    for patches in sets:
        sizes = sizes_of_houses(patches)
        assert len(sizes) > 20
        assert np.mean(sizes) == pytest.approx(wanted, rel=0.04)


def test_oblong_pixels_become_square(tmp_path):
    """At latitude 60 a pixel in degrees is half as wide as high; a round lake stays round."""
    side = 0.15 / 111_320
    transform = Affine(side, 0, 32.6, 0, -side, 60.0)
    values = np.full((3, 200, 400), 60, np.uint8)
    image = write_raster(tmp_path / "d.tif", values, crs="EPSG:4326", transform=transform)
    mask = draw_boxes((200, 400), [(70, 140, 40, 80)]).astype(np.uint8)
    labels = write_raster(tmp_path / "m.tif", mask[None], crs="EPSG:4326", transform=transform)
    scenes = scenes_of(tmp_path, {"image": image, "labels": labels, "split": "train"})
    patches = geometry_only(dataset(scenes, patch=128, zoom=1.0))
    whole = 0
    for sample in draws(patches, 40):
        truth = sample["truth"][0].numpy() > 0
        heights, widths = truth.sum(axis=0), truth.sum(axis=1)
        if truth.sum() > 1500 and not (truth[[0, -1]].any() or truth[:, [0, -1]].any()):
            assert heights.max() == pytest.approx(40, abs=1)
            assert widths.max() == pytest.approx(40, abs=1)
            whole += 1
    assert whole > 3


def test_zoom_changes_the_size_of_houses_within_its_factor(tmp_path):
    houses = [(r + 8, c + 8, 24, 24) for r in range(0, 480, 40) for c in range(0, 480, 40)]
    town = write_town(tmp_path, size=(480, 480), houses=houses)
    patches = geometry_only(dataset(scenes_of(tmp_path, row(town, "train")), zoom=1.5))
    sides = np.sqrt(sizes_of_houses(patches, 60))
    assert 24 / 1.5 - 1 < min(sides) < 18
    assert 32 < max(sides) < 24 * 1.5 + 1


def test_scenes_survive_pickling(patches):
    scene = patches.scenes[0]
    before = scene.read(3.5, 7, 60, 60, (45, 45))
    again = pickle.loads(pickle.dumps(scene))
    assert not again.handles
    for one, other in zip(before, again.read(3.5, 7, 60, 60, (45, 45)), strict=True):
        assert (one == other).all()


def test_worker_processes_give_the_same_batches(patches):
    """The files are open here already, and so are the handles that the workers inherit."""

    def batches(workers):
        sampler = DrawSampler(len(patches), 4, seed=1, first=2, last=6, rank=0, world=1)
        loader = DataLoader(patches, batch_sampler=sampler, num_workers=workers)
        return list(loader)

    for own, theirs in zip(batches(0), batches(2), strict=True):
        assert all(torch.equal(own[key], theirs[key]) for key in own)


def test_truth_maps_are_in_the_order_that_is_asked_for():
    numbers = np.zeros((12, 12), np.int32)
    numbers[2:10, 2:10] = 7
    building, edge = truth_maps(numbers, ("building", "edge"))
    assert building.sum() == 64
    assert edge.sum() == 64 - 16
    assert (truth_maps(numbers, ("edge",))[0] == edge).all()


def test_no_scene_to_train_on_is_refused():
    with pytest.raises(InputError, match="no scene in the split train"):
        dataset([])
