# SPDX-License-Identifier: Apache-2.0
"""What a set of flows is like as a whole: numbers by which one place of recording is told again."""

import numpy as np

from ..capture import FlowBatch
from .flow_rows import packet_number

FEATURES = (
    "tcp", "udp", "ipv6", "vlan", "answered", "private", "low_port", "packets", "size", "duration",
    "hops", "from_128", "from_255", "late", "cut",
)  # fmt: skip
"""Shares of flows, and means over them: TCP, UDP, IPv6, in a VLAN, with packets backward, from a
private address, with a port below 1024; log2 of packets, of bytes a packet and of 1 + seconds;
routers passed by the first packet, and whether its time to live began at 128 or 255; TCP whose
first packet is no SYN, and a packet of which not even `LEAST_PAYLOAD` bytes were captured.
"""

LEAST_PAYLOAD = 8
"""Bytes that every network keeps, so that the vector does not depend on which one it is."""

FARTHEST = 3.0
"""Deviations that one feature may count."""

CENTRE = (
    0.631, 0.347, 0.07, 0.032, 0.755, 0.659, 0.809, 3.119, 7.771, 1.032, 1.838, 0.18, 0.035, 0.149,
    0.0,
)  # fmt: skip
SCALE = (
    0.466, 0.457, 0.237, 0.171, 0.412, 0.46, 0.378, 2.201, 1.332, 1.868, 6.598, 0.372, 0.157, 0.342,
    0.1,
)  # fmt: skip
"""Mean and deviation, at least 0.1, over captures of training, by `benchmarks/netsec/adapters.py
statistics`."""

_TCP, _UDP = 6, 17
_SYN, _FLAGS = 2, 13
_BEGINNINGS = np.array([32, 64, 128, 255])


def site_vector(flows: FlowBatch) -> np.ndarray:
    """(F,) float64, `FEATURES` in deviations from captures at large; zeros of no flow."""
    if not len(flows):
        return np.zeros(len(FEATURES))
    units = (raw_vector(flows) - np.array(CENTRE)) / np.array(SCALE)
    found: np.ndarray = np.clip(units, -FARTHEST, FARTHEST)
    return found


def raw_vector(flows: FlowBatch) -> np.ndarray:
    """(F,) float64, `FEATURES` as they are; at least one flow."""
    return np.array([values.mean() for values in _of_each(flows).values()])


def _of_each(flows: FlowBatch) -> dict[str, np.ndarray]:
    """(N,) float64 of each flow, by name."""
    packets = flows.packets_fwd + flows.packets_bwd
    size = (flows.bytes_fwd + flows.bytes_bwd) / np.maximum(packets, 1)
    hops, began = _hops(flows)
    ports = np.minimum(flows.src_port, flows.dst_port)
    found = {
        "tcp": flows.protocol == _TCP,
        "udp": flows.protocol == _UDP,
        "ipv6": flows.family == 6,
        "vlan": flows.vlan > 0,
        "answered": flows.packets_bwd > 0,
        "private": _private(flows),
        "low_port": (ports > 0) & (ports < 1024),
        "packets": np.log2(np.maximum(packets, 1)),
        "size": np.log2(np.maximum(size, 1)),
        "duration": np.log2(1 + np.maximum(flows.end - flows.start, 0) / 1e9),
        "hops": hops,
        "from_128": began == 128,
        "from_255": began == 255,
        "late": _late(flows),
        "cut": _cut(flows),
    }
    return {name: values.astype(np.float64) for name, values in found.items()}


def _hops(flows: FlowBatch) -> tuple[np.ndarray, np.ndarray]:
    """(N,) twice: routers passed by a flow's first packet, and where its time to live began.

    0 and 0 where no header was kept.
    """
    packets = flows.first_packets
    place = np.where(packets.data[:, 0] >> 4 == 6, 7, 8) if packets.data.shape[1] > 8 else 0
    known = np.flatnonzero((packet_number(flows) == 0) & (packets.header > 8))
    live = packets.data[known, np.broadcast_to(place, len(packets.flow))[known]]
    began = _BEGINNINGS[np.searchsorted(_BEGINNINGS, live)]
    hops, beginning = np.zeros((2, len(flows)), np.int64)
    hops[packets.flow[known]], beginning[packets.flow[known]] = began - live, began
    return hops, beginning


def _late(flows: FlowBatch) -> np.ndarray:
    """(N,) bool: TCP whose first packet is known, and no SYN."""
    packets = flows.first_packets
    place = packets.transport + _FLAGS
    rows = np.flatnonzero((packet_number(flows) == 0) & (place < packets.header))
    rows = rows[flows.protocol[packets.flow[rows]] == _TCP]
    found = np.zeros(len(flows), bool)
    found[packets.flow[rows]] = packets.data[rows, place[rows]] & _SYN == 0
    return found


def _cut(flows: FlowBatch) -> np.ndarray:
    """(N,) bool: a packet's payload was captured in part, and short."""
    packets = flows.first_packets
    short = packets.payload < np.minimum(packets.payload_length, LEAST_PAYLOAD)
    found = np.zeros(len(flows), bool)
    found[packets.flow[short]] = True
    return found


def _private(flows: FlowBatch) -> np.ndarray:
    """(N,) bool: the source is of 10/8, 172.16/12, 192.168/16, fc00::/7 or fe80::/10."""
    one, two = flows.src_ip[:, 0], flows.src_ip[:, 1]
    four = (one == 10) | ((one == 172) & (two >> 4 == 1)) | ((one == 192) & (two == 168))
    six = (one >> 1 == 0x7E) | ((one == 0xFE) & (two >> 6 == 2))
    found: np.ndarray = np.where(flows.family == 6, six, four)
    return found
