# SPDX-License-Identifier: Apache-2.0
"""The packaged detector of trees: its tables, its baseline, its measurement and its card.

    python benchmarks/remote_sensing/detection_trees.py tables OUT --data "$FIELDFARE_DATA"
    python benchmarks/remote_sensing/detection_trees.py baseline OUT/trees.csv
    python benchmarks/remote_sensing/detection_trees.py release run/model.safetensors NAME \\
        --table OUT/trees.csv --training "what was run, where, for how long"
    python benchmarks/remote_sensing/detection_trees.py know NAME.safetensors --table OUT/trees.csv

`tables` writes OUT/trees.csv: tiles, points, splits and cities for `rs-detect train` and `eval`.
`baseline` tries the settings of the maxima of greenness on the validation city. `release` measures
a model on validation and test cities beside them and writes NAME.safetensors and NAME.md; `know`
looks anew at all scenes and writes what the model knows of them into its file.
"""

import argparse
import csv
import dataclasses
import datetime
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common import console
from fieldfare.common.runtime import set_threads
from fieldfare.common.weights import Metric, load_model_file, save_with_page
from fieldfare.remote_sensing import weights
from fieldfare.remote_sensing.detection.data.patches import read_part
from fieldfare.remote_sensing.detection.data.table import LabelledScene, read_table
from fieldfare.remote_sensing.detection.evaluation.compare import compare_greenness, compare_model
from fieldfare.remote_sensing.detection.evaluation.greenness import Maxima, green_maxima, smoothed
from fieldfare.remote_sensing.detection.evaluation.matching import Counts, counts_of, pair_points
from fieldfare.remote_sensing.detection.evaluation.reports import table as table_of
from fieldfare.remote_sensing.detection.inference.run import InferSettings
from fieldfare.remote_sensing.detection.networks.models import load_model
from fieldfare.remote_sensing.detection.training.knowledge import learn_parts

GSD, REACH = 0.6, 6.0
"""Metres per pixel of the tiles; metres within which a middle is right."""

BLUR, APART, DARK = (0.9, 1.2, 1.5, 1.8), (3.0, 3.6, 4.2), (0.0, 0.25, 0.5, 0.75)
"""Tried of `greenness.Maxima`; the threshold is then chosen in steps of 0.01."""

DATA = (
    "391 NAIP tiles (153.6 m wide, 0.6 m per pixel, red, green and blue) of Chico, Claremont, Long "
    "Beach and Palm Springs, with 23,703 trees as points that annotators saw; each point became a "
    "box of 6 m"
)
LICENCE = (
    "points: Urban Tree Detection Data, Ventura et al. 2024 (doi 10.1016/j.jag.2024.103848), "
    "CC BY 4.0; imagery: USDA NAIP"
)
SPLIT = "by city: Riverside for validation, Santa Monica for test"
LIMITS = (
    "knows street and garden trees of Californian cities in summer, seen by NAIP at 0.6 m; "
    "forests, other climates, leafless trees and other sensors are unknown to it; "
    "boxes are 6 m wide whatever the crown; of crowns that touch some are merged"
)


def write_tables(folder: Path, data: Path) -> Path:
    """One table of all tiles, with the city as the area."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, images in (("train", "sr/train"), ("test", "sr/test/hr")):
        with open(data / "trees" / f"{name}_tiles.csv", newline="") as file:
            for row in csv.DictReader(file):
                city = row["tile"].rsplit("_", 2)[0]
                labels = data / "trees" / f"{name}.csv"
                rows.append((data / images / row["tile"], labels, row["split"], city))
    target = folder / "trees.csv"
    with open(target, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "labels", "split", "area"))
        writer.writerows(rows)
    return target


def tune(scenes: Sequence[LabelledScene]) -> list[dict[str, Any]]:
    """The best threshold and its F1 for every choice of the other settings."""
    images = []
    for scene in scenes:
        part = (0.0, 0.0, scene.window.height, scene.window.width)
        image, _, _ = read_part(scene, part, GSD, classes=("tree",), point_size=1.0)
        images.append(image.transpose(2, 0, 1))
    rows = []
    for blur, apart, dark in itertools.product(BLUR, APART, DARK):
        steps = np.arange(-0.5, 0.2, 0.01)
        counts = [Counts() for _ in steps]
        for image, scene in zip(images, scenes, strict=True):
            settings = Maxima(blur, apart, -9.0, dark)
            found, smooth = green_maxima(image, GSD, settings), smoothed(image, GSD, settings)
            heights = smooth[found[:, 1].astype(int), found[:, 0].astype(int)]
            for number, least in enumerate(steps):
                kept = found[heights >= least]
                pairs = pair_points(kept * GSD, scene.labels.centres * GSD, REACH)
                counts[number] += counts_of(pairs, len(kept))
        best = int(np.nanargmax([count.f1 for count in counts]))
        row = {"blur": blur, "apart": apart, "dark": dark}
        rows.append(row | {"least": round(float(steps[best]), 2), "f1": counts[best].f1})
    return sorted(rows, key=lambda row: -row["f1"])


def measure(
    model: Path, scenes: Sequence[LabelledScene]
) -> tuple[list[dict[str, Any]], list[Metric]]:
    """Rows of model and baseline on validation and test, and metrics for the card."""
    rows, metrics = [], []
    settings = InferSettings(str(model))
    predictor = settings.predictor()
    for split in ("val", "test"):
        chosen = [scene for scene in scenes if scene.split == split]
        found = [
            compare_model(chosen, settings, predictor, reach=REACH),
            compare_greenness(chosen, gsd=GSD, reach=REACH),
        ]
        for row in table_of(found):
            rows.append({"split": split} | row)
            who = row["model"] if row["model"] == "greenness" else "this model"
            words = f"{row['area']} ({split}), middles within {REACH:g} m; {who}"
            names = ("f1", "precision", "recall") if who == "this model" else ("f1",)
            metrics += [Metric(name, row[name], words) for name in names]
    return rows, metrics


def release(arguments: argparse.Namespace, scenes: Sequence[LabelledScene]) -> None:
    """Measure, print, and write the model with its card into the package."""
    rows, metrics = measure(arguments.model, scenes)
    print(console.table([{k: v for k, v in row.items() if k != "f1_iou50"} for row in rows]))
    card, tensors = load_model_file(arguments.model)
    card = dataclasses.replace(
        card,
        name=arguments.name,
        summary="Finds single trees in aerial imagery of cities: LeYOLO Nano at 0.3 m per pixel.",
        data=DATA,
        data_licence=LICENCE,
        split=SPLIT,
        weights_licence="Apache-2.0",
        training=arguments.training,
        limits=LIMITS,
        date=datetime.date.today().isoformat(),
        metrics=tuple(metrics),
    )
    network, _ = load_model(str(arguments.model))
    parts = learn_parts(network.eval(), scenes, reach=REACH, told=print)
    folder = arguments.into or Path(weights.__file__).parent
    print(save_with_page(folder / f"{arguments.name}.safetensors", tensors, card, parts))


def know(arguments: argparse.Namespace, scenes: Sequence[LabelledScene]) -> None:
    """Teach a model file, released before, what it knows; its weights and measures stay."""
    network, card = load_model(str(arguments.model))
    parts = learn_parts(network.eval(), scenes, reach=REACH, told=print)
    _, tensors = load_model_file(arguments.model)
    print(save_with_page(arguments.model, tensors, dataclasses.replace(card, limits=LIMITS), parts))


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    tables = verbs.add_parser("tables")
    tables.add_argument("folder", type=Path)
    tables.add_argument("--data", type=Path, required=True)
    baseline = verbs.add_parser("baseline")
    baseline.add_argument("table", type=Path)
    releasing = verbs.add_parser("release")
    releasing.add_argument("model", type=Path)
    releasing.add_argument("name")
    releasing.add_argument("--table", type=Path, required=True)
    releasing.add_argument("--training", required=True)
    releasing.add_argument("--into", type=Path, help="another folder than the package's")
    knowing = verbs.add_parser("know")
    knowing.add_argument("model", type=Path)
    knowing.add_argument("--table", type=Path, required=True)
    arguments = parser.parse_args()
    set_threads()
    if arguments.verb == "tables":
        print(write_tables(arguments.folder, arguments.data))
        return
    scenes, _ = read_table(arguments.table, bands=3)
    if arguments.verb == "baseline":
        print(console.table(tune([scene for scene in scenes if scene.split == "val"])))
    elif arguments.verb == "know":
        know(arguments, scenes)
    else:
        release(arguments, scenes)


if __name__ == "__main__":
    main()
