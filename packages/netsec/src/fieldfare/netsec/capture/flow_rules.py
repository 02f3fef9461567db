# SPDX-License-Identifier: Apache-2.0
"""To which flow a packet belongs, and what it changes about it; compiled, see `compiled`."""

from typing import Any

from . import flow_limits as limits
from . import flow_state as fs
from . import headers
from .clocks import LATEST, ODD_LIMIT
from .compiled import compiled, inlined
from .direction import known_source
from .flow_state import FlowState

FIN, SYN, RST, ACK = 1, 2, 4, 16
_SILENT = 1_000_000_000
"""Nanoseconds without a packet after which another SYN is one of another connection."""


@inlined
def note_tcp_end(state: FlowState, slot: int, flags: int, backward: int, directed: bool) -> None:
    """Mark a connection as closed after RST, or after FIN from both ends (one if directed)."""
    closing = state.links[slot, fs.CLOSING]
    if flags & FIN:
        closing |= fs.FIN_BACKWARD if backward else fs.FIN_FORWARD
    both = closing & (fs.FIN_FORWARD | fs.FIN_BACKWARD) == fs.FIN_FORWARD | fs.FIN_BACKWARD
    if flags & RST or both or (directed and closing & fs.FIN_FORWARD):
        closing |= fs.CLOSED
    state.links[slot, fs.CLOSING] = closing


@inlined
def is_odd(state: FlowState, slot: int, time: int, clock: int, settings: Any) -> bool:
    """Whether a packet's time says nothing of a flow: it lies far before, or is another clock's."""
    recent = state.totals[slot, fs.RECENT]
    if time < recent - ODD_LIMIT:
        return True
    own = state.links[slot, fs.CLOCK]
    if clock == own or time - recent <= settings[limits.IDLE_LIMIT]:
        return False
    return bool(state.clocks[own, LATEST] - recent <= settings[limits.IDLE_LIMIT])


@compiled
def usual_time(state: FlowState, slot: int, time: int, clock: int, settings: Any) -> int:
    """The time of a packet that alone lies ahead: where its flow goes on, that of the one before it
    in the flow or at the interface, the later of both."""
    latest, recent = int(state.clocks[clock, LATEST]), int(state.totals[slot, fs.RECENT])
    goes_on = -ODD_LIMIT <= latest - recent <= settings[limits.IDLE_LIMIT]
    return max(latest, recent) if goes_on and time - recent > ODD_LIMIT else time


@compiled
def begin_at(state: FlowState, slot: int, time: int) -> None:
    """Let a flow begin at a packet's time, which began without one or with a wrong one."""
    for column in (fs.START, fs.LAST, fs.RECENT):
        state.totals[slot, column] = time
    if state.links[slot, fs.KEPT] == 1:
        state.kept[state.links[slot, fs.FIRST_KEPT], fs.KEPT_TIME] = time


@inlined
def why_ends(
    state: FlowState, slot: int, packet: Any, flags: int, time: int, odd: bool, settings: Any
) -> int:
    """Why a packet begins another flow than that in a slot; AT_END where it belongs to it."""
    totals = state.totals
    if not odd:
        reason = limits.why_over(state, slot, time, settings)
        if reason == fs.AT_END and (time - totals[slot, fs.START] > settings[limits.ACTIVE_LIMIT]):
            reason = fs.ACTIVE
        if reason != fs.AT_END:
            return int(reason)
    opens = flags & (SYN | ACK | RST) == SYN and settings[limits.CLOSE_TCP] != 0
    if opens and packet[headers.SEQUENCE] != totals[slot, fs.SYN_NUMBER]:
        if state.links[slot, fs.CLOSING] & fs.CLOSED:
            return fs.TCP_END
        if odd or time - totals[slot, fs.RECENT] > _SILENT:
            return fs.REUSED
    return fs.AT_END


@inlined
def note_syn(state: FlowState, slot: int, packet: Any, flags: int, swapped: int) -> None:
    """Let the first SYN, or the answer to it, tell which end is the source."""
    links = state.links
    if flags & ACK == 0 and state.totals[slot, fs.SYN_NUMBER] == fs.NONE:
        state.totals[slot, fs.SYN_NUMBER] = packet[headers.SEQUENCE]
    if links[slot, fs.CLOSING] & fs.ORIENTED:
        return
    if links[slot, fs.SWAPPED] != (1 - swapped if flags & ACK else swapped):
        fs.turn(state, slot)
    links[slot, fs.CLOSING] |= fs.ORIENTED


@inlined
def begin(
    state: FlowState, packet: Any, flags: int, time: int, clock: int, key: Any, digest: int,
    swapped: int, settings: Any,
) -> int:  # fmt: skip
    """Begin a flow with a packet; room must have been made; the slot."""
    slot = fs.begin_flow(state, key, digest, time, swapped, clock)
    protocol = packet[headers.PROTOCOL]
    state.totals[slot, fs.VLANS] = packet[headers.VLAN]
    if protocol in (headers.ICMP, headers.ICMPV6):
        state.totals[slot, fs.FLAGS] = packet[headers.SEQUENCE] * 65536
    elif protocol == headers.TCP and flags & SYN == 0 and not settings[limits.DIRECTED]:
        known = known_source(state.sources, state.keys, slot)
        if known >= 0:
            state.links[slot, fs.SWAPPED] = known
            state.links[slot, fs.CLOSING] |= fs.ORIENTED
    return slot


@inlined
def note_time(state: FlowState, slot: int, time: int, clock: int, odd: bool) -> None:
    """Extend a flow to a packet's time; an odd time only moves its clock, if another follows."""
    links, totals = state.links, state.totals
    if odd:
        if links[slot, fs.CLOSING] & fs.ODD and clock == links[slot, fs.CLOCK]:
            totals[slot, fs.RECENT] = time
        links[slot, fs.CLOSING] |= fs.ODD
        return
    links[slot, fs.CLOSING] &= ~(fs.ODD | fs.BEGAN_OFF)
    if totals[slot, fs.START] - time < ODD_LIMIT:
        totals[slot, fs.START] = min(totals[slot, fs.START], time)
    totals[slot, fs.LAST] = max(totals[slot, fs.LAST], time)
    totals[slot, fs.RECENT] = max(totals[slot, fs.RECENT], time)
