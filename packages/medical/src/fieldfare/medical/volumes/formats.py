# SPDX-License-Identifier: Apache-2.0
"""Files of volumes as values, an affine and a header, and the way back: one door to all formats."""

import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
from numpy.typing import NDArray

from fieldfare.common.errors import InputError

from . import itk, nifti, nrrds

WRITTEN = (".nii.gz", ".nii", ".nrrd")
"""Endings of files that are written."""

ENDINGS = (*WRITTEN, ".nhdr", *nifti.MGH, *itk.ENDINGS, ".hdr")
"""Endings of files that are read, each an image; a pair is known by its header."""

Header = nib.analyze.AnalyzeHeader | Mapping[str, Any]
Array = NDArray[Any]

_READ_ERRORS = (
    *(nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, nrrd.NRRDError),
    *(OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, IndexError, OverflowError),
    *(AssertionError, NotImplementedError, RuntimeError),
)


def read_file(path: Path) -> tuple[Array, NDArray[np.float64], Header | None]:
    """Read what a file, or a folder with one DICOM series, holds.

    Returns:
        Values as stored with the header's scaling applied, of any number of axes; the affine from
        voxel indices to world mm in RAS+, (4, 4); the header of NIfTI, Analyze and NRRD.

    Raises:
        InputError: missing, of no known format, truncated or damaged, or without a grid.
    """
    read = {"nifti": nifti.read, "nrrd": nrrds.read, "itk": itk.read, "dicom": itk.read_series}
    found: tuple[Array, NDArray[np.float64], Header | None] = _guarded(read, path)
    return found


def read_grid(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Voxels along each axis and the affine, by the header alone; errors as of `read_file`."""
    read = {
        "nifti": nifti.grid_of,
        "nrrd": nrrds.grid_of,
        "itk": itk.grid_of,
        "dicom": itk.series_grid,
    }
    found: tuple[tuple[int, ...], NDArray[np.float64]] = _guarded(read, path)
    return found


def read_shape(path: Path) -> tuple[int, ...]:
    """Voxels along each axis, by the header alone; errors as of `read_file`."""
    return read_grid(path)[0]


def files_of(path: Path) -> list[Path]:
    """Every file that an image is read from: a pair has two, a series one for each slice."""
    kind = _kind(path)
    if kind == "dicom":
        return itk.files_of(path)
    if path.name.lower().endswith(nifti.PAIR):
        return list(nifti.parts_of_pair(path))
    try:
        if path.name.lower().endswith(".nhdr"):
            return [path, nrrds.data_file(path)]
        if kind == "itk":
            return list(dict.fromkeys((path, itk.data_file(path))))
    except (InputError, *_READ_ERRORS):
        pass  # reading says what is wrong
    return [path]


def ending_of(path: Path) -> str:
    """The ending of ENDINGS that a name has, in small letters; empty where it has none."""
    name = path.name.lower()
    return next((ending for ending in ENDINGS if name.endswith(ending)), "")


def _kind(path: Path) -> str:
    name = path.name.lower()
    if path.is_dir():
        return "dicom"
    if name.endswith(nrrds.ENDINGS):
        return "nrrd"
    return "itk" if name.endswith(itk.ENDINGS) else "nifti"


def _guarded(readers: Mapping[str, Any], path: Path) -> Any:
    """Call the reader of a file's format; whatever goes wrong becomes one line."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_dir() and not path.name.lower().endswith((*ENDINGS, *nifti.PAIR)):
        what = "not a volume"
        if path.name.lower().endswith((".dcm", ".ima")):
            what = "one slice of DICOM; name the folder of its series"
        raise InputError(f"{path}: {what}; give {', '.join(ENDINGS)} or a folder of DICOM")
    kind = _kind(path)
    try:
        return readers[kind](path)
    except InputError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = f"truncated or damaged ({_reason(error)}); fetch it again"
    except _READ_ERRORS as error:
        named = {"nifti": "NIfTI", "nrrd": "NRRD", "itk": "MetaImage", "dicom": "DICOM"}[kind]
        reason = f"not a readable {named} file ({_reason(error)})"
    raise InputError(f"{path}: {reason}")


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
        ending: one of WRITTEN, the format.
    """
    if ending == ".nrrd":
        nrrds.write(path, values, affine, header)
    else:
        image = nifti.make_image(values, affine, header)
        nifti.write(path, image, packed=ending == ".nii.gz")


def numbers(values: Sequence[float], joint: str = "x", digits: int = 3) -> str:
    """Numbers in a message: 240x240x155."""
    return joint.join(f"{round(float(value), digits) + 0:g}" for value in values)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 120 else f"{text[:117]}..." if text else type(error).__name__
