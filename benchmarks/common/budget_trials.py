# SPDX-License-Identifier: Apache-2.0
"""How often the variant that `infer` chooses keeps the time or the memory, and how near it comes.

    python benchmarks/common/budget_trials.py --shortest 8 --longest 60 --trials 20 \\
        -o trials.csv -- rs-buildings infer scene.tif -o {out}.gpkg
    python benchmarks/common/budget_trials.py --memory --shortest 700 --longest 2000 -- ...
    python benchmarks/common/budget_trials.py --relative --shortest 0.6 --longest 3 -- ...

Each trial draws a time, evenly on a logarithmic scale, and runs the command anew as a user would:
its start, its choosing and its writing count, by the clock of the caller. With --memory it draws
MiB, and what the system says of the process's peak counts. With --relative --shortest and --longest
are multiples of what the command takes by the best variant that two hours allow, choosing included,
run once before. Those in which nothing fits (exit code 2) are counted by themselves. The load of
the machine is printed with the result, since whatever else runs makes all of it slower.
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

COLUMNS = ("limit", "took", "variant", "expected", "kept", "load")

REFUSED = ("nothing fits", "at the least")
"""Of the lines that refuse a limit as too small."""

GENEROUS = {False: 7200.0, True: 65536.0}
"""Seconds, or MiB, of the run that --relative makes first."""


def trial(command: list[str], limit: float, *, memory: bool) -> dict[str, object]:
    """One run in a folder that is thrown away; the limit is of seconds, or MiB."""
    option = ["--max-memory", f"{limit:.0f}MiB"] if memory else ["--within", f"{limit:.2f}s"]
    with tempfile.TemporaryDirectory() as folder:
        filled = [part.replace("{out}", f"{folder}/out") for part in command]
        with open(f"{folder}/told", "w+") as told, open(f"{folder}/said", "w+") as said:
            began = time.perf_counter()
            run = subprocess.Popen([*filled, *option, "--json"], stdout=told, stderr=said)
            _, status, used = os.wait4(run.pid, 0)
            seconds = time.perf_counter() - began
            run.returncode = os.waitstatus_to_exitcode(status)
            told.seek(0)
            said.seek(0)
            answer, errors = told.read(), said.read()
    took = used.ru_maxrss / 1024 if memory else seconds
    row: dict[str, object] = {"limit": round(limit, 2), "took": round(took, 2)}
    row["load"] = round(os.getloadavg()[0], 2)
    if run.returncode == 2 and any(words in errors for words in REFUSED):
        return row | {"variant": "", "expected": None, "kept": None}
    if run.returncode:
        raise SystemExit(errors)
    found = json.loads(answer)
    expected = None if memory else found["expected_seconds"]
    variant = found.get("variant") or "as planned"  # where memory chooses none
    return row | {"variant": variant, "expected": expected, "kept": took <= limit}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memory", action="store_true", help="Draw memory instead of time.")
    parser.add_argument("--relative", action="store_true", help="Draw multiples of a first run's.")
    parser.add_argument("--shortest", type=float, required=True, help="Seconds, MiB or multiples.")
    parser.add_argument("--longest", type=float, required=True, help="Seconds, MiB or multiples.")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("command", nargs="+", help="Behind --; {out} is the path of its output.")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    rows = []
    unit = 1.0
    if options.relative:
        first = trial(options.command, GENEROUS[options.memory], memory=options.memory)
        unit = float(str(first["took"]))
        print(f"multiples of {unit:g}", flush=True)
    for _ in range(options.trials):
        limit = unit * options.shortest * (options.longest / options.shortest) ** rng.random()
        rows.append(trial(options.command, limit, memory=options.memory))
        print(table(rows[-1:]), flush=True)
    if options.output:
        with open(options.output, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    done = [row for row in rows if row["kept"] is not None]
    kept = sum(bool(row["kept"]) for row in done)
    loads = sorted(float(str(row["load"])) for row in rows)
    print(f"{kept} of {len(done)} kept to it; in {len(rows) - len(done)} nothing fitted")
    print(f"variants: {dict(Counter(str(row['variant']) for row in done))}")
    print(f"load from {loads[0]:g} to {loads[-1]:g} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
