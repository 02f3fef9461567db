# SPDX-License-Identifier: Apache-2.0
"""The pass over packets that fills the flow table; compiled, see `compiled`."""

from typing import Any

from . import flow_limits as limits
from . import flow_state as fs
from . import headers
from . import held_fragments as held
from .clocks import CLOCKS, advance, lies_ahead
from .compiled import Octets, compiled, inlined
from .filter_pass import fits
from .flow_rules import (
    RST,
    SYN,
    begin,
    begin_at,
    is_odd,
    note_syn,
    note_tcp_end,
    note_time,
    usual_time,
    why_ends,
)
from .flow_state import FlowState
from .fragments import join_fragment, mix
from .frames import DAMAGED, NOT_IP, OK
from .held_fragments import FragmentState
from .packets import dissect
from .scan import AT, CAPTURED, CLOCK, LINK, TIME, WIRE
from .statistics import note_packet

_BETWEEN_SWEEPS = 64
_YEAR = 31_536_000_000_000_000


@inlined
def make_key(packet: Any, directed: bool, by_vlan: bool, key: Any) -> int:
    """Write the key of a packet's flow; 1 where its ends stand in reverse order."""
    swapped = 0
    if not directed:
        for word in range(5):  # the fifth word of an end is its port
            source = packet[headers.SRC + word] if word < 4 else packet[headers.SPORT]
            destination = packet[headers.DST + word] if word < 4 else packet[headers.DPORT]
            if source != destination:
                swapped = 1 if source > destination else 0
                break
    first, second = (headers.DST, headers.SRC) if swapped else (headers.SRC, headers.DST)
    for word in range(4):
        key[word] = packet[first + word]
        key[4 + word] = packet[second + word]
    if swapped:
        key[8] = packet[headers.DPORT] << 16 | packet[headers.SPORT]
    else:
        key[8] = packet[headers.SPORT] << 16 | packet[headers.DPORT]
    key[9] = packet[headers.FAMILY] << 8 | packet[headers.PROTOCOL]
    key[10] = packet[headers.VLAN] if by_vlan else 0
    return swapped


@inlined
def make_hash(key: Any, secret: int) -> int:
    """32 bits; with a secret, so that nobody can make a capture of keys that all collide."""
    state = mix(mix(secret, key[9], secret), key[8], secret)
    if key[10]:
        state = mix(state, key[10], secret)
    if key[9] >> 8 == 4:
        return mix(mix(state, key[0], secret), key[4], secret)
    for word in range(8):
        state = mix(state, key[word], secret)
    return state


@compiled
def keep_packet(
    state: FlowState,
    slot: int,
    buffer: Octets,
    packet: Any,
    time: int,
    backward: int,
    settings: Any,
) -> None:
    """Copy a packet's first bytes to a place, which must be free."""
    registers, links, kept = state.registers, state.links, state.kept
    place = registers[fs.FREE_KEPT]
    if place == fs.NONE:
        place = registers[fs.USED_KEPT]
        registers[fs.USED_KEPT] += 1
    else:
        registers[fs.FREE_KEPT] = state.kept_next[place]
    state.kept_next[place] = fs.NONE
    if links[slot, fs.KEPT]:
        state.kept_next[links[slot, fs.LAST_KEPT]] = place
    else:
        links[slot, fs.FIRST_KEPT] = place
    links[slot, fs.LAST_KEPT] = place
    links[slot, fs.KEPT] += 1
    registers[fs.LIVE_KEPT] += 1
    network, payload = packet[headers.NETWORK], packet[headers.PAYLOAD]
    header = min(payload - network, packet[headers.END] - network, settings[limits.KEEP_HEADER])
    body = max(min(packet[headers.END] - payload, settings[limits.KEEP_PAYLOAD]), 0)
    kept[place, fs.KEPT_TIME] = time
    kept[place, fs.KEPT_DIRECTION] = backward
    kept[place, fs.KEPT_BYTES] = packet[headers.BYTES]
    kept[place, fs.KEPT_TRANSPORT] = packet[headers.TRANSPORT] - network
    kept[place, fs.KEPT_HEADER] = header
    kept[place, fs.KEPT_PAYLOAD] = body
    kept[place, fs.KEPT_PAYLOAD_LENGTH] = packet[headers.BYTES] - (payload - network)
    width = settings[limits.KEEP_HEADER] + settings[limits.KEEP_PAYLOAD]
    at = place * width
    for step in range(header):
        state.kept_bytes[at + step] = buffer[network + step]
    at += header
    for step in range(body):
        state.kept_bytes[at + step] = buffer[payload + step]
    for step in range(body, width - header):
        state.kept_bytes[at + step] = 0


@inlined
def add_packet(
    state: FlowState, buffer: Octets, packet: Any, time: int, clock: int, off: bool, key: Any,
    settings: Any,
) -> int:  # fmt: skip
    """Count a dissected packet for its flow; READY, or what is needed before it can be.

    Its time may be known to be off: ahead of all others.
    """
    directed = settings[limits.DIRECTED] != 0
    if state.registers[fs.DONE] == len(state.done):
        return limits.TAKE_OUT
    if state.registers[fs.PACKETS] % _BETWEEN_SWEEPS == 0:
        status = limits.sweep(state, limits.BY_CLOCKS, settings, fs.NONE)
        if status != limits.READY:
            return status
    swapped = make_key(packet, directed, settings[limits.VLAN_KEY] != 0, key)
    digest = make_hash(key, settings[limits.SECRET])
    slot = fs.find(state, key, digest)
    flags = packet[headers.FLAGS] if packet[headers.PROTOCOL] == headers.TCP else 0
    odd = began_off = False
    if slot != fs.NONE:
        if state.totals[slot, fs.RECENT] == 0 and time > _YEAR:  # it began without a time
            begin_at(state, slot, time)
        if off:
            time = usual_time(state, slot, time, clock, settings)
        odd = is_odd(state, slot, time, clock, settings)
        if odd and state.links[slot, fs.CLOSING] & fs.BEGAN_OFF:
            begin_at(state, slot, time)
            odd = False
        reason = why_ends(state, slot, packet, flags, time, odd, settings)
        if reason != fs.AT_END:
            if state.registers[fs.DONE] == len(state.done):
                return limits.TAKE_OUT
            fs.end_flow(state, slot, reason)
            slot = fs.NONE
            odd = False
    if slot == fs.NONE:
        status = limits.make_room(state, settings)
        if status != limits.READY:
            return status
        slot = begin(state, packet, flags, time, clock, key, digest, swapped, settings)
        began_off = off
    if flags & (SYN | RST) == SYN and not directed:
        note_syn(state, slot, packet, flags, swapped)
    links, totals = state.links, state.totals
    backward = 1 if links[slot, fs.SWAPPED] != swapped else 0
    seen = totals[slot, fs.PACKETS_FORWARD] + totals[slot, fs.PACKETS_FORWARD + 1]
    keep = seen < settings[limits.KEEP_PACKETS]
    if keep and links[slot, fs.KEPT] == seen:  # once one is missing, what is kept stays a prefix
        status = limits.make_kept_room(state, slot, settings)
        if status == limits.READY:
            keep_packet(state, slot, buffer, packet, time, backward, settings)
        elif status != fs.NONE:
            return status
    # From here on a packet that is kept is not kept again when it comes back: KEPT is above seen.
    early = seen + 1 == settings[limits.EARLY_PACKETS]
    if early:
        if state.registers[fs.DONE] == len(state.done):
            return limits.TAKE_OUT
        status = limits.make_slot(state)
        if status != limits.READY:
            return status
    if keep and links[slot, fs.KEPT] <= seen:
        state.registers[fs.UNKEPT_PACKETS] += 1
    totals[slot, fs.PACKETS_FORWARD + backward] += 1
    totals[slot, fs.BYTES_FORWARD + backward] += packet[headers.BYTES]
    totals[slot, fs.FLAGS] |= flags * 256 if backward else flags
    note_time(state, slot, time, clock, odd)
    if began_off:
        links[slot, fs.CLOSING] |= fs.BEGAN_OFF
    if len(state.statistics):
        note_packet(state.statistics, slot, backward, packet[headers.BYTES], time, odd)
    fs.unlink(state, slot)
    if settings[limits.CLOSE_TCP]:
        note_tcp_end(state, slot, flags, backward, directed)
    fs.append(state, slot)
    if early:
        fs.give_early(state, slot, key)
    return limits.READY


@compiled
def add_later(
    state: FlowState, buffer: Octets, packet: Any, time: int, clock: int, off: bool, key: Any,
    settings: Any,
) -> int:  # fmt: skip
    """As `add_packet`, which stands within the pass itself for speed."""
    return add_packet(state, buffer, packet, time, clock, off, key, settings)


@compiled
def add_held(
    state: FlowState, fragments: FragmentState, packet: Any, key: Any, settings: Any
) -> int:
    """Count the packets that have waited and are ready; READY, or what is needed first."""
    while fragments.counts[held.READY_COUNT] > 0:
        row = held.next_ready(fragments)
        for field in range(headers.PACKET_FIELDS):
            packet[field] = fragments.held[row, field]
        time, clock = fragments.held[row, held.TIME], fragments.held[row, held.CLOCK]
        status = fragments.held[row, held.STATUS]
        off = status == held.OFF
        needed = add_later(state, fragments.octets, packet, time, clock, off, key, settings)
        if needed != limits.READY:
            return needed
        state.registers[fs.LONE_FRAGMENTS] += 1 if status == held.ALONE else 0
        state.registers[fs.SHORTENED_PACKETS] += packet[headers.SHORTENED]
        held.let_go(fragments, row)
    state.registers[fs.HELD_SINCE] = fragments.counts[held.OLDEST]
    return limits.READY


@compiled
def may_wait(packet: Any, settings: Any) -> bool:
    """Whether a packet that lies ahead can be put aside until the next one: no fragment, whose own
    time to wait has begun, and no longer headers than there is room for."""
    header = packet[headers.PAYLOAD] - packet[headers.NETWORK]
    fits_in = header <= settings[limits.KEEP_HEADER] + held.HEADROOM
    return bool(packet[headers.FRAGMENT] == 0 and fits_in)


@inlined
def add_record(
    state: FlowState, buffer: Octets, records: Any, row: int, fragments: FragmentState,
    packet: Any, key: Any, settings: Any,
) -> int:  # fmt: skip
    """Count a packet that has been dissected, or hold it; READY, or what is needed first."""
    registers = state.registers
    clock = records[row, CLOCK] % CLOCKS
    if registers[fs.PREPARED] == 0:
        time = records[row, TIME]
        if fragments.counts[held.ROW_AHEAD] != 0:
            registers[fs.ODD_TIMES] += held.judge_ahead(fragments, state.clocks, time)
            return limits.AGAIN
        if lies_ahead(state.clocks, clock, time) and may_wait(packet, settings):
            held_now = held.hold(fragments, buffer, packet, time, clock, held.AHEAD)
            return limits.READY if held_now else limits.AGAIN
        time, odd = advance(state.clocks, clock, time)
        records[row, TIME] = time
        registers[fs.ODD_TIMES] += odd
        registers[fs.PREPARED] = 1
    time = records[row, TIME]
    if fragments.counts[held.WAITING_COUNT] > 0:
        held.end_waiting(fragments, time)
    if packet[headers.FRAGMENT] != 0 and not join_fragment(
        packet, time, registers[fs.PACKETS] + 1, fragments.cache
    ):
        held_now = held.hold(fragments, buffer, packet, time, clock, held.WAITING)
        registers[fs.HELD_SINCE] = fragments.counts[held.OLDEST]
        return limits.READY if held_now else limits.AGAIN
    needed = add_packet(state, buffer, packet, time, clock, False, key, settings)
    if needed == limits.READY:
        registers[fs.SHORTENED_PACKETS] += packet[headers.SHORTENED]
        if packet[headers.FRAGMENT] == 1 and fragments.counts[held.WAITING_COUNT] > 0:
            held.join_held(fragments, packet)
    return needed


@compiled
def run(
    state: FlowState, buffer: Octets, records: Any, begin: int, count: int,
    fragments: FragmentState, packet: Any, key: Any, settings: Any, program: Any, stack: Any,
) -> tuple[int, int]:  # fmt: skip
    """Take packets up until all are counted or something is needed first.

    Args:
        state: of the table.
        buffer: uint8; holds the packets.
        records: (N, RECORD_FIELDS) int64, see `scan`; a time that is not known is filled in.
        begin: first row to take.
        count: rows in use.
        fragments: what is known of fragments.
        packet: scratch of PACKET_FIELDS int64.
        key: scratch of KEY_WORDS int64.
        settings: SETTINGS int64.
        program: the packets that count, see `filter_pass`.
        stack: scratch for it.

    Returns:
        (row to go on with, READY or what is needed).
    """
    registers = state.registers
    row = begin
    while row < count:
        if fragments.counts[held.READY_COUNT] > 0:
            needed = add_held(state, fragments, packet, key, settings)
            if needed != limits.READY:
                return row, needed
        status = dissect(
            buffer,
            records[row, AT],
            records[row, CAPTURED],
            records[row, WIRE],
            records[row, LINK],
            settings[limits.DECAPSULATE] != 0,
            packet,
        )
        if status == OK and len(program) > 0 and not fits(program, packet, stack):
            registers[fs.FILTERED_PACKETS] += 1
        elif status == OK:
            needed = add_record(state, buffer, records, row, fragments, packet, key, settings)
            if needed == limits.AGAIN:
                continue
            if needed != limits.READY:
                return row, needed
        elif status == NOT_IP:
            registers[fs.NOT_IP_PACKETS] += 1
        elif status == DAMAGED:
            registers[fs.DAMAGED_PACKETS] += 1
        else:
            registers[fs.UNSUPPORTED_PACKETS] += 1
        registers[fs.PREPARED] = 0
        registers[fs.PACKETS] += 1
        row += 1
    return count, add_held(state, fragments, packet, key, settings)


@compiled
def settle(
    state: FlowState, fragments: FragmentState, packet: Any, key: Any, settings: Any, end: bool
) -> int:
    """Count a packet that lies ahead, as no other follows, and at the end the fragments that wait.

    READY, or what is needed first.
    """
    if fragments.counts[held.ROW_AHEAD] != 0:
        held.judge_ahead(fragments, state.clocks, limits.NEVER)
    if end and fragments.counts[held.WAITING_COUNT] > 0:
        held.end_waiting(fragments, limits.NEVER)
    return add_held(state, fragments, packet, key, settings)
