# SPDX-License-Identifier: Apache-2.0
"""Writing an enlarged scene: georeference, sample types, compressed tiled GeoTIFF or COG."""

import contextlib
import json
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetWriter
from rasterio.rpc import RPC
from rasterio.windows import Window

from fieldfare.common.files import atomic_path

from .. import __version__
from .reading import Scene

BLOCK = 512
"""Side of the output's tiles in pixels."""


def georeference(scene: Scene, scale: int) -> dict[str, Any]:
    """CRS, transform, ground control points and RPCs of the enlarged scene, for `rasterio.open`."""
    dataset = scene.dataset
    here: dict[str, Any] = {}
    if scene.place:
        corner = scene.place.transform * rasterio.Affine.translation(scene.left, scene.top)
        here["transform"] = corner * rasterio.Affine.scale(1 / scale)
        here["crs"] = scene.crs
        return here
    gcps, gcp_crs = dataset.gcps
    if gcps:
        here["gcps"] = [
            GroundControlPoint(
                row=(point.row - scene.top) * scale,
                col=(point.col - scene.left) * scale,
                x=point.x,
                y=point.y,
                z=point.z,
                id=point.id,
                info=point.info,
            )
            for point in gcps
        ]
        here["crs"] = gcp_crs
    elif not dataset.transform.is_identity:
        corner = dataset.window_transform(scene.window)
        here["transform"] = corner * rasterio.Affine.scale(1 / scale)
        here["crs"] = dataset.crs
    elif dataset.crs:
        here["crs"] = dataset.crs
    if dataset.rpcs:
        here["rpcs"] = _enlarged_rpcs(dataset.rpcs, scene, scale)
    return here


def _enlarged_rpcs(rpcs: RPC, scene: Scene, scale: int) -> RPC:
    """Rational polynomials count from pixel centres: line' = (line - top + 1/2) scale - 1/2."""
    values = rpcs.to_dict()
    for name, start in (("line", scene.top), ("samp", scene.left)):
        values[f"{name}_off"] = (values[f"{name}_off"] - start + 0.5) * scale - 0.5
        values[f"{name}_scale"] *= scale
    return RPC(**values)


def to_sample_type(
    values: np.ndarray, dtype: np.dtype, nodata: float | None, valid: np.ndarray
) -> np.ndarray:
    """Round to the raster's type; keep valid samples off the nodata value and missing ones on it.

    Args:
        values: (bands, height, width) float, in the raster's unit.
        valid: like values, bool; missing samples become nodata, 0 where there is none.
    """
    if dtype.kind == "f":
        out = values.astype(dtype)
    else:
        limits = np.iinfo(dtype)
        out = np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
    if nodata is not None and not math.isnan(nodata):
        out[(out == np.asarray(nodata, dtype)) & valid] = _neighbour(nodata, dtype)
    out[~valid] = nodata or 0
    return out


def _neighbour(value: float, dtype: np.dtype) -> Any:
    """The value of the type next to one, towards the middle of an integer type's range."""
    if dtype.kind == "f":
        return np.nextafter(dtype.type(value), dtype.type(math.inf))
    limits = np.iinfo(dtype)
    return dtype.type(int(value) + (1 if value < (limits.min + limits.max) / 2 else -1))


def provenance_tags(source: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Tags that say what made a raster: this package, the source's name, the settings as JSON."""
    provenance = {**settings, "source": source.name, "version": __version__}
    return {
        "TIFFTAG_SOFTWARE": f"fieldfare-remote-sensing {__version__}",
        "FIELDFARE_PROVENANCE": json.dumps(provenance),
    }


def write_geotiff(
    target: Path,
    rows: Iterable[np.ndarray],
    scene: Scene,
    scale: int,
    *,
    dtype: np.dtype,
    nodata: float | None,
    tags: dict[str, str],
    descriptions: Sequence[str | None],
    like_scene: bool = True,
    cog: bool = True,
) -> None:
    """Write a compressed, tiled GeoTIFF (cloud-optimised by default) from top to bottom.

    Args:
        target: replaced atomically.
        rows: consecutive bands (bands, rows, width) of dtype, each of `BLOCK` rows but the last.
        scene: whose georeference is carried over, enlarged by scale.
        descriptions: of each band.
        like_scene: the bands are the scene's: keep its colours, scales, alpha and mask.
        cog: copy into a cloud-optimised layout with overviews.
    """
    count = len(descriptions)
    alpha = like_scene and scene.alpha is not None
    mask = like_scene and not alpha and scene.has_mask_band
    predictor = 3 if dtype.kind == "f" else 2
    profile = {
        "driver": "GTiff",
        "height": scene.height * scale,
        "width": scene.width * scale,
        "count": count + alpha,
        "dtype": dtype.name,
        "nodata": nodata,
        "compress": "deflate",
        "predictor": predictor,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "BIGTIFF": "IF_SAFER",
        "num_threads": "all_cpus",
        **georeference(scene, scale),
    }
    colours = [ColorInterp.gray, *[ColorInterp.undefined] * (count - 1)]
    if like_scene:
        found = [scene.dataset.colorinterp[band - 1] for band in scene.bands]
        colours = [ColorInterp.undefined if c == ColorInterp.alpha else c for c in found]
    if colours[:3] == [ColorInterp.red, ColorInterp.green, ColorInterp.blue]:
        profile["photometric"] = "RGB"
    with atomic_path(target) as temporary, _quiet_environment():
        plain = temporary.with_suffix(".plain.tif") if cog else temporary
        try:
            with rasterio.open(plain, "w", **profile) as sink:
                sink.update_tags(**tags)
                sink.colorinterp = [*colours, ColorInterp.alpha] if alpha else colours
                if like_scene:
                    _describe_bands(sink, scene)
                for index, text in enumerate(descriptions, start=1):
                    sink.set_band_description(index, text or "")
                top = 0
                for values in rows:
                    bottom = top + values.shape[1]
                    window = Window(0, top, values.shape[2], values.shape[1])
                    sink.write(values, range(1, count + 1), window=window)
                    if alpha or mask:
                        shown = scene.read_mask(
                            (scene.top + top // scale, scene.top + bottom // scale),
                            (scene.left, scene.left + scene.width),
                        )
                        shown = shown.repeat(scale, axis=0).repeat(scale, axis=1)
                        if alpha:
                            sink.write(shown, count + 1, window=window)
                        else:
                            sink.write_mask(shown, window=window)
                    top = bottom
            if cog:
                rasterio.shutil.copy(
                    plain,
                    temporary,
                    driver="COG",
                    compress="deflate",
                    predictor=predictor,
                    blocksize=BLOCK,
                    bigtiff="IF_SAFER",
                    num_threads="all_cpus",
                    overview_resampling="average",
                )
        finally:
            if cog:
                plain.unlink(missing_ok=True)


def _describe_bands(sink: DatasetWriter, scene: Scene) -> None:
    """Scales, offsets, units and tags of the scene's bands; an alpha band after them has none."""
    dataset, bands = scene.dataset, [band - 1 for band in scene.bands]
    more = sink.count - len(bands)
    scales = [*(dataset.scales[band] for band in bands), *[1.0] * more]
    offsets = [*(dataset.offsets[band] for band in bands), *[0.0] * more]
    if not more or set(scales) != {1.0} or set(offsets) != {0.0}:
        sink.scales, sink.offsets = scales, offsets
    for number, band in enumerate(scene.bands, start=1):
        if unit := dataset.units[band - 1]:
            sink.set_band_unit(number, unit)
        kept = {
            key: value
            for key, value in dataset.tags(band).items()
            if not key.startswith("STATISTICS_")
        }
        if kept:
            sink.update_tags(number, **kept)


@contextlib.contextmanager
def _quiet_environment() -> Iterator[None]:
    """GDAL with a bounded cache and masks inside the file; no warning about a missing CRS."""
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
