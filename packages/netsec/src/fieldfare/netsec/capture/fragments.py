# SPDX-License-Identifier: Apache-2.0
"""Ports of fragments after the first, remembered from the first one; compiled, see `compiled`.

A table of fixed size: a set of eight places for each hash, the oldest gives way; the hash has no
seed, so that the same capture always gives the same flows. Nothing is reassembled: each fragment
counts for its flow with its own bytes.
"""

from typing import Any

from .compiled import compiled
from .headers import (
    DPORT,
    FAMILY,
    FRAGMENT,
    FRAGMENT_ID,
    PROTOCOL,
    SPORT,
    SRC,
)

FRAGMENT_ROWS = 8192
FRAGMENT_FIELDS = 15
"""Columns: 8 words of the addresses, family with protocol, identification, protocol and two ports
of the first fragment, its time, its number (0: an empty place)."""

_WAYS = 8
_KIND, _ID, _PROTOCOL, _SPORT, _DPORT, _TIME, _NUMBER = 8, 9, 10, 11, 12, 13, 14
_MULTIPLIER = 0x4F6CDD1D
LIFETIME = 30_000_000_000  # nanoseconds; what Linux waits for the rest of a packet


@compiled
def mix(state: int, word: int, secret: int) -> int:
    """One step of a hash over 32-bit words; the secret has 31 bits.

    The high half of the product is folded into the low one. The low half alone would let a flipped
    highest bit through unchanged, whatever the secret, and so let keys be made that collide.
    """
    product = (state ^ word) * secret
    return (product ^ (product >> 31)) & 0xFFFFFFFF


@compiled
def fragment_kind(family: int, protocol: int) -> int:
    """What must be equal of fragments of one packet besides addresses and identification."""
    # In IPv6 a later fragment does not tell the protocol behind further extension headers.
    return (protocol << 8 | 4) if family == 4 else 6


@compiled
def fragment_place(packet: Any, kind: int, cache: Any) -> tuple[int, int]:
    """Where a fragment's packet is remembered, and where it would be written.

    Returns:
        (row that holds it, or -1; row to write to).
    """
    state = mix(kind, packet[FRAGMENT_ID], _MULTIPLIER)
    for word in range(8):
        state = mix(state, packet[SRC + word], _MULTIPLIER)
    start = (state % (FRAGMENT_ROWS // _WAYS)) * _WAYS
    oldest = start
    for row in range(start, start + _WAYS):
        if cache[row, _NUMBER] < cache[oldest, _NUMBER]:
            oldest = row
        if (
            cache[row, _NUMBER]
            and cache[row, _KIND] == kind
            and (cache[row, _ID] == packet[FRAGMENT_ID])
        ):
            same = True
            for word in range(8):
                same = same and cache[row, word] == packet[SRC + word]
            if same:
                return row, row
    return -1, oldest


@compiled
def join_fragment(packet: Any, time: int, number: int, cache: Any) -> bool:
    """Remember a first fragment, or give a later one the ports of its first.

    Args:
        packet: what `read_ip` made of the fragment; protocol and ports are set for a later one.
        time: nanoseconds.
        number: of the packet, from 1 on.
        cache: (FRAGMENT_ROWS, FRAGMENT_FIELDS) int64.

    Returns:
        False for a later fragment whose first was not seen within 30 seconds; its ports stay 0.
    """
    kind = fragment_kind(packet[FAMILY], packet[PROTOCOL])
    row, target = fragment_place(packet, kind, cache)
    if packet[FRAGMENT] == 2:
        if row < 0 or abs(time - cache[row, _TIME]) > LIFETIME:
            return False
        packet[PROTOCOL] = cache[row, _PROTOCOL]
        packet[SPORT] = cache[row, _SPORT]
        packet[DPORT] = cache[row, _DPORT]
        return True
    for word in range(8):
        cache[target, word] = packet[SRC + word]
    cache[target, _KIND] = kind
    cache[target, _ID] = packet[FRAGMENT_ID]
    cache[target, _PROTOCOL] = packet[PROTOCOL]
    cache[target, _SPORT] = packet[SPORT]
    cache[target, _DPORT] = packet[DPORT]
    cache[target, _TIME] = time
    cache[target, _NUMBER] = number
    return True
