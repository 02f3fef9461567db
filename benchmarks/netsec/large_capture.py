# SPDX-License-Identifier: Apache-2.0
"""Peak memory and speed of `net-traffic infer` on a large capture.

    python benchmarks/netsec/large_capture.py CAPTURES [--megabytes 1000] [--model NAME]

The Ethernet pcap files in the folder CAPTURES are joined, as `capture_speed.py` does, until they
are large enough; the command then runs as a process of its own, on as many threads as it takes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from capture_speed import join_captures

from fieldfare.common.console import table

CODE = "from fieldfare.netsec.cli import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captures", type=Path)
    parser.add_argument("--megabytes", type=float, default=1000)
    parser.add_argument("--model", default="netmamba_small")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        capture, target = Path(folder) / "large.pcap", Path(folder) / "flows.parquet"
        packets = join_captures(options.captures, capture, round(options.megabytes * 1e6))
        command = [sys.executable, "-c", CODE, "infer", str(capture), "-o", str(target)]
        began, before = time.monotonic(), sum(os.times()[2:4])
        answer = subprocess.run(
            [*command, "--model", options.model, "--json"], stdout=subprocess.PIPE, check=True
        )
        seconds, spent = time.monotonic() - began, sum(os.times()[2:4]) - before
        told = json.loads(answer.stdout)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        row = {
            "megabytes": capture.stat().st_size / 1e6,
            "packets": packets,
            "flows": told["flows"],
            "seconds": seconds,
            "cpu_seconds": spent,
            "flows_per_s": told["flows"] / seconds,
            "peak_mb": peak,
        }
    print(table([row]))


if __name__ == "__main__":
    main()
