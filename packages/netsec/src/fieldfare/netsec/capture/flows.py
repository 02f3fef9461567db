# SPDX-License-Identifier: Apache-2.0
"""Captures in, flows out: the one door to this package, for files, streams and interfaces."""

import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from fieldfare.common.errors import InputError

from . import flow_state as fs
from . import scan
from .batches import FlowBatch, to_batch
from .container import CHUNK, PacketReader, Packets, ReadCounts
from .sources import ByteSource, open_source
from .table import EndedFlows, FlowOptions, FlowTable
from .unusual import UnusualLinks

_DELIVERY = 1_000_000_000
"""Nanoseconds that a packet may take from its time stamp to here; far more than any does."""


_PATIENCE = 1.0
"""Seconds that the ended flows of a recording without end wait for one another."""


@dataclass
class FlowCounts:
    """What became of the packets of a stream.

    Attributes:
        packets: records read.
        not_ip: packets without IP (ARP and others).
        damaged: packets left out because a header contradicts itself or ends too early.
        unsupported: packets of a link type that cannot be read.
        shortened: packets whose IP header claims more than was on the wire; counted with the less.
        lone_fragments: later fragments whose first was not seen; counted under ports 0.
        evicted: flows cut because the table was full.
        packets_without_bytes: first packets that could not be kept for want of memory.
        most_flows: most flows held at one time.
        lost: packets that the kernel had to drop (interfaces only).
        odd_times: packets without a time, over a second earlier than the one before them of the
            same interface, or over two minutes ahead of those around them.
        unread_captures: captures that could not be opened or are none; the others count.
        filtered: packets that do not fit the filter.
        unread_links: packets by link types that nothing here reads.
    """

    packets: int = 0
    not_ip: int = 0
    damaged: int = 0
    unsupported: int = 0
    shortened: int = 0
    lone_fragments: int = 0
    evicted: int = 0
    packets_without_bytes: int = 0
    most_flows: int = 0
    lost: int = 0
    odd_times: int = 0
    unread_captures: int = 0
    filtered: int = 0
    unread_links: dict[int, int] = field(default_factory=dict)
    read: ReadCounts = field(default_factory=ReadCounts)


@runtime_checkable
class PacketSource(Protocol):
    """An interface: gives its packets by itself."""

    name: str
    lost: int

    def __iter__(self) -> Iterator[Packets]:
        """Packets as they come; none of them where nothing has come for a while."""


class FlowStream:
    """Iterates over batches of flows as they end; `counts` is true at any time.

    Args:
        sources: captures in order; the table goes on from one to the next, so that a recording cut
            into several files gives the same flows as one file.
        options: what makes a flow.
        chunk: bytes read at a time; does not change the flows.
        on_unread: is told of a capture that cannot be read, and the next one is taken; without it
            the error is raised.
    """

    def __init__(
        self,
        sources: Iterable[ByteSource | PacketSource | Callable[[], ByteSource]],
        options: FlowOptions,
        chunk: int = CHUNK,
        on_unread: Callable[[InputError], None] | None = None,
    ) -> None:
        self._sources = sources
        self._on_unread = on_unread
        self._table = FlowTable(options)
        self._chunk = chunk
        self._links = UnusualLinks()
        self.counts = FlowCounts()

    def __iter__(self) -> Iterator[FlowBatch]:
        for source in self._sources:
            try:
                for ended in self._read(source() if callable(source) else source):
                    yield to_batch(ended)
            except InputError as error:
                if self._on_unread is None:
                    raise
                self.counts.unread_captures += 1
                self._on_unread(error)
        for ended in self._table.finish():
            yield to_batch(ended)
        self._count()

    def _read(self, source: ByteSource | PacketSource) -> Iterator[EndedFlows]:
        reader: Iterable[Packets]
        if live := isinstance(source, PacketSource):
            reader, endless = source, True
        else:
            reader, endless = PacketReader(source, self.counts.read, self._chunk), source.endless
        latest = heard = 0
        handed_on = time.monotonic()
        for packets in reader:
            if packets.used:
                for readable in self._links.translate(packets):
                    yield from self._table.add(readable)
                latest = int(packets.records[packets.used - 1, scan.TIME])
                heard = time.monotonic_ns()
                if endless and time.monotonic() - handed_on > _PATIENCE:
                    yield from self._table.take_out()
                    handed_on = time.monotonic()
            elif live and heard:
                # The kernel hands packets on at once, so while none come its clock goes on. What
                # writes a growing file may hold them back for long: there only packets tell time.
                quiet = time.monotonic_ns() - heard - _DELIVERY
                yield from self._table.tick(latest + max(quiet, 0))
            else:
                yield from self._table.tick()
            self.counts.lost = getattr(source, "lost", 0)
            self._count()

    def _count(self) -> None:
        count, counts = self._table.register, self.counts
        counts.packets = count(fs.PACKETS)
        counts.not_ip = count(fs.NOT_IP_PACKETS)
        counts.damaged = count(fs.DAMAGED_PACKETS)
        counts.unsupported = count(fs.UNSUPPORTED_PACKETS)
        counts.shortened = count(fs.SHORTENED_PACKETS)
        counts.lone_fragments = count(fs.LONE_FRAGMENTS)
        counts.evicted = count(fs.EVICTIONS)
        counts.packets_without_bytes = count(fs.UNKEPT_PACKETS)
        counts.most_flows = count(fs.MOST_LIVE)
        counts.filtered = count(fs.FILTERED_PACKETS)
        counts.odd_times = count(fs.ODD_TIMES)
        counts.unread_links = dict(self._links.unread)


def read_flows(
    *captures: str | os.PathLike[str],
    options: FlowOptions | None = None,
    follow: bool = False,
    chunk: int = CHUNK,
    on_unread: Callable[[InputError], None] | None = None,
) -> FlowStream:
    """Read captures in order as one recording.

    Args:
        captures: pcap or pcapng files, plain or compressed; `-` is standard input.
        options: what makes a flow; the defaults of `FlowOptions` when None.
        follow: wait for the last capture to grow instead of ending.
        chunk: bytes read at a time.
        on_unread: see `FlowStream`.

    Returns:
        Batches of flows to iterate over once, with counts of what was met.

    Raises:
        InputError: while iterating: a capture is missing, empty or of another kind.
    """
    last = len(captures) - 1
    sources = (
        functools.partial(open_source, capture, follow=follow and index == last)
        for index, capture in enumerate(captures)
    )
    return FlowStream(sources, options or FlowOptions(), chunk, on_unread)
