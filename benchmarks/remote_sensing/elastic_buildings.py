# SPDX-License-Identifier: Apache-2.0
"""The ends of an elastic U-Net++ beside networks of the same sizes that were trained alone.

Usage: python benchmarks/remote_sensing/elastic_buildings.py SCENES.csv -o FOLDER [--steps 400]

All begin with the same weights and learn from the same patches, labels and teacher for as many
steps; a step of the elastic one trains four sizes. Prints building IoU and object F1 on the scenes
of the split val, after measuring the statistics of norms anew, and seconds of processor time.
Trainings that were broken off go on where they were.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from torch import nn

from fieldfare.common.elastic.sandwich import SandwichTask
from fieldfare.common.runtime import set_threads
from fieldfare.common.search.tasks import Given
from fieldfare.common.training import fit
from fieldfare.common.weights import read_card
from fieldfare.remote_sensing.buildings.commands.elastic import BuildingsElastic
from fieldfare.remote_sensing.buildings.networks.elastic import SPACE
from fieldfare.remote_sensing.buildings.options import DEFAULT_MODEL
from fieldfare.remote_sensing.rasters.opening import environment


def trained(task: BuildingsElastic, network: Any, loss: Any, folder: Path) -> tuple[Any, float]:
    """A network after its steps, and the processor seconds of this call."""
    began = time.process_time()
    with environment():
        found = fit(network, task.lessons(), loss, task.settings, folder, quiet=True)
    return found, time.process_time() - began


def told(task: BuildingsElastic, network: nn.Module, choice: Any, target: Path) -> str:
    """What a size reaches."""
    task.keep_size(network, choice, target)
    return ", ".join(f"{m.name} {m.value:.3f}" for m in read_card(target).metrics)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=4)
    options = parser.parse_args()
    set_threads()
    task = BuildingsElastic(Given((options.table,), steps=options.steps, seed=options.seed))
    elastic, seconds = trained(
        task,
        task.elastic(DEFAULT_MODEL),
        SandwichTask(task.loss, options.draws),
        options.output / "elastic",
    )
    for name, choice in (("smallest", SPACE.smallest()), ("largest", SPACE.largest())):
        target = options.output / f"{name}.safetensors"
        own = told(task, elastic.extract(choice), choice, target)
        print(f"{name}, out of the elastic one ({seconds:.0f} s): {own}", flush=True)
        alone, took = trained(
            task, task.elastic(DEFAULT_MODEL).extract(choice), task.loss, options.output / name
        )
        target = options.output / f"{name}_alone.safetensors"
        there = told(task, alone, choice, target)
        print(f"{name}, alone ({took:.0f} s): {there}", flush=True)


if __name__ == "__main__":
    main()
