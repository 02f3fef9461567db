# SPDX-License-Identifier: Apache-2.0
"""From the first byte of a frame to its network layer; compiled, see `compiled`.

No byte at or beyond the end that a caller names is read, whatever the headers claim.
"""

from . import links
from .compiled import Octets, compiled
from .links import TYPE_IPV4, TYPE_IPV6, TYPE_MPLS
from .pseudowire import behind_labels

OK, NOT_IP, DAMAGED, UNSUPPORTED = 0, 1, 2, 3
"""What becomes of a packet. Damaged: a header that contradicts itself or ends too early."""

_MOST_TAGS = 16
_NFLOG_PAYLOAD = 9


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
def skip_tags(buffer: Octets, at: int, end: int, kind: int) -> tuple[int, int, int, int]:
    """Step over VLAN tags, MPLS labels, PPPoE, LLC/SNAP and the like to the network layer.

    Returns:
        (status, offset of the network layer, its Ethernet type, VLAN). The VLAN is 0 without a tag;
        of two tags it is the outer one times 4096 plus the inner one.
    """
    vlan = 0
    for _ in range(_MOST_TAGS):
        if kind in (TYPE_IPV4, TYPE_IPV6):
            return OK, at, kind, vlan
        if kind in (0x8100, 0x88A8, 0x9100, 0x9200):  # 802.1Q, 802.1ad and its forerunners
            if end - at < 4:
                return DAMAGED, at, kind, vlan
            tag = u16(buffer, at) & 0xFFF
            if vlan == 0:
                vlan = tag
            elif vlan < 4096:
                vlan = vlan * 4096 + tag
            kind = u16(buffer, at + 2)
            at += 4
        elif kind in (0x8847, 0x8848):  # MPLS
            if end - at < 4:
                return DAMAGED, at, kind, vlan
            bottom = buffer[at + 2] & 1
            at += 4
            if bottom:
                at, kind = behind_labels(buffer, at, end)
                if kind == 0:
                    return NOT_IP, at, kind, vlan
        elif kind == 0x8864:  # PPPoE, session stage
            if end - at < 8:
                return DAMAGED, at, kind, vlan
            kind = of_ppp(u16(buffer, at + 6))
            at += 8
        elif kind in (0x8926, 0x893F, 0x88E7):  # VN-tag, 802.1BR, 802.1ah with its inner addresses
            length = 4 if kind == 0x8926 else (6 if kind == 0x893F else 16)
            if end - at < length + 2:
                return DAMAGED, at, kind, vlan
            kind = u16(buffer, at + length)
            at += length + 2
        elif kind < 0x0600:  # a length: 802.3 with LLC, of interest only with SNAP
            if end - at < 8 or u32(buffer, at) != 0xAAAA0300 or u16(buffer, at + 4) != 0:
                return NOT_IP, at, kind, vlan
            kind = u16(buffer, at + 6)
            at += 8
            if kind < 0x0600:
                return NOT_IP, at, kind, vlan
        else:
            return NOT_IP, at, kind, vlan
    return DAMAGED, at, kind, vlan


@compiled
def of_ppp(protocol: int) -> int:
    """The Ethernet type of a protocol of PPP; one that leads nowhere where it has none."""
    if protocol == 0x0021:
        return TYPE_IPV4
    if protocol == 0x0057:
        return TYPE_IPV6
    return TYPE_MPLS if protocol == 0x0281 else 0x0600


@compiled
def find_nflog(buffer: Octets, at: int, end: int) -> tuple[int, int, int, int]:
    """Step over what Linux tells of a packet of netfilter; as `find_network`."""
    if end - at < 4:
        return DAMAGED, at, 0, 0
    at += 4
    while end - at >= 4:
        # In the byte order of the machine that captured; no type reaches 256.
        little = buffer[at + 3] == 0
        length = buffer[at + 1] * 256 + buffer[at] if little else u16(buffer, at)
        kind = int(buffer[at + 2] if little else buffer[at + 3])
        if length < 4:
            return DAMAGED, at, 0, 0
        if kind == _NFLOG_PAYLOAD:
            at += 4
            kind = by_version(buffer, at, end)
            return (OK if kind else NOT_IP), at, kind, 0
        at += (length + 3) // 4 * 4
    return NOT_IP, at, 0, 0


@compiled
def find_network(buffer: Octets, at: int, end: int, link: int) -> tuple[int, int, int, int]:
    """Step over the link layer.

    Returns:
        (status, offset of the network layer, its Ethernet type, VLAN); see `skip_tags`.
    """
    if link in (links.PKTAP, links.USER_2):  # Apple: the interface, then the frame as it was
        length = buffer[at] + buffer[at + 1] * 256 if end - at >= 12 else 0
        if length < 12 or length > end - at:
            return (DAMAGED if link == links.PKTAP else UNSUPPORTED), at, 0, 0
        link = buffer[at + 8] + buffer[at + 9] * 256
        at += length
    if link == links.ETHERNET:
        if end - at < 14:
            return DAMAGED, at, 0, 0
        return skip_tags(buffer, at + 14, end, u16(buffer, at + 12))
    if link == links.SLL:
        if end - at < 16:
            return DAMAGED, at, 0, 0
        return skip_tags(buffer, at + 16, end, max(u16(buffer, at + 14), 0x0600))
    if link == links.SLL2:
        if end - at < 20:
            return DAMAGED, at, 0, 0
        return skip_tags(buffer, at + 20, end, max(u16(buffer, at), 0x0600))
    if link == links.LLC:
        return skip_tags(buffer, at, end, 0)
    if link == links.NFLOG:
        return find_nflog(buffer, at, end)
    if link == links.CISCO_HDLC:
        if end - at < 4:
            return DAMAGED, at, 0, 0
        return skip_tags(buffer, at + 4, end, max(u16(buffer, at + 2), 0x0600))
    if link == links.IPOIB:  # a global route header of 40 bytes, the type, 2 bytes without use
        if end - at < 44:
            return DAMAGED, at, 0, 0
        return skip_tags(buffer, at + 44, end, max(u16(buffer, at + 40), 0x0600))
    if link == links.NO_IP:
        return NOT_IP, at, 0, 0
    if link in (links.NULL, links.LOOP):
        if end - at < 4:
            return DAMAGED, at, 0, 0
        # The address family in the byte order of the machine that captured, often not this one's.
        family = buffer[at] | buffer[at + 3]
        if (buffer[at + 1] | buffer[at + 2]) != 0 or family not in (2, 10, 24, 28, 30):
            return NOT_IP, at, 0, 0
        at += 4
    elif link not in (links.RAW, links.RAW_BSD, links.RAW_OPENBSD, links.IPV4, links.IPV6):
        return UNSUPPORTED, at, 0, 0
    kind = by_version(buffer, at, end)
    return (OK if kind else DAMAGED), at, kind, 0
