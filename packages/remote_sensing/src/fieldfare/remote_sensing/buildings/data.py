# SPDX-License-Identifier: Apache-2.0
"""Training data: scenes with labels from a table, split by area; random patches from them."""

import csv
import itertools
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import shapely
import torch
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window
from shapely.affinity import affine_transform
from torch import Tensor
from torch.utils.data import Dataset

from fieldfare.common.errors import InputError
from fieldfare.common.training import Draw

from ..raster import Scene, ValueRange, open_raster
from .labels import Labels, edges, read_labels
from .scenes import ground_size, value_range

SPLITS = ("train", "val", "test")
COLUMNS = "image,labels,split,area,window,gsd"


@dataclass(frozen=True)
class LabelledScene:
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
    labels: Labels
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
        """A part, resampled: (rows, columns, bands) uint8 and where it holds data, bool."""
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


def read_table(table: Path, *, bands: int) -> tuple[list[LabelledScene], list[str]]:
    """Read a CSV of scenes: image, labels, split and, optionally, area, window and gsd.

    Paths are relative to the table. `area` is the image's name when empty; `window` is
    "row column height width" in pixels, the whole raster when empty; `gsd`, metres per pixel, is
    needed for rasters without CRS only.

    Args:
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
        scene = _labelled_scene(table, number, row, bands)
        scenes.append(scene)
        messages += [text for text in scene.labels.messages if text not in messages]
    check_areas(scenes)
    return scenes, messages


def _labelled_scene(table: Path, number: int, row: dict[str, str], bands: int) -> LabelledScene:
    where = f"{table}, line {number}"
    split = (row["split"] or "").strip()
    if split not in SPLITS:
        raise InputError(f"{where}: split {split!r} must be one of {', '.join(SPLITS)}")
    for name in ("image", "labels"):
        if not (row[name] or "").strip():
            raise InputError(f"{where}: {name} is empty; name a file")
    image = table.parent / row["image"].strip()
    window = _window(where, (row.get("window") or "").split())
    with Scene(image, window=window) as scene:
        if len(scene.bands) < bands:
            raise InputError(f"{image}: has {len(scene.bands)} bands, the network takes {bands}")
        size = ground_size(scene.dataset) or _stated_size(where, image, row.get("gsd"))
        return LabelledScene(
            image=image,
            labels=read_labels(table.parent / row["labels"].strip(), image),
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


def check_areas(scenes: list[LabelledScene]) -> None:
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
            raise InputError(f"{pair}: area {one.area} is in two splits; keep it in one")
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


def _outline(scene: LabelledScene) -> _Outline:
    window = scene.window
    rim = min(1.0, window.height / 4, window.width / 4)
    left, top = window.col_off + rim, window.row_off + rim
    right = window.col_off + window.width - rim
    bottom = window.row_off + window.height - rim
    pixels = shapely.box(left, top, right, bottom)
    with open_raster(scene.image) as dataset:
        crs, a = dataset.crs, dataset.transform
    if crs is None:
        return _Outline(str(scene.image.resolve()), pixels, None)
    placed = affine_transform(pixels, (a.a, a.b, a.d, a.e, a.c, a.f))
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    fine = shapely.segmentize(placed, placed.length / 64)  # straight lines bend on the way
    on_earth = shapely.transform(fine, to_degrees.transform, interleaved=False)
    return _Outline(crs.to_wkt(), placed, on_earth)


def augmentation(patch: int, bands: int) -> A.Compose:
    """Rotation by any angle, mirror images, light, colour, blur, noise and compression.

    Takes image (h, w, bands) uint8 and masks (h, w) float32, both of at least 1.42 patch, and gives
    them with side patch.
    """
    colour = [
        A.HueSaturationValue(20, 45, 20, p=0.6),
        A.RGBShift(20, 20, 20, p=0.3),
        A.ToGray(p=0.1),
        A.ImageCompression(quality_range=(50, 95), p=0.2),
    ]
    return A.Compose(
        [
            A.Affine(rotate=(-180, 180), border_mode=4, p=0.5),  # 4: reflected, edge not doubled
            A.CenterCrop(patch, patch),
            A.D4(p=1),
            A.RandomBrightnessContrast((-0.25, 0.25), (-0.25, 0.25), p=0.6),
            A.RandomGamma((70, 140), p=0.3),
            *(colour if bands == 3 else []),
            A.OneOf([A.GaussianBlur(blur_limit=(3, 5)), A.Sharpen()], p=0.2),
            A.GaussNoise(std_range=(0.01, 0.05), p=0.2),
        ]
    )


def seed_each(augment: A.BaseCompose, rng: np.random.Generator) -> None:
    """Seed every transform for itself.

    `set_random_seed` gives all of them one seed, and with it one answer to whether they apply: a
    patch would get either no change of light and colour at all or every one.
    """
    augment.set_random_seed(int(rng.integers(2**31)))
    for transform in augment.transforms:
        if isinstance(transform, A.BaseCompose):
            seed_each(transform, rng)
        else:
            transform.set_random_seed(int(rng.integers(2**31)))


class PatchDataset(Dataset[dict[str, Tensor]]):
    """Random patches at a common ground sampling distance, augmented.

    Indexed with a `Draw`; everything random comes from it. One epoch is as many patches as cover
    the scenes once.

    Args:
        scenes: whose places are drawn in proportion to their ground.
        gsd: metres per pixel of the patches.
        patch: side in pixels.
        outputs: `building` and, optionally, `edge`: channels of the truth.
        zoom: patches are read at a ground sampling distance up to this factor finer or coarser.
    """

    def __init__(
        self,
        scenes: list[LabelledScene],
        *,
        gsd: float,
        patch: int,
        outputs: tuple[str, ...],
        zoom: float = 1.6,
    ) -> None:
        if not scenes:
            raise InputError("the table has no scene in the split train")
        self.scenes, self.gsd, self.patch, self.outputs = scenes, gsd, patch, outputs
        self.zoom = zoom
        self.augment = augmentation(patch, len(scenes[0].bands))
        self.index: list[int] = []
        for number, scene in enumerate(scenes):
            height, width = (scene.window.height, scene.window.width)
            ground = height * scene.gsd[1] * width * scene.gsd[0]
            self.index += [number] * max(1, round(ground / (patch * gsd) ** 2))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        rng = draw.rng()
        scene = self.scenes[self.index[draw.index]]
        side = math.ceil(self.patch * 1.42)
        zoom = math.exp(rng.uniform(-1, 1) * math.log(self.zoom))
        metres = side * self.gsd * zoom
        window = scene.window
        height = min(metres / scene.gsd[1], window.height)
        width = min(metres / scene.gsd[0], window.width)
        top = window.row_off + rng.random() * (window.height - height)
        left = window.col_off + rng.random() * (window.width - width)
        shape = (
            max(1, round(height * scene.gsd[1] / self.gsd / zoom)),
            max(1, round(width * scene.gsd[0] / self.gsd / zoom)),
        )
        image, valid = scene.read(top, left, height, width, shape)
        instances = scene.labels.instances(top, left, height, width, shape)
        if min(shape) < side:  # a scene smaller than this is continued by reflection, all around
            pad = [((side - length) // 2, (side - length + 1) // 2) for length in shape]
            image = np.pad(image, (*pad, (0, 0)), mode="symmetric")
            valid, instances = (np.pad(a, pad, mode="symmetric") for a in (valid, instances))
        seed_each(self.augment, rng)
        found = self.augment(
            image=image, masks=[instances.astype(np.float32), valid.astype(np.float32)]
        )
        numbers, known = found["masks"]
        truth = truth_maps(numbers.round().astype(np.int32), self.outputs)
        return {
            "image": torch.from_numpy(found["image"].transpose(2, 0, 1).copy()).float() / 255,
            "truth": torch.from_numpy(truth),
            "weight": torch.from_numpy((known > 0.5).astype(np.float32)),
        }


def truth_maps(instances: np.ndarray, outputs: tuple[str, ...]) -> np.ndarray:
    """(h, w) building numbers -> (outputs, h, w) float32 of 0 and 1."""
    maps = {"building": lambda: instances > 0, "edge": lambda: edges(instances)}
    return np.stack([maps[name]() for name in outputs]).astype(np.float32)
