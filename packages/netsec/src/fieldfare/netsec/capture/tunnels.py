# SPDX-License-Identifier: Apache-2.0
"""Where the packet inside a tunnel packet begins; compiled, see `compiled`.

Sources: IP in IP RFC 2003, 6in4 RFC 4213, EtherIP RFC 3378, GRE RFC 2784 and 2890, PPTP RFC 2637,
ERSPAN draft-foschiano-erspan, VXLAN RFC 7348, Geneve RFC 8926, GTP-U 3GPP TS 29.281, L2TP RFC 2661
and 3931, Teredo RFC 4380, MPLS in UDP RFC 7510, TZSP as Wireshark reads it.
"""

from typing import Any

from .compiled import Octets, compiled
from .frames import DAMAGED, NOT_IP, OK, by_version, find_network, of_ppp, skip_tags, u16, u32
from .headers import DPORT, END, FRAGMENT, PAYLOAD, PROTOCOL, SPORT, TRANSPORT, UDP
from .links import ETHERNET, TYPE_BRIDGED, TYPE_IPV4, TYPE_IPV6, TYPE_MPLS
from .pseudowire import is_ethernet

_IP_IN_IP, _IPV6_IN_IP, _GRE, _ETHER_IP, _L2TP_IP, _MPLS_IP = 4, 41, 47, 97, 115, 137
_L2TP, _GTP_U, _TEREDO, _VXLAN, _VXLAN_GPE, _GENEVE, _MPLS_UDP, _VXLAN_LINUX, _TZSP = (
    1701, 2152, 3544, 4789, 4790, 6081, 6635, 8472, 37008,
)  # fmt: skip
_ERSPAN, _ERSPAN_III, _PPP = 0x88BE, 0x22EB, 0x880B
_MOST_PARTS = 32


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
    if protocol == UDP:
        return in_udp(buffer, packet[PAYLOAD], end, packet[SPORT], packet[DPORT])
    if protocol == _IP_IN_IP:
        return OK, at, TYPE_IPV4
    if protocol == _IPV6_IN_IP:
        return OK, at, TYPE_IPV6
    if protocol == _GRE:
        return in_gre(buffer, at, end)
    if protocol == _MPLS_IP:
        return tagged(buffer, at, end, TYPE_MPLS)
    if protocol == _ETHER_IP:
        return ethernet(buffer, at + 2, end)
    if protocol == _L2TP_IP:
        return in_l2tp3(buffer, at + 4, end)
    return NOT_IP, at, 0


@compiled
def ethernet(buffer: Octets, at: int, end: int) -> tuple[int, int, int]:
    """The IP packet of an Ethernet frame."""
    status, at, kind, _ = find_network(buffer, at, end, ETHERNET)
    return status, at, kind


@compiled
def tagged(buffer: Octets, at: int, end: int, kind: int) -> tuple[int, int, int]:
    """The IP packet behind an Ethernet type."""
    status, at, kind, _ = skip_tags(buffer, at, end, max(kind, 0x0600))
    return status, at, kind


@compiled
def versioned(buffer: Octets, at: int, end: int) -> tuple[int, int, int]:
    """An IP packet whose version only its first bits tell."""
    kind = by_version(buffer, at, end)
    return (OK if kind else NOT_IP), at, kind


@compiled
def in_ppp(buffer: Octets, at: int, end: int) -> tuple[int, int, int]:
    """The IP packet of a frame of PPP, whose header may be compressed (RFC 1661)."""
    if end - at >= 2 and buffer[at] == 0xFF and buffer[at + 1] == 3:
        at += 2
    if end - at < 2:
        return NOT_IP, at, 0
    if buffer[at] & 1:
        return tagged(buffer, at + 1, end, of_ppp(int(buffer[at])))
    return tagged(buffer, at + 2, end, of_ppp(u16(buffer, at)))


@compiled
def in_gre(buffer: Octets, at: int, end: int) -> tuple[int, int, int]:
    """What GRE carries: IP, Ethernet, mirrored frames, PPP of PPTP."""
    if end - at < 8:
        return (DAMAGED if end - at < 4 else NOT_IP), at, 0
    flags = u16(buffer, at)
    kind = u16(buffer, at + 2)
    if flags & 7 == 1 and kind == _PPP:
        if u16(buffer, at + 4) == 0:  # an acknowledgement alone
            return NOT_IP, at, 0
        at += 8
        for optional in (0x1000, 0x0080):  # sequence number, acknowledgement
            if flags & optional:
                at += 4
        return in_ppp(buffer, at, end)
    if flags & 0x4007:  # source routes (withdrawn by RFC 2784) and other versions
        return NOT_IP, at, 0
    at += 4
    for optional in (0x8000, 0x2000, 0x1000):  # checksum, key, sequence number
        if flags & optional:
            at += 4
    if kind == _ERSPAN:
        # Type II has a header of its own and a sequence number, type I neither.
        return ethernet(buffer, at + 8 if flags & 0x1000 else at, end)
    if kind == _ERSPAN_III:
        if end - at < 12:
            return DAMAGED, at, 0
        more = u16(buffer, at + 10)
        at += 20 if more & 1 else 12
        if (more >> 10) & 31 == 2:  # an IP packet, not a frame
            return versioned(buffer, at, end)
        return ethernet(buffer, at, end)
    if kind == TYPE_BRIDGED:
        return ethernet(buffer, at, end)
    return tagged(buffer, at, end, kind)


@compiled
def in_udp(buffer: Octets, at: int, end: int, sport: int, dport: int) -> tuple[int, int, int]:
    """What UDP carries, by its ports."""
    if end - at < 8:
        return NOT_IP, at, 0
    first = int(buffer[at])
    if dport in (_VXLAN, _VXLAN_LINUX):
        return ethernet(buffer, at + 8, end) if first & 0x08 else (NOT_IP, at, 0)
    if dport == _VXLAN_GPE:
        following = buffer[at + 3]
        if following == 3:
            return ethernet(buffer, at + 8, end)
        return versioned(buffer, at + 8, end) if following in (1, 2) else (NOT_IP, at, 0)
    if dport == _GENEVE:
        if first >> 6:
            return NOT_IP, at, 0
        kind = u16(buffer, at + 2)
        at += 8 + (first & 0x3F) * 4
        return ethernet(buffer, at, end) if kind == TYPE_BRIDGED else tagged(buffer, at, end, kind)
    if _GTP_U in (sport, dport):
        return in_gtp(buffer, at, end)
    if _L2TP in (sport, dport):
        return in_l2tp(buffer, at, end)
    if _TEREDO in (sport, dport):
        return in_teredo(buffer, at, end)
    if dport == _MPLS_UDP:
        return tagged(buffer, at, end, TYPE_MPLS)
    if dport == _TZSP:
        return in_tzsp(buffer, at, end)
    return NOT_IP, at, 0


@compiled
def in_gtp(buffer: Octets, at: int, end: int) -> tuple[int, int, int]:
    """What GTP-U carries, behind its extension headers."""
    flags = int(buffer[at])
    if flags >> 4 != 3 or buffer[at + 1] != 0xFF:  # version 1, user data
        return NOT_IP, at, 0
    at += 8
    if flags & 7 == 0:
        return versioned(buffer, at, end)
    following = buffer[at + 3] if flags & 4 and end - at >= 4 else 0
    at += 4
    for _ in range(_MOST_PARTS):
        if following == 0:
            return versioned(buffer, at, end)
        if end - at < 4 or buffer[at] == 0 or end - at < 4 * buffer[at]:
            break
        at += 4 * buffer[at]
        following = int(buffer[at - 1])
    return NOT_IP, at, 0


@compiled
def in_l2tp(buffer: Octets, at: int, end: int) -> tuple[int, int, int]:
    """What L2TP over UDP carries: PPP, or in its third version mostly Ethernet."""
    flags = u16(buffer, at)
    if flags & 0x8000:  # control
        return NOT_IP, at, 0
    if flags & 15 == 3:
        return in_l2tp3(buffer, at + 8, end)
    if flags & 15 != 2:
        return NOT_IP, at, 0
    at += 6
    for optional, length in ((0x4000, 2), (0x0800, 4)):  # length, sequence numbers
        if flags & optional:
            at += length
    if flags & 0x0200:
        if end - at < 2:
            return NOT_IP, at, 0
        at += 2 + u16(buffer, at)
    return in_ppp(buffer, at, end)


@compiled
def in_l2tp3(buffer: Octets, at: int, end: int) -> tuple[int, int, int]:
    """Ethernet behind a cookie and a sublayer, whose lengths only the two ends know."""
    for skipped in range(0, 16, 4):
        if is_ethernet(buffer, at + skipped, end):
            return ethernet(buffer, at + skipped, end)
    return NOT_IP, at, 0


@compiled
def in_teredo(buffer: Octets, at: int, end: int) -> tuple[int, int, int]:
    """IPv6 behind an authentication and the origin, both optional."""
    if u16(buffer, at) == 1:
        at += 13 + buffer[at + 2] + buffer[at + 3]
    if end - at >= 8 and u16(buffer, at) == 0:
        at += 8
    return (OK, at, TYPE_IPV6) if by_version(buffer, at, end) == TYPE_IPV6 else (NOT_IP, at, 0)


@compiled
def in_tzsp(buffer: Octets, at: int, end: int) -> tuple[int, int, int]:
    """A mirrored Ethernet frame behind tagged fields."""
    if u32(buffer, at) not in (0x01000001, 0x01010001):  # version 1, Ethernet
        return NOT_IP, at, 0
    at += 4
    while end - at >= 2:
        tag = buffer[at]
        if tag == 1:
            return ethernet(buffer, at + 1, end)
        at += 1 if tag == 0 else 2 + buffer[at + 1]
    return NOT_IP, at, 0
