# SPDX-License-Identifier: Apache-2.0
"""What the time is, by the packets of each interface; compiled, see `compiled`.

Interfaces may have clocks of their own, and a packet may have a time far from its neighbours'. So
each interface has its time, and flows are looked through for those that are over only at a time
that none of its last packets lies before. A packet far ahead of its interface's time waits for the
next one, which tells whether the time went on or that packet alone was wrong.
"""

from typing import Any

from .compiled import inlined

CLOCKS = 256
"""Interfaces told apart; beyond, several share one."""
LATEST, EARLIEST, EARLIEST_BEFORE, COUNT, BEGUN = range(5)
CLOCK_FIELDS = 5
"""Columns: time of the latest packet, earliest time of these packets and of the block of `_BLOCK`
before them, how many these are, whether there was any. Times in nanoseconds."""

ODD_LIMIT = 120_000_000_000
"""A packet that lies further before the packet before it belongs to a clock that was set, at the
latest; less is what queues do."""
STEP = 1_000_000_000
"""Steps back that are told."""

_BLOCK = 1024
_FAR = 1 << 62


@inlined
def advance(clocks: Any, clock: int, time: int) -> tuple[int, int]:
    """Take note of a packet's time.

    Args:
        clocks: (CLOCKS, CLOCK_FIELDS) int64.
        clock: row.
        time: nanoseconds; 0 where whoever recorded did not know it.

    Returns:
        (time to count the packet at: the latest one where it is not known; 1 where it was odd).
    """
    odd = 0
    if clocks[clock, BEGUN] == 0:
        clocks[clock, BEGUN] = 1
        clocks[clock, EARLIEST] = _FAR
        clocks[clock, EARLIEST_BEFORE] = _FAR
    else:
        latest = clocks[clock, LATEST]
        if time < latest - STEP:
            odd = 1
            if time == 0 and latest > ODD_LIMIT:
                return latest, odd
    clocks[clock, LATEST] = time
    if clocks[clock, COUNT] == _BLOCK:
        clocks[clock, COUNT] = 0
        clocks[clock, EARLIEST_BEFORE] = clocks[clock, EARLIEST]
        clocks[clock, EARLIEST] = _FAR
    clocks[clock, COUNT] += 1
    clocks[clock, EARLIEST] = min(clocks[clock, EARLIEST], time)
    return time, odd


@inlined
def lies_ahead(clocks: Any, clock: int, time: int) -> bool:
    """Whether a packet lies so far ahead of its interface's time that the next one is asked."""
    return bool(clocks[clock, BEGUN] != 0 and time - clocks[clock, LATEST] > ODD_LIMIT)


@inlined
def goes_back(clocks: Any, clock: int, ahead: int, following: int) -> bool:
    """Whether a packet behind one that lies ahead is back at the time before it."""
    latest = clocks[clock, LATEST]
    return bool(ahead - following > ODD_LIMIT and following >= latest - ODD_LIMIT)


@inlined
def sure_time(clocks: Any, clock: int) -> int:
    """A time that none of the last 1,024 packets of an interface lies before."""
    earliest: int = min(clocks[clock, EARLIEST], clocks[clock, EARLIEST_BEFORE])
    return earliest
