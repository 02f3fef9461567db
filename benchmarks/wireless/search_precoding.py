# SPDX-License-Identifier: Apache-2.0
"""Does what a short search found hold in longer runs: found, hand-made and packaged networks.

    fieldfare search precoding --limit 1.8MMAC --evaluations 24 -o run0
    python benchmarks/wireless/search_precoding.py run0 --steps 2000

The chosen network of every folder and the hand-made one, which also gets the found learning rate,
are trained anew from the same seed for so many steps; all are measured on the search's validation
channels. Seconds are processor time of a slot in the compiled loops, the least of some calls.
"""

import argparse
import json
import tempfile
from pathlib import Path

from fieldfare.common import console
from fieldfare.common.budget import latency
from fieldfare.common.elastic.genes import Choice
from fieldfare.common.search.tasks import Given
from fieldfare.wireless.networks.models import load_precoder_network
from fieldfare.wireless.precoding.commands.search import HAND_MADE, SPACE, PrecodingSearch
from fieldfare.wireless.precoding.options import DEFAULT_MODEL


def main() -> None:
    """Train and print the table, a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="of fieldfare search precoding")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chosen = []
    for folder in options.folders:
        told = json.loads((folder / "front.json").read_text(encoding="utf-8"))
        chosen.append(SPACE.canonical(told["chosen"]["choice"]))
    rate = chosen[0]["learning_rate"]
    named: dict[Choice, str] = dict.fromkeys(chosen, "found")
    named |= {SPACE.canonical(HAND_MADE): "hand-made"}
    named |= {SPACE.canonical({**HAND_MADE, "learning_rate": rate}): "hand-made, found rate"}
    task = PrecodingSearch(Given(steps=options.steps, seed=options.seed))
    seconds = latency.measure({str(n): task.runner(choice) for n, choice in enumerate(named)})
    packaged = task.validate(load_precoder_network(DEFAULT_MODEL)[0])["ratio"]
    print(f"packaged {DEFAULT_MODEL}: {packaged:.4f}", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (choice, name) in enumerate(named.items()):
            target = Path(folder) / f"{number}.safetensors"
            quality = task.evaluate(choice, target, Path(folder) / str(number))
            row = {
                "network": name,
                "genes": " ".join(map(str, choice.values())),
                "ratio_wmmse": quality,
                "macs": task.macs(choice),
                "ms": 1e3 * seconds[str(number)],
            }
            print(json.dumps(row), flush=True)
            rows.append(row)
    print(console.table(rows))


if __name__ == "__main__":
    main()
