# SPDX-License-Identifier: Apache-2.0
"""Captures built byte by byte: frames, and the files around them."""

import struct
from collections.abc import Sequence
from socket import AF_INET, AF_INET6, inet_pton

Frame = tuple[float, bytes]
"""Seconds and bytes."""

FIN, SYN, RST, ACK = 1, 2, 4, 16


def tcp(
    sport: int = 1000, dport: int = 80, flags: int = ACK, payload: bytes = b"", sequence: int = 1
) -> bytes:
    return struct.pack("!HHIIBBHHH", sport, dport, sequence, 2, 0x50, flags, 100, 0, 0) + payload


def udp(sport: int = 1000, dport: int = 53, payload: bytes = b"") -> bytes:
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


def ipv4(
    body: bytes,
    protocol: int = 6,
    source: str = "10.0.0.1",
    destination: str = "10.0.0.2",
    *,
    options: bytes = b"",
    fragment: int = 0,
    number: int = 7,
    length: int | None = None,
) -> bytes:
    header = 20 + len(options)
    return (
        struct.pack(
            "!BBHHHBBH4s4s",
            0x40 | header // 4,
            0,
            header + len(body) if length is None else length,
            number,
            fragment,
            64,
            protocol,
            0,
            inet_pton(AF_INET, source),
            inet_pton(AF_INET, destination),
        )
        + options
        + body
    )


def ipv6(
    body: bytes,
    following: int = 6,
    source: str = "fd00::1",
    destination: str = "fd00::2",
) -> bytes:
    addresses = inet_pton(AF_INET6, source) + inet_pton(AF_INET6, destination)
    return struct.pack("!IHBB", 6 << 28, len(body), following, 64) + addresses + body


def ethernet(body: bytes, kind: int = 0x0800, tags: Sequence[int] = ()) -> bytes:
    header = bytes(12)
    for tag in tags:
        header += struct.pack("!HH", tag, 5)
    return header + struct.pack("!H", kind) + body


def pcap(
    frames: Sequence[Frame],
    link: int = 1,
    *,
    order: str = "<",
    nano: bool = False,
    snap: int | None = None,
) -> bytes:
    magic, unit = (0xA1B23C4D, 10**9) if nano else (0xA1B2C3D4, 10**6)
    out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    for time, frame in frames:
        seconds = int(time)
        fraction = round((time - seconds) * unit)
        kept = frame[:snap]
        out += struct.pack(order + "IIII", seconds, fraction, len(kept), len(frame))
        out += kept
    return out


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(
    link: int = 1, *, order: str = "<", resolution: int | None = None, offset: int | None = None
) -> bytes:
    options = b""
    if resolution is not None:
        options += struct.pack(order + "HHB3x", 9, 1, resolution)
    if offset is not None:
        options += struct.pack(order + "HHq", 14, 8, offset)
    return block(1, struct.pack(order + "HHI", link, 0, 0) + options, order)


def enhanced(ticks: int, frame: bytes, *, order: str = "<", number: int = 0) -> bytes:
    header = struct.pack(
        order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame)
    )
    return block(6, header + frame, order)


def pcapng(frames: Sequence[Frame], link: int = 1, *, order: str = "<") -> bytes:
    packets = b"".join(enhanced(round(t * 10**6), frame, order=order) for t, frame in frames)
    return section(order) + interface(link, order=order) + packets
