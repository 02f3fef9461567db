# SPDX-License-Identifier: Apache-2.0
"""Peak memory of `net-traffic train`, `pretrain` and `eval` by the number of flows.

    python benchmarks/netsec/training_memory.py [--flows 50000,100000,200000]

Made-up captures of 10,000 UDP flows each, five packets a flow; four fifths of them train, one fifth
is val. Each command is a process of its own, few steps long. `own_mb` is the peak of memory that
only this process can hold (RssAnon), looked at every 10 ms; pages of mapped files, which the system
takes back when it needs them, are beside it in `mapped_mb`.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from fieldfare.common.console import table

A_CAPTURE = 10_000
PACKETS = 5
PAYLOAD = 48
FRAME = 14 + 20 + 8 + PAYLOAD
PORTS = {"NAME": 53, "TIME": 123}


def write_capture(path: Path, first: int, port: int) -> None:
    """`A_CAPTURE` UDP flows of `PACKETS` packets, of clients from number `first` on."""
    header = np.array([0xA1B2C3D4, 0x00040002, 0, 0, 65535, 1], "<u4").tobytes()
    number = np.arange(first, first + A_CAPTURE)
    packets = np.zeros((A_CAPTURE, 16 + FRAME), np.uint8)
    packets[:, 28] = 0x08
    packets[:, 30:40] = [0x45, 0, 0, FRAME - 14, 0, 0, 0, 0, 64, 17]
    packets[:, 42:46] = (0x0A000000 + number).astype(">u4")[:, None].view(np.uint8)
    packets[:, 46:50] = [192, 0, 2, 1]
    packets[:, 50:56] = [4, 0, 0, port, 0, 8 + PAYLOAD]
    packets[:, 58:] = port
    with open(path, "wb") as file:
        file.write(header)
        for step in range(PACKETS):
            when = np.array([[1_000_000_000 + step, 0, FRAME, FRAME]], "<u4")
            packets[:, :16] = when.repeat(A_CAPTURE, 0).view(np.uint8)
            file.write(packets.tobytes())


def write_folder(folder: Path, flows: int) -> Path:
    """Captures and their labels file."""
    folder.mkdir()
    rows = [("file", "class", "split")]
    count = max(flows // A_CAPTURE, 1)
    for place in range(count):
        name = list(PORTS)[place % len(PORTS)]
        write_capture(folder / f"{place:04}.pcap", place * A_CAPTURE, PORTS[name])
        rows.append((f"{place:04}.pcap", name, "val" if place % 5 == 4 else "train"))
    labels = folder / "labels.csv"
    with open(labels, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return labels


def watched(arguments: list[str]) -> None:
    """Run net-traffic in this process and print the peaks, MB."""
    peaks = {"RssAnon": 0, "RssFile": 0}
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.01):
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in peaks:
                    peaks[name] = max(peaks[name], int(rest.split()[0]))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        from fieldfare.netsec.cli import main as net_traffic

        net_traffic(arguments, standalone_mode=False)
    finally:
        done.set()
        thread.join()
    print(*(value // 1024 for value in peaks.values()))


def measure(*arguments: str) -> dict[str, int]:
    """Peaks of one command."""
    found = subprocess.run(
        [sys.executable, __file__, "--run", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    own, mapped = map(int, found.stdout.split()[-2:])
    return {"own_mb": own, "mapped_mb": mapped}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flows", default="50000,100000,200000")
    parser.add_argument("--folder", type=Path, help="Where to write, on a disk.")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        for flows in map(int, options.flows.split(",")):
            folder = Path(name) / str(flows)
            labels = write_folder(folder, flows)
            run = ["--steps", "4", "--batch", "8", "--quiet"]
            trained = str(folder / "trained")
            commands = {
                "train": ["train", str(labels), "-o", trained, "--variations", "1", *run],
                "pretrain": ["pretrain", str(folder), "-o", str(folder / "pre"), *run],
                "eval": [
                    "eval", str(labels), "--split", "train", "--quiet",
                    "--model", f"{trained}/model.safetensors",
                ],
            }  # fmt: skip
            for command, arguments in commands.items():
                rows.append({"command": command, "flows": flows, **measure(*arguments)})
                print(table(rows[-1:]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        watched(sys.argv[2:])
    else:
        main()
