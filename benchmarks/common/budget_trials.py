# SPDX-License-Identifier: Apache-2.0
"""How often the variant that `infer --within` chooses keeps the time, and how near it comes.

    python benchmarks/common/budget_trials.py --shortest 8 --longest 60 --trials 20 \\
        -o trials.csv -- rs-buildings infer scene.tif -o {out}.gpkg

Each trial draws a time, evenly on a logarithmic scale, and runs the command anew as a user would:
its start, its choosing and its writing count, by the clock of the caller. Times in which nothing
fits (exit code 2) are counted by themselves. The load of the machine is printed with the result,
since whatever else runs makes all of it slower.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from fieldfare.common.console import table

COLUMNS = ("within", "took", "variant", "expected", "kept", "load")


def trial(command: list[str], within: float) -> dict[str, object]:
    """One run in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        filled = [part.replace("{out}", f"{folder}/out") for part in command]
        began = time.perf_counter()
        run = subprocess.run(
            [*filled, "--within", f"{within:.2f}s", "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        took = time.perf_counter() - began
    row: dict[str, object] = {"within": round(within, 2), "took": round(took, 2)}
    row["load"] = round(os.getloadavg()[0], 2)
    if run.returncode == 2 and "nothing fits" in run.stderr:
        return row | {"variant": "", "expected": None, "kept": None}
    if run.returncode:
        raise SystemExit(run.stderr)
    told = json.loads(run.stdout)
    expected, kept = told["expected_seconds"], took <= within
    return row | {"variant": told["variant"], "expected": expected, "kept": kept}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shortest", type=float, required=True, help="Seconds.")
    parser.add_argument("--longest", type=float, required=True, help="Seconds.")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("command", nargs="+", help="Behind --; {out} is the path of its output.")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    rows = []
    for _ in range(options.trials):
        within = options.shortest * (options.longest / options.shortest) ** rng.random()
        rows.append(trial(options.command, within))
        print(table(rows[-1:]), flush=True)
    if options.output:
        with open(options.output, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    done = [row for row in rows if row["kept"] is not None]
    kept = sum(bool(row["kept"]) for row in done)
    loads = sorted(float(str(row["load"])) for row in rows)
    print(f"{kept} of {len(done)} kept their time; in {len(rows) - len(done)} nothing fitted")
    print(f"variants: {dict(Counter(str(row['variant']) for row in done))}")
    print(f"load from {loads[0]:g} to {loads[-1]:g} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
