# SPDX-License-Identifier: Apache-2.0
"""Community ids: one text for a flow that Zeek, Suricata, Wireshark and others give it too.

Source: community-id-spec of Corelight, version 1.
"""

import hashlib
import struct
from base64 import b64encode

import numpy as np

_ICMP, _ICMPV6 = 1, 58
_DIGEST = 20
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
    """Ids of N flows, seed 0: those of `community_id`, many at a time.

    Args:
        family: (N,) 4 or 6.
        addresses: (N, 16) uint8 of sources and of destinations.
        protocol: (N,).
        ports: (N,) of sources and of destinations.
        icmp: (N,) type * 256 + code of the first packet, where it is ICMP.
    """
    asks = np.isin(protocol, (_ICMP, _ICMPV6))
    low = np.where(asks, icmp >> 8, ports[0]).astype(np.int64)
    high = np.where(asks, icmp & 255, ports[1]).astype(np.int64)
    one_way = np.zeros(len(family), bool)
    for number, pairs in _PAIRS.items():
        answers = np.full(256, -1)
        answers[list(pairs)] = list(pairs.values())
        rows = np.flatnonzero(protocol == number)
        answer = answers[low[rows]]
        one_way[rows] = answer < 0
        high[rows] = np.where(answer < 0, high[rows], answer)
    digests = np.zeros((len(family), _DIGEST + 1), np.uint8)
    for width, chosen in ((4, family == 4), (16, family != 4)):
        rows = np.flatnonzero(chosen)
        ends = [np.ascontiguousarray(side[rows, :width]) for side in addresses]
        digests[rows, :_DIGEST] = _digests(
            ends[0], ends[1], protocol[rows], low[rows], high[rows], one_way[rows]
        )
    # Base64 takes three bytes at a time: the 21st of each row, which is none, gives its last sign.
    text = np.frombuffer(b64encode(digests.tobytes()), np.uint8).reshape(-1, 28).copy()
    text[:, -1] = ord("=")
    whole = text.tobytes().decode()
    return ["1:" + whole[at : at + 28] for at in range(0, len(whole), 28)]


def _digests(
    source: np.ndarray,
    destination: np.ndarray,
    protocol: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    one_way: np.ndarray,
) -> np.ndarray:
    """(N, 20) uint8, of N flows whose addresses are (N, 4) or (N, 16) uint8, seed 0."""
    count, width = source.shape
    one, other = (side.view(f"S{width}")[:, 0] for side in (source, destination))
    swapped = ((other < one) | ((other == one) & (high < low))) & ~one_way
    turned = swapped[:, None]
    data = np.zeros((count, 2 * width + 8), np.uint8)
    data[:, 2 : 2 + width] = np.where(turned, destination, source)
    data[:, 2 + width : 2 + 2 * width] = np.where(turned, source, destination)
    data[:, 2 + 2 * width] = protocol
    ends = np.stack([np.where(swapped, high, low), np.where(swapped, low, high)], axis=1)
    data[:, 4 + 2 * width :] = ends.astype(">u2").view(np.uint8)
    with_ports = np.isin(protocol, list(_WITH_PORTS))
    lengths = np.where(with_ports, 2 * width + 8, 2 * width + 4).tolist()
    raw = data.tobytes()
    found = b"".join(
        [
            hashlib.sha1(raw[at : at + length], usedforsecurity=False).digest()
            for at, length in zip(range(0, len(raw), 2 * width + 8), lengths, strict=True)
        ]
    )
    return np.frombuffer(found, np.uint8).reshape(count, _DIGEST)
