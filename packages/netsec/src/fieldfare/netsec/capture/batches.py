# SPDX-License-Identifier: Apache-2.0
"""Flows as columns: arrays for the models, an Arrow table for files.

Layout of `FirstPackets`, for M packets and W = keep_header + keep_payload bytes:

    column          dtype, shape    meaning
    flow            int64  (M,)     row of the flow in its batch, ascending
    time            int64  (M,)     nanoseconds since 1970 (UTC)
    backward        bool   (M,)     sent against the direction of the flow's first packet
    bytes           int64  (M,)     length of the IP packet, also where less of it was captured
    transport       int64  (M,)     where in a row of data the transport header begins
    header          int64  (M,)     h, bytes of IP and transport headers; the payload begins there
    payload         int64  (M,)     p, bytes of payload
    payload_length  int64  (M,)     length of the payload in the packet itself
    data            uint8  (M, W)   h header bytes, then p payload bytes, then zeros

A row of data begins with the IP header; h <= keep_header and p <= keep_payload. With keep_header >=
120 the longest headers of IPv4 (60 + 60) are kept whole, and `transport` is always less than h
where a transport header was captured; IPv6 extensions can be longer. A later fragment has no
transport header: h is its IP header and all else is payload. Of a packet that the snap length cut,
h and p are what was captured.
"""

import socket
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from . import flow_state as fs
from .arrow import number_array, text_array
from .community import community_ids
from .statistics import summarise
from .table import EndedFlows


@dataclass(frozen=True)
class FlowBatch:
    """N flows, with their first packets where they were asked for.

    The forward direction is that of TCP's SYN, else that of the flow's first packet.

    Attributes:
        flow_id: (N,) int64, unique in a stream, in order of the flows' first packets.
        family: (N,) uint8, 4 or 6.
        src_ip: (N, 16) uint8, the address that sent SYN, else the first packet; IPv4 in the first 4
            bytes.
        dst_ip: (N, 16) uint8.
        src_port: (N,) uint16; 0 where the protocol has no ports.
        dst_port: (N,) uint16.
        protocol: (N,) uint8, number of the transport protocol.
        start: (N,) int64, time of the earliest packet, nanoseconds since 1970 (UTC).
        end: (N,) int64, time of the latest packet.
        packets_fwd: (N,) int64.
        packets_bwd: (N,) int64.
        bytes_fwd: (N,) int64, lengths of the IP packets in all (IPFIX octetDeltaCount).
        bytes_bwd: (N,) int64.
        end_reason: (N,) uint8, index into `flow_state.END_REASONS`.
        tcp_flags_fwd: (N,) uint8, all flags seen; 0 where it is not TCP.
        tcp_flags_bwd: (N,) uint8.
        icmp: (N,) uint16, type * 256 + code of the first packet; 0 where it is not ICMP.
        vlan: (N,) uint16, the outer VLAN of the first packet; 0 without one.
        vlan_inner: (N,) uint16, the inner one.
        statistics: (N, FIELDS) float64, see `statistics`; (N, 0) where none were gathered.
        first_packets: the first packets of all these flows.
    """

    flow_id: np.ndarray
    family: np.ndarray
    src_ip: np.ndarray
    dst_ip: np.ndarray
    src_port: np.ndarray
    dst_port: np.ndarray
    protocol: np.ndarray
    start: np.ndarray
    end: np.ndarray
    packets_fwd: np.ndarray
    packets_bwd: np.ndarray
    bytes_fwd: np.ndarray
    bytes_bwd: np.ndarray
    end_reason: np.ndarray
    tcp_flags_fwd: np.ndarray
    tcp_flags_bwd: np.ndarray
    icmp: np.ndarray
    vlan: np.ndarray
    vlan_inner: np.ndarray
    statistics: np.ndarray
    first_packets: "FirstPackets"

    def __len__(self) -> int:
        return len(self.flow_id)


@dataclass(frozen=True)
class FirstPackets:
    """M packets, in order of flow and then of arrival; at most `keep_packets` of a flow.

    Attributes:
        flow: (M,) int64, row of the flow in its batch.
        time: (M,) int64, nanoseconds since 1970 (UTC).
        backward: (M,) bool, sent against the flow's direction.
        bytes: (M,) int64, length of the IP packet.
        transport: (M,) int64, bytes from the IP header to the transport header; may lie beyond
            what is kept.
        header: (M,) int64, bytes of data that are IP and transport headers.
        payload: (M,) int64, bytes of data behind them that are payload.
        payload_length: (M,) int64, length of the payload in the packet itself.
        data: (M, keep_header + keep_payload) uint8, from the IP header on: headers, payload, zeros.
    """

    flow: np.ndarray
    time: np.ndarray
    backward: np.ndarray
    bytes: np.ndarray
    transport: np.ndarray
    header: np.ndarray
    payload: np.ndarray
    payload_length: np.ndarray
    data: np.ndarray


def to_batch(ended: EndedFlows) -> FlowBatch:
    """Columns of flows that have left the table; the forward direction comes first."""
    keys, totals = ended.keys, ended.totals
    swapped = ended.links[:, fs.SWAPPED].astype(bool)
    first, second = _addresses(keys[:, 0:4]), _addresses(keys[:, 4:8])
    ports = keys[:, 8]
    low, high = (ports >> 16).astype(np.uint16), (ports & 0xFFFF).astype(np.uint16)
    turned = swapped[:, None]
    kept = ended.kept
    flags, vlans = totals[:, fs.FLAGS], totals[:, fs.VLANS]
    return FlowBatch(
        flow_id=totals[:, fs.NUMBER],
        family=(keys[:, 9] >> 8).astype(np.uint8),
        src_ip=np.where(turned, second, first),
        dst_ip=np.where(turned, first, second),
        src_port=np.where(swapped, high, low),
        dst_port=np.where(swapped, low, high),
        protocol=(keys[:, 9] & 0xFF).astype(np.uint8),
        start=totals[:, fs.START],
        end=totals[:, fs.LAST],
        packets_fwd=totals[:, fs.PACKETS_FORWARD],
        packets_bwd=totals[:, fs.PACKETS_BACKWARD],
        bytes_fwd=totals[:, fs.BYTES_FORWARD],
        bytes_bwd=totals[:, fs.BYTES_BACKWARD],
        end_reason=ended.links[:, fs.REASON].astype(np.uint8),
        tcp_flags_fwd=(flags & 0xFF).astype(np.uint8),
        tcp_flags_bwd=(flags >> 8 & 0xFF).astype(np.uint8),
        icmp=(flags >> 16).astype(np.uint16),
        vlan=np.where(vlans < 4096, vlans, vlans // 4096).astype(np.uint16),
        vlan_inner=np.where(vlans < 4096, 0, vlans % 4096).astype(np.uint16),
        statistics=ended.statistics,
        first_packets=FirstPackets(
            flow=ended.kept_flow,
            time=kept[:, fs.KEPT_TIME],
            backward=kept[:, fs.KEPT_DIRECTION].astype(bool),
            bytes=kept[:, fs.KEPT_BYTES],
            transport=kept[:, fs.KEPT_TRANSPORT],
            header=kept[:, fs.KEPT_HEADER],
            payload=kept[:, fs.KEPT_PAYLOAD],
            payload_length=kept[:, fs.KEPT_PAYLOAD_LENGTH],
            data=ended.kept_bytes,
        ),
    )


def _addresses(words: np.ndarray) -> np.ndarray:
    """(N, 4) words as (N, 16) bytes in network order."""
    return np.ascontiguousarray(words.astype(">u4")).view(np.uint8).reshape(-1, 16)


def address_text(addresses: np.ndarray, family: np.ndarray) -> list[str]:
    """Addresses as text.

    Args:
        addresses: (N, 16) uint8.
        family: (N,) uint8, 4 or 6.
    """
    whole = addresses.tobytes()
    ends = (np.arange(0, len(whole), 16) + np.where(family == 4, 4, 16)).tolist()
    packed = [whole[at:end] for at, end in zip(range(0, len(whole), 16), ends, strict=True)]
    kinds = {4: socket.AF_INET, 16: socket.AF_INET6}
    texts = {address: socket.inet_ntop(kinds[len(address)], address) for address in set(packed)}
    return [texts[address] for address in packed]


def to_seconds(times: np.ndarray) -> np.ndarray:
    """Nanoseconds, int64, as seconds, float64; rounded once, so that whole microseconds stay so."""
    whole, rest = np.divmod(times, 1_000_000_000)
    return whole + rest / 1e9


def signed_sizes(batch: FlowBatch, count: int) -> pa.ListArray:
    """Lengths of each flow's first IP packets, at most `count`; those backward below 0."""
    packets = batch.first_packets
    begins = np.searchsorted(packets.flow, np.arange(len(batch) + 1))
    chosen = np.arange(len(packets.flow)) - begins[packets.flow] < count
    sizes = np.where(packets.backward, -packets.bytes, packets.bytes)[chosen].astype(np.int32)
    ends = np.minimum(np.diff(begins), count).cumsum()
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    return pa.ListArray.from_arrays(number_array(offsets), number_array(sizes))


def to_table(batch: FlowBatch, sizes: int = 0) -> pa.Table:
    """The columns of a flow table: addresses as text, times since 1970 (UTC).

    `start` and `end` are seconds, which float64 keeps to a quarter of a microsecond in this
    century; `start_ns` and `end_ns` are whole nanoseconds.

    Args:
        sizes: also give the signed sizes of so many first packets, as far as they are kept.
    """
    columns = {
        "src_ip": text_array(address_text(batch.src_ip, batch.family)),
        "src_port": number_array(batch.src_port),
        "dst_ip": text_array(address_text(batch.dst_ip, batch.family)),
        "dst_port": number_array(batch.dst_port),
        "protocol": number_array(batch.protocol),
        "start": number_array(to_seconds(batch.start)),
        "end": number_array(to_seconds(batch.end)),
        "packets_fwd": number_array(batch.packets_fwd),
        "packets_bwd": number_array(batch.packets_bwd),
        "bytes_fwd": number_array(batch.bytes_fwd),
        "bytes_bwd": number_array(batch.bytes_bwd),
        "duration": number_array((batch.end - batch.start) / 1e9),
        "start_ns": number_array(batch.start),
        "end_ns": number_array(batch.end),
        "tcp_flags_fwd": number_array(batch.tcp_flags_fwd),
        "tcp_flags_bwd": number_array(batch.tcp_flags_bwd),
        "vlan": number_array(batch.vlan),
        "vlan_inner": number_array(batch.vlan_inner),
        "end_reason": text_array([fs.END_REASONS[reason] for reason in batch.end_reason.tolist()]),
        "flow_id": number_array(batch.flow_id),
        "community_id": text_array(
            community_ids(
                batch.family,
                (batch.src_ip, batch.dst_ip),
                batch.protocol,
                (batch.src_port, batch.dst_port),
                batch.icmp,
            )
        ),
    }
    if batch.statistics.shape[1]:
        summary = summarise(batch.statistics)
        columns |= {name: number_array(values) for name, values in summary.items()}
    if sizes:
        columns["sizes"] = signed_sizes(batch, sizes)
    return pa.table(columns)
