# SPDX-License-Identifier: Apache-2.0
"""Finding the packet records in a buffer of a pcap or pcapng file; compiled, see `compiled`.

Sources: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.
"""

from typing import Any

from .compiled import Octets, compiled
from .frames import u16, u32
from .links import UNKNOWN

AT, CAPTURED, WIRE, TIME, LINK, CLOCK = 0, 1, 2, 3, 4, 5
"""Columns of a record, int64: offset in the buffer, bytes captured and on the wire, nanoseconds
since 1970 (UTC), link type, number of the interface, whose clock gave the time."""
RECORD_FIELDS = 6

MORE, FULL, BROKEN, SECTION, INTERFACE = 0, 1, 2, 3, 4
"""Why a scan ended: it needs more bytes, the records are full, the structure is lost, or a block
comes next that describes a section or an interface and is read outside."""

MAX_CAPTURE = 1 << 20
"""Most bytes of a packet that may have been kept; segments of BIG TCP have up to half of it."""
MAX_WIRE = 1 << 24
"""Most bytes a packet may have had on the wire; what claims more is cut to it."""
MAX_BLOCK = 16 << 20
"""Most bytes a block of pcapng may have; the same limit as Wireshark's."""

(INTERFACE_LINK, INTERFACE_SNAP, INTERFACE_BASE, INTERFACE_EXPONENT, INTERFACE_OFFSET,
 INTERFACE_CHECK) = range(6)  # fmt: skip
"""Columns of an interface, int64: link type, snap length (0: none), time unit as BASE (2 or 10) to
the power of minus EXPONENT, seconds to add, bytes of the check sequence behind each frame."""
INTERFACE_FIELDS = 6

LAST_TIME, DAMAGED_BLOCKS = 0, 1
"""What a scan of pcapng carries on: the time of the latest packet, blocks left out as damaged."""
SCAN_FIELDS = 2

MAX_SECONDS = 9_000_000_000
"""Latest time kept (the year 2255): nanoseconds then stay within 63 bits."""

_INTERFACE_BLOCK, _PACKET_BLOCK, _SIMPLE_BLOCK, _ENHANCED_BLOCK = 1, 2, 3, 6
_SECTION_BLOCK = 0x0A0D0D0A


@compiled
def word(buffer: Octets, at: int, big: bool) -> int:
    """32 bits in the byte order of the file."""
    if big:
        return u32(buffer, at)
    return half(buffer, at + 2, big) * 65536 + half(buffer, at, big)


@compiled
def half(buffer: Octets, at: int, big: bool) -> int:
    """16 bits in the byte order of the file."""
    if big:
        return u16(buffer, at)
    return buffer[at + 1] * 256 + buffer[at]


@compiled
def put(
    records: Any, row: int, at: int, captured: int, wire: int, time: int, link: int, clock: int,
    check: int,
) -> None:  # fmt: skip
    """Write one record; the length on the wire is made plausible, the check sequence cut off."""
    wire = max(min(wire, MAX_WIRE), captured)
    if check > 0 and wire >= check:
        wire -= check
        captured = min(captured, wire)
    records[row, AT] = at
    records[row, CAPTURED] = captured
    records[row, WIRE] = wire
    records[row, TIME] = time
    records[row, LINK] = link
    records[row, CLOCK] = clock


@compiled
def scan_pcap(
    buffer: Octets, at: int, end: int, big: bool, nano: bool, header: int, link: int, check: int,
    records: Any,
) -> tuple[int, int, int]:  # fmt: skip
    """Find the records of a pcap file from a record's first byte on.

    Args:
        buffer: uint8; valid from `at` to `end`.
        at: where the next record begins.
        end: end of the valid bytes.
        big: the file is big-endian.
        nano: fractions of a second are in nanoseconds, else in microseconds.
        header: bytes before each packet: 16, or more where the file is of a patched libpcap.
        link: link type of the file.
        check: bytes of the check sequence behind each frame.
        records: (N, RECORD_FIELDS) int64, filled from row 0.

    Returns:
        (records found, where the next one begins, MORE, FULL or BROKEN).
    """
    for row in range(len(records)):
        if end - at < header:
            return row, at, MORE
        captured = word(buffer, at + 8, big)
        if captured > MAX_CAPTURE:
            return row, at, BROKEN
        if end - at - header < captured:
            return row, at, MORE
        fraction = word(buffer, at + 4, big)
        time = word(buffer, at, big) * 1_000_000_000 + (fraction if nano else fraction * 1000)
        wire = word(buffer, at + 12, big)
        put(records, row, at + header, captured, wire, time, link, 0, check)
        at += header + captured
    return len(records), at, FULL


@compiled
def to_nanoseconds(high: int, low: int, base: int, exponent: int, offset: int) -> int:
    """A time of pcapng in nanoseconds since 1970, kept within 0 and MAX_SECONDS.

    Args:
        high: upper 32 bits.
        low: lower 32 bits.
        base: 2 or 10.
        exponent: the unit is base to the power of -exponent; at most 62 for 2, 18 for 10.
        offset: seconds to add.
    """
    ticks = ((high & 0x7FFFFFFF) << 32) | low
    if base == 2:
        seconds = ticks >> exponent
        fraction = ticks & ((1 << exponent) - 1)
        if exponent > 33:  # so that the product below fits
            fraction >>= exponent - 33
            exponent = 33
        fraction = (fraction * 1_000_000_000) >> exponent
    else:
        unit = 10**exponent
        seconds = ticks // unit
        fraction = ticks % unit
        if exponent > 9:
            fraction //= 10 ** (exponent - 9)
        else:
            fraction *= 10 ** (9 - exponent)
    seconds = max(min(seconds, MAX_SECONDS) + offset, 0)
    return min(seconds, MAX_SECONDS) * 1_000_000_000 + fraction


@compiled
def scan_pcapng(
    buffer: Octets,
    at: int,
    end: int,
    big: bool,
    interfaces: Any,
    known: int,
    state: Any,
    records: Any,
) -> tuple[int, int, int]:
    """Find the packets of a pcapng file from a block's first byte on.

    Args:
        buffer: uint8; valid from `at` to `end`.
        at: where the next block begins.
        end: end of the valid bytes.
        big: the section is big-endian.
        interfaces: (K, INTERFACE_FIELDS) int64.
        known: how many of them the section has described so far.
        state: SCAN_FIELDS int64, updated.
        records: (N, RECORD_FIELDS) int64, filled from row 0.

    Returns:
        (records found, where the next block begins, why the scan ended). Blocks that hold no
        packet are passed over.
    """
    row = 0
    while row < len(records):
        if end - at < 12:
            return row, at, MORE
        kind = word(buffer, at, big)
        if kind == _SECTION_BLOCK:  # its length is in a byte order yet to be learnt
            return row, at, SECTION
        length = word(buffer, at + 4, big)
        if length < 12 or length % 4 != 0 or length > MAX_BLOCK:
            return row, at, BROKEN
        if end - at < length:
            return row, at, MORE
        if word(buffer, at + length - 4, big) != length:
            return row, at, BROKEN
        if kind == _INTERFACE_BLOCK:
            return row, at, INTERFACE
        row += read_block(buffer, at, kind, length, big, interfaces, known, state, records, row)
        at += length
    return row, at, FULL


@compiled
def read_block(
    buffer: Octets, at: int, kind: int, length: int, big: bool,
    interfaces: Any, known: int, state: Any, records: Any, row: int,
) -> int:  # fmt: skip
    """Write the packet of one block, if it holds one, to a row; how many were written."""
    if kind not in (_ENHANCED_BLOCK, _PACKET_BLOCK, _SIMPLE_BLOCK):
        return 0
    header = 12 if kind == _SIMPLE_BLOCK else 28
    interface = 0
    if kind == _ENHANCED_BLOCK and length >= 16:
        interface = word(buffer, at + 8, big)
    elif kind == _PACKET_BLOCK and length >= 16:
        interface = half(buffer, at + 8, big)
    if length < header + 4 or interface >= known:
        state[DAMAGED_BLOCKS] += 1
        return 0
    link = interfaces[interface, INTERFACE_LINK]
    room = length - header - 4
    if kind == _SIMPLE_BLOCK:
        wire = word(buffer, at + 8, big)
        snap = interfaces[interface, INTERFACE_SNAP]
        captured = min(wire, snap if snap > 0 else wire, room)
    else:
        captured = word(buffer, at + 20, big)
        wire = word(buffer, at + 24, big)
    if captured > room or captured > MAX_CAPTURE or link == UNKNOWN:
        state[DAMAGED_BLOCKS] += 1
        return 0
    if kind != _SIMPLE_BLOCK:  # a simple block has no time: the latest before it stands in
        state[LAST_TIME] = to_nanoseconds(
            word(buffer, at + 12, big),
            word(buffer, at + 16, big),
            interfaces[interface, INTERFACE_BASE],
            interfaces[interface, INTERFACE_EXPONENT],
            interfaces[interface, INTERFACE_OFFSET],
        )
    check = interfaces[interface, INTERFACE_CHECK]
    put(records, row, at + header, captured, wire, state[LAST_TIME], link, interface, check)
    return 1
