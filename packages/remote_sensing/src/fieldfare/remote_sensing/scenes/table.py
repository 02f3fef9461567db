# SPDX-License-Identifier: Apache-2.0
"""The table of labelled scenes: reading it, and that no ground lies in two splits."""

import csv
import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import shapely
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window

from fieldfare.common.errors import InputError

from ..rasters.georeference import georeference_of
from ..rasters.opening import open_raster
from ..rasters.reading import Scene, ValueRange
from .ground import ground_size, placed, value_range

IMAGES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".vrt")
"""Suffixes that are looked for in folders."""

SPLITS = ("train", "val", "test")
COLUMNS = "image,labels,split,area,window,gsd,layer"


class SceneLabels(Protocol):
    """What a table needs of the labels of a raster."""

    @property
    def messages(self) -> tuple[str, ...]:
        """What was done to them, for people."""

    def known(
        self, top: float, left: float, height: float, width: float, shape: tuple[int, int]
    ) -> np.ndarray:
        """Where in a window, in pixels of the raster, something is known: (rows, columns) bool."""


L = TypeVar("L", bound=SceneLabels)

ReadLabels = Callable[[Path, Path, str | None], L]
"""From a file of labels, its raster and the layer of a file with several."""


@dataclass(frozen=True)
class LabelledScene(Generic[L]):
    """One row of the table: a part of a raster with its labels.

    Attributes:
        image: raster.
        window: in pixels of the raster.
        split: one of `SPLITS`.
        area: places of one name lie in one split.
        gsd: metres per pixel (x, y).
        values: seen as 0 and 1.
    """

    image: Path
    labels: L
    split: str
    area: str
    window: Window
    bands: tuple[int, ...]
    gsd: tuple[float, float]
    values: ValueRange
    handles: dict[int, DatasetReader] = field(default_factory=dict, compare=False, repr=False)

    @property
    def identity(self) -> list[Any]:
        """What tells it from another scene, for comparing runs."""
        window = [self.window.row_off, self.window.col_off, self.window.height, self.window.width]
        return [self.image.name, self.split, [int(side) for side in window], self.gsd]

    def read(
        self, top: float, left: float, height: float, width: float, shape: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """A part, resampled: (rows, columns, bands) uint8 and where it and its labels are known."""
        dataset = self._dataset()
        window = Window(left, top, width, height)
        finer = height > shape[0]
        image = dataset.read(
            self.bands,
            window=window,
            out_shape=(len(self.bands), *shape),
            resampling=Resampling.average if finer else Resampling.bilinear,
        )
        valid = dataset.dataset_mask(window=window, out_shape=shape) > 0
        valid &= np.isfinite(image).all(axis=0)  # NaN that no nodata value tells of
        valid &= self.labels.known(top, left, height, width, shape)
        scaled = (image.astype(np.float32) - self.values.low) / (self.values.high - self.values.low)
        pixels = (np.nan_to_num(scaled).clip(0, 1) * 255).round().astype(np.uint8)
        return np.ascontiguousarray(pixels.transpose(1, 2, 0)), valid

    def _dataset(self) -> DatasetReader:
        """Opened once a process: GDAL's handles do not survive a fork."""
        if os.getpid() not in self.handles:
            self.handles.clear()
            self.handles[os.getpid()] = open_raster(self.image)
        return self.handles[os.getpid()]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "handles": {}}


def read_table(
    table: Path, read_labels: ReadLabels[L], suffixes: Sequence[str], *, bands: int
) -> tuple[list[LabelledScene[L]], list[str]]:
    """Read a CSV of scenes: image, labels, split and, optionally, area, window, gsd and layer.

    Paths are relative to the table; an image may be a folder of images, whose labels are a folder
    of files with the same stems or one COCO file. `area` is the image's name when empty; `window`
    is "row column height width" in pixels, the whole raster when empty; `gsd`, metres per pixel, is
    needed for rasters without CRS only; `layer` is that of labels with several.

    Args:
        suffixes: of labels that are looked for in folders.
        bands: how many the network takes; the first ones besides alpha are used.

    Returns:
        The scenes, and what was done to their labels, in words.

    Raises:
        InputError: an unreadable row, or an area that lies in two splits, by name or on the ground.
    """
    if not table.is_file():
        raise InputError(f"{table}: no such file; give a CSV with the columns {COLUMNS}")
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: not a CSV in UTF-8 ({error})") from None
    if not rows or not {"image", "labels", "split"} <= set(rows[0]):
        raise InputError(f"{table}: needs a header and rows with the columns {COLUMNS}")
    scenes, messages = [], []
    for number, row in enumerate(rows, start=2):
        for image, labels in _pairs(table, number, row, suffixes):
            where = f"{table}, line {number}"
            scene = _labelled_scene(where, image, labels, row, read_labels, bands)
            scenes.append(scene)
            messages += [text for text in scene.labels.messages if text not in messages]
    check_areas(scenes)
    return scenes, messages


def read_scene(
    image: Path, labels: Path, read_labels: ReadLabels[L], *, bands: int
) -> tuple[LabelledScene[L], list[str]]:
    """One scene for training, without a table, and what was done to its labels.

    Raises:
        InputError: as of `read_table`.
    """
    scene = _labelled_scene(str(image), image, labels, {"split": "train"}, read_labels, bands)
    return scene, list(scene.labels.messages)


def _pairs(
    table: Path, number: int, row: dict[str, str], suffixes: Sequence[str]
) -> list[tuple[Path, Path]]:
    """Images and labels of a row: two files, or a folder of images with labels of the same stems
    in another folder, or in one COCO file."""
    for name in ("image", "labels"):
        if not (row[name] or "").strip():
            raise InputError(f"{table}, line {number}: {name} is empty; name a file or a folder")
    image, labels = (table.parent / row[name].strip() for name in ("image", "labels"))
    if not image.is_dir():
        return [(image, labels)]
    images = sorted(path for path in image.iterdir() if path.suffix.lower() in IMAGES)
    if not images:
        raise InputError(f"{image}: holds no images ({', '.join('*' + name for name in IMAGES)})")
    if not labels.is_dir():
        return [(path, labels) for path in images]
    found: dict[str, list[Path]] = {}
    for path in sorted(labels.iterdir()):
        if path.suffix.lower() in suffixes:
            found.setdefault(path.stem, []).append(path)
    pairs = []
    for path in images:
        partners = found.get(path.stem, [])
        if len(partners) != 1:
            count = "no" if not partners else "several"
            raise InputError(f"{path}: {labels} holds {count} labels named {path.stem}.*")
        pairs.append((path, partners[0]))
    return pairs


def _labelled_scene(
    where: str,
    image: Path,
    labels: Path,
    row: dict[str, str],
    read_labels: ReadLabels[L],
    bands: int,
) -> LabelledScene[L]:
    split = (row["split"] or "").strip()
    if split not in SPLITS:
        raise InputError(f"{where}: split {split!r} must be one of {', '.join(SPLITS)}")
    window = _window(where, (row.get("window") or "").split())
    with Scene(image, window=window) as scene:
        if len(scene.bands) < bands:
            raise InputError(f"{image}: has {len(scene.bands)} bands, the network takes {bands}")
        size = ground_size(scene.dataset) or _stated_size(where, image, row.get("gsd"))
        return LabelledScene(
            image=image,
            labels=read_labels(labels, image, (row.get("layer") or "").strip() or None),
            split=split,
            area=(row.get("area") or "").strip() or image.stem,
            window=scene.window,
            bands=scene.bands[:bands],
            gsd=size,
            values=value_range(scene, None),
        )


def _window(where: str, numbers: list[str]) -> Window | None:
    if not numbers:
        return None
    try:
        row, column, height, width = (int(number) for number in numbers)
    except ValueError:
        raise InputError(f"{where}: window must be four numbers: row column height width") from None
    if min(row, column) < 0 or min(height, width) < 1:
        raise InputError(f"{where}: window must lie within the raster and hold a pixel")
    return Window(column, row, width, height)


def _stated_size(where: str, image: Path, text: str | None) -> tuple[float, float]:
    if not (text or "").strip():
        raise InputError(f"{image}: has no CRS; state its metres per pixel in the column gsd")
    try:
        size = float(str(text))
    except ValueError:
        size = math.nan
    if not 0 < size < math.inf:
        raise InputError(f"{where}: gsd {text} must be metres per pixel, above 0")
    return size, size


def check_areas(scenes: Sequence[LabelledScene[L]]) -> None:
    """Refuse an area that lies in two splits: scores on ground seen in training mean nothing.

    Raises:
        InputError: two scenes of different splits share a name of area, or ground.
    """
    outlines = [_outline(scene) for scene in scenes]
    pairs = itertools.combinations(zip(scenes, outlines, strict=True), 2)
    for (one, first), (other, second) in pairs:
        if one.split == other.split:
            continue
        pair = f"{one.image.name} ({one.split}) and {other.image.name} ({other.split})"
        if one.area == other.area:
            raise InputError(
                f"{pair}: area {one.area} is in two splits; keep it in one, or tell the places "
                "apart in the column area, which is the image's name where it is empty"
            )
        if first.shares_ground(second):
            raise InputError(f"{pair}: show the same ground; keep it in one split")


@dataclass(frozen=True)
class _Outline:
    """Of a scene, less a rim of a pixel: neighbours may touch.

    Attributes:
        plane: what the coordinates of `here` are in: a CRS, or one file's pixels.
        on_earth: in degrees; None without CRS.
    """

    plane: str
    here: shapely.Polygon
    on_earth: shapely.Polygon | None

    def shares_ground(self, other: "_Outline") -> bool:
        """Whether both show some ground; False where that cannot be known."""
        if self.plane == other.plane:
            return bool(self.here.intersects(other.here))
        if self.on_earth is None or other.on_earth is None:
            return False
        return bool(self.on_earth.intersects(other.on_earth))


def _outline(scene: LabelledScene[L]) -> _Outline:
    window = scene.window
    rim = min(1.0, window.height / 4, window.width / 4)
    left, top = window.col_off + rim, window.row_off + rim
    right = window.col_off + window.width - rim
    bottom = window.row_off + window.height - rim
    pixels = shapely.box(left, top, right, bottom)
    with open_raster(scene.image) as dataset:
        place = georeference_of(dataset)
    crs, transform = place.crs, place.transform
    if crs is None:
        return _Outline(str(scene.image.resolve()), pixels, None)
    here = placed(pixels, transform)
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    fine = shapely.segmentize(here, here.length / 64)  # straight lines bend on the way
    on_earth = shapely.transform(fine, to_degrees.transform, interleaved=False)
    return _Outline(crs.to_wkt(), here, on_earth)
