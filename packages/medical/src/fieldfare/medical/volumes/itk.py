# SPDX-License-Identifier: Apache-2.0
"""MetaImage (.mha, .mhd) and folders of DICOM series, through SimpleITK.

SimpleITK is loaded when such a file is met: most cases are NIfTI.
"""

import contextlib
import itertools
import locale
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldfare.common.errors import InputError

from .nifti import Content
from .nrrds import beside
from .packed import check_claim

ENDINGS = (".mha", ".mhd")

UNEVEN = 0.02
"""Share of the distance of slices by which they may differ: scanners round."""

_POSITION, _ORIENTATION, _TITLE = "0020|0032", "0020|0037", "0008|103e"


def read(path: Path) -> Content:
    """Values, affine (RAS+), no header.

    Raises:
        InputError: voxels that lie elsewhere, or fewer than the header claims.
    """
    kit = _kit()
    shape, reader = _opened(path)
    check_claim(path, shape)
    source = data_file(path)
    stored = math.prod(shape) * reader.GetNumberOfComponents()
    stored *= _BYTES.get(reader.GetPixelID(), 1)
    if _field(path, "CompressedData").lower() != "true" and source.stat().st_size < stored:
        raise InputError(f"{path}: truncated or damaged ({source.name} is too short)")
    return _content(path, kit.ReadImage(str(path)))


def grid_of(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Voxels along each axis and affine (RAS+), by the header alone."""
    shape, reader = _opened(path)
    return shape, _affine_of(reader)


def data_file(path: Path) -> Path:
    """Where the voxels of a MetaImage lie: in the file itself, or in one beside it."""
    name = _field(path, "ElementDataFile")
    return path if name.upper() == "LOCAL" else beside(path, name)


def is_series(folder: Path) -> bool:
    """Whether a folder holds DICOM files itself: the mark that stands 128 bytes into each."""
    return any(_is_dicom(path) for path in files_of(folder))


def files_of(folder: Path) -> list[Path]:
    """The visible files of a folder, in order."""
    return [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")]


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


@contextlib.contextmanager
def kept_locale() -> Iterator[None]:
    """GDCM, which reads DICOM, sets the locale of the process to C: texts would be ASCII then."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


@kept_locale()
def read_series(folder: Path) -> Content:
    """The one DICOM series of a folder as a volume: values, affine (RAS+), no header.

    Raises:
        InputError: no series or several, slices that are missing, doubled or turned.
    """
    kit = _kit()
    names = _series_files(folder)
    slices = [_Slice(name) for name in names]
    shape = (*slices[0].size, len(slices))
    check_claim(folder, shape)
    if len(slices) > 1:
        _check_slices(folder, slices)
    reader = kit.ImageSeriesReader()
    reader.SetFileNames(names)
    return _content(folder, reader.Execute())


@kept_locale()
def series_grid(folder: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Voxels along each axis and affine (RAS+) of a folder's one DICOM series, by its headers.

    Raises:
        InputError: as of `read_series`.
    """
    slices = [_Slice(name) for name in _series_files(folder)]
    first, last = slices[0], slices[-1]
    affine = first.affine
    if len(slices) > 1:
        _check_slices(folder, slices)
        step = (last.position - first.position) / (len(slices) - 1)
        affine[:3, 2] = step * (-1, -1, 1)
    return (*first.size, len(slices)), affine


class _Slice:
    """Where one file of a series lies, by its header."""

    def __init__(self, name: str) -> None:
        reader = _kit().ImageFileReader()
        reader.SetFileName(name)
        reader.ReadImageInformation()
        keys = set(reader.GetMetaDataKeys())
        self.size = tuple(int(length) for length in reader.GetSize()[:2])
        self.affine = _affine_of(reader)
        values = (
            reader.GetMetaData(key) if key in keys else "" for key in (_POSITION, _ORIENTATION)
        )
        self.position, self.turn = (_numbers(value) for value in values)


def _check_slices(folder: Path, slices: list[_Slice]) -> None:
    if any(len(s.position) != 3 or len(s.turn) != 6 for s in slices):
        raise InputError(f"{folder}: its slices do not say where they lie; convert it to .nii.gz")
    first = slices[0]
    turned = max(float(np.abs(s.turn - first.turn).max()) for s in slices)
    if turned > 1e-3 or any(s.size != first.size for s in slices):
        raise InputError(f"{folder}: its slices are not of one stack; give a folder for each")
    normal = np.cross(first.turn[:3], first.turn[3:])
    places = [float(s.position @ normal) for s in slices]
    steps = np.abs([b - a for a, b in itertools.pairwise(places)])
    usual = float(np.median(steps))
    if not usual or np.abs(steps / usual - 1).max() > UNEVEN:
        low, high = float(steps.min()), float(steps.max())
        raise InputError(
            f"{folder}: its slices lie {low:.3g} to {high:.3g} mm apart: some are missing or there "
            "several times; give the whole series, once"
        )


def _series_files(folder: Path) -> list[str]:
    kit = _kit()
    found = kit.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not found:
        raise InputError(f"{folder}: holds no DICOM series; name a volume or a folder of one")
    if len(found) > 1:
        files = (kit.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid) for uid in found)
        titles = ", ".join(sorted(f"{_title(names[0])} ({len(names)})" for names in files))
        raise InputError(
            f"{folder}: holds {len(found)} DICOM series ({titles}); put each into a folder of its "
            "own"
        )
    return list(kit.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), found[0]))


def _title(name: str) -> str:
    reader = _kit().ImageFileReader()
    reader.SetFileName(name)
    reader.ReadImageInformation()
    known = _TITLE in reader.GetMetaDataKeys()
    return " ".join(str(reader.GetMetaData(_TITLE)).split()) if known else "unnamed"


def _numbers(text: str) -> NDArray[np.float64]:
    return np.array([float(part) for part in text.split("\\") if part.strip()])


def _opened(path: Path) -> tuple[tuple[int, ...], Any]:
    data_file(path)  # refused before anything is opened that the header names
    reader = _kit().ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return tuple(int(length) for length in reader.GetSize()), reader


def _field(path: Path, name: str) -> str:
    """A field of a MetaImage's header, which ends with ElementDataFile."""
    with open(path, "rb") as file:
        for line in file.read(2**16).split(b"\n"):
            key, _, value = line.decode("latin-1").partition("=")
            if key.strip().lower() == name.lower():
                return value.strip()
            if key.strip().lower() == "elementdatafile":
                break
    return ""


def _content(path: Path, image: Any) -> Content:
    kit = _kit()
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"{path}: holds colours or vectors; give one grey image")
    data = kit.GetArrayFromImage(image).T
    count = image.GetDimension()
    if count < 3:
        return data, np.eye(4), None  # the caller says why not
    return data, _affine_of(image), None


def _affine_of(image: Any) -> NDArray[np.float64]:
    """RAS+, of an image or of the reader of one; that of no volume has no meaning."""
    count, affine = image.GetDimension(), np.eye(4)
    if count >= 3:
        directions = np.reshape(image.GetDirection(), (count, count))[:3, :3]
        affine[:3, :3] = directions * np.array(image.GetSpacing()[:3])
        affine[:3, 3] = image.GetOrigin()[:3]
    found: NDArray[np.float64] = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return found


# Bytes of a voxel by SimpleITK's numbers of types: u8, i8, u16, i16, u32, i32, u64, i64, f32, f64.
_BYTES = dict(enumerate((1, 1, 2, 2, 4, 4, 8, 8, 4, 8)))


def _kit() -> Any:
    import SimpleITK

    kit: Any = SimpleITK
    kit.ProcessObject.SetGlobalWarningDisplay(False)
    return kit
