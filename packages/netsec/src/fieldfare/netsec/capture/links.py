# SPDX-License-Identifier: Apache-2.0
"""Link types as numbered in captures, and the Ethernet types that matter here.

Source: the registry of link types of tcpdump.org (draft-ietf-opsawg-pcaplinktype).
"""

NULL = 0
ETHERNET = 1
RAW_BSD = 12
RAW_OPENBSD = 14
RAW = 101
CISCO_HDLC = 104
IEEE802_11 = 105
LOOP = 108
SLL = 113
PRISM = 119
RADIOTAP = 127
USER_2 = 149
AVS = 163
PPI = 192
IPV4 = 228
IPV6 = 229
NFLOG = 239
IPOIB = 242
PKTAP = 258
SLL2 = 276

NO_IP = -2
"""Made by this package: a frame that is known to hold no IP packet."""
LLC = -3
"""Made by this package: what stands behind the header of an 802.11 frame, or of a part of it."""

WIRELESS = frozenset({IEEE802_11, PRISM, RADIOTAP, AVS, PPI})
"""802.11 with or without a header of the receiver; a frame may hold several packets."""

NATIVE = frozenset({
    NULL, ETHERNET, RAW_BSD, RAW_OPENBSD, RAW, CISCO_HDLC, LOOP, SLL, USER_2, IPV4, IPV6, NFLOG,
    IPOIB, PKTAP, SLL2, NO_IP, LLC,
})  # fmt: skip
"""Link types read by the compiled pass; all others but 802.11 go through scapy."""

NAMES = {
    NULL: "BSD loopback",
    ETHERNET: "Ethernet",
    RAW_BSD: "raw IP",
    RAW_OPENBSD: "raw IP",
    RAW: "raw IP",
    CISCO_HDLC: "Cisco HDLC",
    IEEE802_11: "IEEE 802.11",
    LOOP: "OpenBSD loopback",
    SLL: "Linux SLL",
    PRISM: "IEEE 802.11 with Prism header",
    RADIOTAP: "IEEE 802.11 with radiotap",
    USER_2: "PKTAP",
    AVS: "IEEE 802.11 with AVS header",
    PPI: "PPI",
    IPV4: "raw IPv4",
    IPV6: "raw IPv6",
    NFLOG: "NFLOG",
    IPOIB: "IP over InfiniBand",
    PKTAP: "PKTAP",
    SLL2: "Linux SLL2",
    8: "SLIP",
    9: "PPP",
    50: "PPP in HDLC-like framing",
    51: "PPPoE",
    189: "USB of Linux",
    195: "IEEE 802.15.4",
    201: "Bluetooth HCI H4",
    220: "USB of Linux, padded",
    227: "CAN",
    230: "IEEE 802.15.4 without check sequence",
    249: "USBPcap",
    251: "Bluetooth LE",
    252: "upper PDU of Wireshark",
    253: "netlink",
    256: "Bluetooth LE with PHY",
    272: "nRF sniffer",
}
"""As people know them."""

UNKNOWN = -1
"""A record whose link type cannot be read at all."""

TYPE_IPV4 = 0x0800
TYPE_IPV6 = 0x86DD
TYPE_MPLS = 0x8847
TYPE_BRIDGED = 0x6558
"""Transparent Ethernet bridging: an Ethernet frame within GRE."""


def link_name(link: int) -> str:
    """For people, by its number too."""
    known = NAMES.get(link)
    return f"link type {link}" + (f" ({known})" if known else "")
