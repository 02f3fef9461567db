# SPDX-License-Identifier: Apache-2.0
"""The bytes that NetMamba reads of a flow: of each of its first packets, headers and payload.

`packet_bytes` is ours: header and payload are told apart by their lengths, in IPv4 and IPv6, and
fields that say where and when a capture was made are set to 0. `published_bytes` gives the arrays
of the published pre-processing, its quirks included.

Source: NetMamba, arXiv 2405.11449, section on traffic representation.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from ..capture import FirstPackets, FlowBatch
from ..capture.unusual import ip_packets_with_payload
from ..flow_rows import packet_number

PACKETS = 5
HEADER_BYTES = 80
PAYLOAD_BYTES = 240
BYTES = PACKETS * (HEADER_BYTES + PAYLOAD_BYTES)

_ICMP, _TCP, _UDP, _DCCP, _ICMPV6, _SCTP, _UDPLITE = 1, 6, 17, 33, 58, 132, 136

Places = dict[int, tuple[tuple[int, int], ...]]

_IN_IP: dict[str, Places] = {
    "addresses": {4: ((12, 20),), 6: ((8, 40),)},
    "ttl": {4: ((8, 9),), 6: ((7, 8),)},
    "ip_id": {4: ((4, 6),), 6: ((2, 4),)},
    "checksums": {4: ((10, 12),)},
}
"""Field -> version -> (first byte, byte behind the last) in the IP header."""

_IN_TRANSPORT: dict[str, Places] = {
    "ports": dict.fromkeys((_TCP, _UDP, _DCCP, _SCTP, _UDPLITE), ((0, 4),)),
    "tcp_numbers": {_TCP: ((4, 12),)},
    "checksums": {
        _ICMP: ((2, 4),),
        _TCP: ((16, 18),),
        _UDP: ((6, 8),),
        _DCCP: ((6, 8),),
        _ICMPV6: ((2, 4),),
        _SCTP: ((8, 12),),
    },
}
"""Field -> protocol -> places in the transport header."""

BIASED_FIELDS = ("addresses", "ports", "ttl", "ip_id", "tcp_numbers", "checksums")
"""Fields that give a capture away rather than its class, by the names that `packet_bytes` takes:
IP addresses, ports, TTL or hop limit, IPv4 identification or IPv6 flow label (its lower 16 bits),
TCP sequence and acknowledgement numbers, checksums of IP and transport (made from the others)."""


def packet_bytes(
    flows: FlowBatch,
    masked: Collection[str] = BIASED_FIELDS,
    *,
    packets: int = PACKETS,
    header_bytes: int = HEADER_BYTES,
    payload_bytes: int = PAYLOAD_BYTES,
) -> np.ndarray:
    """First packets as rows of bytes: headers, then payload, both cut or filled up with zeros.

    The flows must have been read with at least as many packets and bytes kept.

    Args:
        flows: N flows.
        masked: names of `BIASED_FIELDS` to set to 0. Headers inside a payload (tunnels, ICMP
            errors) are left as they are.
        packets: packets of each flow; missing ones are zeros.
        header_bytes: bytes of IP and transport headers.
        payload_bytes: bytes of payload.

    Returns:
        (N, packets * (header_bytes + payload_bytes)) uint8.

    Raises:
        ValueError: no field has such a name.
    """
    if unknown := set(masked) - set(BIASED_FIELDS):
        raise ValueError(
            f"no field is named {min(unknown)!r}; there are {', '.join(BIASED_FIELDS)}"
        )
    first, number = flows.first_packets, packet_number(flows)
    used = np.flatnonzero(number < packets)
    width = header_bytes + payload_bytes
    result = np.zeros((len(flows), packets, width), np.uint8)
    rows = np.zeros((len(used), width), np.uint8)
    lengths = first.header[used]
    protocol = flows.protocol[first.flow[used]]
    headers = _headers(first, used, protocol, masked)[:, :header_bytes]
    rows[:, : headers.shape[1]] = headers
    column = np.arange(payload_bytes)
    place = np.minimum(lengths[:, None] + column, max(first.data.shape[1] - 1, 0))
    if first.data.size:
        payload = np.take_along_axis(first.data[used], place, axis=1)
        rows[:, header_bytes:] = payload * (column < first.payload[used, None])
    result[first.flow[used], number[used]] = rows
    return result.reshape(len(flows), -1)


def _headers(
    first: FirstPackets, used: np.ndarray, protocol: np.ndarray, masked: Collection[str]
) -> np.ndarray:
    """(K, W) uint8, the headers of some packets, zeros behind them, masked."""
    data = first.data[used]
    if not data.size:
        return data
    column = np.arange(data.shape[1])
    transport = first.transport[used]
    keep = column < first.header[used, None]
    version = data[:, 0] >> 4  # an inner packet may be of another version than its flow
    for name in masked:
        for which, places in _IN_IP.get(name, {}).items():
            for begin, end in places:
                keep[np.ix_(version == which, column[begin:end])] = False
        for which, places in _IN_TRANSPORT.get(name, {}).items():
            rows = np.flatnonzero(protocol == which)
            behind = column - transport[rows, None]
            for begin, end in places:
                keep[rows] &= (behind < begin) | (behind >= end)
    return data * keep


def published_bytes(path: Path) -> np.ndarray:
    """What the published pre-processing makes of the capture of one flow; needs scapy.

    Its addresses are 0.0.0.0, all else is kept. Two quirks: only what scapy leaves undissected
    counts as payload, so that the payload of DNS, NTP or a tunnel lies among the headers; and every
    occurrence of the payload's hexadecimal text is cut out of the packet's, even one that begins in
    the middle of a byte. Packets without IPv4 are zeros.

    Args:
        path: a capture; the flow's packets in order, all in one direction as published.

    Returns:
        (1600,) uint8.

    Raises:
        InputError: unreadable, or scapy is not installed.
    """
    rows = np.zeros((PACKETS, HEADER_BYTES + PAYLOAD_BYTES), np.uint8)
    for row, found in zip(rows, ip_packets_with_payload(path, PACKETS), strict=False):
        if found is None:
            continue
        packet, payload = (part.hex() for part in found)
        header = packet.replace(payload, "") if payload else packet
        for text, begin, length in (
            (header, 0, HEADER_BYTES),
            (payload, HEADER_BYTES, PAYLOAD_BYTES),
        ):
            part = bytes.fromhex(text[: 2 * length].ljust(2 * length, "0"))
            row[begin : begin + length] = np.frombuffer(part, np.uint8)
    return rows.reshape(-1)
