# SPDX-License-Identifier: Apache-2.0
"""A folder of small captures with a labels file: WEB over TCP, NAME over UDP, in two splits."""

import csv
from collections.abc import Sequence
from pathlib import Path

from make_captures import ethernet, ipv4, ipv6, pcap, tcp, udp

COLUMNS = ("split", "file", "class", "l4", "addr_a", "port_a", "addr_b", "port_b")
CLIENT, SERVER = "10.0.0.1", "10.0.0.2"


def web(port: int, packets: int = 2) -> list[tuple[float, bytes]]:
    """A flow of TCP whose first packet goes to the server, the others back and forth."""
    there = ethernet(ipv4(tcp(port, 80, payload=b"GET / HTTP/1.1"), 6, CLIENT, SERVER))
    back = ethernet(ipv4(tcp(80, port, payload=b"HTTP/1.1 200 OK"), 6, SERVER, CLIENT))
    return [(port + 0.1 * i, back if i % 2 else there) for i in range(packets)]


def name(port: int) -> list[tuple[float, bytes]]:
    """One packet of UDP over IPv6."""
    packet = ethernet(ipv6(udp(port, 53, b"\x12\x34\x01\x00query"), 17), 0x86DD)
    return [(float(port), packet)]


def row(split: str, file: str, label: str, port: int) -> tuple[object, ...]:
    """A label, its ends in the order of the server first."""
    if label == "WEB":
        return (split, file, label, "TCP", SERVER, 80, CLIENT, port)
    return (split, file, label, "UDP", "fd00::2", 53, "fd00:0::1", port)


ROWS = (
    row("train", "a.pcap", "WEB", 2001),
    row("train", "a.pcap", "WEB", 2002),
    row("train", "a.pcap", "NAME", 2003),
    row("test", "b.pcap", "WEB", 3001),
    row("test", "b.pcap", "NAME", 3002),
)


def write_labels(
    folder: Path, rows: Sequence[Sequence[object]] = ROWS, columns: Sequence[str] = COLUMNS
) -> Path:
    """Write labels.csv."""
    path = folder / "labels.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def write_folder(folder: Path) -> Path:
    """Write a.pcap with three labelled flows and one more, b.pcap with two; give labels.csv."""
    first = [*web(2001, 8), *web(2002), *name(2003), *web(2009)]
    (folder / "a.pcap").write_bytes(pcap(first))
    (folder / "b.pcap").write_bytes(pcap([*web(3001), *name(3002)]))
    return write_labels(folder)


def write_web_and_name(folder: Path, *, train: int, val: int) -> Path:
    """Labels of WEB and NAME, so many flows each to train on and for validation."""
    rows = []
    for split, file, first, count in (
        ("train", "a.pcap", 2000, train),
        ("val", "v.pcap", 4000, val),
    ):
        webs = range(first, first + count)
        names = range(first + 100, first + 100 + count)
        packets = [*(p for port in webs for p in web(port)), *(p for n in names for p in name(n))]
        (folder / file).write_bytes(pcap(packets))
        rows += [row(split, file, "WEB", port) for port in webs]
        rows += [row(split, file, "NAME", port) for port in names]
    return write_labels(folder, rows)
