# SPDX-License-Identifier: Apache-2.0
"""Rows of flow batches: put together, picked out, cut to their first packets."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace

import numpy as np

from ..capture import FirstPackets, FlowBatch

COLUMNS = tuple(field.name for field in fields(FlowBatch) if field.name != "first_packets")
"""The arrays of a `FlowBatch` that have a row for each flow."""

PACKET_COLUMNS = tuple(field.name for field in fields(FirstPackets))


def concatenate(batches: Sequence[FlowBatch]) -> FlowBatch:
    """Batches as one, in order; their packets must have been kept at one width.

    Raises:
        ValueError: no batch at all.
    """
    if not batches:
        raise ValueError("there is no batch to put together")
    starts = np.cumsum([0, *(len(batch) for batch in batches)])
    packets = {
        name: np.concatenate([getattr(batch.first_packets, name) for batch in batches])
        for name in PACKET_COLUMNS
    }
    packets["flow"] = np.concatenate(
        [batch.first_packets.flow + start for batch, start in zip(batches, starts, strict=False)]
    )
    columns = {name: np.concatenate([getattr(b, name) for b in batches]) for name in COLUMNS}
    return FlowBatch(**columns, first_packets=FirstPackets(**packets))


def take(batch: FlowBatch, rows: np.ndarray) -> FlowBatch:
    """Some flows of a batch with their packets.

    Args:
        rows: (K,) integers in any order, repeats allowed, or (N,) bool.
    """
    rows = np.asarray(rows)
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
    packets = batch.first_packets
    # Packets lie in order of flow: those of a flow are one stretch.
    stretch = np.searchsorted(packets.flow, [rows, rows + 1])
    count = stretch[1] - stretch[0]
    flow = np.repeat(np.arange(len(rows)), count)
    place = np.arange(len(flow)) + np.repeat(stretch[0] - (np.cumsum(count) - count), count)
    kept = {name: getattr(packets, name)[place] for name in PACKET_COLUMNS} | {"flow": flow}
    columns = {name: getattr(batch, name)[rows] for name in COLUMNS}
    return FlowBatch(**columns, first_packets=FirstPackets(**kept))


def regroup(batches: Iterable[FlowBatch], count: int) -> Iterator[FlowBatch]:
    """The same flows in order, in batches of `count` each but the last."""
    waiting: list[FlowBatch] = []
    held = 0
    for batch in batches:
        waiting.append(batch)
        held += len(batch)
        if held < count:
            continue
        whole = concatenate(waiting)
        for first in range(0, held - held % count, count):
            yield take(whole, np.arange(first, first + count))
        waiting = [take(whole, np.arange(held - held % count, held))]
        held %= count
    if held:
        yield concatenate(waiting)


def packet_number(batch: FlowBatch) -> np.ndarray:
    """(M,) int64, the place of each kept packet in its flow, from 0."""
    flow = batch.first_packets.flow
    return np.arange(len(flow)) - np.searchsorted(flow, flow)


def first_packets_only(batch: FlowBatch, count: int | np.ndarray) -> FlowBatch:
    """The same flows with at most `count` of their kept packets; their totals stay as they are.

    Args:
        count: of all flows, or (N,) of each.
    """
    limit = count if isinstance(count, int) else count[batch.first_packets.flow]
    keep = packet_number(batch) < limit
    packets = {name: getattr(batch.first_packets, name)[keep] for name in PACKET_COLUMNS}
    return replace(batch, first_packets=FirstPackets(**packets))


_CARRYING = (6, 17, 33, 132, 136)  # TCP, UDP, DCCP, SCTP, UDP-Lite
_ICMP = (1, 58)


def is_bare(batch: FlowBatch) -> np.ndarray:
    """(N,) bool, flows that carry nothing an application sent.

    Those of protocols that carry no application (OSPF, ESP, GRE and others, but ICMP), and those
    none of whose kept packets has a payload: a SYN alone, or one that was refused.
    """
    packets = batch.first_packets
    filled = np.zeros(len(batch), bool)
    filled[packets.flow[packets.payload_length > 0]] = True
    carries = np.isin(batch.protocol, _CARRYING) & filled
    bare: np.ndarray = ~(carries | np.isin(batch.protocol, _ICMP))
    return bare
