# SPDX-License-Identifier: Apache-2.0
"""What a raster's name leads to: a file, a member of an archive, one dataset of several.

scene.tif
/vsizip/scenes.zip/folder/scene.tif   zip://scenes.zip!folder/scene.tif   (tar, gzip alike)
NETCDF:"scene.nc":reflectance         GTIFF_DIR:2:scene.tif
"""

import contextlib
import re
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from fieldfare.common.errors import InputError

SUBDATASETS = {
    "BAG": "BAG",
    "GPKG": "GPKG",
    "GTIFF_DIR": "GTiff",
    "HDF5": "HDF5Image",
    "NETCDF": "netCDF",
    "NITF_IM": "NITF",
    "SENTINEL2_L1B": "SENTINEL2",
    "SENTINEL2_L1C": "SENTINEL2",
    "SENTINEL2_L2A": "SENTINEL2",
}
"""The driver of each kind of subdataset name."""

_REMOTE = re.compile(
    r"(?i)^/?vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)(_streaming)?/|^(https?|ftp|s3|gs|az):/"
)
_ARCHIVE = re.compile(r"^/vsi(zip|tar|gzip)/(.*)$")
_SCHEME = re.compile(r"^(zip|tar|gzip)(?:\+file)?:/*(.*)$")

_allowed: ContextVar[bool] = ContextVar("remote", default=False)


@dataclass(frozen=True)
class Place:
    """Where a raster lies.

    Attributes:
        name: as GDAL takes it.
        file: the file on disk behind it; None in GDAL's memory and on the network.
        driver: the only one that may open it, where its name says so.
        suffix: of the raster itself, in lower case.
    """

    name: str
    file: Path | None
    driver: str | None
    suffix: str

    @property
    def plain(self) -> bool:
        """Whether it is a file of its own."""
        return self.file is not None and self.name == str(self.file)


@contextlib.contextmanager
def remote_allowed(allowed: bool) -> Iterator[None]:
    """Inside, names may lead to the network."""
    token = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(token)


def is_remote_allowed() -> bool:
    """Whether names may lead to the network here."""
    return _allowed.get()


def locate(path: Path) -> Place:
    """Find what a name leads to.

    Raises:
        InputError: nothing, a folder, or the network, which is not allowed.
    """
    text = str(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the rasters in it")
    if path.exists():
        found = Path(path.absolute()) if ":" in text or "!" in text else path
        return Place(str(found), found, None, path.suffix.lower())
    if _REMOTE.search(text):
        if not is_remote_allowed():
            raise InputError(f"{path}: lies on the network; download it, or add --allow-remote")
        return Place(_remote_name(text), None, None, path.suffix.lower())
    if match := _ARCHIVE.match(text):
        return _in_archive(path, match[1], match[2])
    if match := _SCHEME.match(text):
        return _in_archive(path, match[1], match[2].replace("!", "/"))
    if text.startswith("/vsimem/"):
        return Place(text, None, None, path.suffix.lower())
    prefix, _, rest = text.partition(":")
    if rest and prefix in SUBDATASETS:
        return _subdataset(path, prefix, rest)
    raise InputError(f"{path}: no such file")


def _remote_name(text: str) -> str:
    """The name under which GDAL reads parts of a remote file; `Path` makes one slash of two."""
    whole = re.sub(r"(?i)(https?|ftp):/+", r"\1://", text)
    if whole.startswith("/vsi"):
        return whole
    if re.match(r"(?i)(https?|ftp):", whole):
        return f"/vsicurl/{whole}"
    return re.sub(r"^(s3|gs|az):/+", r"/vsi\1/", whole)


def _in_archive(path: Path, kind: str, rest: str) -> Place:
    """A member; the archive is the first part of the name that is a file."""
    parts = rest.strip("{").replace("}", "").strip("/").split("/")
    for count in range(1, len(parts) + 1):
        for archive in (Path("/", *parts[:count]), Path(*parts[:count])):
            if archive.is_file():
                member = "/".join(parts[count:])
                name = f"/vsigzip/{archive}" if kind == "gzip" else f"/vsi{kind}/{{{archive}}}"
                suffix = Path(member or archive.stem).suffix.lower()
                return Place(f"{name}/{member}".rstrip("/"), archive, None, suffix)
    raise InputError(f"{path}: no such archive")


def _subdataset(path: Path, prefix: str, rest: str) -> Place:
    """A name of the form PREFIX:FILE:WHICH or PREFIX:WHICH:FILE, the file perhaps in quotes."""
    pieces = re.findall(r'"[^"]+"|[^:]+', rest)
    for piece in pieces:
        bare = piece.strip('"')
        with contextlib.suppress(InputError):
            place = locate(Path(bare))
            whole = rest.replace(bare, place.name, 1)
            if prefix == "HDF5":
                whole = re.sub(r":/+", "://", whole)
            return Place(f"{prefix}:{whole}", place.file, SUBDATASETS[prefix], "")
    raise InputError(f"{path}: names no file")
