# SPDX-License-Identifier: Apache-2.0
"""When flows end and which ones make room for others; compiled, see `compiled`.

Every decision rests on the packets seen so far and on counts of live flows and live packets, never
on how the capture was cut into chunks or on when ended flows are taken out.
"""

from typing import Any

from . import flow_state as fs
from .clocks import LATEST, sure_time
from .compiled import compiled, inlined
from .flow_state import FlowState

(IDLE_LIMIT, ACTIVE_LIMIT, LINGER_LIMIT, DIRECTED, DECAPSULATE, CLOSE_TCP, MAX_FLOWS, MAX_KEPT,
 KEEP_PACKETS, KEEP_HEADER, KEEP_PAYLOAD, EARLY_PACKETS, SECRET, VLAN_KEY) = range(14)  # fmt: skip
SETTINGS = 14
"""Places in the int64 settings: three times in nanoseconds (NEVER: no limit), switches, limits."""

NEVER = 1 << 62

BY_CLOCKS, BY_LATEST = -1, -2
"""In place of a time: that which each flow's interface is sure of, and that of its latest
packet."""

READY, TAKE_OUT, GROW_SLOTS, AGAIN = 0, 1, 2, 3
"""What the pass needs before it can go on. Going on with the same packet repeats nothing. AGAIN is
met within the pass: a fragment makes room first."""


@inlined
def why_over(state: FlowState, slot: int, time: int, settings: Any) -> int:
    """Why a flow is over at a time, or AT_END where it goes on."""
    if time == BY_CLOCKS:
        time = sure_time(state.clocks, state.links[slot, fs.CLOCK])
        time = min(time, state.registers[fs.HELD_SINCE])
    elif time == BY_LATEST:
        time = state.clocks[state.links[slot, fs.CLOCK], LATEST]
        time = min(time, state.registers[fs.HELD_SINCE])
    quiet = time - state.totals[slot, fs.RECENT]
    if state.links[slot, fs.CLOSING] & fs.CLOSED and quiet > settings[LINGER_LIMIT]:
        return fs.TCP_END
    if quiet > settings[IDLE_LIMIT]:
        return fs.IDLE
    return fs.AT_END


@compiled
def sweep(state: FlowState, time: int, settings: Any, spared: int) -> int:
    """End the flows that are over at a time (nanoseconds, BY_CLOCKS or BY_LATEST).

    Each list is gone through up to the first flow that is not over; one flow may be spared.

    Returns:
        TAKE_OUT when there is no room for more, else READY.
    """
    time = min(time, state.registers[fs.HELD_SINCE])
    for head in (fs.HEAD_CLOSED, fs.HEAD_OPEN):
        slot = state.registers[head]
        while slot != fs.NONE:
            if slot == spared:
                slot = state.links[slot, fs.NEXT]
                continue
            reason = why_over(state, slot, time, settings)
            if reason == fs.AT_END:
                break
            if state.registers[fs.DONE] == len(state.done):
                return TAKE_OUT
            following = state.links[slot, fs.NEXT]
            fs.end_flow(state, slot, reason)
            slot = following
    return READY


@compiled
def end_all(state: FlowState, reason: int) -> int:
    """End every flow; TAKE_OUT when there is no room for more."""
    for head in (fs.HEAD_CLOSED, fs.HEAD_OPEN):
        while state.registers[head] != fs.NONE:
            if state.registers[fs.DONE] == len(state.done):
                return TAKE_OUT
            fs.end_flow(state, state.registers[head], reason)
    return READY


@compiled
def longest_quiet(state: FlowState, spared: int) -> int:
    """The flow to evict: a closed one if any, else that with the oldest packet; or NONE."""
    for head in (fs.HEAD_CLOSED, fs.HEAD_OPEN):
        slot: int = state.registers[head]
        if slot == spared and slot != fs.NONE:
            slot = state.links[slot, fs.NEXT]
        if slot != fs.NONE:
            return slot
    return fs.NONE


@compiled
def make_room(state: FlowState, settings: Any) -> int:
    """See to it that a slot is free; READY, or what is needed."""
    registers = state.registers
    full = registers[fs.LIVE] >= settings[MAX_FLOWS]
    if full and sweep(state, BY_LATEST, settings, fs.NONE) != READY:
        return TAKE_OUT
    if registers[fs.LIVE] >= settings[MAX_FLOWS]:
        if registers[fs.DONE] == len(state.done):
            return TAKE_OUT
        fs.end_flow(state, longest_quiet(state, fs.NONE), fs.EVICTED)
    return make_slot(state)


@compiled
def make_slot(state: FlowState) -> int:
    """READY where a slot is free, or what is needed."""
    registers = state.registers
    if registers[fs.FREE_SLOT] == fs.NONE and registers[fs.USED_SLOTS] == len(state.hashes):
        return GROW_SLOTS
    return READY


@compiled
def make_kept_room(state: FlowState, slot: int, settings: Any) -> int:
    """See to it that a place for a packet is free; READY, or what is needed.

    Other flows are evicted for it where the places are all taken. NONE: there is none to evict.
    """
    registers = state.registers
    full = registers[fs.LIVE_KEPT] >= settings[MAX_KEPT]
    if full and sweep(state, BY_LATEST, settings, slot) != READY:
        return TAKE_OUT
    while registers[fs.LIVE_KEPT] >= settings[MAX_KEPT]:
        if registers[fs.DONE] == len(state.done):
            return TAKE_OUT
        other = longest_quiet(state, slot)
        if other == fs.NONE:
            return fs.NONE
        fs.end_flow(state, other, fs.EVICTED)
    return READY
