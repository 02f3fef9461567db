# SPDX-License-Identifier: Apache-2.0
"""How far labels lie from what is seen (off-nadir imagery), and labels displaced on purpose."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import rasterio.features
import shapely
import torch
from affine import Affine
from scipy import ndimage, signal

from fieldfare.common.errors import InputError

from ..data.labels import Labels
from ..data.table import LabelledScene
from ..networks.building_network import BuildingNetwork

REACH = 10.0
"""Metres: larger shifts are not looked for."""

CELL = 0.5
"""Metres: grid of the coarse search."""

LEAST = 0.5
"""Metres: smaller shifts are not worth a word."""

BLOCK = 256.0
"""Metres: side of what is correlated at once."""

MIN_PAIRS = 5
ENOUGH = 20
"""Pairs from which on a shift may be called sure: of fewer, a few wrong ones make the median."""

TILE, MARGIN = 512, 64


@dataclass(frozen=True)
class Shift:
    """Where labels lie, seen from the predictions: median over pairs of the same building.

    Attributes:
        dx_east_m, dy_north_m: medians of the differences of centroids.
        distance_m: of the two together.
        direction: compass bearing in degrees, 0 north, 90 east.
        spread_east_m, spread_north_m: between the quartiles; a spread as large as the distance says
            that the labels do not lie off by one common shift.
        pairs: buildings it rests on.
    """

    dx_east_m: float
    dy_north_m: float
    distance_m: float
    direction: float
    spread_east_m: float
    spread_north_m: float
    pairs: int

    @property
    def sure(self) -> bool:
        """Whether it rests on ENOUGH pairs and is larger than LEAST and than three standard errors
        of a median."""
        spread = math.hypot(self.spread_east_m, self.spread_north_m)
        least = max(LEAST, 3 * 0.93 * spread / math.sqrt(self.pairs))
        return self.pairs >= ENOUGH and self.distance_m > least


def label_shift(predicted: np.ndarray, labels: np.ndarray, *, reach: float = REACH) -> Shift | None:
    """The common offset of labels from predictions.

    First the shift at which the two cover each other best is looked for on a grid of CELL metres,
    which no merged or missing building leads astray; then predictions and labels that overlap with
    an IoU above 0.5 once the labels are moved back give the median offset of their centroids.

    A network trained on shifted labels predicts with the same shift and shows none here: take one
    that was trained or adapted on clean labels.

    Args:
        predicted, labels: shapely polygons, x metres to the east, y metres to the north.
        reach: largest shift looked for, along each axis, metres.

    Returns:
        The shift; None with fewer than MIN_PAIRS pairs.
    """
    if min(len(predicted), len(labels)) < MIN_PAIRS:
        return None
    shift = _coarse_shift(predicted, labels, reach)
    tree = shapely.STRtree(predicted)
    for _ in range(3):  # pairs depend on the shift, which the pairs improve
        offsets = _pair_offsets(predicted, tree, labels, shift)
        if len(offsets) < MIN_PAIRS:
            return None
        shift = np.median(offsets, axis=0)
    low, high = np.percentile(offsets, (25, 75), axis=0)
    east, north = (float(value) for value in shift)
    return Shift(
        dx_east_m=east,
        dy_north_m=north,
        distance_m=math.hypot(east, north),
        direction=math.degrees(math.atan2(east, north)) % 360,
        spread_east_m=float(high[0] - low[0]),
        spread_north_m=float(high[1] - low[1]),
        pairs=len(offsets),
    )


def _coarse_shift(predicted: np.ndarray, labels: np.ndarray, reach: float) -> np.ndarray:
    """Offset (east, north) of the largest covariance of the two masks, to half a cell."""
    lags = math.ceil(reach / CELL)
    rim = lags * CELL
    left, bottom, right, top = shapely.total_bounds(predicted)
    trees = [shapely.STRtree(predicted), shapely.STRtree(labels)]
    total = np.zeros((2 * lags + 1, 2 * lags + 1))
    for north in np.arange(top, bottom, -BLOCK):
        for west in np.arange(left, right, BLOCK):
            seen = _mask(predicted, trees[0], west, north, BLOCK)
            if not seen.any():
                continue
            known = _mask(labels, trees[1], west - rim, north + rim, BLOCK + 2 * rim)
            total += signal.correlate(known, seen - seen.mean(), mode="valid", method="fft")
    row, column = np.unravel_index(int(total.argmax()), total.shape)
    return np.array([(column - lags) * CELL, (lags - row) * CELL])


def _mask(
    polygons: np.ndarray, tree: shapely.STRtree, west: float, north: float, side: float
) -> np.ndarray:
    """Cells of a square that polygons cover, (n, n) float32 of 0 and 1, north up."""
    found = tree.query(shapely.box(west, north - side, west + side, north))
    cells = round(side / CELL)
    if not found.size:
        return np.zeros((cells, cells), np.float32)
    result: np.ndarray = rasterio.features.rasterize(
        polygons[found],
        out_shape=(cells, cells),
        transform=Affine(CELL, 0, west, 0, -CELL, north),
        dtype="float32",
    )
    return result


def _pair_offsets(
    predicted: np.ndarray, tree: shapely.STRtree, labels: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """(pairs, 2) metres from predicted to label centroids, of pairs with IoU > 0.5 once moved back.

    Roofs that touch are often predicted as one: a prediction is paired with all labels that lie
    with more than half of their area in it.
    """
    back = shapely.transform(labels, lambda xy: xy - shift)
    label, partner = tree.query(back, predicate="intersects")
    shared = shapely.area(shapely.intersection(back[label], predicted[partner]))
    own = shapely.area(labels)[label]
    kept = shared > own / 2
    label, partner, shared, own = label[kept], partner[kept], shared[kept], own[kept]

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(partner, values, len(predicted))

    area = total(own)
    iou = total(shared) / (shapely.area(predicted) + area - total(shared))
    paired = iou > 0.5
    middle = shapely.get_coordinates(shapely.centroid(labels))[label]
    centre = np.stack([total(own * middle[:, axis]) for axis in (0, 1)], axis=1)[paired]
    seen = shapely.get_coordinates(shapely.centroid(predicted[paired]))
    offsets: np.ndarray = centre / area[paired, None] - seen
    return offsets


def scenes_shift(
    network: BuildingNetwork, scenes: Sequence[LabelledScene], *, reach: float = REACH
) -> Shift | None:
    """The common offset of the labels of scenes from what a network sees there.

    The rasters must be north up, as `LabelledScene` knows no rotation. Buildings cut by the rim of
    a scene are left out.
    """
    predicted, labels, east = [], [], 0.0
    for scene in scenes:
        seen, valid = predicted_mask(network, scene)
        seen &= valid
        window, size = scene.window, np.array(scene.gsd)
        cell = (window.width * size[0] / seen.shape[1], window.height * size[1] / seen.shape[0])
        ground = Affine(cell[0], 0, east, 0, -cell[1], 0)
        predicted.append(outlines(seen & ~_cut_off(seen), ground))
        extra = reach / size
        near = scene.labels.tree.query(
            shapely.box(
                window.col_off - extra[0],
                window.row_off - extra[1],
                window.col_off + window.width + extra[0],
                window.row_off + window.height + extra[1],
            )
        )
        origin = np.array([window.col_off, window.row_off])
        labels.append(
            shapely.transform(
                scene.labels.polygons[near],
                lambda xy, origin=origin, size=size, east=east: (
                    (xy - origin) * size * (1, -1) + (east, 0)
                ),
            )
        )
        east += window.width * size[0] + 4 * reach  # scenes beside each other in one plane
    if not predicted:
        return None
    return label_shift(np.concatenate(predicted), np.concatenate(labels), reach=reach)


def _cut_off(mask: np.ndarray) -> np.ndarray:
    """The regions of a mask that touch its rim, (h, w) bool."""
    numbers, _ = ndimage.label(mask)
    rim = np.concatenate([numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]])
    return np.isin(numbers, rim[rim > 0])


def outlines(regions: np.ndarray, ground: Affine) -> np.ndarray:
    """Polygons of the connected pixels of equal value in a map (h, w), where it is not 0."""
    values = regions.astype(np.int32)
    shapes = rasterio.features.shapes(values, mask=values != 0, transform=ground)
    return np.array([shapely.geometry.shape(geometry) for geometry, _ in shapes], object)


@torch.inference_mode()
def predicted_mask(network: BuildingNetwork, scene: LabelledScene) -> tuple[np.ndarray, np.ndarray]:
    """Where a network sees buildings (probability above 0.5), and where the scene holds data.

    Tiles of TILE pixels with MARGIN pixels around them; nothing but the two maps is held.

    Returns:
        Two (rows, columns) bool of the scene's window at the model's pixel size.
    """
    window, gsd = scene.window, network.config.gsd
    device = next(network.parameters()).device
    shape = (
        max(1, round(window.height * scene.gsd[1] / gsd)),
        max(1, round(window.width * scene.gsd[0] / gsd)),
    )
    down, across = window.height / shape[0], window.width / shape[1]
    seen, valid = np.zeros(shape, bool), np.zeros(shape, bool)
    network.eval()
    for top in range(0, shape[0], TILE):
        for left in range(0, shape[1], TILE):
            rows = (max(0, top - MARGIN), min(shape[0], top + TILE + MARGIN))
            columns = (max(0, left - MARGIN), min(shape[1], left + TILE + MARGIN))
            size = (rows[1] - rows[0], columns[1] - columns[0])
            image, known = scene.read(
                window.row_off + rows[0] * down,
                window.col_off + columns[0] * across,
                size[0] * down,
                size[1] * across,
                size,
            )
            pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].to(device)
            found = (network(pixels.float() / 255)[0, 0] > 0).cpu().numpy()
            core = np.s_[
                top - rows[0] : top - rows[0] + TILE, left - columns[0] : left - columns[0] + TILE
            ]
            seen[top : top + TILE, left : left + TILE] = found[core]
            valid[top : top + TILE, left : left + TILE] = known[core]
    return seen, valid


def displace(
    labels: Labels,
    gsd: tuple[float, float],
    *,
    shift_m: tuple[float, float],
    drop: float,
    seed: int,
) -> Labels:
    """Labels made wrong by a known amount: all shifted, some left out.

    Args:
        labels: in pixels of a raster that is north up.
        gsd: metres per pixel of that raster (x, y).
        shift_m: metres to the east and to the north.
        drop: share of the labels that is left out, 0 to 1, rounded to whole labels.

    Raises:
        InputError: a share outside 0 to 1.
    """
    if not 0 <= drop <= 1:
        raise InputError(f"share of labels to leave out: {drop} is not between 0 and 1")
    count = len(labels.polygons)
    kept = np.random.default_rng(seed).permutation(count)[round(drop * count) :]
    move = np.array([shift_m[0] / gsd[0], -shift_m[1] / gsd[1]])
    return Labels(shapely.transform(labels.polygons[np.sort(kept)], lambda xy: xy + move))
