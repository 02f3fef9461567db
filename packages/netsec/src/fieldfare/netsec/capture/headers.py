# SPDX-License-Identifier: Apache-2.0
"""Network and transport headers, read from a buffer without copying; compiled, see `compiled`."""

from typing import Any

from .compiled import Octets, compiled
from .frames import DAMAGED, OK, u16, u32
from .links import TYPE_IPV4

(
    FAMILY, SRC, DST, PROTOCOL, SPORT, DPORT, BYTES, NETWORK, TRANSPORT, PAYLOAD, END,
    FLAGS, FRAGMENT, FRAGMENT_ID, SHORTENED, SEQUENCE, VLAN,
) = (0, 1, 5, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22)  # fmt: skip
"""Places in the int64 scratch that `read_ip` fills.

Addresses take four 32-bit words each (IPv4: the first). BYTES is the length of the IP packet;
NETWORK, TRANSPORT, PAYLOAD and END are offsets into the buffer, END where the captured part of the
IP packet ends; only PAYLOAD may lie beyond it, where the snap length cut the headers. FRAGMENT is 0
(whole), 1 (first) or 2 (later); SHORTENED is 1 where the IP header claims more bytes than were on
the wire. SEQUENCE is that of TCP; for ICMP it holds type and code (type * 256 + code). VLAN is as
of `frames.skip_tags`, of the outermost frame.
"""
PACKET_FIELDS = 23

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
_DCCP, _SCTP, _UDPLITE = 33, 132, 136
_HOP_BY_HOP, _ROUTING, _FRAGMENT_HEADER, _AUTHENTICATION, _NO_NEXT, _DESTINATION = (
    0, 43, 44, 51, 59, 60,
)  # fmt: skip
_HIP, _SHIM6, _MOBILITY = 139, 140, 135
_JUMBO = 0xC2

_MOST_EXTENSIONS = 16


@compiled
def has_ports(protocol: int) -> bool:
    """Whether the transport header begins with two ports."""
    return protocol in (TCP, UDP, _SCTP, _UDPLITE, _DCCP)


@compiled
def read_ip(buffer: Octets, at: int, end: int, wire_end: int, kind: int, packet: Any) -> int:
    """Read one IP header, its extensions and the transport header behind it into `packet`.

    Args:
        buffer: uint8.
        at: where the IP header begins.
        end: where the captured bytes end.
        wire_end: where the packet ended on the wire; at least `end`.
        kind: Ethernet type, IPv4 or IPv6.
        packet: scratch of PACKET_FIELDS int64.

    Returns:
        OK or DAMAGED; after DAMAGED the scratch holds nothing of use.
    """
    for field in range(PACKET_FIELDS):
        packet[field] = 0
    packet[NETWORK] = at
    if kind == TYPE_IPV4:
        transport = read_ipv4(buffer, at, end, wire_end, packet)
    else:
        transport = read_ipv6(buffer, at, end, wire_end, packet)
    if transport < 0:
        return DAMAGED
    packet[END] = min(end, at + packet[BYTES])
    return read_transport(buffer, transport, packet)


@compiled
def read_ipv4(buffer: Octets, at: int, end: int, wire_end: int, packet: Any) -> int:
    """The IPv4 header (RFC 791); the offset of what follows, -1 when damaged."""
    if end - at < 20 or buffer[at] // 16 != 4:
        return -1
    header = (buffer[at] & 15) * 4
    length = u16(buffer, at + 2)
    if length == 0:  # left to the network card (segmentation offload)
        length = wire_end - at
    if header < 20 or length < header:
        return -1
    if length > wire_end - at:
        length = wire_end - at
        packet[SHORTENED] = 1
    packet[FAMILY] = 4
    packet[SRC] = u32(buffer, at + 12)
    packet[DST] = u32(buffer, at + 16)
    packet[BYTES] = length
    packet[PROTOCOL] = buffer[at + 9]
    fragment = u16(buffer, at + 6)
    if fragment & 0x1FFF:
        packet[FRAGMENT] = 2
    elif fragment & 0x2000:
        packet[FRAGMENT] = 1
    packet[FRAGMENT_ID] = u16(buffer, at + 4)
    end = min(end, at + length)
    at += header
    if packet[PROTOCOL] == _AUTHENTICATION and packet[FRAGMENT] != 2 and end - at >= 12:
        packet[PROTOCOL] = buffer[at]
        at += (buffer[at + 1] + 2) * 4
    return at


@compiled
def jumbo_length(buffer: Octets, at: int, end: int) -> int:
    """What the jumbo option of a hop-by-hop header says (RFC 2675); 0 where there is none."""
    if end - at < 8:
        return 0
    end = min(end, at + (buffer[at + 1] + 1) * 8)
    at += 2
    while end - at >= 2:
        if buffer[at] == 0:  # one byte of padding
            at += 1
            continue
        if buffer[at] == _JUMBO and end - at >= 6:
            return u32(buffer, at + 2)
        at += 2 + buffer[at + 1]
    return 0


@compiled
def read_ipv6(buffer: Octets, at: int, end: int, wire_end: int, packet: Any) -> int:
    """The IPv6 header and its extensions (RFC 8200); the offset behind them, -1 when damaged."""
    if end - at < 40 or buffer[at] // 16 != 6:
        return -1
    following = int(buffer[at + 6])
    length = 40 + u16(buffer, at + 4)
    if length == 40 and following != _NO_NEXT:  # a jumbogram, or left to the network card
        length = jumbo_length(buffer, at + 40, end) if following == _HOP_BY_HOP else 0
        length = length + 40 if length else wire_end - at
    if length > wire_end - at:
        length = wire_end - at
        packet[SHORTENED] = 1
    packet[FAMILY] = 6
    for word in range(4):
        packet[SRC + word] = u32(buffer, at + 8 + 4 * word)
        packet[DST + word] = u32(buffer, at + 24 + 4 * word)
    packet[BYTES] = length
    end = min(end, at + length)
    at += 40
    for _ in range(_MOST_EXTENSIONS):
        if following not in (
            _HOP_BY_HOP, _ROUTING, _FRAGMENT_HEADER, _AUTHENTICATION, _DESTINATION,
            _MOBILITY, _HIP, _SHIM6,
        ):  # fmt: skip
            packet[PROTOCOL] = following
            return at
        if end - at < 8:
            return -1
        extension = following
        following = int(buffer[at])
        if extension == _FRAGMENT_HEADER:
            offset = u16(buffer, at + 2)
            packet[FRAGMENT_ID] = u32(buffer, at + 4)
            at += 8
            if offset >> 3:
                packet[FRAGMENT] = 2
                packet[PROTOCOL] = following
                return at
            if offset & 1:
                packet[FRAGMENT] = 1
        elif extension == _AUTHENTICATION:
            at += (buffer[at + 1] + 2) * 4
        else:
            at += (buffer[at + 1] + 1) * 8
    return -1


@compiled
def read_transport(buffer: Octets, at: int, packet: Any) -> int:
    """Ports, TCP flags and where the payload begins; DAMAGED when the ports are out of reach."""
    end = packet[END]
    protocol = packet[PROTOCOL]
    packet[TRANSPORT] = min(at, end)
    header = 0
    if packet[FRAGMENT] != 2:
        if has_ports(protocol):
            if end - at < 4:
                return DAMAGED
            packet[SPORT] = u16(buffer, at)
            packet[DPORT] = u16(buffer, at + 2)
        if protocol == TCP:
            header = 20
            if end - at >= 14:
                header = max((buffer[at + 12] // 16) * 4, 20)
                packet[FLAGS] = buffer[at + 13]
            if end - at >= 8:
                packet[SEQUENCE] = u32(buffer, at + 4)
        elif protocol in (UDP, _UDPLITE, ICMP, ICMPV6):
            header = 8
            if protocol in (ICMP, ICMPV6) and end - at >= 2:
                packet[SEQUENCE] = u16(buffer, at)
        elif protocol == _SCTP:
            header = 12
    packet[PAYLOAD] = min(at + header, packet[NETWORK] + packet[BYTES])
    return OK
