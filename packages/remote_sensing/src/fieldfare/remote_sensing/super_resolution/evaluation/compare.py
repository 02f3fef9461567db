# SPDX-License-Identifier: Apache-2.0
"""Measure models on a folder of image pairs, bicubic enlargement beside every model."""

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fieldfare.common.errors import InputError
from fieldfare.common.windows import plan, reflect_indices, stream

from ...rasters import scores
from ...rasters.looks import features_of
from ...rasters.opening import open_raster
from ...rasters.pictures import save_sheet
from ..data.reduction import reduce_bicubic
from ..inference.consistency import project
from ..inference.looks import Looks
from ..inference.restore import MARGIN, BicubicRestorer, Restorer, restore_bands
from ..inference.softening import excess, softened
from . import metrics
from .perceptual import FeatureDistance

COLUMNS = ("psnr", "ssim", "lite0", "lr_rmse", "seam")
SHEET_ROWS, SHEET_SIDE = 6, 192


@dataclass(frozen=True)
class Pair:
    """A test image: truth (3, H, W) and input (3, h, w), float32 in [0, 1]."""

    name: str
    high: np.ndarray
    low: np.ndarray


Shown = tuple[Pair, dict[str, np.ndarray]]
"""An image with its restorations by name, for the sheet."""


def find_pairs(folder: Path, scale: int, match: str = "*") -> list[tuple[Path, Path | None]]:
    """Truth and input files of a folder: `hr/` with `lr_x4/` (or the scale's), or truth alone.

    Raises:
        InputError: no such folder, no rasters, or a truth whose input is missing.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    high = folder / "hr" if (folder / "hr").is_dir() else folder
    low = folder / f"lr_x{scale}"
    names = sorted(
        path.name
        for path in high.iterdir()
        if path.suffix.lower() in (".tif", ".tiff", ".png") and fnmatch.fnmatch(path.name, match)
    )
    if not names:
        raise InputError(f"{high}: holds no .tif or .png that matches {match}")
    if not low.is_dir():
        return [(high / name, None) for name in names]
    missing = [name for name in names if not (low / name).exists()]
    if missing:
        raise InputError(f"{low / missing[0]}: missing, but {high / missing[0]} is there")
    return [(high / name, low / name) for name in names]


def read_pair(high_path: Path, low_path: Path | None, scale: int) -> Pair:
    """Read a pair; without an input file the truth is reduced by Pillow's bicubic filter.

    Raises:
        InputError: not uint8, fewer than three bands, or sizes that do not match.
    """
    high = _read_rgb(high_path)
    high = high[: len(high) // scale * scale, : high.shape[1] // scale * scale]
    low = reduce_bicubic(high, scale) if low_path is None else _read_rgb(low_path)
    if (low.shape[0] * scale, low.shape[1] * scale) != high.shape[:2]:
        raise InputError(
            f"{low_path}: is {low.shape[1]} x {low.shape[0]}, not 1/{scale} of {high_path}"
        )
    as_float = [(i.transpose(2, 0, 1) / np.float32(255)).astype(np.float32) for i in (high, low)]
    return Pair(high_path.stem, *as_float)


def _read_rgb(path: Path) -> np.ndarray:
    with open_raster(path) as source:
        if source.count < 3 or source.dtypes[0] != "uint8":
            raise InputError(f"{path}: evaluation needs three bands of uint8")
        image: np.ndarray = source.read((1, 2, 3))
        return image.transpose(1, 2, 0)


def restore(
    low: np.ndarray,
    restorer: Restorer,
    *,
    tile: int = 64,
    overlap: int = 16,
    consistent: bool | None = None,
) -> tuple[np.ndarray, list[list[int]]]:
    """Enlarge an image in memory by the tiles that `rs-sr infer` would take.

    Args:
        low: (3, h, w) in [0, 1].
        consistent: project the result onto the input; all but the bicubic baseline when None.

    Returns:
        (3, H, W), in [0, 1] if consistent, and for each axis the output lines where tiles begin or
        end inside.
    """
    scale = restorer.scale
    tiles = plan(low.shape[1:], tile, overlap)
    result = np.empty((len(low), *(side * scale for side in low.shape[1:])), np.float32)

    def read(start: tuple[int, ...]) -> np.ndarray:
        rows, columns = (
            reflect_indices(first - MARGIN, first + tile + MARGIN, side)
            for first, side in zip(start, low.shape[1:], strict=True)
        )
        return low[:, rows[:, None], columns]

    def predict(batch: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return restore_bands(restorer, batch, starts)

    def write(row: int, block: np.ndarray) -> None:
        result[:, row : row + block.shape[1]] = block

    stream(
        read,
        predict,
        write,
        tiles,
        channels=len(low),
        scale=scale,
        batch=restorer.batch,
        blend="hann",
    )
    if not isinstance(restorer, BicubicRestorer) if consistent is None else consistent:
        result = project(result, low, np.ones(low.shape, bool), (0, 1))
    lines = [
        sorted(
            {
                edge * scale
                for start in axis.starts
                for edge in (start, start + tile)
                if 0 < edge < axis.size
            }
        )
        for axis in tiles.axes
    ]
    return result, lines


def restore_by_default(low: np.ndarray, restorer: Restorer, looks: Looks | None) -> np.ndarray:
    """Enlarge an image (3, h, w) as `rs-sr infer` does without options.

    Args:
        looks: of the model's file; what looks sharpened, noisy or compressed is relieved of the
            sharpening, and the result not held to it.
    """
    if looks:
        signs = looks.estimate(features_of(low)[None])[0]
        if looks.processed(signs):
            relieved = softened(low, excess(float(signs[0]), float(looks.clean[0])))
            return restore(relieved, restorer, consistent=False)[0]
    return restore(low, restorer)[0]


def evaluate(
    pairs: Sequence[tuple[Path, Path | None]],
    contenders: dict[str, Restorer],
    *,
    tile: int = 64,
    overlap: int = 16,
    consistent: bool | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[dict[str, Any]], list[Shown]]:
    """Restore every pair by every contender and measure.

    Args:
        contenders: name -> restorer; all of one scale.
        consistent: of `restore`.

    Returns:
        One row for each image and contender (`image`, `model` and the columns of
        `metrics.DEFINITIONS`), and the first few images with their restorations, for the sheet.
    """
    distance = FeatureDistance("lite0").eval()
    rows: list[dict[str, Any]] = []
    shown: list[Shown] = []
    sheet_every = max(1, len(pairs) // SHEET_ROWS)
    for number, paths in enumerate(pairs):
        pair = read_pair(*paths, scale=next(iter(contenders.values())).scale)
        images = {}
        for name, restorer in contenders.items():
            restored, lines = restore(
                pair.low, restorer, tile=tile, overlap=overlap, consistent=consistent
            )
            image = images[name] = metrics.rounded(restored)
            with torch.inference_mode():
                pair_distance = distance(
                    *(torch.from_numpy(i)[None] for i in (image, pair.high))
                ).item()
            rows.append(
                {
                    "image": pair.name,
                    "model": name,
                    "psnr": metrics.psnr(image, pair.high),
                    "ssim": metrics.ssim(image, pair.high),
                    "lite0": pair_distance,
                    "lr_rmse": metrics.low_resolution_rmse(image, pair.low),
                    "seam": metrics.seam_score(image, lines[0], lines[1]),
                }
            )
        if number % sheet_every == 0 and len(shown) < SHEET_ROWS:
            shown.append((pair, images))
        progress(number + 1, len(pairs))
    return rows, shown


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean of each column for each contender, in the order of the rows."""
    return scores.summarise(rows, COLUMNS)


def write_reports(
    folder: Path, rows: Sequence[dict[str, Any]], shown: Sequence[Shown]
) -> list[Path]:
    """Write `evaluation.csv` (each image), `evaluation.json` (means) and `contact_sheet.png`."""
    made = scores.write_tables(folder, rows, COLUMNS, metrics.DEFINITIONS)
    sheet = folder / "contact_sheet.png"
    _contact_sheet(sheet, rows, shown)
    return [*made, sheet]


def _contact_sheet(target: Path, rows: Sequence[dict[str, Any]], shown: Sequence[Shown]) -> None:
    """The middle of some images: input, every contender with its PSNR, truth."""
    scores = {(row["image"], row["model"]): row for row in rows}
    pictures, captions = [], []
    for pair, images in shown:
        scale = pair.high.shape[1] // pair.low.shape[1]
        enlarged = pair.low.repeat(scale, 1).repeat(scale, 2)
        columns = [enlarged, *images.values(), pair.high]
        side = min(SHEET_SIDE, *pair.high.shape[1:])
        top, left = ((length - side) // 2 for length in pair.high.shape[1:])
        pictures.append(
            [
                (np.clip(i[:, top : top + side, left : left + side], 0, 1) * 255)
                .round()
                .astype(np.uint8)
                .transpose(1, 2, 0)
                for i in columns
            ]
        )
        measured = [scores[pair.name, name] for name in images]
        notes = [f"{row['psnr']:.2f} dB, {row['lite0']:.3f}" for row in measured]
        captions.append([pair.name[:22], *notes, ""])
    titles = ["input", *shown[0][1], "truth"]
    save_sheet(target, pictures, titles, captions)
