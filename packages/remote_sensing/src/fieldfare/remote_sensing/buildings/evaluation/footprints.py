# SPDX-License-Identifier: Apache-2.0
"""Compare predicted building outlines with true ones: footprints, tables of SpaceNet."""

from collections.abc import Mapping
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from pyproj import CRS

from fieldfare.common.errors import InputError

from ...vectors.projecting import metric_crs
from .objects import ObjectTally, object_scores
from .reports import Evaluation, Scores

MIN_AREA = 5.0
"""Buildings smaller than this are left out of object metrics, m2."""


def compare_footprints(
    footprints: Mapping[str, gpd.GeoDataFrame],
    truth: gpd.GeoDataFrame,
    *,
    min_area: float = MIN_AREA,
    region: shapely.Geometry | None = None,
    gsd: float = 1.0,
    scene: str = "",
    model: str = "",
    depth: int | None = None,
) -> Evaluation:
    """Compare sets of footprints with true ones, building by building.

    Args:
        footprints: by name (raw, regularised); any CRS; a column `confidence` ranks them.
        truth: any CRS. Each part of a multipolygon is a building.
        min_area: smaller buildings do not count on either side, m2.
        region: polygon in the CRS of the truth that both sides are cut to.
        gsd: metres per unit of the coordinates of a truth without CRS.

    Raises:
        InputError: footprints without CRS where the truth has one, or the other way round.
    """
    crs = truth.crs
    plane = None if crs is None or truth.empty else metric_crs(crs, tuple(truth.total_bounds))
    if crs is not None and truth.empty:
        bounds = [f.to_crs(crs).total_bounds for f in footprints.values() if not f.empty]
        plane = metric_crs(crs, tuple(bounds[0])) if bounds else None
    wanted, _ = _buildings(truth, "labels", crs, plane, region, gsd)
    sets = {}
    for name, frame in footprints.items():
        found, scores = _buildings(frame, name, crs, plane, region, gsd)
        sets[name] = Scores(objects=object_scores(found, wanted, scores, min_area=min_area))
    return Evaluation(scene, sets, model, depth, {"min_area": min_area})


def _buildings(
    frame: gpd.GeoDataFrame,
    name: str,
    crs: CRS | None,
    plane: CRS | None,
    region: shapely.Geometry | None,
    gsd: float,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Valid polygons in metres, cut to the region, with their confidence if known."""
    if (frame.crs is None) != (crs is None):
        without = name if frame.crs is None else "labels"
        raise InputError(f"{without}: have no CRS, so they cannot be compared; assign one first")
    if crs is not None:
        frame = frame.to_crs(crs)
    pieces, first = shapely.get_parts(frame.geometry.to_numpy(), return_index=True)
    geometry, again = shapely.get_parts(sound(pieces), return_index=True)
    owner = first[again]
    if region is not None and len(geometry):
        shapely.prepare(region)
        across = ~shapely.contains_properly(region, geometry)
        geometry[across] = shapely.intersection(geometry[across], region)
    kept = shapely.area(geometry) > 0
    geometry, owner = geometry[kept], owner[kept]
    scores = frame["confidence"].to_numpy(np.float64)[owner] if "confidence" in frame else None
    if plane is not None:
        geometry = gpd.GeoSeries(geometry, crs=crs).to_crs(plane).to_numpy()
    elif crs is None:
        geometry = shapely.transform(geometry, lambda xy: xy * gsd)
    return geometry, scores


def sound(geometry: np.ndarray) -> np.ndarray:
    """2-D, valid; empty where there is none."""
    geometry = np.where(shapely.is_missing(geometry), shapely.Polygon(), geometry)
    geometry = shapely.force_2d(geometry)
    broken = ~shapely.is_valid(geometry)
    geometry[broken] = shapely.make_valid(
        geometry[broken], method="structure", keep_collapsed=False
    )
    return geometry


def compare_spacenet(predicted: Path, truth: Path, *, min_area: float = 20.0) -> list[Evaluation]:
    """Compare two tables of the SpaceNet challenges, one evaluation for each area of interest.

    Args:
        predicted: CSV with ImageId, PolygonWKT_Pix and Confidence.
        truth: CSV with ImageId and PolygonWKT_Pix. Images of which it says nothing do not count.
        min_area: smaller polygons do not count, square pixels.

    Raises:
        InputError: not such a table.
    """
    ours, theirs = _read_spacenet(predicted, True), _read_spacenet(truth, False)
    tallies: dict[str, ObjectTally] = {}
    for image, wanted in theirs.groupby("ImageId"):
        found = ours[ours["ImageId"] == image]
        scored = object_scores(
            found["polygon"].to_numpy(),
            wanted["polygon"].to_numpy(),
            found["Confidence"].to_numpy(np.float64),
            min_area=min_area,
        )
        area = str(image).rsplit("_", 1)[0]
        tallies[area] = tallies[area] + scored if area in tallies else scored
    return [
        Evaluation(
            area, {"footprints": Scores(objects=t)}, settings={"min_area": min_area}, metric=False
        )
        for area, t in tallies.items()
    ]


def _read_spacenet(path: Path, scored: bool) -> pd.DataFrame:
    columns = ["ImageId", "PolygonWKT_Pix", *(["Confidence"] if scored else [])]
    try:
        frame = pd.read_csv(path, usecols=columns)
        frame["polygon"] = sound(shapely.from_wkt(frame["PolygonWKT_Pix"].to_numpy(object)))
    except (ValueError, OSError, shapely.errors.ShapelyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: needs a CSV with {', '.join(columns)} ({reason})") from None
    return frame
