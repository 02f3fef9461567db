# SPDX-License-Identifier: Apache-2.0
"""NIfTI, whole or as a pair, Analyze and FreeSurfer's MGH, through nibabel."""

import contextlib
import io
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from fieldfare.common.errors import InputError

from .packed import check_claim, read_start, read_up_to

Array = NDArray[Any]
Content = tuple[Array, NDArray[np.float64], Any]

PAIR, MGH = (".hdr", ".img"), (".mgz", ".mgh")

SOFTWARE = "Fieldfare med-seg"

_LONGEST_HEADER = 540

# From the header of a reference into that of an output: where the voxels lie, and nothing of what
# they hold (scaling, display range, names, extensions).
_GEOMETRY = [
    *("pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
]


def read(path: Path) -> Content:
    """Values with the header's scaling, affine (RAS+), and the header where it is NIfTI's own.

    Raises:
        InputError: what can be said of a file that is none, or that is cut short.
    """
    with _quiet_nibabel():
        if path.name.lower().endswith(PAIR):
            return _read_pair(path)
        kind, header = _header(path)
        shape = tuple(map(int, header.get_data_shape()))
        width = header.get_data_dtype().itemsize
        start = int(header.get_data_offset())
        wanted = start + math.prod(shape) * width
        # What follows the voxels of MGH is about the scan, not the image.
        raw = read_up_to(path, wanted)
        if len(raw) < wanted:
            raise InputError(_cut_short(path, len(raw), shape, wanted))
        image = kind.from_bytes(raw)
        kept = image.header if isinstance(image.header, nib.Nifti1Header) else None
        return np.asanyarray(image.dataobj), np.asarray(image.affine, np.float64), kept


def grid_of(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Voxels along each axis and affine (RAS+), by the header alone; errors as of `read`."""
    with _quiet_nibabel():
        if path.name.lower().endswith(PAIR):
            image = _open_pair(path)
            return tuple(map(int, image.shape)), np.asarray(image.affine, np.float64)
        header = _header(path)[1]
        affine = header.get_affine() if _is_mgh(path) else header.get_best_affine()
        return tuple(map(int, header.get_data_shape())), np.asarray(affine, np.float64)


def _is_mgh(path: Path) -> bool:
    return path.name.lower().endswith(MGH)


def parts_of_pair(path: Path) -> tuple[Path, Path]:
    """Header and image of a pair, whichever of them is named, in the letters' case they have."""
    other = {".hdr": ".img", ".img": ".hdr", ".HDR": ".IMG", ".IMG": ".HDR"}
    second = path.with_suffix(other.get(path.suffix, other[path.suffix.lower()]))
    return (path, second) if path.suffix.lower() == ".hdr" else (second, path)


def _header(path: Path) -> tuple[Any, Any]:
    """The class of image and the header, sizes checked."""
    start = read_start(path, _LONGEST_HEADER)
    kinds: tuple[Any, ...] = (nib.Nifti1Image, nib.Nifti2Image)
    if _is_mgh(path):
        header = nib.MGHImage.header_class.from_fileobj(io.BytesIO(start))
        check_claim(path, header.get_data_shape())
        return nib.MGHImage, header
    for kind in kinds:
        if kind.header_class.may_contain_header(start):
            # Without the extensions behind it, which may be long.
            header = kind.header_class(start[: kind.header_class.sizeof_hdr])
            check_claim(path, header.get_data_shape())
            return kind, header
    raise InputError(f"{path}: not a NIfTI file; convert it to .nii.gz")


def _open_pair(path: Path) -> Any:
    header, image = parts_of_pair(path)
    for part in (header, image):
        if not part.is_file():
            raise InputError(f"{path}: half of a pair; {part.name} must lie beside it")
    opened: Any = nib.load(header)
    check_claim(path, opened.shape)
    return opened


def _read_pair(path: Path) -> Content:
    image, data = _open_pair(path), parts_of_pair(path)[1]
    start = int(image.dataobj.offset)
    wanted = start + math.prod(image.shape) * image.header.get_data_dtype().itemsize
    if (size := data.stat().st_size) < wanted:
        raise InputError(_cut_short(data, size, image.shape, wanted))
    return np.asanyarray(image.dataobj), np.asarray(image.affine, np.float64), image.header


def _cut_short(path: Path, size: int, shape: tuple[int, ...], wanted: int) -> str:
    voxels = "x".join(map(str, shape))
    return (
        f"{path}: truncated or damaged ({size} bytes where {voxels} voxels need {wanted}); fetch "
        "it again"
    )


def write(path: Path, image: nib.Nifti1Image, *, packed: bool) -> None:
    """Write an image to a name, replaced where it exists; the same bytes for the same image."""
    import gzip

    content = image.to_bytes()
    path.write_bytes(gzip.compress(content, 6, mtime=0) if packed else content)


def make_image(values: Array, affine: NDArray[np.float64], source: Any) -> nib.Nifti1Image:
    """Values on the grid of a NIfTI header, bit by bit, or else of an affine.

    Args:
        values: (X, Y, Z) or (X, Y, Z, C).
        affine: (4, 4), voxel indices to world mm in RAS+.
        source: a header; of another format it is not used.
    """
    two = isinstance(source, nib.Nifti2Header) or max(values.shape) > 32767
    kind: type[nib.Nifti1Image] = nib.Nifti2Image if two else nib.Nifti1Image
    header = kind.header_class()
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    if isinstance(source, nib.Nifti1Header):
        for field in _GEOMETRY:
            header[field] = source[field]
    else:
        header.set_sform(affine, code=1)
        header.set_qform(affine, code=1)
        header.set_xyzt_units("mm")
    header["descrip"] = SOFTWARE
    return kind(values, None, header)  # with an affine nibabel might rewrite the header's own


@contextlib.contextmanager
def _quiet_nibabel() -> Iterator[None]:
    """Keep nibabel from printing what it mends in a header beside the one line of an error."""
    logger = logging.getLogger("nibabel.global")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
