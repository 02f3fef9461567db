# SPDX-License-Identifier: Apache-2.0
"""Orchards made in code: dark discs on bright ground, with boxes or points as labels."""

import csv
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
import torch
from rasterio import Affine
from sample_rasters import write_raster

from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.remote_sensing.detection.inference.predict import Detections
from fieldfare.remote_sensing.detection.networks.leyolo import DetectorConfig, LeYOLO
from fieldfare.remote_sensing.detection.networks.models import TASK
from fieldfare.remote_sensing.scenes.ground import placed

GSD = 0.3
RADIUS = 10


@dataclass(frozen=True)
class Orchard:
    """Attributes: image, labels: files; middles: (N, 2) x and y in pixels."""

    image: Path
    labels: Path
    middles: np.ndarray


def draw(middles: np.ndarray, height: int, width: int) -> np.ndarray:
    """(3, height, width) uint8 with a green disc of RADIUS at each of some places."""
    y, x = np.mgrid[:height, :width] + 0.5
    image = np.full((3, height, width), 180, np.uint8)
    for here in middles:
        disc = (x - here[0]) ** 2 + (y - here[1]) ** 2 <= RADIUS**2
        image[:, disc] = np.array([40, 90, 30], np.uint8)[:, None]
    return image


def write_orchard(
    folder: Path,
    *,
    name: str = "orchard",
    middles: np.ndarray | None = None,
    size: tuple[int, int] = (160, 224),
    east: float = 500_000.0,
    labels: str = "geojson",
    points: bool = False,
    crs: str | None = "EPSG:32611",
) -> Orchard:
    """A raster of GSD metres per pixel and its labels, boxes unless points are asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    if middles is None:
        middles = np.array([(30, 30), (90, 44), (150, 110), (200, 60), (64, 128)], float)
    transform = Affine(GSD, 0, east, 0, -GSD, 4_000_000)
    image = write_raster(folder / f"{name}.tif", draw(middles, *size), crs=crs, transform=transform)
    r = RADIUS
    shapes = shapely.points(middles)
    if not points:
        shapes = np.array([shapely.box(x - r, y - r, x + r, y + r) for x, y in middles], object)
    path = folder / f"{name}.{labels}"
    if labels == "csv":
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([("image", "x", "y"), *((image.name, x, y) for x, y in middles)])
    else:
        frame = gpd.GeoDataFrame(
            {"class": ["tree"] * len(shapes)}, geometry=placed(shapes, transform), crs=crs
        )
        frame.to_file(path)
    return Orchard(image, path, middles)


def write_table(path: Path, *rows: dict[str, object]) -> Path:
    """A table of scenes."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(orchard: Orchard, split: str, **more: object) -> dict[str, object]:
    """An orchard's row of a table."""
    return {"image": orchard.image, "labels": orchard.labels, "split": split, **more}


def save_tiny(path: Path, **more: object) -> Path:
    """A detector of random weights, an eighth as wide as Nano, as a model file."""
    config = DetectorConfig(**{"classes": ("tree",), "width": 0.125, "threshold": 0.01, **more})
    torch.manual_seed(0)
    network = LeYOLO(config)
    with torch.no_grad():
        for branch in network.get_submodule("layer35").cv3:
            branch[-1].bias.fill_(-1.0)
            branch[-1].weight.mul_(20)
    card = ModelCard(path.stem, TASK, "Random weights.", config.to_dict())
    save_model_file(path, network.state_dict(), card)
    return path


class Discs:
    """Takes the place of a predictor: finds the discs of `draw`, each as a box of 2 RADIUS.

    What it finds depends on the pixels of the disc alone, whatever tile it is seen in. Discs cut by
    the rim of a tile give a box off their middle.
    """

    config = DetectorConfig(classes=("tree",), gsd=GSD, threshold=0.5, nms=0.3)
    batch = 2
    knowledge = colours = None

    def __call__(self, tiles: np.ndarray, least: float) -> list[Detections]:
        from scipy import ndimage

        found = []
        for tile in tiles:
            parts, count = ndimage.label(tile[2] < 0.3)
            sizes = ndimage.sum_labels(tile[2] < 0.3, parts, range(1, count + 1))
            y, x = (
                np.array(ndimage.center_of_mass(parts > 0, parts, range(1, count + 1)))
                .reshape(-1, 2)
                .T
                + 0.5
            )
            boxes = np.column_stack((x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS))
            scores = np.minimum(0.99, 0.6 + sizes / 1000)
            found.append(Detections(boxes, scores, np.zeros(count, np.int64)))
        return found
