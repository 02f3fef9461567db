# SPDX-License-Identifier: Apache-2.0
"""From captures to flows: readers of pcap and pcapng, packet dissection, the flow table."""

from .batches import FirstPackets, FlowBatch, to_table
from .flows import FlowCounts, FlowStream, read_flows
from .table import FlowOptions, Kept

__all__ = [
    "FirstPackets",
    "FlowBatch",
    "FlowCounts",
    "FlowOptions",
    "FlowStream",
    "Kept",
    "read_flows",
    "to_table",
]
