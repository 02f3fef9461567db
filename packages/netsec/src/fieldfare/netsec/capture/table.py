# SPDX-License-Identifier: Apache-2.0
"""The flow table: packets in, ended flows out, bounded memory."""

import math
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import numpy as np

from . import flow_limits, flow_pass
from . import flow_state as fs
from .compiled import view
from .container import Packets
from .flow_state import FlowState
from .fragments import FRAGMENT_FIELDS, FRAGMENT_ROWS
from .headers import PACKET_FIELDS

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
        decapsulate: count the innermost IP packet of IP-in-IP, 6in4, GRE and VXLAN.
        max_flows: flows held at a time; beyond, those longest without a packet are evicted.
        keep_packets: first packets whose bytes are handed on.
        keep_header: bytes kept of each one's IP and transport headers.
        keep_payload: bytes kept of each one's payload.
        early_packets: give a flow once it has so many packets, with the counts until then, and what
            follows not at all; 0: when it ends.
        max_kept_mb: memory for kept packets, in MB; beyond, flows are evicted.

    Raises:
        ValueError: a time or limit out of range.
    """

    idle_timeout: float | None = 120.0
    active_timeout: float | None = 1800.0
    linger: float | None = 10.0
    directed: bool = False
    decapsulate: bool = False
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
    """

    keys: np.ndarray
    totals: np.ndarray
    links: np.ndarray
    kept_flow: np.ndarray
    kept: np.ndarray
    kept_bytes: np.ndarray


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
        )
        registers = self._arrays.registers
        for place in (
            fs.FREE_SLOT, fs.FREE_KEPT, fs.HEAD_OPEN, fs.TAIL_OPEN, fs.HEAD_CLOSED, fs.TAIL_CLOSED,
        ):  # fmt: skip
            registers[place] = fs.NONE
        self._fragments = np.zeros((FRAGMENT_ROWS, FRAGMENT_FIELDS), np.int64)
        self._packet = np.zeros(PACKET_FIELDS, np.int64)
        self._key = np.zeros(fs.KEY_WORDS, np.int64)
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
                view(self._fragments),
                view(self._packet),
                view(self._key),
                view(self._settings),
            )
            if needed == flow_limits.READY:
                return
            if needed == flow_limits.TAKE_OUT:
                yield from self.take_out()
            else:
                self._grow_slots()

    def tick(self, time: int) -> Iterator[EndedFlows]:
        """End the flows that are over at a time in nanoseconds, and give all that have ended."""
        yield from self._repeat(lambda: flow_limits.sweep(self._state, time, view(self._settings)))

    def finish(self) -> Iterator[EndedFlows]:
        """End all flows and give them."""
        yield from self._repeat(lambda: flow_limits.end_all(self._state, fs.AT_END))

    def _repeat(self, step: Callable[[], int]) -> Iterator[EndedFlows]:
        while True:
            needed = step()
            yield from self.take_out()
            if needed == flow_limits.READY:
                return

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
    settings[flow_limits.SECRET] = secrets.randbits(30) | 1 << 30 | 1
    return settings
