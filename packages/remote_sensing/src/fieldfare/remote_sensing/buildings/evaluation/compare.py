# SPDX-License-Identifier: Apache-2.0
"""Compare predicted buildings with true ones on rasters: masks, whole scenes."""

import math
from collections.abc import Iterator, Mapping
from functools import reduce
from operator import add
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio.features
import shapely
from pyproj import CRS
from rasterio.io import DatasetReader
from rasterio.windows import Window

from fieldfare.common.errors import InputError

from ...rasters.georeference import distance, georeference_of
from ...rasters.opening import open_raster
from ...scenes.ground import ground_size, placed
from ...scenes.preview import to_pixels
from ..data.labels import Labels
from ..inference.footprints import FULL, MISSING
from .footprints import MIN_AREA, compare_footprints, sound
from .metrics import Inner
from .panels import draw, mask_panels, present, scene_panels
from .pixel_tally import PixelTally, tally
from .reports import Evaluation, Scores

RHO = 3
"""Tolerance in pixels of the relaxed measures, as published for the Massachusetts buildings."""

BOUNDARY_M = 1.0
"""Width in metres of the bands that boundary IoU compares on scenes."""

BLOCK = 2048


def compare_masks(
    predicted: Path,
    truth: Path,
    *,
    threshold: float = 0.5,
    rho: int = RHO,
    boundary_px: int = RHO,
    model: str = "",
) -> list[Evaluation]:
    """Compare rasters pixel by pixel: two files, or two folders of files with the same stems.

    Args:
        predicted: uint8. Masks of 0 and 1, or probabilities: 0 .. 255, or as `rs-buildings infer
            --prob` writes them. Files are taken as masks if none holds a value above 1; masks have
            no curves and no break-even.
        truth: masks; not 0 is building.
        threshold: least probability of a building.
        rho: tolerance of the relaxed measures, pixels.
        boundary_px: width of the bands of boundary IoU, pixels.

    Returns:
        One evaluation for each pair; `table` adds the pooled row.

    Raises:
        InputError: a missing partner, sizes that differ, or predictions that are not uint8.
    """
    pairs = _pairs(predicted, truth)
    is_mask = max(_highest(path) for path, _ in pairs) <= 1
    settings = {"threshold": threshold, "rho": rho, "boundary_px": boundary_px}
    evaluations = []
    for ours, theirs in pairs:
        with open_raster(ours) as source, open_raster(theirs) as wanted:
            if source.shape != wanted.shape:
                sizes = [f"{d.width} x {d.height}" for d in (source, wanted)]
                raise InputError(f"{ours}: has {sizes[0]} pixels, but {theirs} {sizes[1]}")
            places = (georeference_of(source), georeference_of(wanted))
            if away := distance(*places, source.shape):
                raise InputError(f"{ours}: lies {away}, as seen from {theirs}; name its own truth")
            full = 1 if is_mask else _full(source)
            parts = []
            for outer, inner in _blocks(source.shape, max(rho, boundary_px)):
                levels, valid = source.read(1, window=outer), present(wanted, outer)
                parts.append(
                    tally(
                        levels >= threshold * full,
                        wanted.read(1, window=outer) != 0,
                        valid & present(source, outer),
                        rho=rho,
                        boundary_px=boundary_px,
                        levels=None if is_mask else levels,
                        full=full,
                        inner=inner,
                    )
                )
            panels = mask_panels(source, wanted, threshold * full)
        sets = {"pixels": Scores(reduce(add, parts))}
        evaluations.append(
            Evaluation(ours.stem, sets, model, settings=dict(settings), panels=panels)
        )
    return evaluations


def _pairs(predicted: Path, truth: Path) -> list[tuple[Path, Path]]:
    if not predicted.is_dir() and not truth.is_dir():
        return [(predicted, truth)]
    files: list[dict[str, Path]] = []
    for folder in (predicted, truth):
        if not folder.is_dir():
            raise InputError(f"{folder}: is no folder; give two files or two folders")
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".tif", ".tiff", ".png"))
        files.append({path.stem: path for path in found})
    if not files[0]:
        raise InputError(f"{predicted}: holds no .tif or .png")
    for stem, path in files[0].items():
        if stem not in files[1]:
            raise InputError(f"{path}: {truth} holds no {stem}.tif or {stem}.png to compare with")
    for stem, path in files[1].items():
        if stem not in files[0]:
            raise InputError(f"{path}: {predicted} holds no {stem}.tif or {stem}.png for it")
    return [(path, files[1][stem]) for stem, path in files[0].items()]


def _highest(path: Path) -> int:
    with _open_levels(path) as source:
        return max(
            int(source.read(1, window=outer)[present(source, outer)].max(initial=0))
            for outer, _ in _blocks(source.shape, 0)
        )


def _open_levels(path: Path) -> DatasetReader:
    source = open_raster(path)
    if source.dtypes[0] != "uint8":
        source.close()
        raise InputError(f"{path}: is {source.dtypes[0]}; give uint8, 0 to 255 for 0 to 1")
    return source


def _full(source: DatasetReader) -> int:
    """The level of probability 1: that of `rs-buildings` where 255 is missing, else 255."""
    return FULL if source.nodata == MISSING else 255


def _blocks(shape: tuple[int, int], margin: int) -> Iterator[tuple[Window, Inner]]:
    """Windows that cover a raster with a margin, and the part of each without it."""
    for top in range(0, shape[0], BLOCK):
        for left in range(0, shape[1], BLOCK):
            outer, inner = [], []
            for first, side in zip((top, left), shape, strict=True):
                last = min(first + BLOCK, side)
                start = max(0, first - margin)
                outer.append((start, min(side, last + margin)))
                inner.append(slice(first - start, last - start))
            yield Window.from_slices(*outer), (inner[0], inner[1])


def evaluate_scene(
    probability: Path,
    footprints: Mapping[str, gpd.GeoDataFrame],
    labels: gpd.GeoDataFrame,
    *,
    image: Path | None = None,
    threshold: float = 0.5,
    min_area: float = MIN_AREA,
    gsd: float = 1.0,
    scene: str | None = None,
    model: str = "",
    depth: int | None = None,
) -> Evaluation:
    """Measure a scene: its thresholded probabilities, and sets of footprints pixel by pixel too.

    Args:
        probability: uint8, band 1 as `rs-buildings infer --prob` writes it. Its grid is the one
            that pixels are compared on. Missing pixels do not count, and buildings are cut there.
        footprints: by name (raw, regularised), with a column `confidence`.
        labels: true buildings; taken to be in the raster's CRS if they have none.
        image: the scene, for the picture; the probabilities are shown without.
        threshold: least probability of a building.
        min_area: smaller buildings do not count in object metrics, m2.
        gsd: metres per unit of the coordinates of a raster without CRS.
        scene: name for the tables; the file's by default.

    Raises:
        InputError: not uint8, or a CRS that only one side has.
    """
    with _open_levels(probability) as source:
        size = ground_size(source)
        if size is None:
            size = (gsd * math.sqrt(abs(source.transform.determinant)),) * 2
        boundary_px = max(1, round(BOUNDARY_M / math.sqrt(size[0] * size[1])))
        full, crs = _full(source), CRS.from_user_input(source.crs) if source.crs else None
        if labels.crs is None and crs is not None:
            labels = labels.set_crs(crs)
        drawn = {
            name: Labels(sound(to_pixels(frame, source.crs, source.transform)))
            for name, frame in {"": labels, **footprints}.items()
        }
        parts: dict[str, list[PixelTally]] = {name: [] for name in ("pixels", *footprints)}
        missing: list[shapely.Geometry] = []
        for outer, inner in _blocks(source.shape, max(RHO, boundary_px)):
            levels, valid = source.read(1, window=outer), present(source, outer)
            masks = {name: draw(polygons, outer) for name, polygons in drawn.items()}
            truth = masks.pop("")
            for name, mask in {"pixels": levels >= threshold * full, **masks}.items():
                pixels = name == "pixels"
                parts[name].append(
                    tally(
                        mask,
                        truth,
                        valid,
                        rho=RHO,
                        boundary_px=boundary_px,
                        levels=levels if pixels else None,
                        full=full,
                        inner=inner,
                    )
                )
            missing += _missing(valid[inner], outer, inner)
        region = shapely.box(0, 0, source.width, source.height)
        region = shapely.difference(region, shapely.union_all(missing))
        region = placed(region, source.transform)
        panels = scene_panels(source, threshold * full, drawn, image)
    objects = compare_footprints(
        footprints, labels.to_crs(crs) if crs else labels, min_area=min_area, region=region, gsd=gsd
    )
    sets = {
        name: Scores(reduce(add, tallies), objects.sets.get(name, Scores()).objects)
        for name, tallies in parts.items()
    }
    settings = {"threshold": threshold, "rho": RHO, "boundary_px": boundary_px}
    settings |= objects.settings
    return Evaluation(
        probability.stem if scene is None else scene,
        sets,
        model,
        depth,
        settings,
        panels=panels,
    )


def _missing(valid: np.ndarray, outer: Window, inner: Inner) -> list[shapely.Geometry]:
    """Outlines of missing pixels, in pixels of the raster."""
    if valid.all():
        return []
    corner = (outer.col_off + inner[1].start, outer.row_off + inner[0].start)
    shapes = rasterio.features.shapes((~valid).view(np.uint8), mask=~valid)
    polygons = [shapely.geometry.shape(shape) for shape, _ in shapes]
    return list(shapely.transform(np.array(polygons, object), lambda xy: xy + corner))
