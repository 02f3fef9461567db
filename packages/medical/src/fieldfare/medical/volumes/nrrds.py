# SPDX-License-Identifier: Apache-2.0
"""NRRD, attached (.nrrd) or with its data in a file beside it (.nhdr); headers through pynrrd."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import nrrd
import numpy as np
from numpy.typing import NDArray

from fieldfare.common.errors import InputError

from .nifti import SOFTWARE, Content
from .packed import bunzip, check_claim, gunzip

Array = NDArray[Any]

ENDINGS = (".nrrd", ".nhdr")

_GEOMETRY = ("space", "space directions", "space origin", "kinds")
# Signs that turn a NRRD space into RAS+.
_SPACES = {
    **dict.fromkeys(("right-anterior-superior", "ras", "scanner-xyz"), (1, 1, 1)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1, 1, 1)),
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1, -1, 1)),
}
_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int"), "i2"),
    **dict.fromkeys(("int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int"), "u2"),
    **dict.fromkeys(("uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long"), "i8"),
    **dict.fromkeys(("signed long long int", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int"), "u8"),
    **dict.fromkeys(("uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}


def read(path: Path) -> Content:
    """Values, affine (RAS+) and the header; values of other than three axes with no affine.

    Raises:
        InputError: what can be said of a file that lacks something.
    """
    with open(path, "rb") as file:
        header = nrrd.read_header(file)
        shape = tuple(int(size) for size in header["sizes"])
        check_claim(path, shape)
        source = data_file(path, header)
        if source == path:
            data = _read_data(path, file, header)
        else:
            with open(source, "rb") as beside:
                data = _read_data(source, beside, header)
    if data.ndim != 3:
        return data, np.eye(4), header  # the caller says why not
    return data, _affine_of(path, header), header


def _affine_of(path: Path, header: Mapping[str, Any]) -> NDArray[np.float64]:
    space = str(header.get("space", "")).lower()
    directions, origin = header.get("space directions"), header.get("space origin")
    if space not in _SPACES or directions is None or origin is None:
        raise InputError(
            f"{path}: its header does not say how the image lies (space "
            f"{space or 'missing'}); save it anew with space, directions and origin"
        )
    units = {str(unit).lower() for unit in header.get("space units", [])}
    if units - {"mm", "millimeter", "millimeters", ""}:
        raise InputError(f"{path}: its space units are {', '.join(sorted(units))}; mm is wanted")
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.asarray(directions).T, origin
    found: NDArray[np.float64] = np.diag([*_SPACES[space], 1.0]) @ affine
    return found


def grid_of(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Voxels along each axis and affine (RAS+), by the header alone."""
    header = nrrd.read_header(str(path))
    shape = tuple(int(size) for size in header["sizes"])
    return shape, _affine_of(path, header) if len(shape) == 3 else np.eye(4)


def data_file(path: Path, header: Mapping[str, Any] | None = None) -> Path:
    """Where the voxels lie: in the file itself, or in one beside it.

    Raises:
        InputError: several files, one in another folder, or none.
    """
    if header is None:
        header = nrrd.read_header(str(path))
    name = header.get("data file", header.get("datafile"))
    return path if name is None else beside(path, str(name))


def beside(path: Path, name: str) -> Path:
    """The file that a header names: in its own folder, for a header may be anybody's.

    Raises:
        InputError: a name with a folder in it, of several files, or of none that is there.
    """
    found = path.parent / name
    if not name or Path(name).name != name or not found.is_file():
        raise InputError(
            f"{path}: its voxels are in {name or 'no file'}, which is no file beside it; put it "
            "there or save the image as one file"
        )
    return found


def _read_data(path: Path, file: BinaryIO, header: Mapping[str, Any]) -> Array:
    """The voxels from where a file stands, (X, Y, ...); no byte more than they need."""
    shape = tuple(int(size) for size in header["sizes"])
    name = str(header["type"])
    if name not in _TYPES:
        raise InputError(f"{path}: holds {name}; give one grey image")
    kind = np.dtype(_TYPES[name]).newbyteorder("<" if header.get("endian") == "little" else ">")
    wanted = math.prod(shape) * kind.itemsize
    for _ in range(int(header.get("line skip", header.get("lineskip", 0)))):
        if not file.readline():
            raise InputError(f"{path}: damaged (it skips lines beyond its end); fetch it again")
    skip = int(header.get("byte skip", header.get("byteskip", 0)))
    encoding = str(header["encoding"]).lower()
    if skip == -1 and encoding == "raw":
        file.seek(-min(wanted, path.stat().st_size), 2)
        skip = 0
    if not 0 <= skip <= 1024 * path.stat().st_size:
        raise InputError(f"{path}: damaged (it skips {skip} bytes); fetch it again")
    if encoding == "raw":
        file.seek(skip, 1)
        raw = file.read(wanted)
    elif encoding in ("gzip", "gz"):
        raw = gunzip(file, skip + wanted)[skip:]
    elif encoding in ("bzip2", "bz2"):
        raw = bunzip(file, skip + wanted)[skip:]
    elif encoding in ("ascii", "text", "txt"):
        file.seek(skip, 1)
        raw = np.array(file.read().split()[: math.prod(shape)], kind).tobytes()
    else:
        raise InputError(f"{path}: its encoding {encoding} is not read; save it with gzip")
    if len(raw) < wanted:
        raise InputError(
            f"{path}: truncated or damaged ({len(raw)} bytes where {wanted} are needed); fetch it "
            "again"
        )
    return np.frombuffer(raw, kind).reshape(shape, order="F")


def write(path: Path, values: Array, affine: NDArray[np.float64], source: Any) -> None:
    """Write (X, Y, Z) on the grid of a NRRD header, or else of an affine."""
    fields = {**_grid(affine, source), "encoding": "gzip", "content": SOFTWARE}
    nrrd.write(str(path), values, fields, compression_level=6)


def _grid(affine: NDArray[np.float64], source: Any) -> dict[str, Any]:
    if source is not None and not isinstance(source, nib.analyze.AnalyzeHeader):
        return {field: source[field] for field in _GEOMETRY if field in source}
    turned = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return {
        "space": "left-posterior-superior",
        "space directions": turned[:3, :3].T,
        "space origin": turned[:3, 3],
        "kinds": ["domain"] * 3,
    }
