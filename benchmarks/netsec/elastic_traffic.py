# SPDX-License-Identifier: Apache-2.0
"""The ends of an elastic NetMamba beside networks of the same sizes that were trained alone.

Usage: python benchmarks/netsec/elastic_traffic.py LABELS.csv [--steps 600] [--seeds 1]

Every training has as many steps and the same flows; a step of the elastic one trains four sizes.
Prints macro-F1 on the flows of the split val, ports hidden, and processor seconds of training.
"""

import argparse
import tempfile
import time
from pathlib import Path

from torch import nn

from fieldfare.common.elastic.genes import Choice
from fieldfare.common.elastic.sandwich import SandwichTask
from fieldfare.common.runtime import set_threads
from fieldfare.common.search.tasks import Given
from fieldfare.common.training import fit
from fieldfare.netsec.commands.elastic import SPACE, TrafficElastic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    set_threads()
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            task = TrafficElastic(Given((options.labels,), options.steps, seed, folder=folder))
            ends(task, folder, seed)


def ends(task: TrafficElastic, folder: Path, seed: int) -> None:
    """Train all sizes at once, then the two ends alone; print what they reach."""

    def quality(network: nn.Module, choice: Choice) -> float:
        return task.keep_size(network.eval(), choice, folder / "one.safetensors")

    began = time.process_time()
    network = task.elastic(None)
    loss = SandwichTask(task.loss)
    network = fit(network, task.lessons(), loss, task.settings, folder / "all", quiet=True)
    took = time.process_time() - began
    for name, choice in {"smallest": SPACE.smallest(), "largest": SPACE.largest()}.items():
        own = quality(network.extract(choice), choice)
        began = time.process_time()
        alone = task.elastic(None).extract(choice).train()
        alone = fit(alone, task.lessons(), task.loss, task.settings, folder / name, quiet=True)
        seconds = time.process_time() - began
        there = quality(alone, choice)
        print(
            f"seed {seed} {name}: elastic {own:.4f} ({took:.0f} s), alone {there:.4f} "
            f"({seconds:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
