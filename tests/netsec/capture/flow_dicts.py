# SPDX-License-Identifier: Apache-2.0
"""Flows of bytes or files in forms that are easy to compare."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.netsec.capture import FlowCounts, FlowOptions, FlowStream, read_flows, to_table
from fieldfare.netsec.capture.flow_state import END_REASONS
from fieldfare.netsec.capture.sources import StreamSource

UNCUT = {"idle_timeout": None, "active_timeout": None, "linger": None}
"""Options under which a flow is a 5-tuple and no more."""


def flows_of(
    capture: bytes | Path, *, chunk: int = 1 << 20, **options: Any
) -> tuple[list[dict[str, Any]], FlowCounts]:
    """Rows of the flow table in order, each with its end reason and first packets; the counts."""
    if isinstance(capture, bytes):
        source = StreamSource(io.BytesIO(capture), "capture")
        stream = FlowStream([source], FlowOptions(**options), chunk)
    else:
        stream = read_flows(capture, options=FlowOptions(**options), chunk=chunk)
    rows = []
    for batch in stream:
        table = to_table(batch).to_pylist()
        packets = batch.first_packets
        begins = np.searchsorted(packets.flow, np.arange(len(batch) + 1)).tolist()
        for row, (entry, number, reason) in enumerate(
            zip(table, batch.flow_id.tolist(), batch.end_reason.tolist(), strict=True)
        ):
            chosen = slice(begins[row], begins[row + 1])
            entry |= {
                "id": number,
                "reason": END_REASONS[reason],
                "data": packets.data[chosen].tobytes(),
                "kept": list(
                    zip(
                        packets.time[chosen].tolist(),
                        packets.backward[chosen].tolist(),
                        packets.header[chosen].tolist(),
                        packets.payload[chosen].tolist(),
                        packets.payload_length[chosen].tolist(),
                        strict=True,
                    )
                ),
            }
            rows.append(entry)
    return rows, stream.counts


def by_flow(rows: list[dict[str, Any]]) -> dict[tuple, list[int]]:
    """Packets forward and backward, bytes forward and backward by 5-tuple."""
    found = {}
    for row in rows:
        key = tuple(row[name] for name in ("src_ip", "src_port", "dst_ip", "dst_port", "protocol"))
        assert key not in found
        found[key] = [
            row[name] for name in ("packets_fwd", "packets_bwd", "bytes_fwd", "bytes_bwd")
        ]
    return found
