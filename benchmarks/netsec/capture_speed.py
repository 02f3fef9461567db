# SPDX-License-Identifier: Apache-2.0
"""MB per CPU-second from a capture to its flows: this package, scapy, dpkt and nfstream.

    python benchmarks/netsec/capture_speed.py CAPTURES [--megabytes 200] [--rounds 1] [--csv FILE]

The Ethernet pcap files in the folder CAPTURES are joined to one file, over and over and each one
later in time than the last, until it is large enough. All contenders have the same timeouts and
give packets, bytes, first and last time in both directions of each flow: scapy and dpkt read the
packets for a flow table in Python, nfstream runs with one meter, without dissection and without
further statistics. scapy, dpkt and nfstream are left out where they cannot be imported. CPU seconds
count child processes; imports and compilation do not count.
"""

import argparse
import csv
import importlib.util
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from fieldfare.common.console import table
from fieldfare.netsec.capture import FlowOptions, read_flows

IDLE, ACTIVE = 120, 1800
_MAGIC = b"\xd4\xc3\xb2\xa1"  # little-endian, microseconds
_HEADER = struct.Struct("<IIII")
_LONGEST = 86_400  # seconds; longer captures have a broken clock
_PORTS = {6, 17, 132, 136, 33}


def join_captures(folder: Path, target: Path, size: int) -> int:
    """Write a capture of at least `size` bytes; its packets."""
    captures = []
    for path in sorted(folder.rglob("*.pcap")):
        content = path.read_bytes()
        if content[:4] == _MAGIC and int.from_bytes(content[20:24], "little") == 1:
            times = [time for time, _, _ in records(content)]
            if times and max(times) - min(times) < _LONGEST:
                captures.append((content, min(times)))
    if not captures:
        raise SystemExit(f"{folder}: holds no Ethernet pcap (little-endian, microseconds)")
    packets, now = 0, 1_000_000_000
    with open(target, "wb") as file:
        file.write(captures[0][0][:24])
        while file.tell() < size:
            for content, first in captures:
                shift = now + 1 - first
                for time, begin, end in records(content):
                    now = max(now, time + shift)
                    file.write(struct.pack("<I", time + shift) + content[begin + 4 : end])
                    packets += 1
    return packets


def records(content: bytes) -> Iterator[tuple[int, int, int]]:
    """(seconds, begin, end) of each whole record."""
    at = 24
    while at + 16 <= len(content):
        time, _, captured, _ = _HEADER.unpack_from(content, at)
        end = at + 16 + captured
        if end > len(content):
            return
        yield time, at, end
        at = end


def ours(path: Path) -> tuple[int, int]:
    options = FlowOptions(idle_timeout=IDLE, active_timeout=ACTIVE, linger=None)
    flows = octets = 0
    for batch in read_flows(path, options=options):
        flows += len(batch)
        octets += int(batch.bytes_fwd.sum() + batch.bytes_bwd.sum())
    return flows, octets


def with_scapy(path: Path) -> tuple[int, int]:
    from scapy.utils import RawPcapReader

    with RawPcapReader(str(path)) as reader:
        return python_table((meta.sec + meta.usec / 1e6, data) for data, meta in reader)


def with_dpkt(path: Path) -> tuple[int, int]:
    import dpkt

    with open(path, "rb") as file:
        return python_table(dpkt.pcap.Reader(file))


def python_table(frames: Iterator[tuple[float, bytes]]) -> tuple[int, int]:
    """Flows and bytes of (seconds, Ethernet frame), as one writes it in Python for speed."""
    live: dict[tuple, list] = {}
    ended = octets = 0
    for time, frame in frames:
        at, kind = 14, frame[12:14]
        while kind in (b"\x81\x00", b"\x88\xa8"):
            at, kind = at + 4, frame[at + 2 : at + 4]
        if kind == b"\x08\x00" and len(frame) >= at + 20:
            length = int.from_bytes(frame[at + 2 : at + 4], "big")
            protocol = frame[at + 9]
            source, destination = frame[at + 12 : at + 16], frame[at + 16 : at + 20]
            at += (frame[at] & 15) * 4
        elif kind == b"\x86\xdd" and len(frame) >= at + 40:
            length = 40 + int.from_bytes(frame[at + 4 : at + 6], "big")
            protocol = frame[at + 6]
            source, destination = frame[at + 8 : at + 24], frame[at + 24 : at + 40]
            at += 40
        else:
            continue
        ports = frame[at : at + 4] if protocol in _PORTS else b"\0\0\0\0"
        key = (source, destination, ports, protocol)
        flow, backward = live.get(key), 0
        if flow is None:
            reverse = (destination, source, ports[2:] + ports[:2], protocol)
            flow, backward = live.get(reverse), 1
        if flow is not None and (time - flow[1] > IDLE or time - flow[0] > ACTIVE):
            ended += 1
            del live[reverse if backward else key]
            flow = None
        if flow is None:
            flow, backward = [time, time, 0, 0, 0, 0], 0
            live[key] = flow
        flow[1] = time
        flow[2 + backward] += 1
        flow[4 + backward] += length
        octets += length
    return ended + len(live), octets


def with_nfstream(path: Path) -> tuple[int, int]:
    from nfstream import NFStreamer

    flows = octets = 0
    for flow in NFStreamer(
        source=str(path),
        idle_timeout=IDLE,
        active_timeout=ACTIVE,
        accounting_mode=1,  # lengths of IP packets
        n_dissections=0,
        statistical_analysis=False,
        n_meters=1,
    ):
        flows += 1
        octets += flow.bidirectional_bytes
    return flows, octets


CONTENDERS: dict[str, tuple[str, Callable[[Path], tuple[int, int]]]] = {
    "fieldfare": ("fieldfare", ours),
    "scapy": ("scapy", with_scapy),
    "dpkt": ("dpkt", with_dpkt),
    "nfstream": ("nfstream", with_nfstream),
}


def cpu_seconds() -> float:
    """Of this process and of the children that have ended."""
    return sum(os.times()[:4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captures", type=Path)
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, small = Path(folder) / "joined.pcap", Path(folder) / "small.pcap"
        packets = join_captures(options.captures, path, round(options.megabytes * 1e6))
        small.write_bytes(path.read_bytes()[:100_000])
        size = path.stat().st_size / 1e6
        best: dict[str, dict] = {}
        for _ in range(options.rounds):
            for name, (module, run) in CONTENDERS.items():
                if importlib.util.find_spec(module) is None:
                    print(f"{name}: not installed, left out")
                    continue
                run(small)
                before = cpu_seconds()
                flows, octets = run(path)
                spent = cpu_seconds() - before
                if name not in best or spent < best[name]["cpu_s"]:
                    best[name] = {
                        "reader": name,
                        "cpu_s": spent,
                        "mb_per_cpu_s": size / spent,
                        "kpackets_per_cpu_s": packets / spent / 1e3,
                        "flows": flows,
                        "ip_mb": octets / 1e6,
                    }
    rows = list(best.values())
    for row in rows:
        row["ours_is_faster_by"] = row["cpu_s"] / best["fieldfare"]["cpu_s"]
    print(f"{size:.0f} MB, {packets:,} packets, one thread")
    print(table(rows))
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
