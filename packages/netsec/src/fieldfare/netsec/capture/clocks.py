# SPDX-License-Identifier: Apache-2.0
"""What the time is, by the packets of each interface; compiled, see `compiled`.

Interfaces may have clocks of their own, and a packet may have a time far from its neighbours'. So
each interface has its time, and flows are looked through for those that are over only at a time
that none of its last packets lies before.
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
def sure_time(clocks: Any, clock: int) -> int:
    """A time that none of the last 1,024 packets of an interface lies before."""
    earliest: int = min(clocks[clock, EARLIEST], clocks[clock, EARLIEST_BEFORE])
    return earliest
