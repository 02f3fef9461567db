# SPDX-License-Identifier: Apache-2.0
"""Several seeds of one `fieldfare search` side by side: what it found, against random and by hand.

for seed in 0 1 2; do
    fieldfare search precoding --limit 1.8MMAC --evaluations 24 --seed $seed -o run$seed
done
python benchmarks/common/search_seeds.py run0 run1 run2
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common import console


def rows(folder: Path) -> list[dict[str, Any]]:
    """A row for each strategy, random search and each network made by hand."""
    told = json.loads((folder / "front.json").read_text(encoding="utf-8"))
    cost = told["objectives"][1]
    best: dict[str, dict[str, Any]] = {}
    for row in told["front"]:
        name = (
            row["preset"] or row["strategy"] if row["strategy"] == "hand-made" else row["strategy"]
        )
        if name not in best or row["quality"] > best[name]["quality"]:
            best[name] = row
    found = []
    for name, row in best.items():
        against = told["against_random"].get(name, {})
        gain = limits = None
        if against:
            gain = f"{100 * (against['hypervolume'] / against['hypervolume_of_random'] - 1):+.0f} %"
            limits = " to ".join(f"{100 * limit:+.0f} %" for limit in against["gain_interval"])
        found.append(
            {
                "seed": told["seed"],
                "found by": name,
                "best": row["quality"],
                cost: row[cost],
                "genes": " ".join(map(str, row["choice"].values())),
                "front over random": gain,
                "95 %": limits,
                "p": against.get("p_value"),
            }
        )
    return found


def main() -> None:
    """Print the table, means and standard deviations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="of fieldfare search")
    every = [row for folder in parser.parse_args().folders for row in rows(folder)]
    print(console.table(every))
    for name in dict.fromkeys(row["found by"] for row in every):
        best = np.array([row["best"] for row in every if row["found by"] == name])
        print(f"{name}: best {best.mean():.4f} +- {best.std():.4f}")


if __name__ == "__main__":
    main()
