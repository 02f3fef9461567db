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

from fieldfare.common.budget.collect import collect
from fieldfare.common.budget.variants import SUFFIX
from fieldfare.common.efficiency import cost
from fieldfare.common.weights import locate
from fieldfare.remote_sensing import weights
from fieldfare.remote_sensing.buildings.commands.evaluate_scene import evaluate_scene, labels_on
from fieldfare.remote_sensing.buildings.evaluation.reports import table
from fieldfare.remote_sensing.buildings.inference.run import InferSettings
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
    return float(rows["pixels"]["building_iou"])


def macs(network: Any, depth: int) -> int:
    """Of a tile, before layers are folded."""
    cut = network if depth == network.depth else network.cut(depth)
    return cost(cut, (1, 3, TILE, TILE)).macs


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
    found = collect(
        TASK,
        plans,
        unit=f"{TILE} x {TILE} pixels of a scene",
        metric="building IoU on Nairobi A",
        quality=lambda settings: quality(InferSettings(**settings), options.data),
        weights=lambda settings: locate(settings["model"], TASK).stat().st_size,
        macs=lambda settings: macs(network, settings["depth"]),
        # Tiles of 512 x 512 new pixels.
        share=lambda settings: (TILE / (TILE - settings["overlap"])) ** 2,
        repeats=options.repeats,
    )
    found.write(Path(weights.__file__).parent / f"{TASK}{SUFFIX}")


if __name__ == "__main__":
    main()
