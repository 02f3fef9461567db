# SPDX-License-Identifier: Apache-2.0
"""Opening rasters that nobody vouches for: by formats that hold their own pixels, and complete.

GDAL goes by what is in a file: one named .tif may be a list of other files or of addresses on the
network. So the formats are given; one that names others (VRT) must be called so, and what it names
is opened by the same rules.
"""

import contextlib
import functools
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path

import rasterio
from rasterio._path import _UnparsedPath as UnparsedPath
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from fieldfare.common.errors import InputError

from .palettes import decoded
from .places import Place, is_remote_allowed, locate, remote_allowed
from .tiff import check_complete

GDAL_CACHE_MB = 128
"""What GDAL may keep of a raster while it is worked through."""

FORMATS = (
    *("GTiff", "COG", "PNG", "JPEG", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "WEBP"),
    *("GIF", "BIGGIF", "BMP", "PNM", "SGI", "TGA", "HFA", "ENVI", "EHdr", "ERS", "NITF", "GPKG"),
    *("PCIDSK", "RMF", "AAIGrid", "XYZ", "netCDF", "HDF5", "HDF5Image", "SENTINEL2", "SAGA"),
    *("JPEGXL", "AVIF", "HEIF", "ISIS3", "GRIB", "SRTMHGT", "USGSDEM", "DTED", "RST", "ILWIS"),
)
"""Drivers of files that hold their own pixels."""

DEEPEST = 4
"""How often a VRT may name another one."""


@contextlib.contextmanager
def environment(*, allow_remote: bool = False) -> Iterator[None]:
    """GDAL with a bounded cache; without the network, whatever a file says, unless allowed."""
    settings: dict[str, object] = {"GDAL_CACHEMAX": GDAL_CACHE_MB * 2**20}  # bytes, to rasterio
    if not allow_remote:
        settings |= {"CPL_VSIL_CURL_ALLOWED_FILENAME": "none"}
    with remote_allowed(allow_remote), rasterio.Env(**settings):
        yield


def open_raster(path: Path) -> DatasetReader:
    """Open a raster, or raise InputError saying in one line why not.

    Colours of a palette are decoded: such an image has bands red, green and blue, and alpha where
    its colours have it.
    """
    return _open(path, locate(path), 0)


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that a raster is read from, those that a VRT names and sidecars included.

    A name that leads nowhere, or to no raster, stands for itself.
    """
    try:
        place = locate(path)
        with _open(path, place, 0) as dataset:
            named = [Path(name) for name in dataset.files]
    except (InputError, RasterioError):
        return (path,)
    first = [place.file] if place.file else []
    return tuple(dict.fromkeys(first + [file for file in named if file.is_file()])) or (path,)


def _open(path: Path, place: Place, depth: int) -> DatasetReader:
    formats = [place.driver] if place.driver else _formats(place)
    if formats == ["VRT"]:
        _check_vrt(path, place, depth)
    try:
        with warnings.catch_warnings(), rasterio.Env():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            # Not `rasterio.open`: it takes one driver and no list.
            dataset = DatasetReader(UnparsedPath(place.name), driver=formats)
    except (RasterioError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a readable raster ({_why(place, error)})") from None
    try:
        return _sound(path, place, dataset)
    except BaseException:
        dataset.close()
        raise


def _sound(path: Path, place: Place, dataset: DatasetReader) -> DatasetReader:
    """The dataset, whole and with colours instead of a palette."""
    if dataset.count == 0:
        names = ", ".join(dataset.subdatasets[:3])
        raise InputError(f"{path}: holds no bands; name one of its subdatasets instead ({names})")
    if dataset.tags(ns="OVERVIEWS"):
        raise InputError(f"{path}: names another file as its overview; remove that tag first")
    if dataset.driver == "GTiff" and place.plain and place.file is not None:
        check_complete(place.file, dataset)
    points, crs = dataset.gcps
    if points and crs is None:
        raise InputError(
            f"{path}: has ground control points without coordinate system; it is damaged, or "
            "assign one first (gdal_edit.py -a_srs)"
        )
    return decoded(dataset)


def _formats(place: Place) -> list[str]:
    if place.suffix == ".vrt":
        return ["VRT"]
    if place.suffix == ".xml" and is_remote_allowed():
        return ["WMS", "WMTS", "WCS"]
    return list(_known_formats())


@functools.cache
def _known_formats() -> tuple[str, ...]:
    """Those of FORMATS that this build of GDAL has."""
    with rasterio.Env() as env:
        known = env.drivers()
    return tuple(name for name in FORMATS if name in known)


def _check_vrt(path: Path, place: Place, depth: int) -> None:
    """Open each file that a VRT names by the rules for all.

    Raises:
        InputError: it reads raw bytes, runs code, or names what may not be opened.
    """
    if not place.plain or place.file is None:
        raise InputError(f"{path}: is a VRT in an archive; unpack it first")
    if depth >= DEEPEST:
        raise InputError(f"{path}: a VRT of VRTs, more than {DEEPEST} deep; build one of them")
    try:
        root = ElementTree.parse(place.file).getroot()
    except (ElementTree.ParseError, OSError, UnicodeError) as error:
        raise InputError(f"{path}: not a readable VRT ({error})") from None
    if root.tag != "VRTDataset" or root.get("subClass") == "VRTProcessedDataset":
        raise InputError(f"{path}: not a VRT of rasters; convert it to GeoTIFF first")
    for node in root.iter():
        if node.tag == "VRTRasterBand" and node.get("subClass") == "VRTRawRasterBand":
            raise InputError(f"{path}: a VRT of raw bytes; convert it to GeoTIFF first")
        if node.tag.startswith("PixelFunction") and (node.text or "").strip() == "Python":
            raise InputError(f"{path}: a VRT that runs Python; convert it to GeoTIFF first")
        if node.tag == "Metadata" and node.get("domain") == "OVERVIEWS":
            raise InputError(f"{path}: names another file as its overview; remove that tag first")
    for source in _sources(root, place.file):
        try:
            _open(source, locate(source), depth + 1).close()
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def _sources(root: ElementTree.Element, vrt: Path) -> Sequence[Path]:
    """The files that a VRT names, each once."""
    found: dict[Path, None] = {}
    for node in root.iter():
        if node.tag in ("SourceFilename", "SourceDataset") and node.text:
            beside = "1" in (node.get("relativeToVRT"), node.get("relativetoVRT"))
            found[vrt.parent / node.text if beside else Path(node.text)] = None
    return list(found)


def _why(place: Place, error: Exception) -> str:
    """What GDAL says, or what it does not: that the content is of another kind than the name."""
    if place.plain and place.file is not None:
        with open(place.file, "rb") as file:
            if file.read(64).lstrip().startswith(b"<"):
                return (
                    "it holds XML that names other files or addresses, such as a VRT, not pixels; "
                    "one that you trust must be named *.vrt"
                )
    return reason(error)


def reason(error: Exception) -> str:
    """The first line of what GDAL says."""
    cause = error.__cause__ or error
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__
