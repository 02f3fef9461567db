# SPDX-License-Identifier: Apache-2.0
"""Processor time of whole commands, beside that of `import torch`.

    python benchmarks/common/start.py "rs-sr infer tile.tif -o x4.tif --overwrite" "wl-precode ..."

Give commands on tiny inputs: what is measured then is what they load. Each runs in turn with
`import torch`, one thread each, after a run that compiles bytecode; the ratio is that of medians.
"""

import argparse
import os
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from fieldfare.common import console

TORCH = [sys.executable, "-c", "import torch"]


def processor_seconds(command: list[str]) -> float:
    """User and system time of one run and of all that it starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}: {done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def found(text: str) -> list[str]:
    """A command line with the program beside this interpreter, or on PATH."""
    name, *arguments = shlex.split(text)
    beside = Path(sys.executable).with_name(name)
    program = str(beside) if beside.exists() else shutil.which(name)
    if program is None:
        raise SystemExit(f"{name}: no such command")
    return [program, *arguments]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="+")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for text in options.commands:
        command = found(text)
        processor_seconds(command)
        processor_seconds(TORCH)
        own, torch = [], []
        for _ in range(options.repeats):
            own.append(processor_seconds(command))
            torch.append(processor_seconds(TORCH))
        seconds, base = statistics.median(own), statistics.median(torch)
        rows.append(
            {
                "command": " ".join(text.split()[:2]),
                "seconds": seconds,
                "import torch": base,
                "ratio": seconds / base,
            }
        )
    print(console.table(rows))


if __name__ == "__main__":
    main()
