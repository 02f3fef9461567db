# SPDX-License-Identifier: Apache-2.0
"""The flow table: packets in, ended flows out, bounded memory."""

import math
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import numpy as np

from . import clocks, direction, flow_limits, flow_pass, statistics
from . import flow_state as fs
from .compiled import view
from .container import Packets
from .filter_pass import DEPTH
from .filters import compile_filter
from .flow_state import FlowState
from .headers import PACKET_FIELDS
from .held_fragments import make_fragments

_DONE = 4096
_FIRST_SLOTS = 1024
_KEPT_OVERHEAD = 8 * fs.KEPT_FIELDS + 4


@dataclass(frozen=True)
class FlowOptions:
    """What makes a flow.

    Attributes:
        idle_timeout: seconds without a packet after which a flow is over; None: never.
        active_timeout: seconds after its first packet at which a flow is cut; None: never.
        linger: seconds a TCP connection may still get packets after its end (RST, or FIN from both
            sides); a SYN begins a new flow at once. None: the end of a connection means nothing.
        directed: one flow for each direction instead of one for both.
        decapsulate: count the innermost IP packet of tunnels, see `tunnels`.
        vlan_key: flows of different VLANs are different flows.
        packet_filter: the packets that count, see `filters`; fragments by what they hold
        themselves.
        statistics: gather sizes and gaps of all packets, see `statistics`.
        max_flows: flows held at a time; beyond, those longest without a packet are evicted.
        keep_packets: first packets whose bytes are handed on.
        keep_header: bytes kept of each one's IP and transport headers.
        keep_payload: bytes kept of each one's payload.
        early_packets: give a flow once it has so many packets, with the counts until then, and what
            follows not at all; 0: when it ends.
        max_kept_mb: memory for kept packets, in MB; beyond, flows are evicted.

    Raises:
        ValueError: a time or limit out of range, or a filter that cannot be understood.
    """

    idle_timeout: float | None = 120.0
    active_timeout: float | None = 1800.0
    linger: float | None = 10.0
    directed: bool = False
    decapsulate: bool = False
    vlan_key: bool = False
    packet_filter: str = ""
    statistics: bool = False
    max_flows: int = 1_000_000
    keep_packets: int = 0
    keep_header: int = 128
    keep_payload: int = 256
    early_packets: int = 0
    max_kept_mb: float = 512.0

    def __post_init__(self) -> None:
        for name in ("idle_timeout", "active_timeout", "linger"):
            seconds = getattr(self, name)
            if seconds is not None and not (0 < seconds < 1e9):
                raise ValueError(f"{name} is {seconds}; it must lie between 0 and 1e9 seconds")
        limits = {
            "max_flows": (1, 1 << 30),
            "keep_packets": (0, 1 << 16),
            "early_packets": (0, 1 << 16),
            "keep_header": (0, 1 << 16),
            "keep_payload": (0, 1 << 16),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in {low}..{high}")
        compile_filter(self.packet_filter)
        if not 0 < self.max_kept_mb < math.inf:
            raise ValueError(f"max_kept_mb is {self.max_kept_mb}; it must be above 0")

    @property
    def kept_width(self) -> int:
        """Bytes in a kept packet's row."""
        return self.keep_header + self.keep_payload

    @property
    def max_kept(self) -> int:
        """Kept packets that fit in `max_kept_mb`; at least one flow's."""
        places = int(self.max_kept_mb * 1e6) // (self.kept_width + _KEPT_OVERHEAD)
        return max(self.keep_packets, places)


class Kept(TypedDict):
    """What a network needs kept of packets: these fields of `FlowOptions`."""

    keep_packets: int
    keep_header: int
    keep_payload: int


class EndedFlows(NamedTuple):
    """Flows as they leave the table; N flows, M kept packets.

    Attributes:
        keys: (N, KEY_WORDS) uint32, see `flow_state`.
        totals: (N, TOTALS) int64.
        links: (N, LINKS) int32; of use are SWAPPED and REASON.
        kept_flow: (M,) int64, row of each kept packet's flow, ascending.
        kept: (M, KEPT_FIELDS) int64.
        kept_bytes: (M, kept_width) uint8.
        statistics: (N, FIELDS) float64, (N, 0) where none are gathered.
    """

    keys: np.ndarray
    totals: np.ndarray
    links: np.ndarray
    kept_flow: np.ndarray
    kept: np.ndarray
    kept_bytes: np.ndarray
    statistics: np.ndarray


class FlowTable:
    """Flows that are going on, fed packet by packet in order of arrival."""

    def __init__(self, options: FlowOptions) -> None:
        self.options = options
        self._settings = _settings(options)
        slots = min(_FIRST_SLOTS, options.max_flows + _DONE)
        # All at once: memory counts only from its first use, and to grow it would take it twice.
        places = options.max_kept + _DONE * options.keep_packets if options.keep_packets else 1
        self._arrays = FlowState(
            buckets=np.full(2 * _FIRST_SLOTS, fs.NONE, np.int32),
            keys=np.zeros((slots, fs.KEY_WORDS), np.uint32),
            hashes=np.zeros(slots, np.uint32),
            totals=np.zeros((slots, fs.TOTALS), np.int64),
            links=np.zeros((slots, fs.LINKS), np.int32),
            done=np.zeros(_DONE, np.int32),
            kept=np.empty((places, fs.KEPT_FIELDS), np.int64),
            kept_next=np.empty(places, np.int32),
            kept_bytes=np.empty(max(places * options.kept_width, 1), np.uint8),
            registers=np.zeros(fs.REGISTERS, np.int64),
            clocks=np.zeros((clocks.CLOCKS, clocks.CLOCK_FIELDS), np.int64),
            sources=np.zeros(direction.PLACES, np.int64),
            statistics=np.zeros((slots if options.statistics else 0, statistics.FIELDS)),
        )
        registers = self._arrays.registers
        for place in (
            fs.FREE_SLOT, fs.FREE_KEPT, fs.HEAD_OPEN, fs.TAIL_OPEN, fs.HEAD_CLOSED, fs.TAIL_CLOSED,
        ):  # fmt: skip
            registers[place] = fs.NONE
        registers[fs.HELD_SINCE] = flow_limits.NEVER
        self._fragments = make_fragments(options.kept_width if options.keep_packets else 0)
        self._packet = np.zeros(PACKET_FIELDS, np.int64)
        self._key = np.zeros(fs.KEY_WORDS, np.int64)
        self._program = compile_filter(options.packet_filter)
        self._stack = np.zeros(DEPTH, np.int64)
        self._view()

    def _view(self) -> None:
        self._state = FlowState(*(view(array) for array in self._arrays))

    def register(self, place: int) -> int:
        """A count, by its place in `flow_state`."""
        return int(self._arrays.registers[place])

    def add(self, packets: Packets) -> Iterator[EndedFlows]:
        """Count packets; gives what has ended whenever some thousands of flows have."""
        row = 0
        while True:
            row, needed = flow_pass.run(
                self._state,
                view(packets.buffer),
                view(packets.records),
                row,
                packets.used,
                self._fragments,
                view(self._packet),
                view(self._key),
                view(self._settings),
                view(self._program),
                view(self._stack),
            )
            if needed == flow_limits.READY:
                return
            yield from self._provide(needed)

    def _provide(self, needed: int) -> Iterator[EndedFlows]:
        if needed == flow_limits.TAKE_OUT:
            yield from self.take_out()
        elif needed == flow_limits.GROW_SLOTS:
            self._grow_slots()

    def tick(self, time: int = flow_limits.BY_LATEST) -> Iterator[EndedFlows]:
        """End the flows that are over at a time, and give all that have ended.

        Args:
            time: nanoseconds; if left out, that of the latest packet of each flow's interface.
        """
        yield from self._settle(end=False)
        yield from self._repeat(
            lambda: flow_limits.sweep(self._state, time, view(self._settings), fs.NONE)
        )
        yield from self.take_out()

    def finish(self) -> Iterator[EndedFlows]:
        """End all flows and give them."""
        yield from self._settle(end=True)
        latest = flow_limits.BY_LATEST
        yield from self._repeat(
            lambda: flow_limits.sweep(self._state, latest, view(self._settings), fs.NONE)
        )
        yield from self._repeat(lambda: flow_limits.end_all(self._state, fs.AT_END))
        yield from self.take_out()

    def _settle(self, *, end: bool) -> Iterator[EndedFlows]:
        yield from self._repeat(
            lambda: flow_pass.settle(
                self._state,
                self._fragments,
                view(self._packet),
                view(self._key),
                view(self._settings),
                end,
            )
        )

    def _repeat(self, step: Callable[[], int]) -> Iterator[EndedFlows]:
        while (needed := step()) != flow_limits.READY:
            yield from self._provide(needed)

    def take_out(self) -> Iterator[EndedFlows]:
        """Give the flows that have ended, if any, and free their memory."""
        arrays = self._arrays
        count = self.register(fs.DONE)
        if count == 0:
            return
        slots = arrays.done[:count]
        most = int(arrays.links[slots, fs.KEPT].sum())
        flows, places = np.empty(most, np.int64), np.empty(most, np.int64)
        if most:
            fs.gather_kept(self._state, count, view(flows), view(places))
        width = self.options.kept_width
        ended = EndedFlows(
            keys=arrays.keys[slots],
            totals=arrays.totals[slots],
            links=arrays.links[slots],
            kept_flow=flows,
            kept=arrays.kept[places],
            kept_bytes=arrays.kept_bytes[: len(arrays.kept) * width].reshape(-1, width)[places]
            if most and width
            else np.empty((most, width), np.uint8),
            statistics=arrays.statistics[slots]
            if self.options.statistics
            else np.empty((count, 0)),
        )
        fs.release(self._state)
        yield ended

    def _grow_slots(self) -> None:
        arrays = self._arrays
        old = len(arrays.hashes)
        size = min(2 * old, self.options.max_flows + _DONE)
        buckets = len(arrays.buckets)
        while buckets < size:
            buckets *= 2
        self._arrays = arrays._replace(
            buckets=np.empty(buckets, np.int32),
            keys=_grown(arrays.keys, size),
            hashes=_grown(arrays.hashes, size),
            totals=_grown(arrays.totals, size),
            links=_grown(arrays.links, size),
            statistics=_grown(arrays.statistics, size)
            if self.options.statistics
            else arrays.statistics,
        )
        self._view()
        fs.rehash(self._state)


def _grown(array: np.ndarray, size: int) -> np.ndarray:
    # New memory is untouched until it is used, so doubling costs no resident memory of its own.
    larger = np.empty((size, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


def _settings(options: FlowOptions) -> np.ndarray:
    settings = np.zeros(flow_limits.SETTINGS, np.int64)

    def limit(seconds: float | None) -> int:
        return flow_limits.NEVER if seconds is None else round(seconds * 1e9)

    settings[flow_limits.IDLE_LIMIT] = limit(options.idle_timeout)
    settings[flow_limits.ACTIVE_LIMIT] = limit(options.active_timeout)
    settings[flow_limits.LINGER_LIMIT] = limit(options.linger)
    settings[flow_limits.DIRECTED] = options.directed
    settings[flow_limits.DECAPSULATE] = options.decapsulate
    settings[flow_limits.CLOSE_TCP] = options.linger is not None
    settings[flow_limits.MAX_FLOWS] = options.max_flows
    settings[flow_limits.MAX_KEPT] = options.max_kept
    settings[flow_limits.KEEP_PACKETS] = min(
        options.keep_packets, options.early_packets or options.keep_packets
    )
    settings[flow_limits.KEEP_HEADER] = options.keep_header
    settings[flow_limits.KEEP_PAYLOAD] = options.keep_payload
    settings[flow_limits.EARLY_PACKETS] = options.early_packets
    settings[flow_limits.VLAN_KEY] = options.vlan_key
    settings[flow_limits.SECRET] = secrets.randbits(30) | 1 << 30 | 1
    return settings
