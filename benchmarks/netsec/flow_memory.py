# SPDX-License-Identifier: Apache-2.0
"""Peak memory of the flow table with a million concurrent flows.

    python benchmarks/netsec/flow_memory.py [--flows 1000000]

The capture is made up: UDP packets of as many 5-tuples as there are flows, all of them seen twice
within the idle timeout. Each measurement is a process of its own; `base_mb` is its memory once the
reader has run on a single flow.
"""

import argparse
import multiprocessing
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from fieldfare.common.console import table

PAYLOAD = 64
FRAME = 14 + 20 + 8 + PAYLOAD
BLOCK = 100_000
PASSES = 2


def write_capture(path: Path, flows: int) -> None:
    """`flows` UDP flows of one packet in each of two passes, ten seconds apart."""
    header = np.array([0xA1B2C3D4, 0x00040002, 0, 0, 65535, 1], "<u4").tobytes()
    with open(path, "wb") as file:
        file.write(header)
        for step in range(PASSES):
            for start in range(0, flows, BLOCK):
                number = np.arange(start, min(start + BLOCK, flows))
                packets = np.zeros((len(number), 16 + FRAME), np.uint8)
                packets[:, :16] = (
                    np.array([[1_000_000_000 + 10 * step, 0, FRAME, FRAME]], "<u4")
                    .repeat(len(number), 0)
                    .view(np.uint8)
                )
                packets[:, 28] = 0x08
                packets[:, 30:40] = [0x45, 0, 0, FRAME - 14, 0, 0, 0, 0, 64, 17]
                packets[:, 42:46] = (0x0A000000 + number).astype(">u4")[:, None].view(np.uint8)
                packets[:, 46:50] = [192, 0, 2, 1]
                packets[:, 50:56] = [4, 0, 0, 53, 0, 8 + PAYLOAD]
                file.write(packets.tobytes())


def measure(path: Path, small: Path, keep_packets: int) -> dict[str, float]:
    """Peaks in MB, in this process, before and after the capture has been read."""
    from fieldfare.netsec.capture import FlowOptions, read_flows

    options = FlowOptions(keep_packets=keep_packets)
    for _ in read_flows(small, options=options):
        pass
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    stream = read_flows(path, options=options)
    flows = sum(map(len, stream))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    most = stream.counts.most_flows
    return {
        "keep_packets": keep_packets,
        "flows": flows,
        "concurrent": most,
        "evicted": stream.counts.evicted,
        "base_mb": base,
        "peak_mb": peak,
        "bytes_per_flow": (peak - base) * 2**20 / most,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flows", type=int, default=1_000_000)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path, small = Path(folder) / "many.pcap", Path(folder) / "one.pcap"
        write_capture(path, options.flows)
        write_capture(small, 1)
        for keep_packets in (0, 5):
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                rows.append(pool.submit(measure, path, small, keep_packets).result())
    print(table(rows))


if __name__ == "__main__":
    main()
