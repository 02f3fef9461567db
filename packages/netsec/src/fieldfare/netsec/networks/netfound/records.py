# SPDX-License-Identifier: Apache-2.0
"""Header fields of packets: from the published pipeline's record files, or from packet bytes.

Ports and addresses are never among them; addresses only tell the direction.

Source: netFound, Guthula et al., arXiv 2310.17025, field extraction.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fieldfare.common.errors import InputError

from ...capture.batches import FirstPackets, FlowBatch

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
OTHER = 0
"""Stands for every protocol besides TCP, UDP and ICMP: only the IP header is read."""

IP_FIELDS = ("header_length", "type_of_service", "total_length", "ip_flags", "time_to_live")
TCP_FIELDS = ("tcp_flags", "window", "seq", "seq", "ack", "ack", "urgent")
HEADER_FIELDS = {
    OTHER: IP_FIELDS,
    ICMP: (*IP_FIELDS, "icmp_type", "icmp_code"),
    UDP: (*IP_FIELDS, "udp_length"),
    TCP: (*IP_FIELDS, *TCP_FIELDS),
}
"""Names of a packet's header columns by protocol. Sequence and acknowledgement numbers are 32 bits
wide, two columns, high half first."""

MOST_FIELDS = max(len(names) for names in HEADER_FIELDS.values())
RECORD_PAYLOAD = 6

_TCP_HEADER, _UDP_HEADER, _ICMP_HEADER, _ECHO_HEADER = 20, 8, 8, 16
_ECHO_TYPES = (0, 8)
_ACK = 0x10


@dataclass(frozen=True)
class PacketFields:
    """Fields of M packets of N flows, in order of flow and then of arrival.

    Attributes:
        protocol: (N,) int64, of each flow: 1 (ICMPv6 too), 6, 17 or 0 for all others.
        flow: (M,) int64, row of the packet's flow.
        time: (M,) int64, nanoseconds.
        backward: (M,) bool, sent against the direction of the flow's first packet.
        header: (M, 12) int64 below 65,536, columns by `HEADER_FIELDS`, unused ones 0.
        payload: (M, P) int64 below 65,536, the payload's first 16-bit words, 0 behind its end.
    """

    protocol: np.ndarray
    flow: np.ndarray
    time: np.ndarray
    backward: np.ndarray
    header: np.ndarray
    payload: np.ndarray

    def without(self, names: Collection[str]) -> "PacketFields":
        """The same with some fields set to 0, by their names in `HEADER_FIELDS`.

        Raises:
            ValueError: no field has such a name.
        """
        known = {name for columns in HEADER_FIELDS.values() for name in columns}
        if unknown := set(names) - known:
            raise ValueError(f"no field is named {min(unknown)}; there are {sorted(known)}")
        header = self.header.copy()
        of_packet = self.protocol[self.flow]
        for protocol, columns in HEADER_FIELDS.items():
            hidden = [column for column, name in enumerate(columns) if name in names]
            header[np.ix_(of_packet == protocol, hidden)] = 0
        return replace(self, header=header)


_COMMON = [
    ("time", "<u8"), ("header_length", "u1"), ("type_of_service", "u1"), ("total_length", "<u2"),
    ("ip_flags", "u1"), ("time_to_live", "u1"), ("source", "<u4"), ("destination", "<u4"),
]  # fmt: skip
_PORTS = [("source_port", "<u2"), ("destination_port", "<u2")]
_PAYLOAD = [("payload", ">u2", (RECORD_PAYLOAD,))]
_RECORDS = {
    TCP: np.dtype(
        [*_COMMON, *_PORTS, ("tcp_flags", "u1"), ("window", "<u2"), ("seq", "<u4"), ("ack", "<u4"),
         ("urgent", "<u2"), *_PAYLOAD]
    ),
    UDP: np.dtype([*_COMMON, *_PORTS, ("udp_length", "<u2"), *_PAYLOAD]),
    ICMP: np.dtype([*_COMMON, ("icmp_type", "u1"), ("icmp_code", "u1"), *_PAYLOAD]),
}  # fmt: skip


def read_records(path: str | os.PathLike[str]) -> PacketFields:
    """Read one flow from a record file `<flow>.pcap.<protocol>` of the published pipeline.

    Returns:
        One flow with 6 payload words a packet. Forward is the direction of the first packet.

    Raises:
        InputError: no such file, no record in it, another protocol, or a size that is no whole
            number of records (TCP options are not supported).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    content = path.read_bytes()
    protocol = content[0] if content else None
    if protocol not in _RECORDS:
        raise InputError(f"{path}: holds no TCP, UDP or ICMP records; is it a record file?")
    layout = _RECORDS[protocol]
    if len(content) == 1 or (len(content) - 1) % layout.itemsize:
        raise InputError(
            f"{path}: {len(content) - 1} bytes are no whole number of {layout.itemsize}-byte "
            "records; extract without TCP options"
        )
    records = np.frombuffer(content, layout, offset=1)
    header = np.zeros((len(records), MOST_FIELDS), np.int64)
    for column, name in enumerate(HEADER_FIELDS[protocol]):
        header[:, column] = records[name]
        if name in ("seq", "ack"):
            high = HEADER_FIELDS[protocol].index(name) == column
            header[:, column] = records[name] >> 16 if high else records[name] & 0xFFFF
    return PacketFields(
        protocol=np.array([protocol], np.int64),
        flow=np.zeros(len(records), np.int64),
        time=records["time"].astype(np.int64),
        backward=records["source"] != records["source"][0],
        header=header,
        payload=records["payload"].astype(np.int64),
    )


def packet_fields(
    batch: FlowBatch, payload_words: int = 0, *, compat: bool = False
) -> PacketFields:
    """Fields of the first packets that a flow table kept.

    What a capture cut off is 0. Fields of TCP options and IPv6 extensions are not read; an IPv6
    header has length 40 and no flags. The payload of ICMP echo begins 16 bytes into the message, as
    in the published pipeline, which takes the first 8 bytes of data for a time.

    Args:
        batch: flows whose table had `keep_packets`, with `keep_header` of 80 bytes or more and
            `keep_payload` of 2 * payload_words + 8 or more (ICMP echo needs the 8).
        payload_words: P, 16-bit words of payload.
        compat: as in the published pipeline, acknowledgement numbers of packets that acknowledge
            nothing count too, which gives random numbers (most often in RST); else they are 0.
    """
    packets = batch.first_packets
    protocol = np.full(len(batch), OTHER, np.int64)
    for known in (ICMP, TCP, UDP):
        protocol[batch.protocol == known] = known
    protocol[batch.protocol == ICMPV6] = ICMP
    of_packet = protocol[packets.flow]
    header = np.zeros((len(packets.flow), MOST_FIELDS), np.int64)
    _fill_ip(header, packets, batch.family[packets.flow] == 6)
    _fill_tcp(header, packets, np.flatnonzero(of_packet == TCP), compat)
    udp = np.flatnonzero(of_packet == UDP)
    header[udp, 5] = _read(packets, udp, packets.transport[udp] + 4, 2)
    icmp = np.flatnonzero(of_packet == ICMP)
    header[icmp, 5] = _read(packets, icmp, packets.transport[icmp], 1)
    header[icmp, 6] = _read(packets, icmp, packets.transport[icmp] + 1, 1)
    start = packets.header.copy()
    start[icmp] += np.where(np.isin(header[icmp, 5], _ECHO_TYPES), _ECHO_HEADER - _ICMP_HEADER, 0)
    return PacketFields(
        protocol, packets.flow, packets.time, packets.backward, header,
        _payload(packets, start, payload_words),
    )  # fmt: skip


def _read(packets: FirstPackets, rows: np.ndarray, at: np.ndarray, width: int) -> np.ndarray:
    """Big-endian numbers in the kept headers; 0 where they lie beyond."""
    inside = at + width <= packets.header[rows]
    at = np.where(inside, at, 0)
    value = np.zeros(len(rows), np.int64)
    for byte in range(width if packets.data.shape[1] >= width else 0):
        value = value << 8 | packets.data[rows, at + byte]
    return np.where(inside, value, 0)


def _fill_ip(header: np.ndarray, packets: FirstPackets, ipv6: np.ndarray) -> None:
    rows = np.arange(len(packets.flow))
    first = _read(packets, rows, np.zeros_like(rows), 2)
    words = (first >> 8 & 15) * 4
    flags = _read(packets, rows, np.full_like(rows, 6), 1) >> 5
    hops = np.where(ipv6, 7, 8)
    header[:, 0] = np.where(ipv6, 40, words)
    header[:, 1] = np.where(ipv6, first >> 4 & 0xFF, first & 0xFF)
    header[:, 2] = np.minimum(packets.bytes, 0xFFFF)
    header[:, 3] = np.where(ipv6, 0, flags)
    header[:, 4] = _read(packets, rows, hops, 1)


def _fill_tcp(header: np.ndarray, packets: FirstPackets, rows: np.ndarray, compat: bool) -> None:
    at = packets.transport[rows]
    flags = _read(packets, rows, at + 13, 1)
    seq, ack = _relative_numbers(
        packets.flow[rows] * 2 + packets.backward[rows],
        _read(packets, rows, at + 4, 4),
        _read(packets, rows, at + 8, 4),
        (flags & _ACK) != 0,
        at + 12 <= packets.header[rows],
        compat,
    )
    header[rows, 5] = flags
    header[rows, 6] = _read(packets, rows, at + 14, 2)
    header[rows, 7], header[rows, 8] = seq >> 16, seq & 0xFFFF
    header[rows, 9], header[rows, 10] = ack >> 16, ack & 0xFFFF
    header[rows, 11] = _read(packets, rows, at + 18, 2)


def _relative_numbers(
    side: np.ndarray,
    seq: np.ndarray,
    ack: np.ndarray,
    acknowledges: np.ndarray,
    whole: np.ndarray,
    compat: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Sequence and acknowledgement numbers less the first number known of their sender.

    That is its first sequence number, or what the other side acknowledged before.

    Args:
        side: (M,) twice the flow's row, plus 1 backward; packets in order of arrival.
        seq, ack: (M,) as sent.
        acknowledges: (M,) bool, whether ack holds.
        whole: (M,) bool, whether both were captured.
        compat: also take an ack that does not hold, from when its sender's first number is known.
    """
    order, acknowledges = np.arange(len(side)), acknowledges & whole
    shown = np.concatenate([side[whole], side[acknowledges] ^ 1])
    value = np.concatenate([seq[whole], ack[acknowledges]])
    # Within a packet its own number comes first; what it acknowledges is the other side's.
    when = np.concatenate([order[whole], order[acknowledges]])
    by_time = np.argsort(when, kind="stable")
    sides, earliest = np.unique(shown[by_time], return_index=True)
    first = np.zeros(int(side.max(initial=0)) + 2, np.int64)
    known_from = np.full(len(first), len(side))
    first[sides] = value[by_time][earliest]
    known_from[sides] = when[by_time][earliest]
    if compat:
        acknowledges = acknowledges | (whole & (known_from[side ^ 1] < order))
    relative_seq = np.where(whole, (seq - first[side]) & 0xFFFFFFFF, 0)
    relative_ack = np.where(acknowledges, (ack - first[side ^ 1]) & 0xFFFFFFFF, 0)
    return relative_seq, relative_ack


def _payload(packets: FirstPackets, start: np.ndarray, words: int) -> np.ndarray:
    """(M, words) big-endian 16-bit words from `start` on, zeros behind the end of what was kept."""
    if words == 0:
        return np.zeros((len(start), 0), np.int64)
    at = start[:, None] + np.arange(2 * words)
    inside = at < (packets.header + packets.payload)[:, None]
    rows = np.arange(len(start))[:, None]
    taken = packets.data[rows, np.where(inside, at, 0)] if packets.data.shape[1] else 0
    octets = np.where(inside, taken, 0).astype(np.int64).reshape(-1, words, 2)
    return octets[..., 0] << 8 | octets[..., 1]
