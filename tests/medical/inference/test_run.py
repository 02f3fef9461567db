# SPDX-License-Identifier: Apache-2.0
"""From a case to labels on its own grid: known answers, any orientation, any tiling."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from sample_networks import TINY, Thresholds
from sample_volumes import GRIDS, head, write_nifti, write_nrrd
from scipy.ndimage import distance_transform_edt

from fieldfare.common.errors import InputError
from fieldfare.medical.data import regions
from fieldfare.medical.data.cases import Case, find_case
from fieldfare.medical.data.preparation import bounding_box, prepare, slabs, to_input_grid
from fieldfare.medical.data.regions import read_sidecar, to_labels
from fieldfare.medical.inference import run as inference
from fieldfare.medical.inference.planning import InferencePlan, lay
from fieldfare.medical.inference.postprocessing import check_steps, mend
from fieldfare.medical.inference.predict import Predictor
from fieldfare.medical.inference.run import InferSettings, segment_case
from fieldfare.medical.networks.reversible_unet import ReversibleUNet
from fieldfare.medical.volumes.images import read_labels
from fieldfare.medical.volumes.resampling import resample_axes, resampled_shape


def predictor(network: torch.nn.Module, **options: str) -> Predictor:
    return Predictor(network, device="cpu", precision="fp32", **options)


def images_of(seed: int = 0) -> list[np.ndarray]:
    """Four heads with one brain, so that all have the same mask."""
    return [head(seed + number) for number in range(4)]


def unit(affine: np.ndarray) -> np.ndarray:
    """The same axes with voxels of 1 mm, so that nothing is resampled."""
    scaled = affine.copy()
    scaled[:3, :3] /= np.linalg.norm(affine[:3, :3], axis=0)
    return scaled


def case_on(folder: Path, affine: np.ndarray, ending: str = ".nii.gz") -> Case:
    writer = write_nrrd if ending == ".nrrd" else write_nifti
    folder.mkdir(exist_ok=True)
    for name, values in zip(("t1", "t1ce", "t2", "flair"), images_of(), strict=True):
        writer(folder / f"P_{name}{ending}", values, affine)
    return find_case(folder)


def expected() -> np.ndarray:
    """What `Thresholds` finds in `images_of`, computed without the package's inference."""
    t1, t1ce, _, flair = images_of()
    above = []
    for values in (flair, t1ce, t1):
        above.append((values != 0) & (values >= values[values != 0].mean()))
    above[1] &= above[0]
    above[2] &= above[1]
    return to_labels(np.stack(above), "brats2023")


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd"])
def test_labels_lie_where_the_answer_does_on_any_grid(
    name: str, ending: str, tmp_path: Path
) -> None:
    case = case_on(tmp_path / "case", unit(GRIDS[name]), ending)
    result = segment_case(case, predictor(Thresholds()))
    assert np.array_equal(result.labels, expected())
    output = tmp_path / f"seg{ending}"
    inference.write(output, result)
    back = read_labels(output)
    assert np.array_equal(back.data, expected())
    if ending != ".nrrd":
        ours, theirs = nib.load(output), nib.load(case.files["t1ce"])
        assert np.array_equal(ours.affine, theirs.affine)
        assert ours.get_data_dtype() == np.uint8
        for form in ("get_sform", "get_qform"):
            (a, code_a), (b, code_b) = (getattr(x, form)(coded=True) for x in (ours, theirs))
            assert code_a == code_b
            assert np.array_equal(a, b)


@pytest.mark.parametrize("scheme", ["brats2020", "brats2023", "brats2024"])
def test_the_scheme_is_written_beside_the_labels(scheme: str, tmp_path: Path) -> None:
    case = case_on(tmp_path / "case", GRIDS["LPS"])
    result = segment_case(case, predictor(Thresholds()), InferSettings(labels=scheme))
    written = inference.write(tmp_path / "s.nii.gz", result, model="m")
    assert [path.name for path in written] == ["s.nii.gz", "s.json"]
    about = read_sidecar(tmp_path / "s.nii.gz")
    assert about is not None
    assert about["label_scheme"] == scheme
    assert about["model"] == "m"
    assert set(np.unique(result.labels)) == {0, 1, 2, 4 if scheme == "brats2020" else 3}


def test_labels_without_their_scheme_are_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_on(tmp_path / "case", GRIDS["LPS"])
    result = segment_case(case, predictor(Thresholds()))

    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(regions, "write_sidecar", interrupted)
    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt):
        inference.write(tmp_path / "out" / "s.nii.gz", result)
    assert not list((tmp_path / "out").iterdir())


def big_case(tmp_path: Path) -> Case:
    """A brain of 44x37x29 voxels."""
    shape = (48, 41, 33)
    for seed, name in enumerate(("t1", "t1ce", "t2", "flair")):
        write_nifti(tmp_path / f"B_{name}.nii.gz", head(seed, shape))
    return find_case(tmp_path)


@pytest.mark.parametrize("ndim", [2, 3])
def test_tiles_and_batch_change_nothing_for_a_pointwise_network(ndim: int, tmp_path: Path) -> None:
    case, one = big_case(tmp_path), predictor(Thresholds(ndim=ndim))
    whole = segment_case(case, one, probabilities=True)
    assert whole.plan.tiles == (1 if ndim == 3 else 4)
    for settings in (
        InferSettings(tile=16),
        InferSettings(tile=32, overlap=5, batch=3),
        InferSettings(tile=16, overlap=0, batch=2),
    ):
        tiled = segment_case(case, one, settings, probabilities=True)
        assert tiled.plan.tiles > whole.plan.tiles or settings.tile == 32
        assert np.abs(tiled.probabilities - whole.probabilities).max() < 1e-5
        assert np.array_equal(tiled.labels, whole.labels)


def test_the_batch_changes_nothing_for_a_real_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    case, one = big_case(tmp_path), predictor(ReversibleUNet(TINY))
    results = [
        segment_case(case, one, InferSettings(tile=32, batch=batch), probabilities=True)
        for batch in (1, 3)
    ]
    difference = np.abs(results[0].probabilities - results[1].probabilities)
    assert difference.max() < 1e-5


def test_slices_are_a_2d_networks_batch(tmp_path: Path) -> None:
    network = Thresholds(ndim=2)
    result = segment_case(big_case(tmp_path), predictor(network), InferSettings(batch=4))
    assert result.plan.tile == (64, 64, 4)
    assert set(network.calls[1:]) == {(4, 4, 64, 64)}  # the first counts memory


@pytest.mark.parametrize(
    ("tta", "ndim", "count"), [("axial", 3, 4), ("full", 3, 8), ("full", 2, 4)]
)
def test_flips_average_out_what_a_network_prefers(tta: str, ndim: int, count: int) -> None:
    class Sided(Thresholds):
        """Sees a ramp along the first axis beside the image."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.calls.append(tuple(images.shape))
            ramp = torch.linspace(-1, 1, images.shape[2])
            return (images[:, :3] * 0) + ramp.view(-1, *[1] * (images.ndim - 3))

    network = Sided(ndim=ndim)
    result = predictor(network, tta=tta)(np.zeros((1, 4, 6, 4, 4), np.float32))
    assert len(network.calls) == count
    assert np.allclose(result, 0.5, atol=1e-6)


def test_a_symmetric_network_is_not_changed_by_flips() -> None:
    tile = np.random.default_rng(0).normal(size=(2, 4, 6, 5, 4)).astype(np.float32)
    plain, flipped = (predictor(Thresholds(), tta=tta)(tile) for tta in ("none", "full"))
    assert np.allclose(plain, flipped, atol=1e-6)


def test_inner_regions_stay_inside_outer_ones(tmp_path: Path) -> None:
    result = segment_case(
        case_on(tmp_path, GRIDS["RAS"]), predictor(Thresholds()), probabilities=True
    )
    whole, core, enhancing = result.probabilities
    assert (whole >= core).all()
    assert (core >= enhancing).all()


def test_coarser_network_gives_the_same_blob_within_a_voxel(tmp_path: Path) -> None:
    shape = (40, 36, 30)
    x, y, z = np.indices(shape)
    brain = (x - 20) ** 2 + (y - 18) ** 2 + (z - 15) ** 2 < 14**2
    ball = (x - 22) ** 2 + (y - 18) ** 2 + (z - 15) ** 2 < 7**2
    values = (brain * 100 + ball * 900).astype(np.int16)
    for name in ("t1", "t1ce", "t2", "flair"):
        write_nifti(tmp_path / f"B_{name}.nii.gz", values, np.diag([1.0, 1, 1, 1]))
    found = segment_case(find_case(tmp_path), predictor(Thresholds(spacing=2.0, above=1.2)))
    tumour = found.labels > 0
    outside, inside = (distance_transform_edt(mask) for mask in (~ball, ball))
    assert tumour.any()
    assert (outside + inside)[tumour != ball].max() <= 2.0  # mm from the ball's surface
    assert not (found.labels[~brain]).any()


def test_small_enhancing_tumour_is_counted_in_mm3(tmp_path: Path) -> None:
    case = case_on(tmp_path, GRIDS["LPS"])  # 3 mm3 a voxel
    one = predictor(Thresholds())
    plain = segment_case(case, one)
    enhancing = int((plain.labels == 3).sum())
    assert 200 / 3 > enhancing > 0
    step = InferSettings(postprocess="replace-small-et")
    cleaned = segment_case(case, one, step)
    assert not (cleaned.labels == 3).any()
    assert np.array_equal(cleaned.labels > 0, plain.labels > 0)
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[:5, :5, :8] = 3
    steps = check_steps(step.postprocess)
    assert (mend(labels, steps, "brats2023", 1.0) == 3).sum() == 200
    assert (mend(labels, steps, "brats2023", 0.9) == 3).sum() == 0


def test_missing_modality_needs_the_option_and_a_model_that_knows_it(tmp_path: Path) -> None:
    case = case_on(tmp_path, GRIDS["LPS"])
    files = {name: path for name, path in case.files.items() if name != "t1"}
    lacking = Case(case.name, files)
    dropout = predictor(Thresholds(modality_dropout=True))
    with pytest.raises(InputError, match="--allow-missing"):
        segment_case(lacking, dropout)
    allowed = InferSettings(allow_missing=True)
    with pytest.raises(InputError, match="not trained with modalities left out"):
        segment_case(lacking, predictor(Thresholds()), allowed)
    job = inference.open_case(lacking, allowed, dropout)
    assert any("t1 is missing" in note for note in job.notes)
    assert not job.prepared.images[0].any()
    # A logit of 0 is a probability of one half, which belongs to a region.
    assert segment_case(lacking, dropout, allowed).labels.any()


def test_resample_to_gives_the_grid_of_that_modality(tmp_path: Path) -> None:
    case_on(tmp_path, GRIDS["LPS"])
    shifted = GRIDS["LPS"].copy()
    shifted[:3, 3] += 0.8
    write_nifti(tmp_path / "P_flair.nii.gz", head(3), shifted)
    case = find_case(tmp_path)
    with pytest.raises(InputError, match="not on one grid"):
        segment_case(case, predictor(Thresholds()))
    result = segment_case(case, predictor(Thresholds()), InferSettings(resample_to="flair"))
    assert np.array_equal(result.reference.affine, nib.load(tmp_path / "P_flair.nii.gz").affine)


def test_a_model_of_other_regions_is_refused() -> None:
    network = Thresholds()
    network.config = type(network.config)(regions=("WT",))
    with pytest.raises(InputError, match="WT, TC, ET"):
        predictor(network)


def test_preparation_comes_back_to_its_place() -> None:
    images = np.stack([values.astype(np.float32) for values in images_of()])
    for affine in GRIDS.values():
        prepared = prepare(images, unit(affine), 1.0)
        inside = np.zeros((1, *prepared.mask.shape), np.float32)
        inside[0] = prepared.mask
        back = to_input_grid(prepared, inside)
        assert np.array_equal(back[0] > 0, (images != 0).any(axis=0))
        assert prepared.images.dtype == np.float32


def test_slabs_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.stack([values.astype(np.float32) for values in images_of()])
    prepared = prepare(images, GRIDS["LPS"], 2.0)
    maps = np.random.default_rng(0).random((3, *prepared.images.shape[1:]), np.float32)
    monkeypatch.setattr("fieldfare.medical.data.preparation.SLAB", 1)
    parts = [part for _, part in slabs(prepared, maps)]
    whole = resample_axes(maps, prepared.mask.shape) * prepared.mask
    assert len(parts) == prepared.mask.shape[0]
    assert np.allclose(np.concatenate(parts, axis=1), whole, atol=1e-6)


def test_box_is_tight_and_empty_masks_keep_all() -> None:
    mask = np.zeros((6, 7, 8), bool)
    assert bounding_box(mask) == (slice(0, 6), slice(0, 7), slice(0, 8))
    mask[2, 3, 4] = mask[4, 3, 5] = True
    assert bounding_box(mask) == (slice(2, 5), slice(3, 4), slice(4, 6))


def test_resampling_keeps_constants_and_straight_lines() -> None:
    assert resampled_shape((10, 10, 5), (1, 1, 5.5), (2, 2, 2)) == (5, 5, 14)
    flat = np.full((2, 9, 7, 5), 3, np.float32)
    assert np.allclose(resample_axes(flat, (4, 15, 5)), 3, atol=1e-6)
    line = np.arange(10, dtype=np.float32)
    assert np.allclose(resample_axes(line, (20,))[1:-1], np.arange(20)[1:-1] / 2 - 0.25)
    assert np.allclose(resample_axes(line, (5,))[1:-1], 2 * np.arange(5)[1:-1] + 0.5)
    assert resample_axes(line, (10,)) is line or np.array_equal(resample_axes(line, (10,)), line)


def test_tiles_without_brain_are_not_predicted(tmp_path: Path) -> None:
    shape = (64, 16, 16)
    values = np.zeros(shape, np.int16)
    values[:10, 2:9, 2:9] = np.random.default_rng(0).integers(1, 90, (10, 7, 7))
    values[60:, 2:9, 2:9] = 5
    for name in ("t1", "t1ce", "t2", "flair"):
        write_nifti(tmp_path / f"B_{name}.nii.gz", values)
    network = Thresholds()
    result = segment_case(
        find_case(tmp_path), predictor(network), InferSettings(tile=16, overlap=0)
    )
    assert result.plan.tiles == 4
    assert len(network.calls) - 1 == 2  # one more counted memory
    assert result.labels.shape == shape


def test_float16_accumulator_is_close(tmp_path: Path) -> None:
    one = predictor(Thresholds())
    job = inference.open_case(big_case(tmp_path), InferSettings(), one)
    size = job.prepared.images.shape[1:]
    maps = []
    for accumulator in ("float32", "float16"):
        tiles, shared = lay(size, (32, 32, 32), None, 3)
        plan = InferencePlan((32, 32, 32), shared, 1, len(tiles), "fp32", accumulator, 0, None)
        maps.append(inference.predict(job.prepared, one, plan))
    assert maps[1].dtype == np.float16
    assert np.abs(maps[0] - maps[1]).max() < 1e-3
