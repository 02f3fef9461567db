# SPDX-License-Identifier: Apache-2.0
"""pcap and pcapng files, read as a stream in bounded memory.

Sources: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.
"""

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fieldfare.common.errors import InputError

from . import scan
from .compiled import view
from .links import UNKNOWN
from .sources import ByteSource

CHUNK = 1 << 20
"""Bytes read at a time: as large as a second-level cache, so that a record is still in it when its
flow is looked up (4 MiB is a fifth slower)."""
_GLANCE = 1 << 16
_RECORDS = 4096
_MOST_INTERFACES = 65_536

_PCAP = {
    b"\xd4\xc3\xb2\xa1": (False, False, 16),
    b"\x4d\x3c\xb2\xa1": (False, True, 16),
    b"\xa1\xb2\xc3\xd4": (True, False, 16),
    b"\xa1\xb2\x3c\x4d": (True, True, 16),
    b"\x34\xcd\xb2\xa1": (False, False, 24),
    b"\xa1\xb2\xcd\x34": (True, False, 24),
}
"""By their first bytes: big-endian, nanoseconds, length of a record's header; the last two are of
Kuznetzov's libpcap, which adds interface, protocol and direction to each packet."""
_PCAPNG = b"\x0a\x0d\x0d\x0a"
MAGICS = frozenset({*_PCAP, _PCAPNG})
"""The first four bytes of captures."""


@dataclass
class ReadCounts:
    """What reading a capture met.

    Attributes:
        captures: files or streams read.
        bytes: read after decompression, up to where a broken capture breaks.
        damaged_blocks: blocks of pcapng left out (their packet contradicts the block).
        broken: captures whose structure was lost on the way; the rest of them is unread.
        cut_short: captures that end within a record.
    """

    captures: int = 0
    bytes: int = 0
    damaged_blocks: int = 0
    broken: int = 0
    cut_short: int = 0


class Packets(NamedTuple):
    """Packets that lie in a buffer until the next ones are asked for.

    Attributes:
        buffer: uint8, writable.
        records: (N, RECORD_FIELDS) int64, see `scan`.
        used: rows in use; 0 where nothing has come for now.
    """

    buffer: np.ndarray
    records: np.ndarray
    used: int


class PacketReader:
    """Iterates over the packets of a capture, some thousands at a time.

    Args:
        source: where the bytes come from; closed at the end.
        counts: updated on the way.
        chunk: bytes read at a time; does not change what comes out.

    Raises:
        InputError: while iterating: empty, or neither pcap nor pcapng.
    """

    def __init__(self, source: ByteSource, counts: ReadCounts, chunk: int = CHUNK) -> None:
        self._source = source
        self._counts = counts
        self._chunk = chunk
        self._buffer = np.empty(2 * chunk, np.uint8)
        self._at = self._end = 0
        self._records = np.empty((_RECORDS, scan.RECORD_FIELDS), np.int64)

    def __iter__(self) -> Generator[Packets, None, None]:
        try:
            self._counts.captures += 1
            magic = yield from self._need(4)
            if magic in _PCAP:
                yield from self._pcap(*_PCAP[magic])
            elif magic == _PCAPNG:
                yield from _Pcapng(self).packets()
            elif self._source.damaged:
                raise InputError(
                    f"{self._source.name}: its compression is damaged from the beginning; "
                    "record it again"
                )
            elif not magic:
                raise InputError(f"{self._source.name}: is empty; record the capture again")
            else:
                raise InputError(
                    f"{self._source.name}: is neither pcap nor pcapng; convert it first "
                    "(editcap -F pcapng)"
                )
            self._counts.broken += self._source.damaged
        finally:
            self._source.close()

    def _pcap(self, big: bool, nano: bool, record: int) -> Iterator[Packets]:
        header = yield from self._need(24)
        if len(header) < 24:
            raise InputError(
                f"{self._source.name}: ends within the header of the file; record it again"
            )
        # The upper bits tell of a check sequence behind each frame, and how many words it has.
        field = int.from_bytes(header[20:24], "big" if big else "little")
        link = field & 0x03FFFFFF
        check = 2 * (field >> 28) if field & 0x04000000 else 0
        self._at += 24
        while True:
            found, self._at, status = scan.scan_pcap(
                view(self._buffer), self._at, self._end, big, nano, record, link, check,
                view(self._records),
            )  # fmt: skip
            if found:
                yield Packets(self._buffer, self._records, found)
            if status == scan.BROKEN:
                self._give_up()
                return
            if status == scan.MORE and not (yield from self._more()):
                return

    def _give_up(self) -> None:
        """Count a capture as broken where it stands; what was read ahead does not count."""
        self._counts.broken += 1
        self._counts.bytes -= self._end - self._at

    def _need(self, count: int) -> Any:
        """The next bytes without taking them, fewer at the end of the source; a generator."""
        while self._end - self._at < count and (yield from self._more(cut_short=False)):
            pass
        return self._buffer[self._at : min(self._at + count, self._end)].tobytes()

    def _more(self, cut_short: bool = True) -> Any:
        """Read on, keeping what is unread; False at the end; a generator of empty packets.

        A record or block is at most MAX_BLOCK bytes long, and so is what is kept.
        """
        kept = self._end - self._at
        if kept + self._chunk > len(self._buffer):
            size = 2 * max(kept, self._chunk)
            grown = np.empty(size, np.uint8)
            grown[:kept] = self._buffer[self._at : self._end]
            self._buffer = grown
        else:
            self._buffer[:kept] = self._buffer[self._at : self._end].copy()
        self._at, self._end = 0, kept
        target = self._buffer.data
        while (taken := self._source.read_into(target[kept : kept + self._chunk])) is None:
            yield Packets(self._buffer, self._records, 0)
        self._end += taken
        self._counts.bytes += taken
        if taken == 0 and kept and cut_short:
            self._counts.cut_short += 1
        return taken > 0


class _Pcapng:
    """The sections and interfaces of a pcapng file; shares the buffer of its reader."""

    def __init__(self, reader: PacketReader) -> None:
        self._reader = reader
        self._big = False
        self._interfaces = np.zeros((16, scan.INTERFACE_FIELDS), np.int64)
        self._known = 0
        self._state = np.zeros(scan.SCAN_FIELDS, np.int64)

    def packets(self) -> Iterator[Packets]:
        reader, counts = self._reader, self._reader._counts
        first = True
        while True:
            found, reader._at, status = scan.scan_pcapng(
                view(reader._buffer),
                reader._at,
                reader._end,
                self._big,
                view(self._interfaces),
                self._known,
                view(self._state),
                view(reader._records),
            )
            counts.damaged_blocks += int(self._state[scan.DAMAGED_BLOCKS])
            self._state[scan.DAMAGED_BLOCKS] = 0
            if found:
                yield Packets(reader._buffer, reader._records, found)
            if status == scan.SECTION:
                whole = yield from self._section()
                if not whole and first:
                    raise InputError(
                        f"{reader._source.name}: the section header of this pcapng is damaged; "
                        "record it again"
                    )
                first = False
                status = scan.FULL if whole else scan.BROKEN
            elif status == scan.INTERFACE:
                status = scan.FULL if self._interface() else scan.BROKEN
            if status == scan.BROKEN:
                reader._give_up()
                return
            if status == scan.MORE and not (yield from reader._more()):
                return

    def _section(self) -> Any:
        """Take a section header block; False when it is damaged; a generator."""
        reader = self._reader
        header = yield from reader._need(16)
        order = header[8:12]
        if len(header) < 16 or order not in (b"\x1a\x2b\x3c\x4d", b"\x4d\x3c\x2b\x1a"):
            return False
        big = order == b"\x1a\x2b\x3c\x4d"
        length = int.from_bytes(header[4:8], "big" if big else "little")
        major = int.from_bytes(header[12:14], "big" if big else "little")
        if length < 28 or length % 4 or length > scan.MAX_BLOCK or major != 1:
            return False
        if len((yield from reader._need(length))) < length:
            return False
        reader._at += length
        self._big, self._known = big, 0
        return True

    def _interface(self) -> bool:
        """Take an interface description block, which lies whole in the buffer."""
        reader = self._reader
        order = "big" if self._big else "little"
        start = reader._at + 4
        length = _number(reader._buffer[start : start + 4], order)
        if self._known == _MOST_INTERFACES:
            return False
        if self._known == len(self._interfaces):
            self._interfaces = np.concatenate([self._interfaces, np.zeros_like(self._interfaces)])
        block = reader._buffer[reader._at : reader._at + length].tobytes()
        self._interfaces[self._known] = read_interface(block, order)
        self._known += 1
        reader._at += length
        return True


class FirstRecord(NamedTuple):
    """What the first packet of a capture tells: link type, nanoseconds since 1970 (UTC)."""

    link: int
    time: int


def first_record(source: ByteSource) -> FirstRecord | None:
    """Of a capture's first packet, None where it has none; the source is closed.

    Raises:
        InputError: as of `PacketReader`.
    """
    with contextlib.closing(iter(PacketReader(source, ReadCounts(), chunk=_GLANCE))) as reader:
        first = next((packets.records[0] for packets in reader if packets.used), None)
        return None if first is None else FirstRecord(int(first[scan.LINK]), int(first[scan.TIME]))


def _number(part: np.ndarray | bytes, order: Any, *, signed: bool = False) -> int:
    return int.from_bytes(bytes(part), order, signed=signed)


def read_interface(block: bytes, order: str) -> tuple[int, int, int, int, int, int]:
    """Read an interface description block.

    Args:
        block: the whole block.
        order: "big" or "little".

    Returns:
        (link type, snap length, base, exponent, offset, check sequence), see `scan`; the link type
        is UNKNOWN where the block is damaged, and its packets are then left out and counted.
    """
    if len(block) < 20:
        return UNKNOWN, 0, 10, 6, 0, 0
    link, snap = _number(block[8:10], order), _number(block[12:16], order)
    base, exponent, offset, check = 10, 6, 0, 0
    at, end = 16, len(block) - 4
    while end - at >= 4:
        code, size = _number(block[at : at + 2], order), _number(block[at + 2 : at + 4], order)
        value = block[at + 4 : at + 4 + size]
        if code == 0 or at + 4 + size > end:
            break
        if code == 9 and size == 1:  # if_tsresol
            base, exponent = (2 if value[0] & 0x80 else 10), value[0] & 0x7F
        elif code == 13 and size == 1:  # if_fcslen, in bits; some write bytes
            check = value[0] if value[0] <= 4 else value[0] // 8
        elif code == 14 and size == 8:  # if_tsoffset
            offset = _number(value, order, signed=True)
        at += 4 + (size + 3) // 4 * 4
    if exponent > (62 if base == 2 else 18):
        link = UNKNOWN
    offset = max(min(offset, scan.MAX_SECONDS), -scan.MAX_SECONDS)
    return link, snap, base, exponent, offset, check
