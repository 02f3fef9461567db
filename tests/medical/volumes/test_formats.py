# SPDX-License-Identifier: Apache-2.0
"""Formats other than plain NIfTI and NRRD, and files that claim or hold more than they should."""

import bz2
import gzip
import locale
import zlib
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
from sample_formats import (
    write_detached,
    write_itk,
    write_mgh,
    write_pair,
    write_series,
)
from sample_volumes import GRIDS, SHAPE, head, write_nifti, write_nrrd

from fieldfare.common.errors import InputError
from fieldfare.medical.volumes import formats, packed
from fieldfare.medical.volumes.images import read_channels, read_labels, read_volume, turn_like
from fieldfare.medical.volumes.suspicion import suspicious_header


def refused(path: Path, read=read_volume) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


WRITERS = {
    "a.mgz": write_mgh,
    "a.mgh": write_mgh,
    "a.hdr": write_pair,
    "a.img": write_pair,
    "a.nhdr": write_detached,
    "a.mha": write_itk,
    "a.mhd": write_itk,
    "series": write_series,
}


@pytest.mark.parametrize("name", WRITERS)
def test_values_and_world_positions_are_read(tmp_path, name):
    # flair.mgz, t1.mha
    for grid, affine in GRIDS.items():
        if name == "series" and np.linalg.det(affine[:3, :3]) < 0:
            continue  # slices of DICOM have no mirrored axes
        folder = tmp_path / grid
        folder.mkdir()
        path = WRITERS[name](folder / name, head(), affine)
        volume = read_volume(path)
        assert volume.data.dtype == np.float32
        assert np.array_equal(volume.data, head()), grid
        np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
        assert formats.read_shape(path) == SHAPE
        parts = formats.files_of(path)
        assert all(part.is_file() for part in parts)
        assert len(parts) == {"a.hdr": 2, "a.img": 2, "a.nhdr": 2, "a.mhd": 2, "series": 8}.get(
            name, 1
        )


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "series"])
@pytest.mark.parametrize("lost", [30, 400])
def test_truncated_files_are_refused(tmp_path, name, lost):
    written = WRITERS[name](tmp_path / name, head(), GRIDS["LPS"])
    longest = max(formats.files_of(written), key=lambda part: part.stat().st_size)
    longest.write_bytes(longest.read_bytes()[:-lost])
    with pytest.raises(InputError):
        read_volume(written)


def test_raw_metaimages_that_are_too_short_are_refused(tmp_path):
    path = write_itk(tmp_path / "a.mha", head(), GRIDS["LPS"], packed=False)
    assert np.array_equal(read_volume(path).data, head())
    path.write_bytes(path.read_bytes()[:-400])
    assert "truncated" in refused(path)


def test_half_a_pair_and_an_analyze_header_are_named(tmp_path):
    path = write_pair(tmp_path / "a.hdr", head(), GRIDS["LPS"])
    (tmp_path / "a.img").unlink()
    assert "a.img must lie beside it" in refused(path)
    nib.save(nib.AnalyzeImage(head(), np.diag([-1, 1, 1, 1])), tmp_path / "b.hdr")
    volume = read_volume(tmp_path / "b.hdr")
    assert np.array_equal(volume.data, head())
    assert "Analyze header says nothing of orientation" in (suspicious_header(volume) or "")


@pytest.mark.parametrize("name", ["../secret.raw", "/etc/hostname", "a%03d.raw 1 8 1", "LIST"])
def test_headers_name_no_file_elsewhere(tmp_path, name):
    inner = tmp_path / "case"
    inner.mkdir()
    (tmp_path / "secret.raw").write_bytes(bytes(20000))
    for path in (
        write_detached(inner / "a.nhdr", head(), GRIDS["LPS"]),
        write_itk(inner / "a.mhd", head(), GRIDS["LPS"], packed=False),
    ):
        lines = path.read_bytes().decode("latin-1").splitlines()
        changed = [
            f"{line.partition(mark)[0]}{mark} {name}" if mark else line
            for line in lines
            for mark in [next((m for m in (":", "=") if "ile" in line.partition(m)[0][-5:]), "")]
        ]
        path.write_text("\n".join(changed) + "\n")
        refused(path)


def test_nrrd_encodings_and_skips(tmp_path):
    values = head()
    raw = values.tobytes(order="F")
    fields = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 12 10 8\n"
        "space directions: (1,0,0) (0,1,0) (0,0,1)\nendian: little\nspace origin: (0,0,0)\n"
    )
    text = " ".join(map(str, values.ravel(order="F")))
    for more, content in (
        ("encoding: raw\n", raw),
        ("encoding: raw\nbyte skip: -1\n", b"junk" + raw),
        ("encoding: raw\nbyte skip: 4\n", b"junk" + raw),
        ("encoding: raw\nline skip: 2\n", b"two\nlines\n" + raw),
        ("encoding: bzip2\n", bz2.compress(raw)),
        ("encoding: gzip\nbyte skip: 3\n", gzip.compress(b"abc" + raw)),
        ("encoding: ascii\n", text.encode()),
    ):
        (tmp_path / "a.nrrd").write_bytes((fields + more + "\n").encode() + content)
        assert np.array_equal(read_volume(tmp_path / "a.nrrd").data, values), more


def test_skips_beyond_the_end_are_refused_at_once(tmp_path):
    # skip_t1.nrrd: 364 bytes that skip 1,000,000,000 lines
    path = tmp_path / "t1.nrrd"
    nrrd.write(str(path), head())
    before = path.read_bytes()
    path.write_bytes(before.replace(b"encoding:", b"line skip: 1000000000\nencoding:", 1))
    assert "skips lines beyond its end" in refused(path)
    for skip in (b"999999999999", b"-7"):
        path.write_bytes(before.replace(b"encoding:", b"byte skip: " + skip + b"\nencoding:", 1))
        assert "damaged" in refused(path)


def test_what_lies_behind_the_voxels_is_not_unpacked(tmp_path, monkeypatch):
    unpacked = []

    class Watched:
        """zlib's unpacking, counted."""

        def __init__(self, window: int) -> None:
            self.inner = zlib_object(window)

        def decompress(self, data: bytes, length: int) -> bytes:
            unpacked.append(self.inner.decompress(data, length))
            return unpacked[-1]

        def __getattr__(self, name: str):
            return getattr(self.inner, name)

    zlib_object = zlib.decompressobj
    monkeypatch.setattr(packed.zlib, "decompressobj", Watched)
    image = nib.Nifti1Image(head(), GRIDS["LPS"]).to_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(image + bytes(40_000_000)))
    assert np.array_equal(read_volume(tmp_path / "a.nii.gz").data, head())
    path = write_nrrd(tmp_path / "a.nrrd", head())
    start = path.read_bytes().index(b"\n\n") + 2
    path.write_bytes(
        path.read_bytes()[:start] + gzip.compress(head().tobytes("F") + bytes(40_000_000))
    )
    assert np.array_equal(read_volume(path).data, head())
    assert sum(map(len, unpacked)) < 300_000


def test_several_members_of_gzip_are_one_file(tmp_path):
    image = nib.Nifti1Image(head(), GRIDS["LPS"]).to_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(image[:500]) + gzip.compress(image[500:]))
    assert np.array_equal(read_volume(tmp_path / "a.nii.gz").data, head())


def test_claims_that_no_head_has_are_refused_before_memory_is_taken(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((2000, 2000, 2000))
    raw = header.binaryblock + bytes(4)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(raw + bytes(1000)))
    (tmp_path / "a.nii").write_bytes(raw)
    write_nrrd(tmp_path / "a.nrrd", head())
    text = (tmp_path / "a.nrrd").read_bytes().replace(b"sizes: 12 10 8", b"sizes: 2000 2000 2000")
    (tmp_path / "a.nrrd").write_bytes(text)
    path = write_itk(tmp_path / "a.mha", head(), GRIDS["LPS"])
    path.write_bytes(path.read_bytes().replace(b"DimSize = 12 10 8", b"DimSize = 2000 2000 2000"))
    for name in ("a.nii.gz", "a.nii", "a.nrrd", "a.mha"):
        message = refused(tmp_path / name)
        assert "2000x2000x2000 voxels, which no image of a head has" in message


def test_channels_of_a_4d_file_are_images(tmp_path):
    # msd_four_channels
    values = np.stack([head(seed) for seed in range(4)], -1)
    path = write_nifti(tmp_path / "a.nii.gz", values)
    assert "--channels" in refused(path)
    read = read_channels(path, 4)
    for seed, volume in enumerate(read):
        assert np.array_equal(volume.data, head(seed))
        np.testing.assert_allclose(volume.affine, GRIDS["LPS"])
    assert "holds 4 images" in refused(path, lambda p: read_channels(p, 3))
    one = write_nifti(tmp_path / "b.nii.gz", head())
    assert "holds 1 images" in refused(one, lambda p: read_channels(p, 4))


def test_reading_dicom_keeps_the_locale(tmp_path):
    folder = write_series(tmp_path / "a", head(), GRIDS["LPS"])
    before = locale.setlocale(locale.LC_ALL)
    read_volume(folder)
    formats.read_shape(folder)
    refused(write_series(folder, head(), GRIDS["LPS"], number=2))
    assert locale.setlocale(locale.LC_ALL) == before


def test_series_that_are_no_stack_are_refused_by_name(tmp_path):
    folder = write_series(tmp_path / "a", head(), GRIDS["LPS"])
    missing = sorted(folder.iterdir())[3]
    kept = missing.read_bytes()
    missing.unlink()
    assert "2 to 4 mm apart: some are missing" in refused(folder)
    missing.write_bytes(kept)
    write_series(folder, head(1), GRIDS["LPS"], number=2)
    assert "2 DICOM series (series 1 (8), series 2 (8))" in refused(folder)
    (tmp_path / "empty").mkdir()
    assert "holds no DICOM series" in refused(tmp_path / "empty")
    assert "name the folder of its series" in refused(missing)


def test_turning_is_exact_and_only_where_both_are_one_grid(tmp_path):
    # t2_other_axes
    lps = read_volume(write_nifti(tmp_path / "a.nii", head()))
    ras = read_volume(write_nifti(tmp_path / "b.nii", head()[::-1, ::-1], GRIDS["RAS"]))
    turned = turn_like(ras, lps)
    assert np.array_equal(turned.data, head())
    assert np.array_equal(turned.affine, lps.affine)
    assert turn_like(lps, lps).data is not None
    oblique = read_volume(write_nifti(tmp_path / "c.nii", head(), GRIDS["oblique"]))
    assert turn_like(oblique, lps) is oblique
    permuted = np.transpose(head(), (2, 0, 1))
    affine = GRIDS["LPS"][:, [2, 0, 1, 3]]
    other = read_volume(write_nifti(tmp_path / "d.nii", permuted, affine))
    assert np.array_equal(turn_like(other, lps).data, head())
    mask = read_labels(write_nifti(tmp_path / "e.nii", (permuted > 0).astype(np.uint8), affine))
    assert np.array_equal(turn_like(mask, lps).data, head() > 0)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("file", [*WRITERS, "a.nii.gz", "a.nrrd", "series"])
def test_the_headers_alone_give_the_grid_that_reading_gives(name, file, tmp_path):
    writers = {**WRITERS, "a.nii.gz": write_nifti, "a.nrrd": write_nrrd, "series": write_series}
    path = tmp_path / file
    writers[file](path, head().astype(np.float32 if file != "series" else np.int16), GRIDS[name])
    data, affine, _ = formats.read_file(path)
    shape, found = formats.read_grid(path)
    assert shape == data.shape
    assert np.allclose(found, affine, atol=1e-4)
