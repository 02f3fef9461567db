# SPDX-License-Identifier: Apache-2.0
"""Packets in 802.11 frames, of which an A-MSDU holds several; compiled, see `compiled`.

Sources: IEEE 802.11-2020, sections 9.2.4 and 9.3.2; radiotap.org; PPI of CACE; Prism and AVS as in
libpcap.
"""

from typing import Any

from . import links, scan
from .compiled import Octets, compiled
from .frames import u16, u32

_DATA = 2
_MOST_PARTS = 64


@compiled
def _le16(buffer: Octets, at: int) -> int:
    return buffer[at] + buffer[at + 1] * 256


@compiled
def radio_header(buffer: Octets, at: int, end: int, link: int) -> tuple[int, bool, bool]:
    """What the receiver tells of a frame.

    Returns:
        (bytes of it, or -1 where it is damaged; whether the header of the frame is padded to four
        bytes; whether a check sequence stands behind the frame).
    """
    if link == links.IEEE802_11:
        return 0, False, False
    if end - at < 8:
        return -1, False, False
    if link == links.PRISM:
        length = _le16(buffer, at + 4)
    elif link == links.AVS:
        length = u32(buffer, at + 4)
    else:
        length = _le16(buffer, at + 2)
    if length < 8 or length > end - at:
        return -1, False, False
    if link == links.PPI and _le16(buffer, at + 4) != links.IEEE802_11:
        return -1, False, False
    if link != links.RADIOTAP:
        return length, False, False
    place = at + 4
    present = buffer[place]
    while end - place >= 8 and buffer[place + 3] & 0x80:  # more words of what is present
        place += 4
    place += 4
    if present & 1:  # the time, eight bytes at a multiple of eight
        place = at + (place - at + 7) // 8 * 8 + 8
    if present & 2 and place < at + length:
        return length, buffer[place] & 0x20 != 0, buffer[place] & 0x10 != 0
    return length, False, False


@compiled
def frame_header(buffer: Octets, at: int, end: int, padded: bool) -> tuple[int, bool]:
    """The header of a data frame that can be read.

    Returns:
        (its bytes, or -1 for other, encrypted or later fragments of frames; whether an A-MSDU
        follows).
    """
    if end - at < 24:
        return -1, False
    kind, flags = buffer[at], buffer[at + 1]
    encrypted, later = flags & 0x40, buffer[at + 22] & 15
    if (kind >> 2) & 3 != _DATA or kind & 0x40 or encrypted or later:
        return -1, False
    length, several = 24, False
    if flags & 3 == 3:
        length += 6
    if kind & 0x80:
        if end - at < length + 2:
            return -1, False
        several = buffer[at + length] & 0x80 != 0
        length += 2
        if flags & 0x80:
            length += 4
    if padded:
        length = (length + 3) // 4 * 4
    return (length if length < end - at else -1), several


@compiled
def find_packets(buffer: Octets, record: Any, row: int, out: Any, used: int) -> int:
    """Write a record for each packet in the frame of a record; how many rows of `out` are used.

    Args:
        buffer: uint8.
        record: (N, RECORD_FIELDS) int64.
        row: of the record, whose link is of `links.WIRELESS`.
        out: (M, RECORD_FIELDS) int64, with room for 64 more; one for a frame without packets.
        used: rows in use.
    """
    at = record[row, scan.AT]
    end = at + record[row, scan.CAPTURED]
    wire_end = at + record[row, scan.WIRE]
    header, padded, checked = radio_header(buffer, at, end, record[row, scan.LINK])
    if checked:
        wire_end -= 4
        end = min(end, wire_end)
    length, several = -1, False
    if header >= 0:
        length, several = frame_header(buffer, at + header, end, padded)
    if length < 0:
        put(record, row, out, used, at, 0, 0, links.NO_IP)
        return used + 1
    at += header + length
    if not several:
        put(record, row, out, used, at, end - at, wire_end - at, links.LLC)
        return used + 1
    first = used
    for _ in range(_MOST_PARTS):
        if end - at < 14:
            break
        size = u16(buffer, at + 12)
        captured = min(size, end - at - 14)
        put(record, row, out, used, at + 14, captured, min(size, wire_end - at - 14), links.LLC)
        used += 1
        at += (14 + size + 3) // 4 * 4
    if used == first:
        put(record, row, out, used, at, 0, 0, links.NO_IP)
        used += 1
    return used


@compiled
def put(
    record: Any, row: int, out: Any, used: int, at: int, captured: int, wire: int, link: int
) -> None:
    """Write one record with the time of another."""
    out[used, scan.AT] = at
    out[used, scan.CAPTURED] = captured
    out[used, scan.WIRE] = max(wire, captured)
    out[used, scan.TIME] = record[row, scan.TIME]
    out[used, scan.LINK] = link
    out[used, scan.CLOCK] = record[row, scan.CLOCK]


@compiled
def expand(buffer: Octets, records: Any, begin: int, count: int, out: Any) -> tuple[int, int]:
    """Copy records, those of 802.11 as the packets in them, as long as there is room.

    Returns:
        (row to go on with, rows of `out` in use).
    """
    used, row = 0, begin
    while row < count and len(out) - used >= _MOST_PARTS:
        link = records[row, scan.LINK]
        if link in (links.IEEE802_11, links.PRISM, links.RADIOTAP, links.AVS, links.PPI):
            used = find_packets(buffer, records, row, out, used)
        else:
            put(
                records, row, out, used, records[row, scan.AT], records[row, scan.CAPTURED],
                records[row, scan.WIRE], link,
            )  # fmt: skip
            used += 1
        row += 1
    return row, used
