# SPDX-License-Identifier: Apache-2.0
"""What choosing costs: `infer --within` beside `infer --variant` of what it chose.

    python benchmarks/common/budget_overhead.py --within 10min --repeats 2 \\
        -- rs-buildings infer scene.tif -o {out}.gpkg

Each command starts anew, in turn; the processor's seconds count, the smallest of several, as they
feel little of what else runs. Most of all it matters where inputs are small: there what is done on
trial is much of the work.
"""

import argparse
import json
import os
import subprocess
import tempfile

from fieldfare.common.console import table


def run(command: list[str], *options: str) -> tuple[float, dict[str, object]]:
    """Processor seconds of one run in a folder that is thrown away, and what it told."""
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/told", "w+") as told:
        filled = [part.replace("{out}", f"{folder}/out") for part in command]
        process = subprocess.Popen([*filled, *options, "--json", "--quiet"], stdout=told)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(filled)} ended with {process.returncode}")
        told.seek(0)
        return used.ru_utime + used.ru_stime, json.load(told)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--within", default="10min")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("command", nargs="+", help="Behind --; {out} is the path of its output.")
    options = parser.parse_args()
    chosen: list[float] = []
    named: list[float] = []
    expected: list[float] = []
    for _ in range(options.repeats):
        seconds, told = run(options.command, "--within", options.within)
        chosen.append(seconds)
        expected.append(float(str(told["expected_seconds"])))
        named.append(run(options.command, "--variant", str(told["variant"]))[0])
    row = {
        "command": options.command[0],
        "variant": told["variant"],
        "--variant s": round(min(named), 2),
        "--within s": round(min(chosen), 2),
        "expected s": round(min(expected), 2),
    }
    print(table([row]))


if __name__ == "__main__":
    main()
