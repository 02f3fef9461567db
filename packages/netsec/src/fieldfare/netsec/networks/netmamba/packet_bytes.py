# SPDX-License-Identifier: Apache-2.0
"""The bytes that NetMamba reads of a flow: of each of its first packets, headers and payload.

`packet_bytes` is ours: header and payload are told apart by their lengths, in IPv4 and IPv6.
`published_bytes` gives the arrays of the published pre-processing, its quirks included.

Source: NetMamba, arXiv 2405.11449, section on traffic representation.
"""

from pathlib import Path

import numpy as np

from ...capture import FlowBatch
from ...capture.unusual import ip_packets_with_payload
from ...data.flow_rows import packet_number

PACKETS = 5
HEADER_BYTES = 80
PAYLOAD_BYTES = 240
BYTES = PACKETS * (HEADER_BYTES + PAYLOAD_BYTES)

_SOURCE = 12
"""A byte within the source address, in IPv4 and in IPv6."""


def packet_bytes(
    flows: FlowBatch,
    *,
    packets: int = PACKETS,
    header_bytes: int = HEADER_BYTES,
    payload_bytes: int = PAYLOAD_BYTES,
    mark_direction: bool = False,
) -> np.ndarray:
    """First packets as rows of bytes: headers, then payload, both cut or filled up with zeros.

    The flows must have been read with at least as many packets and bytes kept. Nothing is hidden
    here, see `masking.mask`.

    Args:
        flows: N flows.
        packets: packets of each flow; missing ones are zeros.
        header_bytes: bytes of IP and transport headers.
        payload_bytes: bytes of payload.
        mark_direction: set one byte of the source address to 255 in packets sent against the
            direction of the flow's first one. With addresses hidden nothing else tells them apart.

    Returns:
        (N, packets * (header_bytes + payload_bytes)) uint8.
    """
    first, number = flows.first_packets, packet_number(flows)
    used = np.flatnonzero(number < packets)
    result = np.zeros((len(flows), packets, header_bytes + payload_bytes), np.uint8)
    if used.size and first.data.size:
        rows = result[first.flow[used], number[used]]
        lengths = first.header[used, None]
        column = np.arange(min(header_bytes, first.data.shape[1]))
        rows[:, column] = first.data[used][:, column] * (column < lengths)
        column = np.arange(payload_bytes)
        place = np.minimum(lengths + column, first.data.shape[1] - 1)
        payload = np.take_along_axis(first.data[used], place, axis=1)
        rows[:, header_bytes:] = payload * (column < first.payload[used, None])
        if mark_direction and header_bytes > _SOURCE:
            rows[first.backward[used], _SOURCE] = 255
        result[first.flow[used], number[used]] = rows
    return result.reshape(len(flows), packets * (header_bytes + payload_bytes))


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
