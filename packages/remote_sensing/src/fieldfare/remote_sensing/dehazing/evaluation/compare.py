# SPDX-License-Identifier: Apache-2.0
"""Measure models on clear rasters under synthetic haze, or on pairs of hazy and clear ones."""

import dataclasses
import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common.errors import InputError
from fieldfare.common.windows import plan, reflect_indices, stream

from ...rasters import scores
from ...rasters.opening import open_raster
from ...rasters.pictures import save_sheet
from ...rasters.quality import psnr, rounded, seam_score, ssim
from ..data.haze import HazeRange, hazy, noise_level
from ..inference.dark_channel import haze_light
from ..inference.dehazers import DarkChannelDehazer, Dehazer

INPUT = "hazy input"

MOST_DB = 60.0

DEFINITIONS = {
    "psnr": "peak signal-to-noise ratio in dB against the clear raster, all bands, rounded to "
    "uint8",
    "ssim": "structural similarity, Gaussian window 11 x 11 of sigma 1.5, mean over bands",
    "clear": f"PSNR in dB between the clear raster and what is made of it, at most {MOST_DB:g}: "
    "how well a raster without haze is left alone",
    "clear_40": "share of the rasters for which that is over 40 dB",
    "seam": "mean absolute step across tile borders over that of lines 1 to 3 pixels away; 1 is "
    "seamless, - where an image is one tile",
}

SUFFIXES = (".tif", ".tiff", ".png")

SHEET_ROWS, SHEET_SIDE = 6, 256


@dataclass(frozen=True)
class Pair:
    """A test image, hazy and clear, (3, H, W) float32 in [0, 1]."""

    name: str
    hazy: np.ndarray
    clear: np.ndarray


Shown = tuple[Pair, dict[str, np.ndarray]]
"""An image with its restorations by name, for the sheet."""


def find_pairs(folder: Path, match: str = "*") -> list[tuple[Path, Path | None]]:
    """Clear and hazy files of a folder: `clear/` with `hazy/`, or clear rasters alone (in `hr/`,
    where there is such a folder).

    Raises:
        InputError: no such folder, no rasters, or a clear one whose hazy one is missing.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = [folder / name for name in ("clear", "hr") if (folder / name).is_dir()]
    clear, under = found[0] if found else folder, folder / "hazy"
    names = sorted(
        path.name
        for path in clear.iterdir()
        if path.suffix.lower() in SUFFIXES and fnmatch.fnmatch(path.name, match)
    )
    if not names:
        raise InputError(f"{clear}: holds no .tif or .png that matches {match}")
    if not under.is_dir():
        return [(clear / name, None) for name in names]
    if missing := [name for name in names if not (under / name).exists()]:
        raise InputError(f"{under / missing[0]}: missing, but {clear / missing[0]} is there")
    return [(clear / name, under / name) for name in names]


def read_pair(clear_path: Path, hazy_path: Path | None, seed: Sequence[int]) -> Pair:
    """Read a pair; without a hazy file the clear one is put under a haze drawn from the seed.

    Raises:
        InputError: not uint8, fewer than three bands, or sizes that do not match.
    """
    clear = _read_rgb(clear_path)
    if hazy_path:
        seen = _read_rgb(hazy_path)
        if seen.shape != clear.shape:
            raise InputError(f"{hazy_path}: is of another size than {clear_path}")
    else:
        rng = np.random.default_rng(seed)
        haze = dataclasses.replace(HazeRange(), clear_share=0.0)
        drawn = haze.draw(clear.shape[:2], clear.shape[2], rng)
        seen = hazy(clear, drawn, rng, noise_level(clear))
    both = [(i.transpose(2, 0, 1) / np.float32(255)).astype(np.float32) for i in (seen, clear)]
    return Pair(clear_path.stem, *both)


def _read_rgb(path: Path) -> np.ndarray:
    with open_raster(path) as source:
        if source.count < 3 or source.dtypes[0] != "uint8":
            raise InputError(f"{path}: evaluation needs three bands of uint8")
        image: np.ndarray = source.read((1, 2, 3))
        return image.transpose(1, 2, 0)


def dehaze(
    image: np.ndarray, dehazer: Dehazer, *, tile: int = 256, overlap: int = 64
) -> tuple[np.ndarray, list[list[int]]]:
    """Dehaze an image in memory by the tiles that `rs-dehaze infer` would take.

    Args:
        image: (bands, H, W) in [0, 1].

    Returns:
        The clear image, in [0, 1], and for each axis the lines where tiles begin or end inside.
    """
    if isinstance(dehazer, DarkChannelDehazer):
        light = haze_light([(image, np.ones(image.shape[1:], bool))])
        dehazer = dehazer if light is None else DarkChannelDehazer(light)
    tiles, margin = plan(image.shape[1:], tile, overlap), dehazer.margin
    result = np.empty(image.shape, np.float32)

    def read(start: tuple[int, ...]) -> np.ndarray:
        rows, columns = (
            reflect_indices(first - margin, first + tile + margin, side)
            for first, side in zip(start, image.shape[1:], strict=True)
        )
        return image[:, rows[:, None], columns]

    def write(row: int, block: np.ndarray) -> None:
        result[:, row : row + block.shape[1]] = block

    stream(
        read,
        lambda batch, starts: dehazer(batch).clip(0, 1),
        write,
        tiles,
        channels=len(image),
        batch=dehazer.batch,
        blend="hann",
    )
    lines = [
        sorted(
            edge
            for edge in {e for start in axis.starts for e in (start, start + tile)}
            if 0 < edge < axis.size
        )
        for axis in tiles.axes
    ]
    return result, lines


def evaluate(
    pairs: Sequence[tuple[Path, Path | None]],
    contenders: dict[str, Dehazer],
    *,
    seed: int = 0,
    tile: int = 256,
    overlap: int = 64,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[dict[str, Any]], list[Shown]]:
    """Dehaze every pair by every contender and measure; the input itself comes first.

    Args:
        seed: of the hazes.

    Returns:
        One row for each image and contender (`image`, `model` and the columns of `DEFINITIONS`),
        and some images with their restorations, for the sheet.
    """
    rows: list[dict[str, Any]] = []
    shown: list[Shown] = []
    sheet_every = max(1, len(pairs) // SHEET_ROWS)
    for number, paths in enumerate(pairs):
        pair = read_pair(*paths, seed=(seed, number))
        images: dict[str, np.ndarray] = {}
        rows.append(_row(pair, INPUT, pair.hazy, None, None))
        for name, dehazer in contenders.items():
            cleared, lines = dehaze(pair.hazy, dehazer, tile=tile, overlap=overlap)
            kept, _ = dehaze(pair.clear, dehazer, tile=tile, overlap=overlap)
            images[name] = rounded(cleared)
            seam = seam_score(images[name], lines[0], lines[1], scale=1)
            rows.append(_row(pair, name, images[name], rounded(kept), seam))
        if number % sheet_every == 0 and len(shown) < SHEET_ROWS:
            shown.append((pair, images))
        progress(number + 1, len(pairs))
    return rows, shown


def _row(
    pair: Pair, model: str, image: np.ndarray, kept: np.ndarray | None, seam: float | None
) -> dict[str, Any]:
    alone = None if kept is None else min(MOST_DB, psnr(kept, pair.clear, border=0))
    return {
        "image": pair.name,
        "model": model,
        "psnr": min(MOST_DB, psnr(image, pair.clear, border=0)),
        "ssim": ssim(image, pair.clear, border=0),
        "clear": alone,
        "clear_40": None if alone is None else float(alone > 40),
        "seam": seam,
    }


def write_reports(
    folder: Path, rows: Sequence[dict[str, Any]], shown: Sequence[Shown]
) -> list[Path]:
    """Write `evaluation.csv` (each image), `evaluation.json` (means) and `contact_sheet.png`."""
    made = scores.write_tables(folder, rows, tuple(DEFINITIONS), DEFINITIONS)
    sheet = folder / "contact_sheet.png"
    measured = {(row["image"], row["model"]): row for row in rows}
    pictures, captions = [], []
    for pair, images in shown:
        columns = [pair.hazy, *images.values(), pair.clear]
        pictures.append([_middle(image) for image in columns])
        notes = [f"{measured[pair.name, name]['psnr']:.2f} dB" for name in (INPUT, *images)]
        captions.append([*notes, pair.name[:22]])
    save_sheet(sheet, pictures, [INPUT, *shown[0][1], "truth"], captions)
    return [*made, sheet]


def _middle(image: np.ndarray) -> np.ndarray:
    """(bands, H, W) in [0, 1] -> the middle of it, (h, w, bands) uint8."""
    top, left = (max(0, (side - SHEET_SIDE) // 2) for side in image.shape[1:])
    cut = image[:, top : top + SHEET_SIDE, left : left + SHEET_SIDE]
    levels: np.ndarray = np.rint(cut.clip(0, 1) * 255).astype(np.uint8)
    return levels.transpose(1, 2, 0)
