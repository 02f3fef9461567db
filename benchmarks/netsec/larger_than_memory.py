# SPDX-License-Identifier: Apache-2.0
"""Label a capture with a netFound of full size whose weights stay in their file.

    python benchmarks/netsec/larger_than_memory.py capture.pcap --folder /tmp/large --limit 512MB

Writes a checkpoint of random weights (netFound large: 663 M weights, 2.65 GB) to the folder unless
it is there, runs `net-traffic infer` with all weights in memory and with `--weights-memory`, each
in a process of its own, and prints the peak resident memory of both, also above that of a run with
the packaged `netfound_tiny`, and whether the tables are equal. Peaks do not depend on the weights.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import torch

from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.netsec.networks.architectures import TASK, preset

CODE = """
import pathlib, sys
from fieldfare.netsec.cli import main
main(sys.argv[1:], standalone_mode=False)
# (getrusage would count what the parent held when it started this process)
status = pathlib.Path("/proc/self/status").read_text().splitlines()
print("peak", 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1]))
"""


def write(path: Path, size: str) -> None:
    """A classifier of 20 classes with random weights."""
    kind, config = preset(size)
    torch.manual_seed(0)
    network = kind.classifier(config, 20)
    values = {
        "architecture": kind.published.name,
        "network": config.to_dict(),
        "classes": [f"class_{number}" for number in range(20)],
    }
    card = ModelCard("random", TASK, "Random weights.", values)
    save_model_file(path, network.state_dict(), card)


def run(capture: Path, target: Path, *options: str) -> tuple[int, float]:
    """Peak resident bytes and seconds."""
    begin = time.perf_counter()
    command = ["infer", str(capture), "-o", str(target), "--quiet", "--overwrite", *options]
    answer = subprocess.run(
        [sys.executable, "-c", CODE, *command], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise SystemExit(answer.stderr)
    peak = next(line for line in answer.stdout.splitlines() if line.startswith("peak"))
    return int(peak.split()[1]), time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("capture", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--limit", default="512MB")
    parser.add_argument("--preset", default="netfound/large")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    model = options.folder / f"{options.preset.replace('/', '_')}.safetensors"
    if not model.exists():
        write(model, options.preset)
    print(f"{model.name}: {model.stat().st_size / 1e6:,.0f} MB")
    tables = []
    base, _ = run(options.capture, options.folder / "tiny.parquet", "--model", "netfound_tiny")
    for name, more in (("in memory", ()), (options.limit, ("--weights-memory", options.limit))):
        target = options.folder / "flows.parquet"
        peak, seconds = run(options.capture, target, "--model", str(model), *more)
        tables.append(pyarrow.parquet.read_table(target))
        above = (peak - base) / 1e6
        print(f"{name}: peak {peak / 1e6:,.0f} MB, {above:,.0f} above tiny's; {seconds:.0f} s")
    print(f"{len(tables[0])} flows, tables equal: {tables[0].equals(tables[1])}")


if __name__ == "__main__":
    main()
