# SPDX-License-Identifier: Apache-2.0
"""One packet from its link layer to its ports, tunnels included; compiled, see `compiled`.

Sources: IP in IP RFC 2003, 6in4 RFC 4213, GRE RFC 2784 and 2890, VXLAN RFC 7348.
"""

from typing import Any

from .compiled import Octets, compiled
from .frames import DAMAGED, NOT_IP, OK, find_network, skip_tags, u16
from .headers import (
    BYTES,
    DPORT,
    END,
    FRAGMENT,
    NETWORK,
    PAYLOAD,
    PROTOCOL,
    SHORTENED,
    TRANSPORT,
    UDP,
    read_ip,
)
from .links import ETHERNET, TYPE_BRIDGED, TYPE_IPV4, TYPE_IPV6

_IP_IN_IP, _IPV6_IN_IP, _GRE = 4, 41, 47
_VXLAN_PORT = 4789
_MOST_TUNNELS = 4


@compiled
def find_inner(buffer: Octets, packet: Any) -> tuple[int, int, int]:
    """Where the IP packet inside a tunnel packet begins.

    Args:
        buffer: uint8.
        packet: what `read_ip` made of the tunnel packet.

    Returns:
        (OK or why there is none, offset of the inner IP header, its Ethernet type).
    """
    at, end, protocol = packet[TRANSPORT], packet[END], packet[PROTOCOL]
    if packet[FRAGMENT] != 0:
        return NOT_IP, at, 0
    if protocol == _IP_IN_IP:
        return OK, at, TYPE_IPV4
    if protocol == _IPV6_IN_IP:
        return OK, at, TYPE_IPV6
    if protocol == _GRE:
        if end - at < 4:
            return DAMAGED, at, 0
        flags = u16(buffer, at)
        kind = u16(buffer, at + 2)
        if flags & 0x4007:  # source routes (withdrawn by RFC 2784) and other versions
            return NOT_IP, at, 0
        at += 4
        for optional in (0x8000, 0x2000, 0x1000):  # checksum, key, sequence number
            if flags & optional:
                at += 4
        if kind == TYPE_BRIDGED:
            return find_network(buffer, at, end, ETHERNET)
        return skip_tags(buffer, at, end, max(kind, 0x0600))
    if protocol == UDP and packet[DPORT] == _VXLAN_PORT:
        at = packet[PAYLOAD]
        if end - at < 8 or buffer[at] & 0x08 == 0:
            return NOT_IP, at, 0
        return find_network(buffer, at + 8, end, ETHERNET)
    return NOT_IP, at, 0


@compiled
def dissect(
    buffer: Octets, at: int, captured: int, wire: int, link: int, decapsulate: bool, packet: Any
) -> int:
    """Read one record of a capture.

    Args:
        buffer: uint8; the record lies at `at`.
        at: first byte of the link layer.
        captured: bytes in the buffer.
        wire: bytes on the wire, at least `captured`.
        link: link type.
        decapsulate: go on through IP-in-IP, 6in4, GRE and VXLAN to the innermost IP packet, as far
            as it is whole; a fragmented tunnel packet is taken as it is.
        packet: scratch of PACKET_FIELDS int64, filled when the result is OK.

    Returns:
        OK, NOT_IP, DAMAGED or UNSUPPORTED.
    """
    end = at + captured
    status, network, kind = find_network(buffer, at, end, link)
    if status != OK:
        return status
    status = read_ip(buffer, network, end, at + wire, kind, packet)
    if status != OK or not decapsulate:
        return status
    for _ in range(_MOST_TUNNELS):
        shortened = packet[SHORTENED]
        wire_end = packet[NETWORK] + packet[BYTES]
        inner_status, inner, inner_kind = find_inner(buffer, packet)
        if inner_status != OK:
            break
        if read_ip(buffer, inner, packet[END], wire_end, inner_kind, packet) != OK:
            read_ip(buffer, network, end, at + wire, kind, packet)
            packet[SHORTENED] |= shortened
            break
        packet[SHORTENED] |= shortened
        network, kind, end, wire = inner, inner_kind, packet[END], wire_end - at
    return OK
