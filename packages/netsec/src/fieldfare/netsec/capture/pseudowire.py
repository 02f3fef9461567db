# SPDX-License-Identifier: Apache-2.0
"""What stands behind the last MPLS label; compiled, see `compiled`.

Nothing there names it: an IP packet, an Ethernet frame, or one behind a control word (RFC 4448).
The first four bits alone would take an address that begins with 4 or 6 for IP, so the whole header
has to hold: the checksum of IPv4, or a type of Ethernet that leads to what it promises.
"""

from .compiled import Octets, compiled
from .links import TYPE_IPV4, TYPE_IPV6

_ARP, _VLAN, _PROVIDER, _MPLS, _PPPOE, _LLDP = 0x0806, 0x8100, 0x88A8, 0x8847, 0x8864, 0x88CC


@compiled
def _u16(buffer: Octets, at: int) -> int:
    return buffer[at] * 256 + buffer[at + 1]


@compiled
def like_ipv4(buffer: Octets, at: int, end: int) -> bool:
    """Whether what stands there may be a header of IPv4, whose checksum may be left out."""
    if end - at < 20 or buffer[at] // 16 != 4:
        return False
    header = (buffer[at] & 15) * 4
    return header >= 20 and _u16(buffer, at + 2) >= header


@compiled
def is_ipv4(buffer: Octets, at: int, end: int) -> bool:
    """Whether a header of IPv4 stands there, by its checksum."""
    if not like_ipv4(buffer, at, end):
        return False
    header = (buffer[at] & 15) * 4
    if end - at < header:
        return False
    total = 0
    for place in range(at, at + header, 2):
        total += _u16(buffer, place)
    total = total % 65536 + total // 65536
    return total % 65536 + total // 65536 == 0xFFFF


@compiled
def is_ethernet(buffer: Octets, at: int, end: int) -> bool:
    """Whether an Ethernet frame stands there whose type leads to what it promises."""
    if end - at < 18:
        return False
    kind = _u16(buffer, at + 12)
    at += 14
    if kind == TYPE_IPV4:
        return like_ipv4(buffer, at, end)
    if kind == TYPE_IPV6:
        return buffer[at] // 16 == 6
    if kind == _ARP:
        return _u16(buffer, at) == 1 and _u16(buffer, at + 2) == TYPE_IPV4
    if kind < 0x0600:
        return buffer[at] == buffer[at + 1] and buffer[at] in (0x42, 0xAA, 0xE0, 0xF0, 0xFE)
    return kind in (_VLAN, _PROVIDER, _MPLS, _PPPOE, _LLDP)


@compiled
def behind_labels(buffer: Octets, at: int, end: int) -> tuple[int, int]:
    """What the payload of MPLS is.

    Returns:
        (offset, Ethernet type) of what follows; (offset, 0) where it cannot be told.
    """
    if at >= end:
        return at, 0
    if is_ipv4(buffer, at, end):
        return at, TYPE_IPV4
    if buffer[at] // 16 == 0 and is_ethernet(buffer, at + 4, end):
        return at + 18, _u16(buffer, at + 16)
    if is_ethernet(buffer, at, end):
        return at + 14, _u16(buffer, at + 12)
    if buffer[at] == 0x45 and like_ipv4(buffer, at, end):
        return at, TYPE_IPV4
    if end - at >= 40 and buffer[at] // 16 == 6:
        return at, TYPE_IPV6
    return at, 0
