# SPDX-License-Identifier: Apache-2.0
"""The arrays behind the flow table, and the steps that keep them linked; compiled.

A flow lives in a slot. Slots in use are found by a hash with chains and stand in one of two lists
by their latest packet: open flows, and TCP connections that have been closed. The first packets of
a flow lie in places of equal size, chained from the slot.
"""

from typing import Any, NamedTuple

from .compiled import compiled, inlined
from .direction import remember_source
from .statistics import FIELDS, turn_statistics

(START, LAST, PACKETS_FORWARD, PACKETS_BACKWARD, BYTES_FORWARD, BYTES_BACKWARD, NUMBER, RECENT,
 SYN_NUMBER, FLAGS, VLANS) = range(11)  # fmt: skip
TOTALS = 11
"""Columns of `totals`: times in nanoseconds, counts, the flow's number by first packet; the time
from which the flow is quiet, which a clock that was set takes back; the sequence number of the SYN,
or NONE; TCP flags forward plus 256 times those backward, plus 65536 times type and code of ICMP's
first packet; the VLAN of the first packet, see `frames.skip_tags`."""

(CHAIN, PREVIOUS, NEXT, CLOSING, SWAPPED, REASON, KEPT, FIRST_KEPT, LAST_KEPT, CLOCK) = range(10)
LINKS = 10
"""Columns of `links`: next slot with the same hash, neighbours by latest packet, TCP end seen (bits
FIN_FORWARD, FIN_BACKWARD, CLOSED), whether the flow has been given already (GIVEN), whether SYN
told its direction (ORIENTED), whether its latest packet lay far before the others (ODD) and whether
it began with a packet whose time was wrong (BEGAN_OFF); whether the source is the key's second end,
why the flow ended, the chain of its kept packets, and the interface of its first packet."""

FIN_FORWARD, FIN_BACKWARD, CLOSED, GIVEN, ORIENTED, ODD, BEGAN_OFF = 1, 2, 4, 8, 16, 32, 64

AT_END, IDLE, ACTIVE, TCP_END, EVICTED, EARLY, REUSED = 0, 1, 2, 3, 4, 5, 6
END_REASONS = (
    "end of capture", "idle", "active timeout", "tcp end", "evicted", "early", "ports reused",
)  # fmt: skip

(KEPT_TIME, KEPT_DIRECTION, KEPT_BYTES, KEPT_TRANSPORT, KEPT_HEADER, KEPT_PAYLOAD,
 KEPT_PAYLOAD_LENGTH) = range(7)  # fmt: skip
KEPT_FIELDS = 7
"""Columns of `kept`: nanoseconds, 0 forward or 1 backward, length of the IP packet, bytes from the
IP header to the transport header, bytes kept of the headers and of the payload, length of the
payload in the IP packet."""

(FREE_SLOT, USED_SLOTS, LIVE, HEAD_OPEN, TAIL_OPEN, HEAD_CLOSED, TAIL_CLOSED, DONE, NEXT_NUMBER,
 FREE_KEPT, USED_KEPT, LIVE_KEPT, PACKETS, NOT_IP_PACKETS, DAMAGED_PACKETS, UNSUPPORTED_PACKETS,
 LONE_FRAGMENTS, SHORTENED_PACKETS, EVICTIONS, UNKEPT_PACKETS, MOST_LIVE, ODD_TIMES,
 PREPARED, HELD_SINCE, FILTERED_PACKETS) = range(25)  # fmt: skip
REGISTERS = 25
"""Places in `registers`: free lists, list ends, counts, whether the next packet's time
is known, and the time of the oldest fragment that waits to be counted."""

NONE = -1
KEY_WORDS = 11


class FlowState(NamedTuple):
    """Arrays of the flow table, for S slots, B buckets, P places for packets of W bytes.

    Attributes:
        buckets: (B,) int32, first slot of each chain; B is a power of two.
        keys: (S, KEY_WORDS) uint32: addresses of both ends, their ports, family with protocol,
        VLAN. hashes: (S,) uint32.
        totals: (S, TOTALS) int64.
        links: (S, LINKS) int32.
        done: (D,) int32, slots of flows that have ended and wait to be taken out.
        kept: (P, KEPT_FIELDS) int64.
        kept_next: (P,) int32.
        kept_bytes: (P * W,) uint8.
        registers: (REGISTERS,) int64.
        clocks: see `clocks`.
        sources: see `direction`.
        statistics: (S, FIELDS) float64, see `statistics`; (0, FIELDS) where none are gathered.
    """

    buckets: Any
    keys: Any
    hashes: Any
    totals: Any
    links: Any
    done: Any
    kept: Any
    kept_next: Any
    kept_bytes: Any
    registers: Any
    clocks: Any
    sources: Any
    statistics: Any


@inlined
def unlink(state: FlowState, slot: int) -> None:
    """Take a slot out of its list."""
    links, registers = state.links, state.registers
    closed = (links[slot, CLOSING] & CLOSED) != 0
    head = HEAD_CLOSED if closed else HEAD_OPEN
    before, after = links[slot, PREVIOUS], links[slot, NEXT]
    if before == NONE:
        registers[head] = after
    else:
        links[before, NEXT] = after
    if after == NONE:
        registers[head + 1] = before
    else:
        links[after, PREVIOUS] = before


@inlined
def append(state: FlowState, slot: int) -> None:
    """Put a slot at the end of the list that it belongs to."""
    links, registers = state.links, state.registers
    closed = (links[slot, CLOSING] & CLOSED) != 0
    tail = TAIL_CLOSED if closed else TAIL_OPEN
    before = registers[tail]
    links[slot, PREVIOUS] = before
    links[slot, NEXT] = NONE
    if before == NONE:
        registers[tail - 1] = slot
    else:
        links[before, NEXT] = slot
    registers[tail] = slot


@inlined
def find(state: FlowState, key: Any, digest: int) -> int:
    """The slot of a key, or NONE."""
    slot: int = state.buckets[digest & (len(state.buckets) - 1)]
    while slot != NONE:
        if state.hashes[slot] == digest:
            same = True
            for word in range(KEY_WORDS):
                same = same and state.keys[slot, word] == key[word]
            if same:
                return slot
        slot = state.links[slot, CHAIN]
    return NONE


@compiled
def end_flow(state: FlowState, slot: int, reason: int) -> None:
    """Take a flow out of the table and put it among those that are done, unless it was given."""
    links, registers = state.links, state.registers
    unlink(state, slot)
    bucket = state.hashes[slot] & (len(state.buckets) - 1)
    other = state.buckets[bucket]
    if other == slot:
        state.buckets[bucket] = links[slot, CHAIN]
    else:
        while links[other, CHAIN] != slot:
            other = links[other, CHAIN]
        links[other, CHAIN] = links[slot, CHAIN]
    links[slot, REASON] = reason
    registers[LIVE] -= 1
    registers[LIVE_KEPT] -= links[slot, KEPT]
    if reason == EVICTED:
        registers[EVICTIONS] += 1
    if links[slot, CLOSING] & (ORIENTED | CLOSED) == ORIENTED and reason in (IDLE, ACTIVE, EVICTED):
        remember_source(state.sources, state.keys, slot, links[slot, SWAPPED])
    if links[slot, CLOSING] & GIVEN:
        links[slot, NEXT] = registers[FREE_SLOT]
        registers[FREE_SLOT] = slot
    else:
        state.done[registers[DONE]] = slot
        registers[DONE] += 1


@compiled
def begin_flow(state: FlowState, key: Any, digest: int, time: int, swapped: int, clock: int) -> int:
    """Give a new flow a slot, which must be free; the slot."""
    links, registers, totals = state.links, state.registers, state.totals
    slot: int = registers[FREE_SLOT]
    if slot == NONE:
        slot = registers[USED_SLOTS]
        registers[USED_SLOTS] += 1
    else:
        registers[FREE_SLOT] = links[slot, NEXT]
    for word in range(KEY_WORDS):
        state.keys[slot, word] = key[word]
    state.hashes[slot] = digest
    for column in range(TOTALS):
        totals[slot, column] = 0
    totals[slot, START] = time
    totals[slot, LAST] = time
    totals[slot, RECENT] = time
    if slot < len(state.statistics):
        for column in range(FIELDS):
            state.statistics[slot, column] = 0.0
    totals[slot, SYN_NUMBER] = NONE
    totals[slot, NUMBER] = registers[NEXT_NUMBER]
    registers[NEXT_NUMBER] += 1
    bucket = digest & (len(state.buckets) - 1)
    links[slot, CHAIN] = state.buckets[bucket]
    state.buckets[bucket] = slot
    links[slot, CLOSING] = 0
    links[slot, SWAPPED] = swapped
    links[slot, KEPT] = 0
    links[slot, FIRST_KEPT] = NONE
    links[slot, LAST_KEPT] = NONE
    links[slot, CLOCK] = clock
    append(state, slot)
    registers[LIVE] += 1
    registers[MOST_LIVE] = max(registers[MOST_LIVE], registers[LIVE])
    return slot


@compiled
def give_early(state: FlowState, slot: int, key: Any) -> None:
    """Put a flow among those that are done, and let it go on in another slot, which must be free.

    What goes on counts packets, so that times and limits hold as before, but is not given again.
    """
    end_flow(state, slot, EARLY)
    swapped, clock = state.links[slot, SWAPPED], state.links[slot, CLOCK]
    other = begin_flow(state, key, state.hashes[slot], 0, swapped, clock)
    state.registers[NEXT_NUMBER] -= 1
    for column in range(TOTALS):
        state.totals[other, column] = state.totals[slot, column]
    if len(state.statistics):
        for column in range(FIELDS):
            state.statistics[other, column] = state.statistics[slot, column]
    unlink(state, other)
    state.links[other, CLOSING] = state.links[slot, CLOSING] | GIVEN
    append(state, other)


@compiled
def turn(state: FlowState, slot: int) -> None:
    """Exchange forward and backward in all that has been counted and kept of a flow."""
    links, totals = state.links, state.totals
    links[slot, SWAPPED] = 1 - links[slot, SWAPPED]
    for column in (PACKETS_FORWARD, BYTES_FORWARD):
        forward = totals[slot, column]
        totals[slot, column] = totals[slot, column + 1]
        totals[slot, column + 1] = forward
    if len(state.statistics):
        turn_statistics(state.statistics, slot)
    flags = totals[slot, FLAGS]
    totals[slot, FLAGS] = (flags >> 16) * 65536 + (flags & 255) * 256 + ((flags >> 8) & 255)
    closing = int(links[slot, CLOSING])
    fins = closing & (FIN_FORWARD | FIN_BACKWARD)
    if fins in (FIN_FORWARD, FIN_BACKWARD):
        links[slot, CLOSING] = closing ^ (FIN_FORWARD | FIN_BACKWARD)
    place = links[slot, FIRST_KEPT]
    while place != NONE:
        state.kept[place, KEPT_DIRECTION] = 1 - state.kept[place, KEPT_DIRECTION]
        place = state.kept_next[place]


@compiled
def rehash(state: FlowState) -> None:
    """Fill the buckets anew, after there have come to be more of them."""
    for bucket in range(len(state.buckets)):
        state.buckets[bucket] = NONE
    for head in (HEAD_OPEN, HEAD_CLOSED):
        slot = state.registers[head]
        while slot != NONE:
            bucket = state.hashes[slot] & (len(state.buckets) - 1)
            state.links[slot, CHAIN] = state.buckets[bucket]
            state.buckets[bucket] = slot
            slot = state.links[slot, NEXT]


@compiled
def gather_kept(state: FlowState, count: int, rows: Any, places: Any) -> int:
    """List the kept packets of the flows that are done, flow by flow.

    Args:
        state: of the table.
        count: flows to look at, from the first that is done.
        rows: (N,) int64, filled with each packet's flow, as its rank among the done.
        places: (N,) int64, filled with each packet's place.

    Returns:
        How many packets there are.
    """
    found = 0
    for row in range(count):
        place = state.links[state.done[row], FIRST_KEPT]
        while place != NONE:
            rows[found] = row
            places[found] = place
            found += 1
            place = state.kept_next[place]
    return found


@compiled
def release(state: FlowState) -> None:
    """Free the slots and packets of all flows that are done."""
    links, registers = state.links, state.registers
    for row in range(registers[DONE]):
        slot = state.done[row]
        if links[slot, FIRST_KEPT] != NONE:
            state.kept_next[links[slot, LAST_KEPT]] = registers[FREE_KEPT]
            registers[FREE_KEPT] = links[slot, FIRST_KEPT]
        links[slot, NEXT] = registers[FREE_SLOT]
        registers[FREE_SLOT] = slot
    registers[DONE] = 0
