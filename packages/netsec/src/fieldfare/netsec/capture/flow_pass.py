# SPDX-License-Identifier: Apache-2.0
"""The pass over packets that fills the flow table; compiled, see `compiled`."""

from typing import Any

from . import flow_limits as limits
from . import flow_state as fs
from . import headers
from .compiled import Octets, compiled
from .flow_state import FlowState
from .fragments import join_fragment, mix
from .frames import DAMAGED, NOT_IP, OK
from .packets import dissect
from .scan import AT, CAPTURED, LINK, TIME, WIRE

_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16


@compiled
def make_key(packet: Any, directed: bool, key: Any) -> int:
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
    return swapped


@compiled
def make_hash(key: Any, secret: int) -> int:
    """32 bits; with a secret, so that nobody can make a capture of keys that all collide."""
    state = mix(mix(secret, key[9], secret), key[8], secret)
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
    state.kept_bytes[at : at + header] = buffer[network : network + header]
    state.kept_bytes[at + header : at + header + body] = buffer[payload : payload + body]
    for unused in range(at + header + body, at + width):
        state.kept_bytes[unused] = 0


@compiled
def note_tcp_end(state: FlowState, slot: int, flags: int, backward: int, directed: bool) -> None:
    """Mark a connection as closed after RST, or after FIN from both ends (one if directed)."""
    closing = state.links[slot, fs.CLOSING]
    if flags & _FIN:
        closing |= fs.FIN_BACKWARD if backward else fs.FIN_FORWARD
    both = closing & (fs.FIN_FORWARD | fs.FIN_BACKWARD) == fs.FIN_FORWARD | fs.FIN_BACKWARD
    if flags & _RST or both or (directed and closing & fs.FIN_FORWARD):
        closing |= fs.CLOSED
    state.links[slot, fs.CLOSING] = closing


@compiled
def add_packet(
    state: FlowState, buffer: Octets, packet: Any, time: int, key: Any, settings: Any
) -> int:
    """Count a dissected packet for its flow; READY, or what is needed before it can be."""
    directed = settings[limits.DIRECTED] != 0
    if state.registers[fs.DONE] == len(state.done):
        return limits.TAKE_OUT
    status = limits.sweep(state, time, settings)
    if status != limits.READY:
        return status
    swapped = make_key(packet, directed, key)
    digest = make_hash(key, settings[limits.SECRET])
    slot = fs.find(state, key, digest)
    flags = packet[headers.FLAGS] if packet[headers.PROTOCOL] == headers.TCP else 0
    if slot != fs.NONE:
        reason = limits.why_over(state, slot, time, settings)
        if time - state.totals[slot, fs.START] > settings[limits.ACTIVE_LIMIT]:
            reason = fs.ACTIVE
        elif state.links[slot, fs.CLOSING] & fs.CLOSED and flags & (_SYN | _ACK) == _SYN:
            reason = fs.TCP_END  # the ports are used again
        if reason != fs.AT_END:
            if state.registers[fs.DONE] == len(state.done):
                return limits.TAKE_OUT
            fs.end_flow(state, slot, reason)
            slot = fs.NONE
    if slot == fs.NONE:
        status = limits.make_room(state, settings)
        if status != limits.READY:
            return status
        slot = fs.begin_flow(state, key, digest, time, swapped)
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
    totals[slot, fs.START] = min(totals[slot, fs.START], time)
    totals[slot, fs.LAST] = max(totals[slot, fs.LAST], time)
    fs.unlink(state, slot)
    if settings[limits.CLOSE_TCP]:
        note_tcp_end(state, slot, flags, backward, directed)
    fs.append(state, slot)
    if early:
        fs.give_early(state, slot, key)
    return limits.READY


@compiled
def run(
    state: FlowState, buffer: Octets, records: Any, begin: int, count: int,
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
            settings[limits.DECAPSULATE] != 0,
            packet,
        )
        lone = False
        if status == OK:
            time = records[row, TIME]
            if packet[headers.FRAGMENT] != 0:
                number = registers[fs.PACKETS] + 1
                lone = not join_fragment(packet, time, number, fragments)
            needed = add_packet(state, buffer, packet, time, key, settings)
            if needed != limits.READY:
                return row, needed
            registers[fs.LONE_FRAGMENTS] += 1 if lone else 0
            registers[fs.SHORTENED_PACKETS] += packet[headers.SHORTENED]
        elif status == NOT_IP:
            registers[fs.NOT_IP_PACKETS] += 1
        elif status == DAMAGED:
            registers[fs.DAMAGED_PACKETS] += 1
        else:
            registers[fs.UNSUPPORTED_PACKETS] += 1
        registers[fs.PACKETS] += 1
    return count, limits.READY
