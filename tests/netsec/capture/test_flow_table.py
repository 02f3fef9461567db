# SPDX-License-Identifier: Apache-2.0
"""What makes a flow: directions, timeouts, ends of connections, bounded memory."""

from typing import Any

import numpy as np
import pytest
from flow_dicts import flows_of
from make_captures import ACK, FIN, RST, SYN, Frame, ethernet, ipv4, pcap, tcp, udp

from fieldfare.netsec.capture import FlowOptions, read_flows
from fieldfare.netsec.capture.compiled import view
from fieldfare.netsec.capture.flow_pass import make_hash
from fieldfare.netsec.capture.flow_state import KEY_WORDS

THERE, BACK = ("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1")


def packet(
    time: float,
    flags: int = ACK,
    *,
    back: bool = False,
    port: int = 1000,
    payload: bytes = b"",
    sequence: int = 1,
) -> Frame:
    ports = (80, port) if back else (port, 80)
    source, destination = BACK if back else THERE
    body = tcp(*ports, flags, payload, sequence)
    return time, ethernet(ipv4(body, source=source, destination=destination))


def reasons(frames: list[Frame], **options: Any) -> list[tuple[int, str]]:
    """(packets, why it ended) of each flow in order of its first packet."""
    rows, _ = flows_of(pcap(frames), **options)
    rows.sort(key=lambda row: row["id"])
    return [(row["packets_fwd"] + row["packets_bwd"], row["reason"]) for row in rows]


def test_forward_is_the_direction_of_the_first_packet() -> None:
    for first_back in (False, True):
        frames = [
            packet(0, back=first_back),
            packet(1, back=not first_back, payload=b"answer"),
            packet(2, back=not first_back),
        ]
        (row,), _ = flows_of(pcap(frames))
        expected = BACK if first_back else THERE
        assert (row["src_ip"], row["dst_ip"]) == expected
        assert (row["src_port"], row["dst_port"]) == ((80, 1000) if first_back else (1000, 80))
        assert (row["packets_fwd"], row["packets_bwd"]) == (1, 2)
        assert (row["bytes_fwd"], row["bytes_bwd"]) == (40, 86)


def test_early_flows_are_given_once_with_their_counts_until_then() -> None:
    frames = [packet(0), packet(1, port=7), packet(2, back=True), packet(3), packet(4, RST)]
    assert reasons(frames, early_packets=2) == [(2, "early"), (1, "end of capture")]
    again = [*frames, packet(5, SYN), packet(6)]
    assert reasons(again, early_packets=2)[-1] == (2, "early")
    (row, _), _ = flows_of(pcap(frames), early_packets=2)
    assert (row["end"], row["packets_fwd"], row["packets_bwd"]) == (2.0, 1, 1)
    closed = [packet(0), packet(1, RST), packet(2), packet(3, SYN)]
    assert reasons(closed, early_packets=2) == [(2, "early"), (1, "end of capture")]


def test_early_flows_time_out_like_others() -> None:
    frames = [packet(time) for time in (0, 100, 219, 340)]
    assert reasons(frames, early_packets=1) == [(1, "early"), (1, "early")]
    assert reasons(frames, early_packets=2) == [(2, "early"), (1, "end of capture")]
    assert reasons(frames, early_packets=1, active_timeout=200, idle_timeout=None) == [
        (1, "early"),
        (1, "early"),
    ]


def test_directed_flows_have_no_backward_packets() -> None:
    rows, _ = flows_of(pcap([packet(0), packet(1, back=True), packet(2)]), directed=True)
    found = {row["src_ip"]: (row["packets_fwd"], row["packets_bwd"]) for row in rows}
    assert found == {"10.0.0.1": (2, 0), "10.0.0.2": (1, 0)}


def test_ends_with_equal_addresses_are_told_apart_by_port() -> None:
    frames = [
        (float(time), ethernet(ipv4(udp(*ports), 17, "127.0.0.1", "127.0.0.1")))
        for time, ports in enumerate([(5, 6), (6, 5), (5, 6)])
    ]
    (row,), _ = flows_of(pcap(frames))
    assert (row["src_port"], row["packets_fwd"], row["packets_bwd"]) == (5, 2, 1)


@pytest.mark.parametrize("other", [False, True])
def test_idle_timeout_counts_from_the_latest_packet(other: bool) -> None:
    """Whether another flow's packet sweeps the table in between makes no difference."""
    frames = [packet(0), packet(100), packet(219), packet(340)]
    if other:
        frames[3:3] = [packet(339.5, port=7)]
    assert reasons(frames)[0] == (3, "idle")
    assert reasons(frames, idle_timeout=None)[0][0] == 4
    assert (1, "end of capture") in reasons(frames)


def test_active_timeout_cuts_a_flow_that_never_rests() -> None:
    frames = [packet(float(time)) for time in range(0, 4000, 100)]
    expected = [(19, "active timeout"), (19, "active timeout"), (2, "end of capture")]
    assert reasons(frames) == expected
    assert reasons(frames, active_timeout=None) == [(40, "end of capture")]


CLOSE = [packet(0, SYN), packet(1, FIN | ACK), packet(2, FIN | ACK, back=True), packet(3)]
RESET = [packet(0, SYN), packet(1, RST, back=True)]


@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_a_connection_ends_with_fin_from_both_sides_or_rst(end: list[Frame]) -> None:
    count = len(end)
    repeated = [*end, packet(5, SYN)]
    assert reasons(repeated) == [(count + 1, "end of capture")]
    again = [*end, packet(5, SYN, sequence=9)]
    assert reasons(again) == [(count, "tcp end"), (1, "end of capture")]
    assert reasons(again, linger=None) == [(count + 1, "end of capture")]
    late = [*end, packet(5), packet(16)]  # stragglers belong to it until it has been quiet long
    assert reasons(late) == [(count + 1, "tcp end"), (1, "end of capture")]


def test_half_closed_connections_go_on() -> None:
    frames = [packet(0, SYN), packet(1, FIN | ACK), packet(50, back=True), packet(51, SYN)]
    assert reasons(frames) == [(4, "end of capture")]
    directed = reasons(frames, directed=True)
    assert directed == [(2, "tcp end"), (1, "end of capture"), (1, "end of capture")]


def test_a_full_table_evicts_the_flow_longest_without_a_packet() -> None:
    ports = [1, 2, 3, 1, 4]
    frames = [packet(float(time), port=port) for time, port in enumerate(ports)]
    rows, counts = flows_of(pcap(frames), max_flows=3)
    assert (rows[0]["src_port"], rows[0]["reason"]) == (2, "evicted")
    assert (counts.evicted, counts.most_flows, len(rows)) == (1, 3, 4)


def test_closed_connections_are_evicted_before_open_ones() -> None:
    frames = [packet(0, port=1), packet(1, RST, port=2), packet(2, port=3)]
    rows, _ = flows_of(pcap(frames), max_flows=2)
    assert (rows[0]["src_port"], rows[0]["reason"]) == (2, "evicted")


def test_memory_for_packets_is_bounded() -> None:
    frames = [packet(n / 1000, port=n % 500, payload=bytes(100)) for n in range(2000)]
    options = {"keep_packets": 4, "keep_header": 40, "keep_payload": 60}
    width = 100 + 60  # a place with what belongs to it
    rows, counts = flows_of(pcap(frames), max_kept_mb=100 * width / 1e6, **options)
    assert counts.evicted > 0
    assert sum(row["packets_fwd"] for row in rows) == 2000
    assert all(len(row["kept"]) == min(4, row["packets_fwd"]) for row in rows)
    rows, counts = flows_of(pcap(frames), **options)
    assert (len(rows), counts.evicted, counts.packets_without_bytes) == (500, 0, 0)


def test_no_packet_is_lost_however_small_the_table() -> None:
    frames = [packet(n / 10, port=n * 7919 % 97) for n in range(5000)]
    for most in (1, 2, 50):
        rows, counts = flows_of(pcap(frames), max_flows=most)
        assert sum(row["packets_fwd"] for row in rows) == 5000
        assert counts.most_flows == most
        assert counts.evicted == sum(row["reason"] == "evicted" for row in rows)


def test_many_flows_grow_the_table() -> None:
    frames = [packet(n / 1e4, port=n % 65536, payload=b"x") for n in range(40_000)]
    rows, counts = flows_of(pcap(frames), keep_packets=1)
    assert (len(rows), counts.most_flows) == (40_000, 40_000)
    assert {row["src_port"] for row in rows} == set(range(40_000))
    assert all(row["data"][20:22] == row["src_port"].to_bytes(2, "big") for row in rows)


def test_first_packets_hold_headers_and_payload() -> None:
    options = {"keep_packets": 2, "keep_header": 40, "keep_payload": 6}
    frames = [packet(0), packet(1, back=True, payload=b"12345678"), packet(2)]
    (row,), _ = flows_of(pcap(frames), **options)
    assert row["kept"] == [(0, False, 40, 0, 0), (10**9, True, 40, 6, 8)]
    assert row["data"] == frames[0][1][14:54] + bytes(6) + frames[1][1][14:60]


def test_offsets_of_first_packets_point_at_the_transport_header() -> None:
    frame = ethernet(ipv4(tcp(payload=b"data"), options=bytes(8)))
    (batch,) = read_flows_of(pcap([(1.0, frame)]))
    packets = batch.first_packets
    header, transport = int(packets.header[0]), int(packets.transport[0])
    assert (transport, header, int(packets.payload[0])) == (28, 48, 4)
    assert packets.data[0, transport : transport + 2].tobytes() == (1000).to_bytes(2, "big")
    assert packets.data[0, header : header + 4].tobytes() == b"data"
    assert packets.data[0, header + 4 :].max() == 0


def read_flows_of(capture: bytes) -> list:
    import io

    from fieldfare.netsec.capture import FlowStream
    from fieldfare.netsec.capture.sources import StreamSource

    source = StreamSource(io.BytesIO(capture), "capture")
    return list(FlowStream([source], FlowOptions(keep_packets=5)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"idle_timeout": 0},
        {"active_timeout": -1},
        {"linger": float("nan")},
        {"max_flows": 0},
        {"keep_packets": -1},
        {"max_kept_mb": 0},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FlowOptions(**wrong)


def test_no_capture_gives_no_flow() -> None:
    assert list(read_flows()) == []


def test_keys_cannot_be_made_to_collide_without_the_secret() -> None:
    """Differences that a multiplication alone lets through, whatever the secret."""
    key = np.array([0x0A000001, 0, 0, 0, 0x0A000002, 0, 0, 0, 1 << 16 | 2, 4 << 8 | 6, 0])
    generator = np.random.default_rng(3)
    for flips in ({0: 1 << 31, 4: 1 << 31}, {0: 1 << 31, 4: 1 << 31 | 1 << 16}, {8: 1 << 31}):
        other = key.copy()
        for word, bits in flips.items():
            other[word] ^= bits
        secrets = generator.integers(1 << 30, 1 << 31, 200) | 1
        collisions = sum(
            make_hash(view(key), int(secret)) == make_hash(view(other), int(secret))
            for secret in secrets
        )
        assert collisions == 0


def test_hashes_spread_over_the_buckets() -> None:
    """A thousand neighbouring ports in 256 buckets: none holds far more than its four."""
    key, counts = np.zeros(KEY_WORDS, np.int64), np.zeros(256, int)
    key[9] = 4 << 8 | 6
    for port in range(1024):
        key[8] = port << 16 | 80
        counts[make_hash(view(key), 0x5A827999) & 255] += 1
    assert counts.max() <= 16
