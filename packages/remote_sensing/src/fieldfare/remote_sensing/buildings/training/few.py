# SPDX-License-Identifier: Apache-2.0
"""A few labelled roofs of one scene as training data; most of its roofs have no label.

What has no label is unknown, not background. Known are the labelled roofs; a rim around each, but
where the model sees another roof; and, of what lies near, the ground where the model is sure that
there is none: pseudo-labels (Lee 2013, "Pseudo-Label: The Simple and Efficient Semi-Supervised
Learning Method for Deep Neural Networks"). Roofs of which it is sure are left unknown: it draws
neighbours as one, and would learn to (object F1 0.23 instead of 0.28 on the validation scene).

Few labels lead a good model astray: a quarter of the change is kept (`stay_near`).
"""

import dataclasses
import math

import numpy as np
import rasterio.features
import shapely
import torch
from affine import Affine
from rasterio.windows import Window
from scipy import ndimage

from fieldfare.common.errors import InputError

from ..data.labels import Labels
from ..data.table import LabelledScene
from ..networks.building_network import BuildingNetwork

SURE = 0.15
"""Building probability under which the model's own answer, background, is taken for a label."""

RIM_M = 1.5
"""Width of the rim around a labelled roof, metres."""

KEPT = 0.25
"""Share of what training changes that is kept. On the validation scene object F1 is then 0.29 (all
of it 0.18, half 0.25, none 0.27), building IoU 0.515 (0.357, 0.510, 0.499)."""

LINE = 2
"""Pixels next to a labelled roof that are background whatever the model sees."""


def around_roofs(
    scene: LabelledScene, network: BuildingNetwork, *, side: int
) -> list[LabelledScene]:
    """The parts of a scene around its labelled roofs, with what is known there.

    Args:
        network: to be trained; it tells what is surely no roof.
        side: of a part in pixels of the network; more where a roof is larger.

    Raises:
        InputError: no roof is labelled.
    """
    network.eval()
    parts = [
        dataclasses.replace(scene, window=window, labels=_known(scene, window, network))
        for window in _windows(scene, side * network.config.gsd)
    ]
    if not parts:
        raise InputError(f"{scene.image}: no roof is labelled; a few are needed")
    return parts


@torch.no_grad()
def stay_near(network: BuildingNetwork, start: BuildingNetwork) -> None:
    """Take a trained network's weights back towards those that it started from, but for `KEPT`.

    Source: Wortsman et al. 2022, arXiv 2109.01903, eq. 1.
    """
    before = start.state_dict()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.lerp(before[name].to(tensor), tensor, KEPT))


def _windows(scene: LabelledScene, metres: float) -> list[Window]:
    """Around each roof, but for those that lie well inside the window of an earlier one."""
    found: list[Window] = []
    inner: list[shapely.Polygon] = []
    for left, top, right, bottom in shapely.bounds(scene.labels.polygons):
        if any(part.covers(shapely.box(left, top, right, bottom)) for part in inner):
            continue
        width = max(metres / scene.gsd[0], 1.5 * (right - left))
        height = max(metres / scene.gsd[1], 1.5 * (bottom - top))
        columns = _span((left + right) / 2, width, scene.window.col_off, scene.window.width)
        rows = _span((top + bottom) / 2, height, scene.window.row_off, scene.window.height)
        found.append(Window(columns[0], rows[0], columns[1] - columns[0], rows[1] - rows[0]))
        middle = shapely.box(columns[0], rows[0], columns[1], rows[1])
        inner.append(shapely.affinity.scale(middle, 0.5, 0.5))
    return found


def _span(middle: float, length: float, first: float, whole: float) -> tuple[int, int]:
    """A stretch about a place, moved to lie within the whole; in whole pixels."""
    length = min(math.ceil(length), int(whole))
    start = min(max(round(middle - length / 2), int(first)), int(first + whole) - length)
    return start, start + length


def _known(scene: LabelledScene, window: Window, network: BuildingNetwork) -> Labels:
    """The labelled roofs, and where nothing is known in a window."""
    gsd = network.config.gsd
    place = (window.row_off, window.col_off, window.height, window.width)
    shape = (
        max(1, round(window.height * scene.gsd[1] / gsd)),
        max(1, round(window.width * scene.gsd[0] / gsd)),
    )
    image, valid = scene.read(*place, shape)
    given = scene.labels.instances(*place, shape) > 0
    seen = _probability(network, image)
    away = ndimage.distance_transform_edt(~given) if given.any() else np.full(shape, np.inf)
    background = (seen < SURE) | (away <= LINE) | ((away <= RIM_M / gsd) & (seen < 0.5))
    pixels = Affine(
        window.width / shape[1], 0, window.col_off, 0, window.height / shape[0], window.row_off
    )
    unknown = _regions(valid & ~given & ~background, pixels)
    hidden = np.concatenate((scene.labels.unknown, unknown))
    return Labels(scene.labels.polygons, unknown=hidden)


@torch.inference_mode()
def _probability(network: BuildingNetwork, image: np.ndarray) -> np.ndarray:
    """(h, w, bands) uint8 -> building probability (h, w)."""
    device = next(network.parameters()).device
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].to(device)
    found: np.ndarray = torch.sigmoid(network(pixels.float() / 255)[0, 0]).cpu().numpy()
    return found


def _regions(mask: np.ndarray, transform: Affine) -> np.ndarray:
    """Outlines of connected pixels, placed."""
    shapes = rasterio.features.shapes(mask.astype(np.uint8), mask=mask, transform=transform)
    found = [shapely.geometry.shape(geometry) for geometry, _ in shapes]
    return np.array(found, object) if found else np.empty(0, object)
