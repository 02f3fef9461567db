# SPDX-License-Identifier: Apache-2.0
"""Shortcut audit: what a classifier still knows once the fields that give a flow away are hidden.

Ports, TTL and addresses of a recording say where and when it was made; a classifier that leans on
them fails on another network. They are set to 0 in the bytes and in the columns, in turn.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np

from .capture import FirstPackets, FlowBatch
from .scores import Scores, score

Classifier = Callable[[FlowBatch], np.ndarray]
"""N flows with their first packets in, (N, C) probabilities out."""

FIELDS = ("ports", "ttl", "addresses", "numbers", "checksums")
"""That can be hidden. `numbers` are IPv4's identification, IPv6's flow label, and TCP's sequence
and acknowledgement numbers."""

MASKS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "ports": ("ports",),
    "ttl": ("ttl",),
    "addresses": ("addresses",),
    "all": FIELDS,
}
"""What an audit hides, in turn; `all` takes in what the others can be computed from."""

LOOKUP = "port lookup"

_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_WITH_PORTS = (_TCP, _UDP, 33, 132, 136)
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
    "checksums": {_TCP: (16, 18), _UDP: (6, 8), _ICMP: (2, 4), _ICMPV6: (2, 4), 132: (8, 12)},
}


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


def audit(
    classify: Classifier,
    flows: FlowBatch,
    label: np.ndarray,
    classes: Sequence[str],
    lookup: Classifier | None = None,
) -> dict[str, Scores]:
    """Scores with each of `MASKS` in turn.

    Args:
        classify: called once for each mask.
        flows: N, at least 1, with the first packets that the classifier needs.
        label: (N,) class numbers.
        lookup: a fitted `baselines.PortLookup`, scored unmasked and told as `port lookup`.

    Returns:
        By name of the mask, in order.
    """
    found = {
        name: score(label, classify(mask(flows, fields)), classes) for name, fields in MASKS.items()
    }
    if lookup is not None:
        found[LOOKUP] = score(label, lookup(flows), classes)
    return found


def audit_rows(found: dict[str, Scores]) -> list[dict[str, str | float | None]]:
    """An audit as rows for `console.table`: macro-F1, accuracy and what hiding cost of macro-F1."""
    whole = found["nothing"].macro_f1
    return [
        {
            "hidden": "(baseline) " + name if name == LOOKUP else name,
            "macro_f1": scores.macro_f1,
            "accuracy": scores.accuracy,
            "change": None if name == LOOKUP else scores.macro_f1 - whole,
        }
        for name, scores in found.items()
    ]
