# SPDX-License-Identifier: Apache-2.0
"""Is what a building model says of its own answers true? Expected beside real IoU, and warnings.

    python benchmarks/remote_sensing/buildings_trust.py --data "$FIELDFARE_DATA" [--model NAME] \\
        [--most 4] [--csv trust.csv] [--files --every 5]

Tiles of 256 pixels (128 in small scenes) of labelled places, as they are and spoilt in known ways:
real building IoU, the expected one, and whether there is a warning (of the tile, or of the colours
of the place it is from); the rank correlation of the two over all of them; and of how many spoilt
tiles there is a warning, or none is needed (IoU at most LOSS below the place's mean as it is).
--files: whole files of imagery that the model has never seen the like of
(Massachusetts at 1 m, NAIP at 0.6 m), each of which should be warned of, and the validation scene,
which should not.
"""

import argparse
import contextlib
import csv
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from fieldfare.common.console import table
from fieldfare.common.files import atomic_path
from fieldfare.common.runtime import set_threads
from fieldfare.common.trust.knowledge import Judgement
from fieldfare.remote_sensing.buildings.data.table import read_scene
from fieldfare.remote_sensing.buildings.evaluation.metrics import confusion
from fieldfare.remote_sensing.buildings.inference import run as inference
from fieldfare.remote_sensing.buildings.inference.predict import Predictor
from fieldfare.remote_sensing.buildings.inference.run import InferSettings
from fieldfare.remote_sensing.buildings.inference.trust import BLOCK, Familiarity, Look
from fieldfare.remote_sensing.buildings.options import DEFAULT_MODEL
from fieldfare.remote_sensing.buildings.training.run import scene_tiles
from fieldfare.remote_sensing.scenes.colours import LEAST
from fieldfare.remote_sensing.scenes.colours import SIDE as SIDE_OF_SQUARE
from fieldfare.remote_sensing.scenes.corruptions import CORRUPTIONS, SIZES

KAMPALA = "buildings/kampala_oam"
PLACES = {
    "Nairobi A (validation)": "buildings_more/val/nairobi_a",
    "Nairobi B": "buildings_more/test/nairobi_b",
    "Kampala B": f"{KAMPALA}/scene_B_z20",
}
HOME = "Nairobi A (validation)"
CLEAN = "as it is"
SIDE = 256
LOSS = 0.1
"""Of IoU: an answer that loses no more is right."""

LEAST_BUILDING = 0.05
"""Share of a tile that is building in truth or prediction, for its IoU to mean something."""


class Stop(Exception):
    """Raised once a scene is judged: its outlines are not wanted here."""


def tiles_of(data: Path, stem: str, gsd: float) -> Iterator[tuple[str, list[Any]]]:
    """(what was done, [image, truth, known] tiles) of one place."""
    image = data / f"{stem}.tif"
    labels = image.with_suffix(".geojson")
    if not labels.exists():
        labels = image.parent / "labels.geojson"
    scene, _ = read_scene(image, labels, bands=3)
    tiles = scene_tiles(scene, gsd)
    yield CLEAN, tiles
    for name, change in CORRUPTIONS.items():
        yield name, [(change(picture), *rest) for picture, *rest in tiles]
    for factor in SIZES:
        yield f"size {factor:g}", scene_tiles(scene, gsd * factor)


def judged_tiles(
    predictor: Predictor, tiles: list[Any], most: int
) -> list[tuple[float, Judgement]]:
    """Real IoU and judgement of evenly spread squares of SIDE pixels."""
    knowledge = predictor.knowledge
    assert knowledge is not None
    look, found = Look(predictor), []
    squares = []
    for tile in tiles:
        shape = tile[1].shape
        side = min(SIDE, *(length - length % BLOCK for length in shape))
        squares += [
            [part[top : top + side, left : left + side] for part in tile]
            for top in range(0, shape[0] - side + 1, side or 1)
            for left in range(0, shape[1] - side + 1, side or 1)
            if side
        ]
    for image, truth, known in squares[:: max(1, -(-len(squares) // most))]:
        pixels = image.transpose(2, 0, 1)[None].astype(np.float32) / 255
        mask = look(pixels, np.zeros((1, 2), np.int64))[0, 0] > 0.5
        rows, groups = knowledge.rows(*look.take())
        if ((mask | truth) & known).mean() >= LEAST_BUILDING:
            iou = confusion(mask, truth, known).building_iou
            found.append((iou, knowledge.judge(rows, groups)))
    return found


def colour_doubts_of(predictor: Predictor, tiles: list[Any]) -> list[str]:
    """On the colours of a whole place; none where it is too small to tell."""
    pixels = np.concatenate([image[known] for image, _, known in tiles]) / np.float32(255)
    if predictor.colours is None or len(pixels) < LEAST * SIDE_OF_SQUARE**2:
        return []
    return predictor.colours.doubts(pixels)


def judged_file(path: Path, settings: InferSettings, predictor: Predictor) -> Judgement | None:
    """As `rs-buildings infer` judges it."""
    seen: list[Judgement | None] = []

    def judged(judgement: Judgement | None) -> None:
        seen.append(judgement)
        raise Stop

    with tempfile.TemporaryDirectory() as folder:
        target = inference.Targets(Path(folder) / "o.parquet")
        with contextlib.suppress(Stop):
            inference.infer(path, target, settings, predictor, judged=judged)
    return seen[0]


def cost(predictor: Predictor) -> float:
    """Share of a tile's time that looking at it takes, best of five."""
    assert predictor.knowledge is not None
    tile = np.random.default_rng(0).random((1, 3, 512, 512), dtype=np.float32)
    start = np.zeros((1, 2), np.int64)
    look = Familiarity(predictor.knowledge, predictor)
    times: dict[str, list[float]] = {"plain": [], "looked": []}
    for _ in range(6):
        for name, call in (("plain", predictor), ("looked", look)):
            look.hold((0, 0), np.ones((3, 512, 512), bool))
            begun = time.process_time()
            call(tile, start)
            times[name].append(time.process_time() - begun)
    return min(times["looked"][1:]) / min(times["plain"][1:]) - 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--most", type=int, default=8, help="Tiles of each place and way.")
    parser.add_argument("--every", type=int, default=1, help="Take each n-th NAIP tile.")
    parser.add_argument("--files", action="store_true", help="Also judge whole files.")
    parser.add_argument("--csv", type=Path, help="Write every tile to this file.")
    options = parser.parse_args()
    set_threads()
    settings = InferSettings(options.model)
    predictor = settings.predictor()
    if predictor.knowledge is None:
        raise SystemExit(f"{options.model}: does not say what it knows")
    print(predictor.knowledge.summary())
    every: list[dict[str, Any]] = []
    shown = []
    for place, stem in PLACES.items():
        home = 0.0
        for way, tiles in tiles_of(options.data, stem, predictor.config.gsd):
            found = judged_tiles(predictor, tiles, options.most)
            if not found:
                continue
            ious, judgements = zip(*found, strict=True)
            home = float(np.mean(ious)) if way == CLEAN else home
            doubts = colour_doubts_of(predictor, tiles)
            shown.append(
                {
                    "place": place,
                    "way": way,
                    "tiles": len(found),
                    "iou": float(np.mean(ious)),
                    "expected": float(np.mean([j.expected for j in judgements])),
                    "warned": sum(j.alarm for j in judgements),
                    "doubts": "; ".join(doubt.partition(":")[0] for doubt in doubts),
                }
            )
            every += [
                {
                    "place": place,
                    "way": way,
                    "iou": iou,
                    "expected": j.expected,
                    "warned": j.alarm or bool(doubts),
                    "right": iou >= home - LOSS,
                }
                for iou, j in found
            ]
    print(table(shown))
    tiles = [[row[name] for row in every] for name in ("iou", "expected")]
    means = [[row[name] for row in shown] for name in ("iou", "expected")]
    print(f"rank correlation over {len(every)} tiles: {spearmanr(*tiles).statistic:.3f}")
    print(f"rank correlation over {len(shown)} places and ways: {spearmanr(*means).statistic:.3f}")
    spoilt = [row for row in every if row["way"] != CLEAN]
    whole = [row for row in every if row["way"] == CLEAN]
    either = sum(row["warned"] or row["right"] for row in spoilt)
    print(f"{either} of {len(spoilt)} spoilt tiles warned of or right ({either / len(spoilt):.1%})")
    print(f"{sum(row['warned'] for row in whole)} of {len(whole)} tiles as they are warned of")
    if options.csv:
        with atomic_path(options.csv) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, list(every[0]))
            writer.writeheader()
            writer.writerows(every)
    if not options.files:
        return
    naip = [*options.data.glob("sr/train/*.tif"), *options.data.glob("sr/test/hr/santa*.tif")]
    files = {
        "Massachusetts, 1 m": sorted(
            options.data.glob("buildings/massachusetts_test/patches/image/*.tif")
        ),
        "NAIP, 0.6 m": sorted(naip)[:: options.every],
        HOME: [options.data / f"{PLACES[HOME]}.tif"],
    }
    for name, paths in files.items():
        judgements = [judged_file(path, settings_for(path, settings), predictor) for path in paths]
        warned = sum(j is not None and j.alarm for j in judgements)
        print(f"{name}: {warned} of {len(paths)} warned of")
    print(f"looking costs {cost(predictor):.1%} of a tile's time")


def settings_for(path: Path, settings: InferSettings) -> InferSettings:
    """Massachusetts patches have no CRS; their pixels are 1 m."""
    if "massachusetts" not in str(path):
        return settings
    return InferSettings(settings.model, gsd=1.0)


if __name__ == "__main__":
    main()
