# SPDX-License-Identifier: Apache-2.0
"""One packet from its link layer to its ports, tunnels included; compiled, see `compiled`."""

from typing import Any

from .compiled import Octets, compiled, inlined
from .frames import OK, find_network, u16
from .headers import BYTES, END, NETWORK, SHORTENED, VLAN, read_ip
from .links import ETHERNET, TYPE_IPV4, TYPE_IPV6
from .tunnels import find_inner

_MOST_TUNNELS = 4


@inlined
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
        decapsulate: go on through tunnels (see `tunnels`) to the innermost IP packet, as far as it
            is whole; a fragmented tunnel packet is taken as it is.
        packet: scratch of PACKET_FIELDS int64, filled when the result is OK.

    Returns:
        OK, NOT_IP, DAMAGED or UNSUPPORTED.
    """
    end = at + captured
    network, vlan = at + 14, 0
    kind = u16(buffer, at + 12) if link == ETHERNET and captured >= 14 else 0
    if kind not in (TYPE_IPV4, TYPE_IPV6):  # all that is not the plainest frame
        status, network, kind, vlan = find_network(buffer, at, end, link)
        if status != OK:
            return status
    status = read_ip(buffer, network, end, at + wire, kind, packet)
    if status == OK and decapsulate:
        open_tunnels(buffer, at, network, end, wire, kind, packet)
    packet[VLAN] = vlan
    return status


@compiled
def open_tunnels(
    buffer: Octets, at: int, network: int, end: int, wire: int, kind: int, packet: Any
) -> None:
    """Go on to the innermost IP packet that can be read; arguments as of `dissect`, `read_ip`."""
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
