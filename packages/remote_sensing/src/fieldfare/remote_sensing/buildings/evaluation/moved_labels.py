# SPDX-License-Identifier: Apache-2.0
"""Labels moved to where a model sees their buildings, all alike."""

import geopandas as gpd
import shapely

from ...vectors.projecting import metric_crs
from .label_shift import Shift, label_shift


def moved_labels(
    seen: gpd.GeoDataFrame, labels: gpd.GeoDataFrame, *, gsd: float | None = None
) -> tuple[Shift, gpd.GeoDataFrame] | None:
    """By how much labels lie off what a model sees, if that is sure, and the labels without it.

    Args:
        seen: outlines as found, not squared, in the CRS of the labels.
        labels: true buildings.
        gsd: metres per unit of the coordinates of labels without CRS.

    Returns:
        None where too few buildings match, or the shift may be chance (`Shift.sure`).
    """
    crs = labels.crs
    if seen.empty or labels.empty or (crs is None and gsd is None):
        return None
    unit = 1.0 if gsd is None else gsd
    plane = metric_crs(crs, tuple(labels.total_bounds))
    found, truth = (
        (frame.geometry.to_crs(plane).values if plane else frame.geometry.values)
        for frame in (seen, labels)
    )
    found, truth = (shapely.transform(each, lambda xy: xy * unit) for each in (found, truth))
    shift = label_shift(found, truth)
    if shift is None or not shift.sure:
        return None
    offset = (shift.dx_east_m, shift.dy_north_m)
    back = shapely.transform(truth, lambda xy: (xy - offset) / unit)
    moved = gpd.GeoDataFrame(geometry=back, crs=plane)
    return shift, moved if crs is None else moved.to_crs(crs)
