# SPDX-License-Identifier: Apache-2.0
"""Measure every variant of the packaged building models and keep them for `infer --within`.

    python benchmarks/remote_sensing/buildings_variants.py --data "$FIELDFARE_DATA"

Quality is the building IoU on Nairobi A, a place that was not trained on and that the models were
chosen by. Cost is of 512 x 512 pixels of the scene: where tiles share fewer pixels, there are fewer
of them. Processor time on one thread, the variants in turn, the smallest of several.
"""

import argparse
import itertools
from pathlib import Path
from typing import Any

import torch

from fieldfare.common import console
from fieldfare.common.budget import latency
from fieldfare.common.budget.variants import SUFFIX, Variant, Variants
from fieldfare.common.efficiency import bench, cost
from fieldfare.common.weights import locate
from fieldfare.remote_sensing import weights
from fieldfare.remote_sensing.buildings.commands.evaluate_scene import evaluate_scene, labels_on
from fieldfare.remote_sensing.buildings.evaluation.reports import table
from fieldfare.remote_sensing.buildings.inference.run import InferSettings
from fieldfare.remote_sensing.buildings.inference.units import unit
from fieldfare.remote_sensing.buildings.networks.building_network import depths_of
from fieldfare.remote_sensing.buildings.networks.models import TASK, load_model
from fieldfare.remote_sensing.buildings.options import DEFAULT_MODEL, EvalOptions

TILE = 512
OVERLAPS = {128: "", 32: "-thin"}
PLACE = "buildings_more/val/nairobi_a"


def quality(settings: InferSettings, data: Path) -> float:
    """Building IoU on the validation place."""
    scene = data / f"{PLACE}.tif"
    truth, unknown = labels_on(data / f"{PLACE}.geojson", scene, EvalOptions(quiet=True))
    found = evaluate_scene(
        scene,
        truth,
        settings,
        settings.predictor(),
        unknown=unknown,
        model="-",
        depth=None,
        quiet=True,
    )
    rows = {row["set"]: row for row in table([found])}
    return round(float(rows["pixels"]["building_iou"]), 4)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    network, _ = load_model(DEFAULT_MODEL)
    plans: dict[str, dict[str, Any]] = {}
    for depth, precision, (overlap, suffix) in itertools.product(
        depths_of(network.config), ("fp32", "bf16"), OVERLAPS.items()
    ):
        plans[f"L{depth}-{precision}{suffix}"] = {
            "model": DEFAULT_MODEL,
            "depth": depth,
            "precision": precision,
            "overlap": overlap,
        }
    units = {name: unit(settings) for name, settings in plans.items()}
    seconds = latency.measure(units, repeats=options.repeats)
    found = []
    for name, settings in plans.items():
        share = (TILE / (TILE - settings["overlap"])) ** 2  # tiles of 512 x 512 new pixels
        cut = network if settings["depth"] == network.depth else network.cut(settings["depth"])
        found.append(
            Variant(
                name,
                settings,
                quality(InferSettings(**settings), options.data),
                round(cost(cut, (1, 3, TILE, TILE)).macs * share),
                locate(DEFAULT_MODEL, TASK).stat().st_size,
                round(seconds[name] * share, 4),
                bench(units[name], repeats=2, warmup=0).peak_bytes,
            )
        )
        console.say(str(found[-1]))
    Variants(
        TASK,
        f"{TILE} x {TILE} pixels of a scene",
        "building IoU on Nairobi A",
        latency.machine(),
        tuple(found),
    ).write(Path(weights.__file__).parent / f"{TASK}{SUFFIX}")


if __name__ == "__main__":
    main()
