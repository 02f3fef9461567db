# SPDX-License-Identifier: Apache-2.0
"""Flows as another recording might have held them: later, shorter, over the other version of IP.

What changes is what a network or a recorder decides, never what the application sent. Each kind of
change befalls a flow by its own chance; a flow may get several.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..capture import FirstPackets, FlowBatch
from .flow_rows import PACKET_COLUMNS, packet_number

MISSING_FIRST = 0.15
"""Share of flows whose first one to three packets were not recorded."""

LATER_PART = 0.1
"""Share of flows of which only a later part was recorded, from anywhere on."""

OTHER_OPTIONS = 0.2
"""Share of TCP flows whose options are taken away, or given time stamps where they have none."""

OTHER_VERSION = 0.2
"""Share of TCP and UDP flows that go over IPv6 instead of IPv4, or the other way round."""

SNAPPED = 0.15
"""Share of flows of which only the first bytes of each packet were recorded."""

SNAP_LENGTHS = (64, 300)
"""Bytes from the IP header on; drawn between, uniform in their logarithm."""

_TCP, _UDP = 6, 17
_SYN = 2
_IPV4, _IPV6, _PLAIN_TCP = 20, 40, 20
_TIME_STAMPS = bytes((1, 1, 8, 10))
_STAMPED = 12


class Chances(NamedTuple):
    """What befalls each of N flows, drawn beforehand, so that some can be changed by themselves.

    Attributes:
        some: (N,) int64, 1 to 3: how many first packets would be missing.
        any_number, first, options, version, snap, snapped: (N,) float64, uniform in [0, 1); `snap`
            uniform between the logarithms of `SNAP_LENGTHS`.
    """

    some: np.ndarray
    any_number: np.ndarray
    first: np.ndarray
    options: np.ndarray
    version: np.ndarray
    snap: np.ndarray
    snapped: np.ndarray

    @classmethod
    def draw(cls, count: int, rng: np.random.Generator) -> "Chances":
        """Of `count` flows."""
        low, high = np.log(SNAP_LENGTHS)
        return cls(
            some=rng.integers(1, 4, count),
            any_number=rng.random(count),
            first=rng.random(count),
            options=rng.random(count),
            version=rng.random(count),
            snap=rng.uniform(low, high, count),
            snapped=rng.random(count),
        )

    def of(self, rows: np.ndarray) -> "Chances":
        """Those of some flows."""
        return Chances(*(np.array(values[rows]) for values in self))


def vary(flows: FlowBatch, chances: Chances) -> FlowBatch:
    """Each flow once more, changed at random.

    Args:
        flows: with some packets more than are read, and whole headers, so that later packets can
            take the place of those left out.
        chances: of as many flows.

    Returns:
        Flows of the same number and order. Totals and times of flows stay as they are.
    """
    flows = _leave_out_first(flows, chances)
    tcp = flows.protocol == _TCP
    other = tcp & (chances.options < OTHER_OPTIONS)
    flows = replace(flows, first_packets=_change_options(flows.first_packets, other))
    ported = np.isin(flows.protocol, (_TCP, _UDP))
    flows = _change_version(flows, ported & (chances.version < OTHER_VERSION))
    snap = np.exp(chances.snap).astype(np.int64)
    snap[chances.snapped >= SNAPPED] = np.iinfo(np.int64).max
    return replace(flows, first_packets=_snap(flows.first_packets, snap))


def _leave_out_first(flows: FlowBatch, chances: Chances) -> FlowBatch:
    """Flows without some of their first packets; one packet at least stays."""
    count, packets = len(flows), flows.first_packets
    present = np.bincount(packets.flow, minlength=count)
    any_number = (chances.any_number * present).astype(np.int64)
    left_out = np.where(chances.first < MISSING_FIRST, chances.some, 0)
    left_out = np.where(chances.first > 1 - LATER_PART, any_number, left_out)
    left_out = np.clip(left_out, 0, np.maximum(present - 1, 0))
    number = packet_number(flows)
    kept = _rows(packets, np.flatnonzero(number >= left_out[packets.flow]))
    # The direction is that of SYN, else that of the first packet that was seen.
    first = np.searchsorted(kept.flow, np.arange(count))
    first = np.minimum(first, max(len(kept.flow) - 1, 0))
    turned = np.zeros(count, bool)
    if len(kept.flow):
        turned = (left_out > 0) & kept.backward[first] & ~_has_syn(kept, flows.protocol)[first]
    return replace(
        flows,
        src_ip=np.where(turned[:, None], flows.dst_ip, flows.src_ip),
        dst_ip=np.where(turned[:, None], flows.src_ip, flows.dst_ip),
        src_port=np.where(turned, flows.dst_port, flows.src_port),
        dst_port=np.where(turned, flows.src_port, flows.dst_port),
        first_packets=replace(kept, backward=kept.backward ^ turned[kept.flow]),
    )


def _has_syn(packets: FirstPackets, protocol: np.ndarray) -> np.ndarray:
    """(M,) bool, packets of TCP with SYN."""
    flags = packets.transport + 13
    known = (protocol[packets.flow] == _TCP) & (flags < packets.header)
    place = np.where(known, flags, 0)
    found: np.ndarray = known & ((packets.data[np.arange(len(place)), place] & _SYN) > 0)
    return found


def _rows(packets: FirstPackets, rows: np.ndarray) -> FirstPackets:
    return FirstPackets(**{name: getattr(packets, name)[rows] for name in PACKET_COLUMNS})


@dataclass
class Edited:
    """Packets with bytes of their headers exchanged; made anew, the given ones stay."""

    packets: FirstPackets

    def __post_init__(self) -> None:
        columns = {name: getattr(self.packets, name).copy() for name in PACKET_COLUMNS}
        self.packets = FirstPackets(**columns)

    def exchange(self, row: int, first: int, end: int, new: bytes) -> None:
        """Put `new` where header bytes `first` to `end` were; what follows moves along."""
        packets = self.packets
        width = packets.data.shape[1]
        header, payload = int(packets.header[row]), int(packets.payload[row])
        old = packets.data[row, : header + payload].tobytes()
        changed = (old[:first] + new + old[end:])[:width]
        moved = len(new) - (end - first)
        packets.data[row] = 0
        packets.data[row, : len(changed)] = np.frombuffer(changed, np.uint8)
        packets.header[row] = min(header + moved, width)
        packets.payload[row] = len(changed) - packets.header[row]
        packets.bytes[row] += moved


def _change_options(packets: FirstPackets, chosen: np.ndarray) -> FirstPackets:
    """Take away TCP options, or add time stamps to packets of chosen flows that have none."""
    edited = Edited(packets)
    found = edited.packets
    whole = found.header >= found.transport + _PLAIN_TCP
    for row in np.flatnonzero(chosen[found.flow] & whole).tolist():
        begin = int(found.transport[row]) + _PLAIN_TCP
        end = int(found.header[row])
        stamps = b"" if end > begin else _TIME_STAMPS + bytes(_STAMPED - len(_TIME_STAMPS))
        edited.exchange(row, begin, end, stamps)
        found.data[row, begin - 8] = (_PLAIN_TCP + len(stamps)) // 4 << 4
        write_length(found, row)
    return found


def _change_version(flows: FlowBatch, chosen: np.ndarray) -> FlowBatch:
    """Chosen flows over the other version of IP; packets with options or extensions stay."""
    edited = Edited(flows.first_packets)
    found = edited.packets
    version = found.data[:, 0] >> 4 if found.data.shape[1] else np.zeros(0, np.uint8)
    plain = found.transport == np.where(version == 6, _IPV6, _IPV4)
    plain &= (found.header > found.transport) & np.isin(version, (4, 6))
    # All packets of a flow or none, so that it stays one flow.
    odd = np.bincount(found.flow[~plain], minlength=len(flows)) > 0
    chosen = chosen & ~odd
    for row in np.flatnonzero(chosen[found.flow]).tolist():
        protocol = int(flows.protocol[found.flow[row]])
        edited.exchange(row, 0, int(found.transport[row]), _other_header(found, row, protocol))
        found.transport[row] = _IPV4 if version[row] == 6 else _IPV6
        write_length(found, row)
    family = np.where(chosen, np.where(flows.family == 4, 6, 4), flows.family)
    return replace(flows, family=family.astype(np.uint8), first_packets=found)


def _other_header(packets: FirstPackets, row: int, protocol: int) -> bytes:
    """A header of the other version without addresses and length."""
    old = packets.data[row]
    if old[0] >> 4 == 6:
        service = int(old[0] & 15) << 4 | int(old[1]) >> 4
        hops = int(old[7])
        return bytes((0x45, service, 0, 0, 0, 0, 0x40, 0, hops, protocol)) + bytes(10)
    service, hops = int(old[1]), int(old[8])
    return bytes((0x60 | service >> 4, (service & 15) << 4, 0, 0, 0, 0, protocol, hops)) + bytes(32)


def write_length(packets: FirstPackets, row: int) -> None:
    """The length of the IP packet into its header."""
    ipv6 = packets.data[row, 0] >> 4 == 6
    length = int(packets.bytes[row]) - (_IPV6 if ipv6 else 0)
    place = 4 if ipv6 else 2
    packets.data[row, place : place + 2] = np.frombuffer(
        min(max(length, 0), 0xFFFF).to_bytes(2, "big"), np.uint8
    )


def _snap(packets: FirstPackets, snap: np.ndarray) -> FirstPackets:
    """Packets cut behind so many bytes, by flow; their lengths on the wire stay."""
    longest = snap[packets.flow]
    header = np.minimum(packets.header, longest)
    payload = np.clip(longest - packets.header, 0, packets.payload)
    column = np.arange(packets.data.shape[1])
    data = packets.data * (column < (header + payload)[:, None])
    return replace(packets, header=header, payload=payload, data=data)


def capped(label: np.ndarray, capture: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Rows of at most `most` flows a class of each capture, drawn at random, ascending.

    Args:
        label, capture: (N,) numbers of class and capture.

    Returns:
        (K,) int64.
    """
    drawn = np.random.default_rng(seed).permutation(len(label))
    group = label[drawn] * (int(capture.max(initial=0)) + 1) + capture[drawn]
    order = np.argsort(group, kind="stable")
    place = np.arange(len(group)) - np.searchsorted(group[order], group[order])
    return np.sort(drawn[order[place < most]])
