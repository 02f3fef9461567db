# SPDX-License-Identifier: Apache-2.0
"""Packets that wait to be counted until others tell more of them; compiled, see `compiled`.

A fragment that came before the first of its packet is counted once that has told its ports, or
without ports once 30 seconds are over, more of them come than there is room for, or the capture
ends. A packet far ahead of its interface's time waits for the next one, see `clocks`.
"""

from typing import Any, NamedTuple

import numpy as np

from .clocks import advance, goes_back
from .compiled import Octets, compiled, view
from .fragments import FRAGMENT_FIELDS, FRAGMENT_ROWS, LIFETIME, fragment_kind
from .headers import (
    DPORT,
    END,
    FAMILY,
    FRAGMENT_ID,
    NETWORK,
    PACKET_FIELDS,
    PAYLOAD,
    PROTOCOL,
    SPORT,
    SRC,
    TRANSPORT,
)

ROWS = 256
TIME, CLOCK, STATUS, ORDER = range(PACKET_FIELDS, PACKET_FIELDS + 4)
HELD_FIELDS = PACKET_FIELDS + 4
"""Columns: what `read_ip` made of the fragment, time, interface, status, rank by arrival."""

FREE, WAITING, AHEAD, READY, ALONE, OFF = range(6)
"""Status: a fragment that waits, a packet ahead of its interface's time; and what can be counted:
as it is, a fragment alone, a packet whose time was wrong."""

READY_COUNT, WAITING_COUNT, OLDEST, NEXT_ORDER, ROW_AHEAD = range(5)
HEADROOM = 64
"""Bytes of headers kept of a packet that waits, beyond those asked for."""
_FAR = 1 << 62


class FragmentState(NamedTuple):
    """Arrays of what is known of fragments, and of packets that wait.

    Attributes:
        cache: (FRAGMENT_ROWS, FRAGMENT_FIELDS) int64, see `fragments`.
        held: (ROWS, HELD_FIELDS) int64.
        octets: (ROWS * W,) uint8, the first bytes of each.
        counts: (5,) int64: ready packets and waiting fragments, time of the oldest fragment, next
            rank, 1 + row of the packet that lies ahead (0: none).
    """

    cache: Any
    held: Any
    octets: Any
    counts: Any


def make_fragments(kept_width: int) -> FragmentState:
    """An empty state, as compiled functions take it.

    Args:
        kept_width: bytes that are kept of each packet.
    """
    counts = np.zeros(5, np.int64)
    counts[OLDEST] = _FAR
    return FragmentState(
        cache=view(np.zeros((FRAGMENT_ROWS, FRAGMENT_FIELDS), np.int64)),
        held=view(np.zeros((ROWS, HELD_FIELDS), np.int64)),
        octets=view(np.zeros(ROWS * (kept_width + HEADROOM), np.uint8)),
        counts=view(counts),
    )


@compiled
def hold(
    fragments: FragmentState, buffer: Octets, packet: Any, time: int, clock: int, status: int
) -> bool:
    """Keep a packet, WAITING or AHEAD; False where the oldest fragment has to be counted first."""
    held, counts = fragments.held, fragments.counts
    row, oldest = -1, -1
    for place in range(ROWS):
        if held[place, STATUS] == FREE:
            row = place
            break
        if held[place, STATUS] == WAITING and (
            oldest < 0 or held[place, ORDER] < held[oldest, ORDER]
        ):
            oldest = place
    if row < 0:
        if oldest >= 0:
            make_ready(fragments, oldest, ALONE)
        return False
    for field in range(PACKET_FIELDS):
        held[row, field] = packet[field]
    width = len(fragments.octets) // ROWS
    network = packet[NETWORK]
    kept = min(packet[END] - network, width)
    at = row * width
    for step in range(kept):
        fragments.octets[at + step] = buffer[network + step]
    for field in (NETWORK, TRANSPORT, PAYLOAD):
        held[row, field] = packet[field] - network + at
    held[row, END] = at + kept
    held[row, TIME] = time
    held[row, CLOCK] = clock
    held[row, STATUS] = status
    held[row, ORDER] = counts[NEXT_ORDER]
    counts[NEXT_ORDER] += 1
    if status == AHEAD:
        counts[ROW_AHEAD] = row + 1
        return True
    counts[WAITING_COUNT] += 1
    counts[OLDEST] = min(counts[OLDEST], time)
    return True


@compiled
def make_ready(fragments: FragmentState, row: int, status: int) -> None:
    """Let a waiting fragment be counted, READY or ALONE."""
    held, counts = fragments.held, fragments.counts
    held[row, STATUS] = status
    counts[WAITING_COUNT] -= 1
    counts[READY_COUNT] += 1
    counts[OLDEST] = _FAR
    for place in range(ROWS):
        if held[place, STATUS] == WAITING:
            counts[OLDEST] = min(counts[OLDEST], held[place, TIME])


@compiled
def judge_ahead(fragments: FragmentState, clocks: Any, following: int) -> int:
    """Let the packet ahead be counted, by the time of the next one; 1 where its own was wrong."""
    held, counts = fragments.held, fragments.counts
    row = counts[ROW_AHEAD] - 1
    time, clock = held[row, TIME], held[row, CLOCK]
    wrong = goes_back(clocks, clock, time, following)
    if not wrong:
        advance(clocks, clock, time)
    held[row, STATUS] = OFF if wrong else READY
    counts[ROW_AHEAD] = 0
    counts[READY_COUNT] += 1
    return 1 if wrong else 0


@compiled
def join_held(fragments: FragmentState, first: Any) -> None:
    """Give the waiting fragments of a packet the ports of its first one."""
    held = fragments.held
    kind = fragment_kind(first[FAMILY], first[PROTOCOL])
    for row in range(ROWS):
        if held[row, STATUS] != WAITING or held[row, FRAGMENT_ID] != first[FRAGMENT_ID]:
            continue
        same = fragment_kind(held[row, FAMILY], held[row, PROTOCOL]) == kind
        for word in range(8):
            same = same and held[row, SRC + word] == first[SRC + word]
        if same:
            held[row, PROTOCOL] = first[PROTOCOL]
            held[row, SPORT] = first[SPORT]
            held[row, DPORT] = first[DPORT]
            make_ready(fragments, row, READY)


@compiled
def end_waiting(fragments: FragmentState, time: int) -> None:
    """Let all fragments be counted alone that have waited too long at a time."""
    if time - fragments.counts[OLDEST] <= LIFETIME:
        return
    for row in range(ROWS):
        if fragments.held[row, STATUS] == WAITING and (time - fragments.held[row, TIME] > LIFETIME):
            make_ready(fragments, row, ALONE)


@compiled
def next_ready(fragments: FragmentState) -> int:
    """The row of the ready packet that came first, or -1."""
    held, found = fragments.held, -1
    for row in range(ROWS):
        if held[row, STATUS] >= READY and (found < 0 or held[row, ORDER] < held[found, ORDER]):
            found = row
    return found


@compiled
def let_go(fragments: FragmentState, row: int) -> None:
    """Free the place of a packet that has been counted."""
    fragments.held[row, STATUS] = FREE
    fragments.counts[READY_COUNT] -= 1
