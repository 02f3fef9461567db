# SPDX-License-Identifier: Apache-2.0
"""Volumes: bad files are refused in one line, headers survive, orientation is undone exactly."""

import gzip
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
from sample_volumes import GRIDS, SHAPE, grid, head, labels, write_nifti, write_nrrd

from fieldfare.common.errors import InputError
from fieldfare.medical.volumes import images as volumes
from fieldfare.medical.volumes.formats import WRITTEN
from fieldfare.medical.volumes.images import Volume
from fieldfare.medical.volumes.suspicion import suspicious_header

KEPT = ["pixdim", "qform_code", "sform_code", "xyzt_units", "srow_x", "srow_y", "srow_z"]
KEPT += ["quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"]


@pytest.fixture(params=GRIDS)
def affine(request) -> np.ndarray:
    return GRIDS[request.param]


def refused(path: Path, read=volumes.read_volume) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("ending", WRITTEN)
def test_values_and_world_positions_are_read(tmp_path, affine, ending):
    write = write_nrrd if ending == ".nrrd" else write_nifti
    volume = volumes.read_volume(write(tmp_path / f"a{ending}", head(), affine))
    assert volume.data.dtype == np.float32
    assert np.array_equal(volume.data, head())
    np.testing.assert_allclose(volume.affine, affine, atol=1e-5)
    np.testing.assert_allclose(volume.spacing, (1, 1.5, 2), atol=1e-6)


def test_the_scaling_of_the_header_is_applied(tmp_path):
    image = nib.Nifti1Image(head(), GRIDS["LPS"])
    image.header.set_slope_inter(0.5, 10)
    raw = bytearray(image.to_bytes())
    at = image.header.template_dtype.fields["scl_slope"][1]
    raw[at : at + 8] = np.array([0.5, 10], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    volume = volumes.read_volume(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.data, head() * 0.5 + 10)


@pytest.mark.parametrize(("qform", "sform"), [(1, 1), (2, 1), (0, 4), (1, 0)])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nifti_output_has_the_reference_grid_bit_by_bit(tmp_path, affine, ending, qform, sform):
    path = write_nifti(tmp_path / "a.nii.gz", head(), affine, qform=qform, sform=sform)
    reference = volumes.read_volume(path)
    out = tmp_path / f"out{ending}"
    volumes.write_like(out, labels(), reference)
    source, written = nib.load(path), nib.load(out)
    for field in KEPT:
        assert source.header[field].tobytes() == written.header[field].tobytes(), field
    assert np.array_equal(source.affine, written.affine)
    assert np.array_equal(np.asanyarray(written.dataobj), labels())
    assert written.get_data_dtype() == np.uint8
    assert b"Fieldfare" in bytes(written.header["descrip"])


def test_nothing_but_the_grid_is_taken_from_the_header(tmp_path):
    image = nib.Nifti1Image(head(), GRIDS["LPS"])
    image.header["cal_max"], image.header["db_name"] = 900, b"Somebody"
    image.header["descrip"] = b"TE=17"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"private"))
    nib.save(image, tmp_path / "a.nii.gz")
    out = tmp_path / "out.nii.gz"
    volumes.write_like(out, labels(), volumes.read_volume(tmp_path / "a.nii.gz"))
    header = nib.load(out).header
    assert header["cal_max"] == 0
    assert not bytes(header["db_name"]).strip(b"\0")
    assert not header.extensions


def test_nifti_2_stays_nifti_2(tmp_path, affine):
    nib.save(nib.Nifti2Image(head(), affine), tmp_path / "a.nii")
    reference = volumes.read_volume(tmp_path / "a.nii")
    volumes.write_like(tmp_path / "b.nii", labels(), reference)
    written = nib.load(tmp_path / "b.nii")
    assert isinstance(written, nib.Nifti2Image)
    assert np.array_equal(written.affine, affine)


def test_nrrd_output_has_the_reference_grid_bit_by_bit(tmp_path, affine):
    path = write_nrrd(tmp_path / "a.nrrd", head(), affine)
    volumes.write_like(tmp_path / "b.nrrd", labels(), volumes.read_volume(path))
    (_, source), (values, written) = nrrd.read(str(path)), nrrd.read(str(tmp_path / "b.nrrd"))
    assert np.array_equal(values, labels())
    assert written["space"] == source["space"]
    assert np.array_equal(written["space directions"], source["space directions"])
    assert np.array_equal(written["space origin"], source["space origin"])


@pytest.mark.parametrize(("source", "target"), [("a.nrrd", "b.nii.gz"), ("a.nii.gz", "b.nrrd")])
def test_formats_are_exchanged_without_moving_a_voxel(tmp_path, affine, source, target):
    write = write_nrrd if source.endswith("nrrd") else write_nifti
    reference = volumes.read_volume(write(tmp_path / source, head(), affine))
    volumes.write_like(tmp_path / target, labels(), reference)
    written = volumes.read_labels(tmp_path / target)
    assert np.array_equal(written.data, labels())
    np.testing.assert_allclose(written.affine, reference.affine, atol=1e-5)
    assert volumes.geometry_differences(written, reference) == []


@pytest.mark.parametrize("space", ["RAS", "left-anterior-superior", "scanner-xyz"])
def test_nrrd_spaces_are_turned_into_ras(tmp_path, space):
    signs = {"RAS": (1, 1), "left-anterior-superior": (-1, 1), "scanner-xyz": (1, 1)}[space]
    fields = {"space": space, "space directions": np.eye(3), "space origin": (5, 6, 7)}
    nrrd.write(str(tmp_path / "a.nrrd"), head(), fields)
    volume = volumes.read_volume(tmp_path / "a.nrrd")
    assert np.array_equal(volume.affine @ (1, 0, 0, 1), (signs[0] * 6, signs[1] * 6, 7, 1))


def test_probabilities_are_written_with_the_channels_last(tmp_path):
    reference = volumes.read_volume(write_nifti(tmp_path / "a.nii", head()))
    maps = np.random.default_rng(0).random((3, *SHAPE), np.float32)
    volumes.write_like(tmp_path / "p.nii.gz", maps, reference, np.float32)
    written = nib.load(tmp_path / "p.nii.gz")
    assert np.array_equal(np.moveaxis(written.get_fdata(dtype=np.float32), -1, 0), maps)
    assert np.array_equal(written.affine, reference.affine)
    with pytest.raises(InputError, match=r"give a name in \.nii\.gz, \.nii$"):
        volumes.write_like(tmp_path / "p.nrrd", maps, reference, np.float32)


def test_a_failed_write_leaves_nothing(tmp_path):
    reference = volumes.read_volume(write_nifti(tmp_path / "a.nii", head()))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ValueError, match="do not fit uint8"):
        volumes.write_like(out / "a.nii", labels().astype(int) * 100, reference)
    with pytest.raises(ValueError, match="on a grid of"):
        volumes.write_like(out / "a.nii", labels()[1:], reference)
    with pytest.raises(InputError, match="give a name in"):
        volumes.write_like(out / "a.mha", labels(), reference)
    assert not list(out.iterdir())


@pytest.mark.parametrize("ending", WRITTEN)
@pytest.mark.parametrize("lost", [1, 8, 100])
def test_truncated_files_are_refused(tmp_path, ending, lost):
    write = write_nrrd if ending == ".nrrd" else write_nifti
    path = write(tmp_path / f"a{ending}", head())
    path.write_bytes(path.read_bytes()[:-lost])
    assert "truncated" in refused(path)


def test_a_wrong_checksum_is_refused(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", head())
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 255
    path.write_bytes(raw)
    assert "damaged" in refused(path)


def test_what_is_no_volume_is_refused(tmp_path):
    assert "no such file" in refused(tmp_path / "a.nii")
    assert "holds no DICOM series" in refused(tmp_path)
    for name in ("a.nii", "a.nii.gz", "a.nrrd", "a.png"):
        (tmp_path / name).write_bytes(b"\x89PNG not a volume at all" * 40)
        assert "not a" in refused(tmp_path / name)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(b"text"))
    assert "not a NIfTI file" in refused(tmp_path / "b.nii.gz")
    (tmp_path / "c.nii").write_bytes(b"")
    refused(tmp_path / "c.nii")


@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 1)])
def test_2d_is_refused(tmp_path, shape):
    assert "2D" in refused(write_nifti(tmp_path / "a.nii", head(shape=(12, 10)).reshape(shape)))


def test_4d_is_refused_unless_it_is_one_image(tmp_path):
    one = write_nifti(tmp_path / "one.nii", head()[..., None])
    assert volumes.read_volume(one).data.shape == SHAPE
    four = write_nifti(tmp_path / "four.nii", np.stack([head()] * 3, -1))
    assert "4D (12x10x8x3), 3 images" in refused(four)
    nrrd.write(str(tmp_path / "a.nrrd"), np.stack([head()] * 3, -1))
    assert "4D" in refused(tmp_path / "a.nrrd")


def test_values_that_are_no_image_are_refused(tmp_path):
    values = head().astype(np.float32)
    values[3, 3, 3] = np.nan
    values[4, 4, 4] = np.inf
    assert "1 voxels are infinite" in refused(write_nifti(tmp_path / "nan.nii", values))
    assert "every voxel is 0" in refused(write_nifti(tmp_path / "zero.nii", np.zeros(SHAPE, "i2")))
    assert "every voxel is 7" in refused(write_nifti(tmp_path / "7.nii", np.full(SHAPE, 7, "i2")))
    assert "complex" in refused(write_nifti(tmp_path / "c.nii", head().astype(np.complex64)))
    colours = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "colours" in refused(write_nifti(tmp_path / "rgb.nii", colours))


def test_a_grid_that_is_none_is_refused(tmp_path):
    image = nib.Nifti1Image(head(), np.eye(4))
    image.header.set_sform(np.diag([1, 0, 1, 1]), 1)
    (tmp_path / "a.nii").write_bytes(nib.Nifti1Image(head(), None, image.header).to_bytes())
    assert "no usable grid" in refused(tmp_path / "a.nii")
    nrrd.write(str(tmp_path / "a.nrrd"), head())
    assert "does not say how the image lies" in refused(tmp_path / "a.nrrd")


def test_a_damaged_header_is_refused_without_further_words(tmp_path, capfd):
    raw = bytearray(write_nifti(tmp_path / "a.nii", head()).read_bytes())
    raw[344:348] = b"n+9\0"
    (tmp_path / "a.nii").write_bytes(raw)
    refused(tmp_path / "a.nii")
    raw[70:72] = b"\x7b\x7b"  # no such data type
    (tmp_path / "a.nii").write_bytes(raw)
    refused(tmp_path / "a.nii")
    assert capfd.readouterr() == ("", "")


def test_labels_are_whole_numbers(tmp_path):
    whole = write_nifti(tmp_path / "whole.nii", labels().astype(np.float32))
    volume = volumes.read_labels(whole)
    assert volume.data.dtype == np.uint8
    assert np.array_equal(volume.data, labels())
    wide = volumes.read_labels(write_nifti(tmp_path / "wide.nii", labels().astype("i2") - 1))
    assert wide.data.dtype == np.int64
    assert wide.data.min() == -1
    half = write_nifti(tmp_path / "half.nii", labels() * np.float32(0.5))
    assert "no whole number (0.5)" in refused(half, volumes.read_labels)
    none = write_nifti(tmp_path / "none.nii", np.zeros(SHAPE, np.uint8))
    assert not volumes.read_labels(none).data.any()


def test_equal_grids_have_no_differences_up_to_a_tenth_of_a_voxel(affine):
    volume = Volume(head(), affine)
    assert volumes.geometry_differences(volume, volume) == []
    moved = affine.copy()
    moved[0, 3] += 0.09
    assert volumes.geometry_differences(volume, Volume(head(), moved)) == []
    moved[0, 3] += 0.02
    assert len(volumes.geometry_differences(volume, Volume(head(), moved))) == 2


def test_differences_are_named():
    lps = Volume(head(), GRIDS["LPS"])
    told = " / ".join(volumes.geometry_differences(lps, Volume(head()[:-2], GRIDS["LPS"])))
    assert told == "shape 12x10x8 against 10x10x8"
    told = " / ".join(volumes.geometry_differences(lps, Volume(head(), GRIDS["RAS"])))
    assert "orientation LPS against RAS" in told
    assert "spacing" not in told
    told = " / ".join(volumes.geometry_differences(lps, Volume(head(), grid("LPS", (0, 0, 0.2)))))
    assert "axes turned by 11.5 degrees" in told
    wide = GRIDS["LPS"] @ np.diag([1, 1, 2, 1])
    told = " / ".join(volumes.geometry_differences(lps, Volume(head(), wide)))
    assert "spacing 1x1.5x2 against 1x1.5x4 mm" in told
    assert "corners up to 14 mm apart, 0.1 mm allowed" in told


@pytest.mark.parametrize("order", [0, 1])
def test_resampling_to_turned_axes_moves_values_exactly(order):
    lps = Volume(head(), GRIDS["LPS"])
    ras = volumes.resample(lps, Volume(head(), GRIDS["RAS"]), order)
    assert np.array_equal(ras.data, head()[::-1, ::-1])
    assert np.array_equal(ras.affine, GRIDS["RAS"])


def test_resampling_keeps_world_positions():
    # A linear ramp in the world is a linear ramp on every grid, which linear interpolation keeps.
    def ramp(affine: np.ndarray) -> np.ndarray:
        places = np.moveaxis(np.indices(SHAPE), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
        return (places @ (1.0, 2.0, 3.0) + 100).astype(np.float32)

    source, target = (Volume(ramp(GRIDS[name]), GRIDS[name]) for name in ("oblique", "PIR"))
    result = volumes.resample(source, target).data
    middle = (slice(4, 8), slice(3, 7), slice(3, 5))
    np.testing.assert_allclose(result[middle], target.data[middle], rtol=1e-5)


def test_canonical_axes_run_alike_and_turn_back_exactly(affine):
    values = np.random.default_rng(0).random((4, *SHAPE))
    turned = volumes.to_canonical(values, affine)
    canonical = volumes.canonical_affine(affine, SHAPE)
    assert "".join(nib.aff2axcodes(canonical)) == "LPS"
    assert np.array_equal(volumes.from_canonical(turned, affine), values)
    # Every voxel keeps its place in the world.
    index = np.array([1, 2, 3])
    value = turned[(0, *index)]
    place = np.argwhere(values[0] == value)[0]
    np.testing.assert_allclose(canonical @ (*index, 1), affine @ (*place, 1))


def test_brats_axes_are_canonical():
    assert np.array_equal(volumes.to_canonical(head(), GRIDS["LPS"]), head())


def brats(affine: np.ndarray) -> Volume:
    return Volume(np.broadcast_to(np.float32(0), (240, 240, 155)), affine)


def test_grids_of_brats_scanners_and_turned_ones_are_not_suspicious(affine):
    lps = brats(np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    assert suspicious_header(lps) is None
    turned = volumes.canonical_affine(lps.affine, lps.data.shape)
    assert suspicious_header(brats(turned)) is None
    assert suspicious_header(Volume(head(), affine)) is None


def test_an_image_far_from_the_origin_is_suspicious():
    aurora = np.eye(4)
    aurora[1, 3] = 239
    told = suspicious_header(brats(aurora))
    assert told is not None
    assert "y 239..478" in told
    assert "239 mm from the world's origin" in told
    assert "kept when the axes became RAS" in told
    aurora[1, 3] = 150
    told = suspicious_header(brats(aurora))
    assert told is not None
    assert "probably lost" in told


def test_headers_that_contradict_themselves_are_suspicious(tmp_path):
    none = volumes.read_volume(write_nifti(tmp_path / "a.nii", head(), qform=0, sform=0))
    assert "neither sform nor qform" in (suspicious_header(none) or "")
    image = nib.Nifti1Image(head(), GRIDS["LPS"])
    image.set_sform(GRIDS["LPS"], 1)
    image.set_qform(GRIDS["RAS"], 1)
    nib.save(image, tmp_path / "b.nii")
    both = volumes.read_volume(tmp_path / "b.nii")
    assert "qform and sform of the header disagree" in (suspicious_header(both) or "")
    good = volumes.read_volume(write_nifti(tmp_path / "c.nii", head()))
    turned = replace(good, header=good.header.copy())
    turned.header["quatern_b"] = 5
    assert "no rotation" in (suspicious_header(turned) or "")
    assert suspicious_header(good) is None
    good.header["pixdim"][3] = 5
    assert "size of a voxel" in (suspicious_header(good) or "")
    metres = replace(good, affine=np.diag([1e-3, 1e-3, 1e-3, 1]), header=None)
    assert "units" in (suspicious_header(metres) or "")


def test_the_aurora_header_is_flagged_and_no_other_case(data):
    brain = data / "brain"
    flagged = {
        path.parent.name
        for path in [*brain.glob("*/*-t1c.nii.gz"), *brain.glob("*/*_t1ce.nii.gz")]
        if suspicious_header(volumes.read_volume(path))
    }
    assert flagged == {"AURORA-METS-001"}
