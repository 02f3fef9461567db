# SPDX-License-Identifier: Apache-2.0
"""Flows as a sender may disguise them without changing what arrives.

He changes the packets that he sends, the forward ones, and of them only what is his to choose:
time to live, IP identification, when they leave (later, never earlier), and padding: no-operation
options of TCP, or bytes behind a UDP datagram that its length does not count (RFC 9868).
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..capture import FlowBatch
from .flow_rows import packet_number
from .variations import Edited, write_length

MOST_OPTIONS = 40
"""Bytes of TCP options that there may be."""

MOST_PADDING = 64
"""Bytes behind a UDP datagram."""

LONGEST_WAIT = 0.2
"""Seconds that a packet may be kept back; drawn uniform in the logarithm from a millisecond on."""

_TCP, _UDP = 6, 17
_PLAIN_TCP = 20
_NO_OPERATION = 1


class Evasion(NamedTuple):
    """How each of N flows is disguised.

    Attributes:
        ttl: (N,) int64, 1 to 255.
        number: (N,) int64, identification of the first packet, below 2^16; later ones count on.
        wait: (N,) float64, seconds that each packet waits; half of all flows: 0.
        padding: (N,) float64 in [0, 1), of what there is room for; half of all flows: 0.
    """

    ttl: np.ndarray
    number: np.ndarray
    wait: np.ndarray
    padding: np.ndarray

    @classmethod
    def draw(cls, count: int, rng: np.random.Generator) -> "Evasion":
        """Of `count` flows."""
        wait = np.exp(rng.uniform(np.log(1e-3), np.log(LONGEST_WAIT), count))
        return cls(
            ttl=rng.integers(1, 256, count),
            number=rng.integers(0, 1 << 16, count),
            wait=wait * (rng.random(count) < 0.5),
            padding=rng.random(count) * (rng.random(count) < 0.5),
        )

    @classmethod
    def pick(cls, draws: "list[Evasion]", chosen: np.ndarray) -> "Evasion":
        """Of each flow one of several draws, by its number (N,)."""
        rows = np.arange(len(chosen))
        return cls(*(np.stack(values)[chosen, rows] for values in zip(*draws, strict=True)))


def evade(flows: FlowBatch, how: Evasion) -> FlowBatch:
    """Each flow disguised; totals of flows stay as they are."""
    edited = Edited(flows.first_packets)
    found = edited.packets
    own = ~found.backward
    _pad(edited, flows.protocol, own, how.padding)
    version = found.data[:, 0] >> 4 if found.data.shape[1] else np.zeros(0, np.uint8)
    for which, place in ((4, 8), (6, 7)):
        rows = np.flatnonzero(own & (version == which) & (found.header > place))
        found.data[rows, place] = how.ttl[found.flow[rows]]
    rows = np.flatnonzero(own & (version == 4) & (found.header >= 6))
    number = (how.number[found.flow] + packet_number(flows)) % (1 << 16)
    found.data[rows, 4], found.data[rows, 5] = number[rows] >> 8, number[rows] & 255
    # What waits makes all wait that comes after it; when the flow begins says nothing.
    waits = np.rint(how.wait[found.flow] * 1e9).astype(np.int64) * own
    total = np.cumsum(waits)
    first = np.searchsorted(found.flow, found.flow)
    return replace(flows, first_packets=replace(found, time=found.time + total - total[first]))


def _pad(edited: Edited, protocol: np.ndarray, own: np.ndarray, share: np.ndarray) -> None:
    """Padding of the sender's packets, as far as there is room, in steps of 4 bytes."""
    found = edited.packets
    kind, wanted = protocol[found.flow], share[found.flow]
    whole = found.header >= found.transport + _PLAIN_TCP
    for row in np.flatnonzero(own & (kind == _TCP) & whole & (wanted > 0)).tolist():
        begin, end = int(found.transport[row]) + _PLAIN_TCP, int(found.header[row])
        if end - begin != (int(found.data[row, begin - 8]) >> 4) * 4 - _PLAIN_TCP:
            continue  # its options were not kept whole
        room = max(0, MOST_OPTIONS - (end - begin))
        more = int(wanted[row] * (room + 4)) // 4 * 4
        edited.exchange(row, end, end, bytes([_NO_OPERATION]) * more)
        found.data[row, begin - 8] = ((end - begin + more + _PLAIN_TCP) // 4 << 4) | (
            found.data[row, begin - 8] & 15
        )
        write_length(found, row)
    for row in np.flatnonzero(own & (kind == _UDP) & (wanted > 0)).tolist():
        more = int(wanted[row] * MOST_PADDING)
        held = int(found.header[row] + found.payload[row])
        if found.payload[row] == found.payload_length[row]:  # all of it was kept
            found.payload[row] += min(more, found.data.shape[1] - held)
        found.bytes[row] += more
        found.payload_length[row] += more
        write_length(found, row)
