# SPDX-License-Identifier: Apache-2.0
"""Legal captures of odd kinds, each with its one right row; the small ones lie in `cases`."""

import bz2
import io
import lzma
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flow_dicts import flows_of
from make_captures import (
    ACK,
    SYN,
    Frame,
    block,
    enhanced,
    ethernet,
    interface,
    ipv4,
    pcap,
    section,
    tcp,
    udp,
)
from sessions import BEGAN, SERVER, SESSION, row_of, rows_of, session, session_packets

from fieldfare.common.errors import InputError
from fieldfare.netsec.capture import FlowOptions, FlowStream, to_table
from fieldfare.netsec.capture.sources import StreamSource

CASES = Path(__file__).parents[1] / "cases"
FLOW_1 = ("10.0.0.1", 5000, "10.0.0.2", 6000, 17)
RIGHT: dict[str, list[tuple]] = {
    "fcs.pcap": [SESSION],
    "two_clocks.pcapng": [
        ("10.0.0.1", 40000, "10.0.0.2", 80, 6, 22, 21, 2880, 4840),
        ("10.0.1.1", 40000, "10.0.1.2", 80, 6, 22, 21, 2880, 4840),
    ],
    "one_zero_time.pcap": [("10.0.0.1", 40000, "10.0.0.2", 80, 6, 14, 12, 1560, 2480)],
    "reuse_noclose.pcap": [("10.0.0.1", 40000, "10.0.0.2", 80, 6, 6, 5, 640, 1000), SESSION],
    "synack_first.pcap": [SESSION],
    "eompls_mac4.pcap": [SESSION],
    "geneve.pcap": [SESSION],
    "gtpu_ext.pcap": [SESSION],
    "erspan2.pcap": [SESSION],
    "bigtcp6.pcap": [("2001:db8::1", 40000, "2001:db8::2", 443, 6, 3, 0, 1200120, 0)],
    "frag_rev.pcap": [(*FLOW_1, 3, 0, 3068, 0)],
    "nflog.pcap": [SESSION],
    "amsdu.pcap": [(*FLOW_1, 10, 0, 780, 0)],
    "plain.pcap.lz4": [SESSION],
    "ospf.pcap": [("10.0.0.1", 0, "224.0.0.5", 0, 89, 6, 0, 384, 0)],
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_case_gives_its_right_rows(name: str) -> None:
    inside = name.partition(".")[0] in ("geneve", "gtpu_ext", "erspan2")
    rows, counts = flows_of(CASES / name, decapsulate=inside)
    assert sorted(map(row_of, rows)) == RIGHT[name]
    assert counts.damaged == counts.unsupported == counts.read.broken == 0
    if name == "two_clocks.pcapng":
        assert [round(row["duration"], 6) for row in rows] == [0.42, 0.42]
    if name == "one_zero_time.pcap":
        assert counts.odd_times == 1
        assert rows[0]["start_ns"] == 1_700_000_000 * 10**9
        assert rows[0]["duration"] < 1


def test_two_clocks_in_a_file_without_interfaces() -> None:
    """As mergecap -F pcap leaves them: each flow goes by its own packets' times."""
    late = session(began=BEGAN + 3600, client="10.0.0.9")
    frames = [frame for pair in zip(session(), late, strict=True) for frame in pair]
    rows, counts = flows_of(pcap(frames))
    assert sorted(map(row_of, rows)) == [SESSION, ("10.0.0.9", *SESSION[1:])]
    assert {round(row["duration"], 3) for row in rows} == {0.13}
    assert counts.odd_times == len(frames) // 2 - 1


def test_a_clock_that_is_set_back_ends_no_flow() -> None:
    frames = [
        (time - 3600 * (number >= 7), frame) for number, (time, frame) in enumerate(session())
    ]
    rows, counts = flows_of(pcap(frames))
    assert [row_of(row) for row in rows] == [SESSION]
    assert counts.odd_times == 1
    assert rows[0]["start"] == BEGAN


HOUR, DECADE = 3600, 10 * 365 * 86_400


def ahead(which: int, by: float) -> list[Frame]:
    """A session, one packet of which has a time far ahead."""
    return [(time + by * (number == which), f) for number, (time, f) in enumerate(session())]


@pytest.mark.parametrize("by", [HOUR, DECADE])
@pytest.mark.parametrize("which", [1, 5, 12])
@pytest.mark.parametrize("timeout", [120, None])
def test_one_packet_far_ahead_stays_in_its_flow(which: int, by: int, timeout: int | None) -> None:
    frames = ahead(which, by)
    for chunk in (1 << 20, 100):
        rows, counts = flows_of(
            pcap(frames), chunk=chunk, keep_packets=20, idle_timeout=timeout, statistics=True
        )
        assert [row_of(row) for row in rows] == [SESSION]
        assert counts.odd_times == 1
        assert (rows[0]["start"], round(rows[0]["duration"], 6)) == (BEGAN, 0.13)
        assert max(rows[0]["gap_max_fwd"], rows[0]["gap_max_bwd"]) < 0.1
        kept = [packet[0] for packet in rows[0]["kept"]]
        assert kept == sorted(kept)  # it stands where the packet before it does
        assert kept[which] == kept[which - 1]
        (plain,), _ = flows_of(pcap(session()), keep_packets=20)
        assert rows[0]["data"] == plain["data"]


def test_one_packet_far_ahead_cuts_no_other_flow() -> None:
    others = session(began=BEGAN + 0.005, client="10.0.0.9")
    frames = sorted([*session(), *others], key=lambda frame: frame[0])
    for number in range(1, len(frames) - 1):
        changed = list(frames)
        changed[number] = (frames[number][0] + HOUR, frames[number][1])
        rows, counts = flows_of(pcap(changed), max_flows=2)
        assert sorted(map(row_of, rows)) == [SESSION, ("10.0.0.9", *SESSION[1:])]
        assert {round(row["duration"], 3) for row in rows} <= {0.12, 0.125, 0.13}
        assert (counts.odd_times, counts.evicted) == (1, 0)


def test_several_packets_far_ahead_one_by_one() -> None:
    frames = [(time + HOUR * (n % 4 == 2), frame) for n, (time, frame) in enumerate(session())]
    rows, counts = flows_of(pcap(frames))
    assert [row_of(row) for row in rows] == [SESSION]
    assert (counts.odd_times, round(rows[0]["duration"], 6)) == (3, 0.13)


@pytest.mark.parametrize("which", [7, 10])
def test_a_time_that_goes_on_from_a_packet_ahead_cuts_the_flow(which: int) -> None:
    """A pause, not a wrong clock: no packet comes back to the time before."""
    frames = [(time + HOUR * (number >= which), f) for number, (time, f) in enumerate(session())]
    for some in (frames, frames[: which + 1]):
        rows, counts = flows_of(pcap(some))
        assert [row["packets_fwd"] + row["packets_bwd"] for row in rows] == [
            which,
            len(some) - which,
        ]
        assert (rows[0]["reason"], counts.odd_times) == ("idle", 0)


@pytest.mark.parametrize("which", [0, 5, 13])
def test_a_packet_without_a_time_stays_in_its_flow(which: int) -> None:
    frames = [(0.0 if number == which else time, f) for number, (time, f) in enumerate(session())]
    rows, _ = flows_of(pcap(frames))
    assert [row_of(row) for row in rows] == [SESSION]
    assert rows[0]["duration"] <= 0.14


def test_one_connection_over_two_interfaces_an_hour_apart() -> None:
    blocks = [section(), interface(), interface()]
    for number, (time, frame) in enumerate(session()):
        side = number % 2
        blocks.append(enhanced(round((time + 3600 * side) * 1e6), frame, number=side))
    assert rows_of(b"".join(blocks)) == [SESSION]


@pytest.mark.parametrize(
    ("gap", "sequence", "flows"), [(20.0, 9, 2), (20.0, 1, 1), (0.01, 9, 1), (0.5, 1, 1)]
)
def test_another_syn_on_a_silent_connection_begins_a_flow(
    gap: float, sequence: int, flows: int
) -> None:
    first = session()[:10]
    second = session(began=first[-1][0] + gap, sequence=sequence)
    assert len(rows_of(pcap([*first, *second]))) == flows


@pytest.mark.parametrize("how", [{"active_timeout": 0.05}, {"idle_timeout": 0.05}])
def test_the_source_stays_in_later_parts_of_a_cut_flow(how: dict[str, float]) -> None:
    frames = session()
    if "idle_timeout" in how:
        frames = [(time + (number >= 8) * 9, f) for number, (time, f) in enumerate(frames)]
        other = [(BEGAN + 1, ethernet(ipv4(udp(1, 2), 17)))] * 3000
        frames = [*frames[:8], *other, *frames[8:]]  # so that the first part has long been given
    rows = [row for row in rows_of(pcap(frames), **how) if row[4] == 6]
    assert len(rows) > 1
    assert {row[0] for row in rows} == {"10.0.0.1"}
    assert sum(row[5] for row in rows) == 8


def fragments(size: int, count: int) -> list[bytes]:
    """A UDP packet in that many fragments of `size` payload bytes each."""
    whole = udp(5000, 6000, bytes(size * count - 8))
    return [
        ethernet(
            ipv4(
                whole[size * part : size * (part + 1)],
                17,
                fragment=(size * part // 8) | (0x2000 if part < count - 1 else 0),
            )
        )
        for part in range(count)
    ]


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 0, 2), (0, 2, 1), (2, 0, 1)])
def test_fragments_in_any_order(order: tuple[int, ...]) -> None:
    parts = fragments(1480, 3)
    frames = [(1.0 + n / 1000, parts[part]) for n, part in enumerate(order)]
    rows, counts = flows_of(pcap(frames), keep_packets=4)
    assert [row_of(row) for row in rows] == [(*FLOW_1, 3, 0, 3 * 1500, 0)]
    assert counts.lone_fragments == 0
    assert len(rows[0]["kept"]) == 3


def test_fragments_that_wait_are_all_counted_though_many() -> None:
    later = [
        (1.0 + n / 1e4, ethernet(ipv4(bytes(16), 17, fragment=3, number=n))) for n in range(700)
    ]
    rows, counts = flows_of(pcap(later))
    assert sum(row["packets_fwd"] for row in rows) == counts.lone_fragments == 700


def test_jumbograms_and_segments_without_a_length() -> None:
    jumbo = bytes([6, 0, 0xC2, 4]) + struct.pack("!I", 100_000 - 40) + tcp()
    header = struct.pack("!IHBB", 6 << 28, 0, 0, 64) + bytes(15) + b"\1" + bytes(15) + b"\2"
    packet = (header + jumbo).ljust(100_000, b"\0")
    (row,), counts = flows_of(pcap([(1.0, ethernet(packet, 0x86DD))], snap=128))
    assert (row["bytes_fwd"], counts.shortened) == (100_000, 0)
    whole = ethernet(ipv4(tcp(payload=bytes(400_000)), length=0))
    (row,), counts = flows_of(pcap([(1.0, whole)]))
    assert (row["bytes_fwd"], counts.read.broken) == (400_040, 0)


def kuznetzov(order: str) -> bytes:
    out = struct.pack(order + "IHHiIII", 0xA1B2CD34, 2, 4, 0, 0, 65535, 1)
    for time, frame in session():
        seconds = int(time)
        length = len(frame)
        out += struct.pack(
            order + "IIIIIHBB",
            seconds,
            round((time - seconds) * 1e6),
            length,
            length,
            3,
            0x800,
            0,
            0,
        )
        out += frame
    return out


@pytest.mark.parametrize("order", ["<", ">"])
def test_captures_of_kuznetzovs_libpcap(order: str) -> None:
    assert rows_of(kuznetzov(order)) == [SESSION]


def lz4(content: bytes) -> bytes:
    return bytes(pytest.importorskip("lz4.frame").compress(content))


@pytest.mark.parametrize("pack", [lz4, lzma.compress, bz2.compress])
def test_compressed_captures(pack: Any) -> None:
    capture = pcap(session())
    assert rows_of(pack(capture)) == [SESSION]
    parts = pack(capture[:500]) + pack(capture[500:])
    assert rows_of(parts) == [SESSION]
    noise = np.random.default_rng(0).bytes(2500 * 900)
    frames = [
        (n / 10, ethernet(ipv4(udp(payload=noise[900 * n :][:900]), 17))) for n in range(2500)
    ]
    packed = pack(pcap(frames))
    (row,), counts = flows_of(packed[: len(packed) * 3 // 4])
    assert 0 < row["packets_fwd"] < 2500
    assert counts.read.broken == 1
    with pytest.raises(InputError, match="compression is damaged"):
        flows_of(packed[:20])


def test_flows_of_vlans_are_told_apart_when_asked() -> None:
    def tagged(vlan: int) -> bytes:
        return ethernet(struct.pack("!HH", vlan, 0x0800) + ipv4(udp(), 17), 0x8100)

    frames = [(1.0, tagged(5)), (2.0, tagged(6)), (3.0, ethernet(ipv4(udp(), 17)))]
    (row,), _ = flows_of(pcap(frames))
    assert (row["vlan"], row["vlan_inner"], row["packets_fwd"]) == (5, 0, 3)
    rows, _ = flows_of(pcap(frames), vlan_key=True)
    assert sorted(row["vlan"] for row in rows) == [0, 5, 6]
    double = struct.pack("!HHHH", 7, 0x8100, 8, 0x0800) + ipv4(udp(), 17)
    (row,), _ = flows_of(pcap([(1.0, ethernet(double, 0x88A8))]))
    assert (row["vlan"], row["vlan_inner"]) == (7, 8)


def test_flags_and_times_of_a_session() -> None:
    (row,), _ = flows_of(pcap(session()))
    assert (row["tcp_flags_fwd"], row["tcp_flags_bwd"]) == (0x1B, 0x1B)
    assert row["end_reason"] == row["reason"]
    assert row["end_ns"] - row["start_ns"] == 130_000_000
    assert row["flow_id"] == row["id"]


def test_statistics_are_those_of_all_packets() -> None:
    """Also where the direction turns on the way, and for a flow that is given early."""
    frames = session()
    frames[0], frames[1] = (frames[0][0], frames[1][1]), (frames[1][0], frames[0][1])
    (row,), _ = flows_of(pcap(frames), statistics=True)
    sides: dict[str, list[tuple[float, int]]] = {"fwd": [], "bwd": []}
    for time, frame in frames:
        backward = frame[14 + 12 : 14 + 16] == bytes([10, 0, 0, 2])
        sides["bwd" if backward else "fwd"].append((time, len(frame) - 14))
    for side, packets in sides.items():
        sizes = np.array([size for _, size in packets])
        gaps = np.diff([time for time, _ in packets])
        for what, values in (("size", sizes), ("gap", gaps)):
            for of in ("min", "mean", "max", "std"):
                expected = getattr(values, of)()
                assert row[f"{what}_{of}_{side}"] == pytest.approx(expected, abs=2e-6)
    frames = [(n * 1.0, ethernet(ipv4(udp(9 + n % 3000), 17))) for n in range(1, 6001)]
    rows, _ = flows_of(pcap(frames), statistics=True, idle_timeout=None, active_timeout=None)
    assert {(row["gap_mean_fwd"], row["size_max_fwd"]) for row in rows} == {(3000.0, 28.0)}
    rows, _ = flows_of(pcap(frames), statistics=True, early_packets=1, idle_timeout=None)
    assert {row["size_mean_fwd"] for row in rows} == {28.0}


def test_one_bad_capture_does_not_lose_the_others() -> None:
    told: list[str] = []
    captures = [pcap(session()), b"", b"no capture at all", pcap(session(began=BEGAN + 9))[:-5]]
    sources = [StreamSource(io.BytesIO(c), f"c{n}") for n, c in enumerate(captures)]
    stream = FlowStream(sources, FlowOptions(), on_unread=lambda error: told.append(str(error)))
    rows = [row for batch in stream for row in to_table(batch).to_pylist()]
    assert sum(row["packets_fwd"] + row["packets_bwd"] for row in rows) == 27
    assert [text.partition(":")[0] for text in told] == ["c1", "c2"]
    assert (stream.counts.unread_captures, stream.counts.read.cut_short) == (2, 1)


def test_unread_links_are_counted_by_their_number() -> None:
    blocks = [section(), interface(9999), interface(), interface(8888)]
    for number in (0, 0, 1, 2):
        blocks.append(enhanced(10**6, ethernet(ipv4(udp(), 17)), number=number))
    rows, counts = flows_of(b"".join([*blocks, block(5, b"")]))
    assert len(rows) == 1
    assert counts.unread_links == {9999: 2, 8888: 1}


def test_a_syn_ack_alone_names_the_one_that_asked() -> None:
    answer = ipv4(tcp(80, 40000, SYN | ACK), 6, SERVER, "10.0.0.1")
    (row,), _ = flows_of(pcap([(1.0, ethernet(answer))]))
    assert (row["src_ip"], row["packets_fwd"], row["packets_bwd"]) == ("10.0.0.1", 0, 1)
    (row,), _ = flows_of(pcap([(1.0, ethernet(answer))]), directed=True)
    assert (row["src_ip"], row["packets_fwd"]) == (SERVER, 1)
    assert len(session_packets()) == 14
