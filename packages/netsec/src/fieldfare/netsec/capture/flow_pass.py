# SPDX-License-Identifier: Apache-2.0
"""The pass over packets that fills the flow table; compiled, see `compiled`."""

from typing import Any

from .compiled import compiled
from .flow_limits import (
    ACTIVE_LIMIT,
    CLOSE_TCP,
    DECAPSULATE,
    DIRECTED,
    KEEP_HEADER,
    KEEP_PACKETS,
    KEEP_PAYLOAD,
    READY,
    SEED,
    TAKE_OUT,
    make_kept_room,
    make_room,
    sweep,
    why_over,
)
from .flow_state import (
    ACTIVE,
    AT_END,
    BYTES_FORWARD,
    CLOSED,
    CLOSING,
    DAMAGED_PACKETS,
    DONE,
    FIN_BACKWARD,
    FIN_FORWARD,
    FIRST_KEPT,
    FREE_KEPT,
    KEPT,
    KEPT_BYTES,
    KEPT_DIRECTION,
    KEPT_HEADER,
    KEPT_PAYLOAD,
    KEPT_PAYLOAD_LENGTH,
    KEPT_TIME,
    KEPT_TRANSPORT,
    LAST,
    LAST_KEPT,
    LIVE_KEPT,
    LONE_FRAGMENTS,
    NONE,
    NOT_IP_PACKETS,
    PACKETS,
    PACKETS_FORWARD,
    SHORTENED_PACKETS,
    START,
    SWAPPED,
    TCP_END,
    UNKEPT_PACKETS,
    UNSUPPORTED_PACKETS,
    USED_KEPT,
    FlowState,
    append,
    begin_flow,
    end_flow,
    find,
    unlink,
)
from .fragments import join_fragment, mix
from .frames import DAMAGED, NOT_IP, OK
from .headers import (
    BYTES,
    DPORT,
    DST,
    END,
    FAMILY,
    FLAGS,
    FRAGMENT,
    NETWORK,
    PAYLOAD,
    PROTOCOL,
    SHORTENED,
    SPORT,
    SRC,
    TCP,
    TRANSPORT,
)
from .packets import dissect
from .scan import AT, CAPTURED, LINK, TIME, WIRE

_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16


@compiled
def make_key(packet: Any, directed: bool, key: Any) -> int:
    """Write the key of a packet's flow; 1 where its ends stand in reverse order."""
    swapped = 0
    if not directed:
        for word in range(5):  # the fifth word of an end is its port
            source = packet[SRC + word] if word < 4 else packet[SPORT]
            destination = packet[DST + word] if word < 4 else packet[DPORT]
            if source != destination:
                swapped = 1 if source > destination else 0
                break
    first, second = (DST, SRC) if swapped else (SRC, DST)
    for word in range(4):
        key[word] = packet[first + word]
        key[4 + word] = packet[second + word]
    if swapped:
        key[8] = packet[DPORT] << 16 | packet[SPORT]
    else:
        key[8] = packet[SPORT] << 16 | packet[DPORT]
    key[9] = packet[FAMILY] << 8 | packet[PROTOCOL]
    return swapped


@compiled
def make_hash(key: Any, seed: int) -> int:
    """32 bits; seeded, so that nobody can make a capture of keys that all collide."""
    state = mix(mix(seed, key[9]), key[8])
    if key[9] >> 8 == 4:
        return mix(mix(state, key[0]), key[4])
    for word in range(8):
        state = mix(state, key[word])
    return state


@compiled
def keep_packet(
    state: FlowState, slot: int, buffer: Any, packet: Any, time: int, backward: int, settings: Any
) -> None:
    """Copy a packet's first bytes to a place, which must be free."""
    registers, links, kept = state.registers, state.links, state.kept
    place = registers[FREE_KEPT]
    if place == NONE:
        place = registers[USED_KEPT]
        registers[USED_KEPT] += 1
    else:
        registers[FREE_KEPT] = state.kept_next[place]
    state.kept_next[place] = NONE
    if links[slot, KEPT]:
        state.kept_next[links[slot, LAST_KEPT]] = place
    else:
        links[slot, FIRST_KEPT] = place
    links[slot, LAST_KEPT] = place
    links[slot, KEPT] += 1
    registers[LIVE_KEPT] += 1
    network, payload = packet[NETWORK], packet[PAYLOAD]
    header = min(payload - network, settings[KEEP_HEADER])
    body = min(packet[END] - payload, settings[KEEP_PAYLOAD])
    kept[place, KEPT_TIME] = time
    kept[place, KEPT_DIRECTION] = backward
    kept[place, KEPT_BYTES] = packet[BYTES]
    kept[place, KEPT_TRANSPORT] = packet[TRANSPORT] - network
    kept[place, KEPT_HEADER] = header
    kept[place, KEPT_PAYLOAD] = body
    kept[place, KEPT_PAYLOAD_LENGTH] = packet[BYTES] - (payload - network)
    width = settings[KEEP_HEADER] + settings[KEEP_PAYLOAD]
    at = place * width
    state.kept_bytes[at : at + header] = buffer[network : network + header]
    state.kept_bytes[at + header : at + header + body] = buffer[payload : payload + body]
    for unused in range(at + header + body, at + width):
        state.kept_bytes[unused] = 0


@compiled
def note_tcp_end(state: FlowState, slot: int, flags: int, backward: int, directed: bool) -> None:
    """Mark a connection as closed after RST, or after FIN from both ends (one if directed)."""
    closing = state.links[slot, CLOSING]
    if flags & _FIN:
        closing |= FIN_BACKWARD if backward else FIN_FORWARD
    both = closing & (FIN_FORWARD | FIN_BACKWARD) == FIN_FORWARD | FIN_BACKWARD
    if flags & _RST or both or (directed and closing & FIN_FORWARD):
        closing |= CLOSED
    state.links[slot, CLOSING] = closing


@compiled
def add_packet(
    state: FlowState, buffer: Any, packet: Any, time: int, key: Any, settings: Any
) -> int:
    """Count a dissected packet for its flow; READY, or what is needed before it can be."""
    directed = settings[DIRECTED] != 0
    if state.registers[DONE] == len(state.done):
        return TAKE_OUT
    status = sweep(state, time, settings)
    if status != READY:
        return status
    swapped = make_key(packet, directed, key)
    digest = make_hash(key, settings[SEED])
    slot = find(state, key, digest)
    flags = packet[FLAGS] if packet[PROTOCOL] == TCP else 0
    if slot != NONE:
        reason = why_over(state, slot, time, settings)
        if time - state.totals[slot, START] > settings[ACTIVE_LIMIT]:
            reason = ACTIVE
        elif state.links[slot, CLOSING] & CLOSED and flags & (_SYN | _ACK) == _SYN:
            reason = TCP_END  # the ports are used again
        if reason != AT_END:
            if state.registers[DONE] == len(state.done):
                return TAKE_OUT
            end_flow(state, slot, reason)
            slot = NONE
    if slot == NONE:
        status = make_room(state, settings)
        if status != READY:
            return status
        slot = begin_flow(state, key, digest, time, swapped)
    links, totals = state.links, state.totals
    backward = 1 if links[slot, SWAPPED] != swapped else 0
    seen = totals[slot, PACKETS_FORWARD] + totals[slot, PACKETS_FORWARD + 1]
    if seen < settings[KEEP_PACKETS]:
        if links[slot, KEPT] == seen:  # once one is missing, what is kept stays a prefix
            status = make_kept_room(state, slot, settings)
            if status == READY:
                keep_packet(state, slot, buffer, packet, time, backward, settings)
            elif status != NONE:
                return status
        if links[slot, KEPT] <= seen:
            state.registers[UNKEPT_PACKETS] += 1
    totals[slot, PACKETS_FORWARD + backward] += 1
    totals[slot, BYTES_FORWARD + backward] += packet[BYTES]
    totals[slot, START] = min(totals[slot, START], time)
    totals[slot, LAST] = max(totals[slot, LAST], time)
    unlink(state, slot)
    if settings[CLOSE_TCP]:
        note_tcp_end(state, slot, flags, backward, directed)
    append(state, slot)
    return READY


@compiled
def run(
    state: FlowState, buffer: Any, records: Any, begin: int, count: int,
    fragments: Any, packet: Any, key: Any, settings: Any,
) -> tuple[int, int]:  # fmt: skip
    """Take packets up until all are counted or something is needed first.

    Args:
        state: of the table.
        buffer: uint8; holds the packets.
        records: (N, RECORD_FIELDS) int64, see `scan`.
        begin: first row to take.
        count: rows in use.
        fragments: the cache of `fragments`.
        packet: scratch of PACKET_FIELDS int64.
        key: scratch of KEY_WORDS int64.
        settings: SETTINGS int64.

    Returns:
        (row to go on with, READY or what is needed).
    """
    registers = state.registers
    for row in range(begin, count):
        status = dissect(
            buffer,
            records[row, AT],
            records[row, CAPTURED],
            records[row, WIRE],
            records[row, LINK],
            settings[DECAPSULATE] != 0,
            packet,
        )
        lone = False
        if status == OK:
            time = records[row, TIME]
            if packet[FRAGMENT] != 0:
                number = registers[PACKETS] + 1
                lone = not join_fragment(packet, time, number, fragments)
            needed = add_packet(state, buffer, packet, time, key, settings)
            if needed != READY:
                return row, needed
            registers[LONE_FRAGMENTS] += 1 if lone else 0
            registers[SHORTENED_PACKETS] += packet[SHORTENED]
        elif status == NOT_IP:
            registers[NOT_IP_PACKETS] += 1
        elif status == DAMAGED:
            registers[DAMAGED_PACKETS] += 1
        else:
            registers[UNSUPPORTED_PACKETS] += 1
        registers[PACKETS] += 1
    return count, READY
