# SPDX-License-Identifier: Apache-2.0
"""NIfTI and NRRD files as values, an affine and a header, and the way back."""

import contextlib
import gzip
import io
import logging
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
from numpy.typing import NDArray

from fieldfare.common.errors import InputError

ENDINGS = (".nii.gz", ".nii", ".nrrd")

SOFTWARE = "Fieldfare med-seg"

Header = nib.Nifti1Header | Mapping[str, Any]
Array = NDArray[Any]

# From the header of a reference into that of an output: where the voxels lie, and nothing of what
# they hold (scaling, display range, names, extensions).
_NIFTI_GEOMETRY = [
    *("pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
]
_NRRD_GEOMETRY = ("space", "space directions", "space origin", "kinds")
# Signs that turn a NRRD space into RAS+.
_NRRD_SPACES = {
    **dict.fromkeys(("right-anterior-superior", "ras", "scanner-xyz"), (1, 1, 1)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1, 1, 1)),
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1, -1, 1)),
}
_READ_ERRORS = (
    *(nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, nrrd.NRRDError),
    *(OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, IndexError, OverflowError),
    *(AssertionError, NotImplementedError),
)


def read_file(path: Path) -> tuple[Array, NDArray[np.float64], Header]:
    """Read what a file holds.

    Returns:
        Values as stored with the header's scaling applied, of any number of axes; the affine from
        voxel indices to world mm in RAS+, (4, 4); the header.

    Raises:
        InputError: missing, of no known format, truncated or damaged, or without a grid.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the volume in it")
    if not path.name.lower().endswith(ENDINGS):
        raise InputError(f"{path}: not a volume; give {', '.join(ENDINGS)}")
    kind, read = "NIfTI", _read_nifti
    if path.name.lower().endswith(".nrrd"):
        kind, read = "NRRD", _read_nrrd
    try:
        with _quiet_nibabel():
            return read(path)
    except InputError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = f"truncated or damaged ({_reason(error)}); fetch it again"
    except _READ_ERRORS as error:
        reason = f"not a readable {kind} file ({_reason(error)})"
    raise InputError(f"{path}: {reason}")


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


def write_file(
    path: Path, values: Array, affine: NDArray[np.float64], header: Header | None, ending: str
) -> None:
    """Write values to where a header, or else an affine, puts them.

    Args:
        path: any name, replaced where it exists.
        values: (X, Y, Z), for NIfTI also (X, Y, Z, C).
        affine: (4, 4), voxel indices to world mm in RAS+.
        header: of a file on this grid. Of the same format as the target it gives the grid bit by
            bit, affine and codes and units, and nothing else: no scaling, no names.
        ending: one of ENDINGS, the format.
    """
    if ending == ".nrrd":
        fields = {**_nrrd_grid(affine, header), "encoding": "gzip", "content": SOFTWARE}
        nrrd.write(str(path), values, fields, compression_level=6)
        return
    content = _nifti_image(values, affine, header).to_bytes()
    path.write_bytes(gzip.compress(content, 6, mtime=0) if ending == ".nii.gz" else content)


def _read_nifti(path: Path) -> tuple[Array, NDArray[np.float64], Header]:
    # Unpacked whole, not by nibabel as far as the voxels go: only at its end does gzip tell by
    # length and checksum that the file is as it was written.
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        if kind.header_class.may_contain_header(raw):
            break
    else:
        raise InputError(f"{path}: not a NIfTI file; convert it to {', '.join(ENDINGS)}")
    # Checked before nibabel asks for memory: a damaged size may be anything.
    header = kind.header_class.from_fileobj(io.BytesIO(raw))
    shape, width = header.get_data_shape(), header.get_data_dtype().itemsize
    wanted = int(header.get_data_offset()) + math.prod(map(int, shape)) * width
    if len(raw) < wanted or min(shape, default=0) < 1:
        raise InputError(
            f"{path}: truncated or damaged ({len(raw)} bytes where {numbers(shape)} voxels need "
            f"{wanted}); fetch it again"
        )
    image = kind.from_bytes(raw)
    return np.asanyarray(image.dataobj), np.asarray(image.affine, np.float64), image.header


def _read_nrrd(path: Path) -> tuple[Array, NDArray[np.float64], Header]:
    with open(path, "rb") as file:
        if nrrd.read_header(file).get("encoding") in ("gzip", "gz"):
            gzip.decompress(file.read())  # pynrrd ignores the length and checksum at the end
    data, header = nrrd.read(str(path))
    if data.ndim != 3:
        return data, np.eye(4), header  # the caller says why not
    space = str(header.get("space", "")).lower()
    directions, origin = header.get("space directions"), header.get("space origin")
    if space not in _NRRD_SPACES or directions is None or origin is None:
        raise InputError(
            f"{path}: its header does not say how the image lies (space "
            f"{space or 'missing'}); save it anew with space, directions and origin"
        )
    units = {str(unit).lower() for unit in header.get("space units", [])}
    if units - {"mm", "millimeter", "millimeters", ""}:
        raise InputError(f"{path}: its space units are {', '.join(sorted(units))}; mm is wanted")
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.asarray(directions).T, origin
    return data, np.diag([*_NRRD_SPACES[space], 1.0]) @ affine, header


def _nifti_image(
    values: Array, affine: NDArray[np.float64], source: Header | None
) -> nib.Nifti1Image:
    two = isinstance(source, nib.Nifti2Header) or max(values.shape) > 32767
    kind: type[nib.Nifti1Image] = nib.Nifti2Image if two else nib.Nifti1Image
    header = kind.header_class()
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    if isinstance(source, nib.Nifti1Header):
        for field in _NIFTI_GEOMETRY:
            header[field] = source[field]
    else:
        header.set_sform(affine, code=1)
        header.set_qform(affine, code=1)
        header.set_xyzt_units("mm")
    header["descrip"] = SOFTWARE
    return kind(values, None, header)  # with an affine nibabel might rewrite the header's own


def _nrrd_grid(affine: NDArray[np.float64], source: Header | None) -> dict[str, Any]:
    if source is not None and not isinstance(source, nib.Nifti1Header):
        return {field: source[field] for field in _NRRD_GEOMETRY if field in source}
    turned = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return {
        "space": "left-posterior-superior",
        "space directions": turned[:3, :3].T,
        "space origin": turned[:3, 3],
        "kinds": ["domain"] * 3,
    }


def numbers(values: Sequence[float], joint: str = "x", digits: int = 3) -> str:
    """Numbers in a message: 240x240x155."""
    return joint.join(f"{round(float(value), digits) + 0:g}" for value in values)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 120 else f"{text[:117]}..." if text else type(error).__name__
