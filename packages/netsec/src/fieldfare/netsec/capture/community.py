# SPDX-License-Identifier: Apache-2.0
"""Community ids: one text for a flow that Zeek, Suricata, Wireshark and others give it too.

Source: community-id-spec of Corelight, version 1.
"""

import hashlib
import struct
from base64 import b64encode

import numpy as np

_ICMP, _ICMPV6 = 1, 58
_WITH_PORTS = frozenset({_ICMP, 6, 17, _ICMPV6, 132})
# Types of ICMP that ask, and those that answer them; the type stands for the port.
_PAIRS = {
    _ICMP: {0: 8, 8: 0, 9: 10, 10: 9, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17},
    _ICMPV6: {
        128: 129, 129: 128, 130: 131, 131: 130, 133: 134, 134: 133, 135: 136, 136: 135, 139: 140,
        140: 139, 144: 145, 145: 144,
    },
}  # fmt: skip


def community_id(
    source: bytes, destination: bytes, protocol: int, ports: tuple[int, int], seed: int = 0
) -> str:
    """The id of one flow, the same for both directions.

    Args:
        source: address, 4 or 16 bytes.
        destination: address of the same length.
        protocol: number.
        ports: of source and destination; for ICMP type and code.
        seed: of the networks that shall be told apart.
    """
    low, high = ports
    one_way = False
    if protocol in _PAIRS:
        answer = _PAIRS[protocol].get(low)
        one_way = answer is None
        high = high if answer is None else answer
    if not one_way and (destination, high) < (source, low):
        source, destination, low, high = destination, source, high, low
    data = struct.pack("!H", seed) + source + destination + struct.pack("!BB", protocol, 0)
    if protocol in _WITH_PORTS:
        data += struct.pack("!HH", low, high)
    return "1:" + b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()


def community_ids(
    family: np.ndarray,
    addresses: tuple[np.ndarray, np.ndarray],
    protocol: np.ndarray,
    ports: tuple[np.ndarray, np.ndarray],
    icmp: np.ndarray,
) -> list[str]:
    """Ids of N flows, seed 0.

    Args:
        family: (N,) 4 or 6.
        addresses: (N, 16) uint8 of sources and of destinations.
        protocol: (N,).
        ports: (N,) of sources and of destinations.
        icmp: (N,) type * 256 + code of the first packet, where it is ICMP.
    """
    asks = np.isin(protocol, (_ICMP, _ICMPV6))
    low = np.where(asks, icmp >> 8, ports[0]).tolist()
    high = np.where(asks, icmp & 255, ports[1]).tolist()
    lengths = np.where(family == 4, 4, 16).tolist()
    sources, destinations = (np.ascontiguousarray(side).tobytes() for side in addresses)
    return [
        community_id(
            sources[at : at + length], destinations[at : at + length], number, (first, second)
        )
        for at, length, number, first, second in zip(
            range(0, 16 * len(lengths), 16), lengths, protocol.tolist(), low, high, strict=True
        )
    ]
