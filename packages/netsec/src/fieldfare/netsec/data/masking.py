# SPDX-License-Identifier: Apache-2.0
"""Fields that give a capture away rather than its class, set to 0 in flows and their packets."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from fieldfare.common.errors import InputError

from ..capture import FirstPackets, FlowBatch

FIELDS = ("ports", "ttl", "addresses", "numbers", "checksums")
"""That can be hidden. `numbers` are IPv4's identification, IPv6's flow label, and TCP's sequence
and acknowledgement numbers."""

_ICMP, _TCP, _UDP, _DCCP, _ICMPV6, _SCTP, _UDPLITE = 1, 6, 17, 33, 58, 132, 136
_WITH_PORTS = (_TCP, _UDP, _DCCP, _SCTP, _UDPLITE)
# (first byte, byte behind the last) in the IP header, by version.
_NETWORK = {
    "ttl": {4: (8, 9), 6: (7, 8)},
    "addresses": {4: (12, 20), 6: (8, 40)},
    "numbers": {4: (4, 6), 6: (2, 4)},
    "checksums": {4: (10, 12)},
}
# The same in the transport header, by protocol.
_TRANSPORT = {
    "ports": dict.fromkeys(_WITH_PORTS, (0, 4)),
    "numbers": {_TCP: (4, 12)},
    "checksums": {
        _TCP: (16, 18),
        _UDP: (6, 8),
        _DCCP: (6, 8),
        _ICMP: (2, 4),
        _ICMPV6: (2, 4),
        _SCTP: (8, 12),
    },
}


def field_names(text: str) -> tuple[str, ...]:
    """Names of `FIELDS`, comma-separated; `none` for none.

    Raises:
        InputError: another name.
    """
    names = () if text == "none" else tuple(name.strip() for name in text.split(","))
    if unknown := set(names) - set(FIELDS):
        raise InputError(f"no field is named {min(unknown)!r}; there are {', '.join(FIELDS)}, none")
    return names


def mask(flows: FlowBatch, fields: Collection[str]) -> FlowBatch:
    """The flows with some fields set to 0, in the columns and in the bytes of the first packets.

    Headers that packets carry inside their payload (tunnels, ICMP errors) stay as they are.

    Args:
        fields: of `FIELDS`.

    Raises:
        ValueError: no such field.
    """
    if unknown := set(fields) - set(FIELDS):
        raise ValueError(f"no field is named {min(unknown)!r}; there are {', '.join(FIELDS)}")
    packets = flows.first_packets
    data = packets.data.copy()
    masked = replace(packets, data=data)
    if len(data) and data.shape[1]:
        version = data[:, 0] >> 4  # an inner packet may be of another version than its flow
        protocol = flows.protocol[packets.flow]
        for name in fields:
            for which, (first, end) in _NETWORK.get(name, {}).items():
                _clear(masked, version == which, np.zeros_like(packets.header), first, end)
            for which, (first, end) in _TRANSPORT.get(name, {}).items():
                _clear(masked, protocol == which, packets.transport, first, end)
    hidden: dict[str, np.ndarray] = {}
    if "ports" in fields:
        hidden |= {name: np.zeros_like(getattr(flows, name)) for name in ("src_port", "dst_port")}
    if "addresses" in fields:
        hidden |= {name: np.zeros_like(getattr(flows, name)) for name in ("src_ip", "dst_ip")}
    return replace(flows, **hidden, first_packets=masked)


def _clear(
    packets: FirstPackets, chosen: np.ndarray, base: np.ndarray, first: int, end: int
) -> None:
    """Set bytes of chosen packets to 0, as far as they are kept header bytes."""
    rows = np.flatnonzero(chosen)
    for step in range(first, end):
        place = base[rows] + step
        kept = place < packets.header[rows]
        packets.data[rows[kept], place[kept]] = 0
