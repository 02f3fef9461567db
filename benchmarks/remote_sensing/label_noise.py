# SPDX-License-Identifier: Apache-2.0
"""What a few clean labels add to many noisy ones: real labels shifted and dropped by known amounts.

    OMP_NUM_THREADS=1 python benchmarks/remote_sensing/label_noise.py \\
        --data "$FIELDFARE_DATA/buildings/kampala_oam" --folder /tmp/label_noise --csv noise.csv

Noisy labels: the left two thirds of scene A, shifted and thinned out. Clean labels: its upper left
sixth. Test: the right third of scene A, and scene B. Every contender takes the same number of steps
in all, from the same encoder weights; nothing is chosen on the test scenes:

    noisy only      all steps on the noisy labels
    clean only      all steps on the clean labels
    noisy first     the first steps on the noisy labels: what the three below start from
    finetune        the remaining steps on the clean labels
    distillation    the same, by a fresh student of the noisy network
    mutual          the same, beside a fresh second network

Prints building IoU, the report by building size, and the shift of the noisy labels as it is found
by the network that was fine-tuned, the one trained on clean labels only, and the noisy one.
"""

import argparse
import csv
import dataclasses
from pathlib import Path
from typing import Any

from fieldfare.common.console import table
from fieldfare.common.files import atomic_path
from fieldfare.common.runtime import set_threads
from fieldfare.common.training import TrainSettings
from fieldfare.remote_sensing.buildings.data.table import LabelledScene, read_table
from fieldfare.remote_sensing.buildings.evaluation.label_shift import displace, scenes_shift
from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
)
from fieldfare.remote_sensing.buildings.training.adaptation import (
    METHODS,
    AdaptSettings,
    adapt_clean,
    size_report,
)
from fieldfare.remote_sensing.buildings.training.run import DataSettings, train

CONFIG = NetworkConfig(architecture="unet", encoder="lite0", outputs=("building",), gsd=0.3)
DATA = DataSettings(patch=128)
PARTS = (
    ("scene_A_z20", "train", "A left", "0 0 1024 1024"),
    ("scene_A_z20", "train", "A clean", "0 0 512 512"),
    ("scene_A_z20", "test", "A right", "0 1024 1024 512"),
    ("scene_B_z20", "test", "B", ""),
)


def read_parts(data: Path, folder: Path) -> dict[str, LabelledScene]:
    """The parts of the two scenes by name, with their true labels."""
    listing = folder / "parts.csv"
    with atomic_path(listing) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "labels", "split", "area", "window"))
        for name, split, area, window in PARTS:
            image, labels = (data.resolve() / f for f in (f"{name}.tif", "labels.geojson"))
            writer.writerow((image, labels, split, area, window))
    scenes, messages = read_table(listing, bands=CONFIG.in_channels)
    print(*messages, sep="\n")
    return {scene.area: scene for scene in scenes}


def run(options: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """Train all contenders with one seed, print what they do, and give the rows of the table."""
    folder = options.folder / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    parts = read_parts(options.data, folder)
    left = parts["A left"]
    wrong = displace(left.labels, left.gsd, shift_m=options.shift, drop=options.drop, seed=seed)
    noisy = [dataclasses.replace(left, labels=wrong)]
    clean, test = [parts["A clean"]], [parts["A right"], parts["B"]]
    first = round(options.steps * options.noisy_share)

    def settings(steps: int, learning_rate: float) -> TrainSettings:
        return TrainSettings(
            steps=steps,
            batch_size=8,
            learning_rate=learning_rate,
            warmup_steps=min(20, steps // 4),
            weight_decay=1e-2,
            clip_norm=1.0,
            ema_decay=0.98,
            seed=seed,
            precision=options.precision,
            log_every=20,
        )

    def fresh(scenes: list[LabelledScene], steps: int, name: str) -> BuildingNetwork:
        rate = settings(steps, options.learning_rate)
        return train(
            CONFIG, scenes, rate, DATA, folder / name, encoder_weights="imagenet", quiet=True
        )

    networks = {
        "noisy only": fresh(noisy, options.steps, "noisy"),
        "clean only": fresh(clean, options.steps, "clean"),
        "noisy first": fresh(noisy, first, "first"),
    }
    for method in METHODS:
        rate = options.clean_learning_rate if method == "finetune" else options.learning_rate
        networks[method] = adapt_clean(
            networks["noisy first"],
            clean,
            AdaptSettings(method, encoder_weights="imagenet"),
            settings(options.steps - first, rate),
            DATA,
            folder / method,
            quiet=True,
        )
        print(f"seed {seed}: {method} done", flush=True)

    def iou(network: BuildingNetwork, scenes: list[LabelledScene]) -> float:
        return size_report(network, network, scenes)[-1]["iou_after"]

    rows = [
        {"seed": seed, "contender": name, "A right": iou(n, test[:1]), "B": iou(n, test[1:])}
        | {"both": iou(n, test)}
        for name, n in networks.items()
    ]
    print(f"\nBuilding IoU, seed {seed}", table(rows), sep="\n")
    report = size_report(networks["noisy only"], networks["finetune"], test)
    print("\nBy size: noisy only (before), fine-tuned (after)", table(report), sep="\n")
    east, north = options.shift
    print(f"\nShift of the noisy labels; true: {east} m east, {north} m north")
    for name in ("finetune", "clean only", "noisy only"):
        print(f"  seen by {name}: {scenes_shift(networks[name], noisy)}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="Folder of the Kampala scenes.")
    parser.add_argument("--folder", type=Path, required=True, help="Of the runs; they resume.")
    parser.add_argument("--csv", type=Path, help="Write the IoU of every contender to this file.")
    parser.add_argument("--steps", type=int, default=300, help="Of each contender in all.")
    parser.add_argument("--noisy-share", type=float, default=2 / 3, help="Of the steps.")
    parser.add_argument("--shift", type=float, nargs=2, default=(1.5, 1.0), help="East, north; m.")
    parser.add_argument("--drop", type=float, default=0.2, help="Share of labels left out.")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="Of fresh networks.")
    parser.add_argument("--clean-learning-rate", type=float, default=5e-4, help="Of fine-tuning.")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    set_threads()
    rows = [row for seed in options.seeds for row in run(options, seed)]
    if options.csv:
        with atomic_path(options.csv) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
