# SPDX-License-Identifier: Apache-2.0
"""One TCP connection, as bytes, for captures of every odd kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flow_dicts import flows_of
from make_captures import ACK, FIN, SYN, Frame, ethernet, ipv4, tcp

CLIENT, SERVER = "10.0.0.1", "10.0.0.2"
BEGAN = 1_700_000_000.0
SESSION = ("10.0.0.1", 40000, "10.0.0.2", 80, 6, 8, 6, 720, 1040)
"""Its one right row: ends, protocol, packets and bytes in both directions."""

_STEPS = [
    (0, SYN, 0), (1, SYN | ACK, 0), (0, ACK, 0),
    *[(0, 24, 100), (1, 24, 200)] * 4,
    (0, FIN | ACK, 0), (1, FIN | ACK, 0), (0, ACK, 0),
]  # fmt: skip


def row_of(row: dict) -> tuple:
    """What `SESSION` holds, of a row of the table."""
    names = ("src_ip", "src_port", "dst_ip", "dst_port", "protocol", "packets_fwd", "packets_bwd")
    return tuple(row[name] for name in (*names, "bytes_fwd", "bytes_bwd"))


def session_packets(
    began: float = BEGAN, *, step: float = 0.01, sequence: int = 1, client: str = CLIENT
) -> list[Frame]:
    """14 IP packets with their times."""
    found = []
    for number, (back, flags, size) in enumerate(_STEPS):
        ports = (80, 40000) if back else (40000, 80)
        ends = (SERVER, client) if back else (client, SERVER)
        body = tcp(*ports, flags, bytes(size), sequence)
        found.append((round(began + number * step, 6), ipv4(body, 6, *ends)))
    return found


def session(wrap: Callable[[bytes], bytes] = ethernet, **how: object) -> list[Frame]:
    """Each packet in what `wrap` makes of it."""
    return [(time, wrap(packet)) for time, packet in session_packets(**how)]  # type: ignore[arg-type]


def rows_of(capture: bytes | Path, **options: Any) -> list[tuple]:
    """The rows of a capture, sorted; options as of `FlowOptions`."""
    rows, _ = flows_of(capture, **options)
    return sorted(map(row_of, rows))
