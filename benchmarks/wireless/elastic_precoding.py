# SPDX-License-Identifier: Apache-2.0
"""The ends of an elastic precoder beside networks of the same sizes that were trained alone.

Usage: python benchmarks/wireless/elastic_precoding.py [--steps 400] [--seeds 3]

Every training has as many steps and the same channels; a step of the elastic one trains four sizes.
Prints the sum rate over WMMSE's on validation channels, and seconds of training on one thread.
"""

import argparse
import tempfile
import time
from pathlib import Path

from fieldfare.common.elastic.sandwich import SandwichTask
from fieldfare.common.search.tasks import Given
from fieldfare.common.training import fit
from fieldfare.wireless.precoding.commands.elastic import SPACE, PrecodingElastic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    ends = {"smallest": SPACE.smallest(), "largest": SPACE.largest()}
    for seed in range(options.seeds):
        task = PrecodingElastic(Given(steps=options.steps, seed=seed))
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            network = task.elastic(None)
            loss = SandwichTask(task.loss)
            network = fit(network, task.lessons(), loss, task.settings, Path(folder), quiet=True)
            took = time.process_time() - began
        for name, choice in ends.items():
            own = task.validate(network.extract(choice).eval())["ratio"]
            alone = task.elastic(None).extract(choice)
            with tempfile.TemporaryDirectory() as folder:
                began = time.process_time()
                alone = task.train(alone, task.settings, Path(folder))
                seconds = time.process_time() - began
            there = task.validate(alone.eval())["ratio"]
            print(
                f"seed {seed} {name}: elastic {own:.4f} ({took:.0f} s), alone {there:.4f} "
                f"({seconds:.0f} s), {100 * (own / there - 1):+.2f} %",
                flush=True,
            )


if __name__ == "__main__":
    main()
