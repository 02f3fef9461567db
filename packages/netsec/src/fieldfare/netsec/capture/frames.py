# SPDX-License-Identifier: Apache-2.0
"""From the first byte of a frame to its network layer; compiled, see `compiled`.

No byte at or beyond the end that a caller names is read, whatever the headers claim.
"""

from . import links
from .compiled import Octets, compiled
from .links import TYPE_IPV4, TYPE_IPV6

OK, NOT_IP, DAMAGED, UNSUPPORTED = 0, 1, 2, 3
"""What becomes of a packet. Damaged: a header that contradicts itself or ends too early."""

_MOST_TAGS = 16


@compiled
def u16(buffer: Octets, at: int) -> int:
    """Big-endian 16 bits."""
    # No shifts: numba gives them an unsigned type, and makes a float of that and a signed one.
    return buffer[at] * 256 + buffer[at + 1]


@compiled
def u32(buffer: Octets, at: int) -> int:
    """Big-endian 32 bits."""
    return u16(buffer, at) * 65536 + u16(buffer, at + 2)


@compiled
def by_version(buffer: Octets, at: int, end: int) -> int:
    """The Ethernet type that the first four bits stand for; 0 for neither version of IP."""
    if at >= end:
        return 0
    version = buffer[at] // 16
    return TYPE_IPV4 if version == 4 else (TYPE_IPV6 if version == 6 else 0)


@compiled
def skip_tags(buffer: Octets, at: int, end: int, kind: int) -> tuple[int, int, int]:
    """Step over VLAN tags, MPLS labels, PPPoE and LLC/SNAP to the network layer.

    Returns:
        (status, offset of the network layer, its Ethernet type).
    """
    for _ in range(_MOST_TAGS):
        if kind in (TYPE_IPV4, TYPE_IPV6):
            return OK, at, kind
        if kind in (0x8100, 0x88A8, 0x9100, 0x9200):  # 802.1Q, 802.1ad and its forerunners
            if end - at < 4:
                return DAMAGED, at, kind
            kind = u16(buffer, at + 2)
            at += 4
        elif kind in (0x8847, 0x8848):  # MPLS
            if end - at < 4:
                return DAMAGED, at, kind
            bottom = buffer[at + 2] & 1
            at += 4
            if bottom:
                kind = by_version(buffer, at, end)
                if kind == 0:
                    return NOT_IP, at, kind
        elif kind == 0x8864:  # PPPoE, session stage
            if end - at < 8:
                return DAMAGED, at, kind
            inner = u16(buffer, at + 6)
            at += 8
            kind = TYPE_IPV4 if inner == 0x0021 else (TYPE_IPV6 if inner == 0x0057 else 0x0600)
        elif kind < 0x0600:  # a length: 802.3 with LLC, of interest only with SNAP
            if end - at < 8 or u32(buffer, at) != 0xAAAA0300 or u16(buffer, at + 4) != 0:
                return NOT_IP, at, kind
            kind = u16(buffer, at + 6)
            at += 8
            if kind < 0x0600:
                return NOT_IP, at, kind
        else:
            return NOT_IP, at, kind
    return DAMAGED, at, kind


@compiled
def find_network(buffer: Octets, at: int, end: int, link: int) -> tuple[int, int, int]:
    """Step over the link layer.

    Returns:
        (status, offset of the network layer, its Ethernet type).
    """
    if link == links.ETHERNET:
        if end - at < 14:
            return DAMAGED, at, 0
        return skip_tags(buffer, at + 14, end, u16(buffer, at + 12))
    if link == links.SLL:
        if end - at < 16:
            return DAMAGED, at, 0
        return skip_tags(buffer, at + 16, end, max(u16(buffer, at + 14), 0x0600))
    if link == links.SLL2:
        if end - at < 20:
            return DAMAGED, at, 0
        return skip_tags(buffer, at + 20, end, max(u16(buffer, at), 0x0600))
    if link in (links.NULL, links.LOOP):
        if end - at < 4:
            return DAMAGED, at, 0
        # The address family in the byte order of the machine that captured, often not this one's.
        family = buffer[at] | buffer[at + 3]
        if (buffer[at + 1] | buffer[at + 2]) != 0 or family not in (2, 10, 24, 28, 30):
            return NOT_IP, at, 0
        at += 4
    elif link not in (links.RAW, links.RAW_BSD, links.RAW_OPENBSD, links.IPV4, links.IPV6):
        return UNSUPPORTED, at, 0
    kind = by_version(buffer, at, end)
    return (OK if kind else DAMAGED), at, kind
