# SPDX-License-Identifier: Apache-2.0
"""Measure every variant of a model for rasters and keep them for `infer --within`.

    python benchmarks/remote_sensing/raster_variants.py super-resolution --data "$FIELDFARE_DATA"
    python benchmarks/remote_sensing/raster_variants.py dehazing --data "$FIELDFARE_DATA"
    python benchmarks/remote_sensing/raster_variants.py object-detection --data "$FIELDFARE_DATA"

Quality is that on tiles which were held out for choosing. They are no larger than one tile of
`infer`, so they are worked through in tiles of half the side that share half as much (of trees: in
tiles of 320 that share as much): else what sharing gives could not be seen. Cost is of one tile's
side squared of new pixels, of trees at 0.3 m: where tiles share fewer, or pixels are coarser, there
are fewer of them. Processor time on one thread.
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detection_trees import REACH, write_tables

from fieldfare.common.budget.collect import collect
from fieldfare.common.budget.variants import SUFFIX
from fieldfare.common.weights import locate
from fieldfare.remote_sensing import weights
from fieldfare.remote_sensing.dehazing import options as haze
from fieldfare.remote_sensing.dehazing.evaluation import compare as dehazing
from fieldfare.remote_sensing.dehazing.inference.dehazers import DARK_CHANNEL, load_dehazer
from fieldfare.remote_sensing.detection import options as trees
from fieldfare.remote_sensing.detection.data.table import read_table
from fieldfare.remote_sensing.detection.evaluation.compare import compare_model
from fieldfare.remote_sensing.detection.inference.run import InferSettings
from fieldfare.remote_sensing.rasters.quality import psnr, rounded
from fieldfare.remote_sensing.super_resolution import options as sr
from fieldfare.remote_sensing.super_resolution.evaluation import compare as enlarging
from fieldfare.remote_sensing.super_resolution.evaluation.perceptual import FeatureDistance
from fieldfare.remote_sensing.super_resolution.inference.restore import BICUBIC, load_restorer

Settings = dict[str, Any]

HELD_OUT = 40
"""Every 40th tile of the folder was held out of training."""

PRECISIONS = ("fp32", "bf16")

OWN_SIZE = 0.3
"""Metres a pixel that the packaged detector was trained at; a coarser one is quicker."""


class Plans(NamedTuple):
    """Of a task: variants, side of a tile, what its unit and its quality are, the measure."""

    variants: dict[str, Settings]
    tile: int
    metric: str
    quality: Callable[[Settings], float]


def held_out(data: Path, count: int) -> list[Path]:
    """Tiles spread over the cities."""
    kept = sorted((data / "sr/train").glob("*.tif"))[::HELD_OUT]
    return kept[:: max(1, len(kept) // count)][:count]


def overlapping(name: str, model: str, overlaps: Sequence[int], **more: Any) -> dict[str, Settings]:
    """Every precision with every overlap; of the default overlap the name says nothing."""
    return {
        f"{name}-{precision}" + f"-{overlap}" * (overlap != overlaps[0]): {
            "model": model,
            **more,
            "precision": precision,
            "overlap": overlap,
        }
        for precision, overlap in itertools.product(PRECISIONS, overlaps)
    }


def super_resolution(data: Path, count: int) -> Plans:
    """Closeness of features, which detail makes greater and blur smaller."""
    variants = {
        name: settings
        for steps in (1, 2, 4)
        for name, settings in overlapping(
            f"{steps}", sr.DEFAULT_MODEL, (16, 4), steps=steps
        ).items()
        if settings["overlap"] == 16 or (steps < 4 and settings["precision"] == "bf16")
    }
    plain = {"model": BICUBIC, "steps": None, "precision": "auto", "overlap": 4}
    variants[BICUBIC] = plain
    pairs = [enlarging.read_pair(path, None, 4) for path in held_out(data, count)]
    distance = FeatureDistance("lite0").eval()

    def quality(settings: Settings) -> float:
        restorer = load_restorer(
            settings["model"], steps=settings["steps"], precision=settings["precision"]
        )
        found = []
        for pair in pairs:
            image, _ = enlarging.restore(
                pair.low, restorer, tile=32, overlap=settings["overlap"] // 2
            )
            both = (torch.from_numpy(i)[None] for i in (rounded(image), pair.high))
            with torch.inference_mode():
                found.append(1 - distance(*both).item())
        return float(np.mean(found))

    metric = f"1 - feature distance on {len(pairs)} held-out tiles"
    return Plans(variants, 64, metric, quality)


def dehaze(data: Path, count: int) -> Plans:
    """PSNR under a haze drawn for each tile."""
    variants = overlapping("network", haze.DEFAULT_MODEL, (64, 32, 8))
    variants[DARK_CHANNEL] = {"model": DARK_CHANNEL, "precision": "auto", "overlap": 8}
    paths = held_out(data, count)
    pairs = [dehazing.read_pair(path, None, seed=(0, n)) for n, path in enumerate(paths)]

    def quality(settings: Settings) -> float:
        dehazer = load_dehazer(settings["model"], precision=settings["precision"])
        half = {"tile": 128, "overlap": settings["overlap"] // 2}
        return float(
            np.mean(
                [
                    psnr(rounded(dehazing.dehaze(p.hazy, dehazer, **half)[0]), p.clear, border=0)
                    for p in pairs
                ]
            )
        )

    return Plans(variants, 256, f"PSNR in dB on {len(pairs)} held-out tiles in haze", quality)


def detect(data: Path, count: int) -> Plans:
    """F1 of trees in the validation city."""
    with tempfile.TemporaryDirectory() as folder:
        scenes, _ = read_table(write_tables(Path(folder), data), bands=3)
    kept = [scene for scene in scenes if scene.split == "val"]

    def quality(settings: Settings) -> float:
        how = InferSettings(**settings | {"tile": 320})
        found = compare_model(kept, how, how.predictor(), reach=REACH)
        return float(found.rows()[-1]["f1"])  # type: ignore[arg-type]

    variants = overlapping("nano", trees.DEFAULT_MODEL, (64, 0))  # 128 finds no more than 64
    for size in (0.35, 0.4, 0.45, 0.5, 0.6):
        more = {"overlap": 0, "precision": "bf16", "pixel_size": size}
        variants[f"nano-bf16-{size:g}m"] = {"model": trees.DEFAULT_MODEL, **more}
    return Plans(variants, 576, f"F1 within 6 m on {len(kept)} tiles of Riverside", quality)


TASKS = {"super-resolution": super_resolution, "dehazing": dehaze, "object-detection": detect}


def units(settings: Any, side: int) -> float:
    """Tiles of the network for the pixels of one at the model's own pixel size."""
    coarser = settings.get("pixel_size", OWN_SIZE) / OWN_SIZE
    return (side / (side - settings["overlap"]) / coarser) ** 2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=6, help="Tiles that quality is measured on.")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    plans = TASKS[options.task](options.data, options.count)
    side = plans.tile

    def weight(settings: Any) -> int:
        plain = settings["model"] in (BICUBIC, DARK_CHANNEL)
        return 0 if plain else locate(settings["model"], options.task).stat().st_size

    found = collect(
        options.task,
        plans.variants,
        unit=f"{side} x {side} pixels of a raster",
        metric=plans.metric,
        quality=lambda settings: plans.quality(dict(settings)),
        weights=weight,
        share=lambda settings: units(settings, side),
        digits=2 if options.task == "dehazing" else 3,
        repeats=options.repeats,
    )
    found.write(Path(weights.__file__).parent / f"{options.task}{SUFFIX}")


if __name__ == "__main__":
    main()
