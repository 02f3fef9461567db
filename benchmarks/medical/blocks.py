# SPDX-License-Identifier: Apache-2.0
"""Blocks and encoders to choose from, side by side: Dice and peak memory of equal short runs.

    med-seg phantom -o train --count 40 --spacing 2 --seed 51
    med-seg phantom -o judge --generator growth --count 12 --val 12 --spacing 2 --seed 52
    python benchmarks/medical/blocks.py cases.csv -o runs/ --steps 300

Each row is a fresh network trained with the same seed on the same patches by `med-seg train`: the
small reversible U-Net with each block instead of its own, and all together; the small slice network
on several encoders, none of them pre-trained. Dice is the mean over the table's validation cases at
2 mm of the averaged weights after the last step; nothing is chosen by it. Peak memory is that of
one training step above Python and torch (`step_memory.py`). Rows that are done are kept in
RUNS/rows.csv, and a training that was interrupted goes on: run the same command again.
"""

import argparse
import csv
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from step_memory import in_a_process, training_step, write_csv

from fieldfare.common import console
from fieldfare.medical.networks.config import GROUPS, PRESETS, NetworkConfig
from fieldfare.medical.networks.create import create_network

VOLUMES = {"preset": "reversible_small", "patch-size": 48, "batch": 2}
SLICES = {"preset": "resunet_aspp_small", "patch-size": 96, "batch": 8}

ROWS: dict[str, dict[str, Any]] = {
    "volumes": VOLUMES,
    "volumes, evonorm": VOLUMES | {"norm": "evonorm"},
    "volumes, eca": VOLUMES | {"attention": "eca"},
    "volumes, e2gc": VOLUMES | {"groups": "e2gc"},
    "volumes, all three": VOLUMES | {"norm": "evonorm", "attention": "eca", "groups": "e2gc"},
    "slices, tf_efficientnet_lite0": SLICES,
    "slices, eca on skips": SLICES | {"attention": "eca"},
    "slices, efficientmod_xxs": SLICES | {"encoder": "efficientmod_xxs"},
    "slices, eeea_net_c1": SLICES | {"encoder": "eeea_net_c1"},
    "slices, mobilenetv3_small_100": SLICES | {"encoder": "mobilenetv3_small_100"},
}
"""By name: the options of `med-seg train`."""


def config_of(options: dict[str, Any]) -> NetworkConfig:
    """The network of a row."""
    chosen = {name: options[name] for name in ("encoder", "norm", "attention") if name in options}
    config = replace(PRESETS[options["preset"]], **chosen)
    return replace(config, group_size=GROUPS[options.get("groups", "depthwise")])


def memory_of(options: dict[str, Any]) -> dict[str, Any]:
    """Parameters, MiB and CPU seconds of a training step."""
    config = config_of(options)
    size = [options["patch-size"]] * config.ndim
    step = partial(training_step, batch=options["batch"])
    found = in_a_process(step, partial(create_network, config), size)
    assert found is not None
    return found


def train(folder: Path, options: dict[str, Any], table: Path, steps: int) -> dict[str, float]:
    """Train, or go on; Dice of the regions after the last step."""
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-c", "from fieldfare.medical.cli import main; main()"]
    command += ["train", str(table)]
    command += [
        "-o",
        str(folder),
        *given,
        "--prepared",
        str(folder.parent / "prepared"),
        "--seed",
        "0",
    ]
    command += ["--steps", str(steps), "--validate-every", str(steps)]
    command += ["--learning-rate", "2e-3", "--labels", "brats2023", "--precision", "fp32"]
    subprocess.run(command, check=True)
    with open(folder / "log.csv", newline="") as file:
        last = [row for row in csv.DictReader(file) if row.get("dice_wt")][-1]
    return {name.upper(): round(float(last[f"dice_{name}"]), 3) for name in ("wt", "tc", "et")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--only", default="", help="Rows whose name begins so.")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    kept = options.output / "rows.csv"
    rows: list[dict[str, Any]] = []
    if kept.exists():
        with open(kept, newline="") as file:
            rows = list(csv.DictReader(file))
    done = {(row["network"], int(row["steps"])) for row in rows}
    for name, chosen in ROWS.items():
        if not name.startswith(options.only) or (name, options.steps) in done:
            continue
        folder = options.output / f"{name.replace(', ', '-').replace(' ', '_')}-{options.steps}"
        measured = memory_of(chosen)
        scores = train(folder, chosen, options.table, options.steps)
        rows.append({"network": name, "steps": options.steps, **scores, **measured})
        write_csv(kept, rows)
    print(console.table(rows))


if __name__ == "__main__":
    main()
