# SPDX-License-Identifier: Apache-2.0
"""Link types as numbered in captures, and the Ethernet types that matter here.

Source: the registry of link types of tcpdump.org (draft-ietf-opsawg-pcaplinktype).
"""

NULL = 0
ETHERNET = 1
RAW_BSD = 12
RAW_OPENBSD = 14
RAW = 101
LOOP = 108
SLL = 113
IPV4 = 228
IPV6 = 229
SLL2 = 276

NATIVE = frozenset({NULL, ETHERNET, RAW_BSD, RAW_OPENBSD, RAW, LOOP, SLL, IPV4, IPV6, SLL2})
"""Link types read by the compiled pass; all others go through scapy."""

NAMES = {
    NULL: "BSD loopback",
    ETHERNET: "Ethernet",
    RAW_BSD: "raw IP",
    RAW_OPENBSD: "raw IP",
    RAW: "raw IP",
    LOOP: "OpenBSD loopback",
    SLL: "Linux SLL",
    IPV4: "raw IPv4",
    IPV6: "raw IPv6",
    SLL2: "Linux SLL2",
}
"""As people know them."""

UNKNOWN = -1
"""A record whose link type cannot be read at all."""

TYPE_IPV4 = 0x0800
TYPE_IPV6 = 0x86DD
TYPE_BRIDGED = 0x6558
"""Transparent Ethernet bridging: an Ethernet frame within GRE."""
