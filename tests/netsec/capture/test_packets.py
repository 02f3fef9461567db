# SPDX-License-Identifier: Apache-2.0
"""From link layer to ports, on frames built byte by byte."""

import struct

import pytest
from flow_dicts import flows_of
from make_captures import ethernet, ipv4, ipv6, pcap, tcp, udp

FLOW = {"src_ip": "10.0.0.1", "src_port": 1000, "dst_ip": "10.0.0.2", "dst_port": 80}
FLOW6 = {"src_ip": "fd00::1", "src_port": 1000, "dst_ip": "fd00::2", "dst_port": 80}
BODY = ipv4(tcp())
BODY6 = ipv6(tcp())


def only_flow(frame: bytes, link: int = 1, **options: object) -> dict:
    rows, counts = flows_of(pcap([(1.0, frame)], link), **options)
    assert counts.damaged == counts.not_ip == counts.unsupported == 0
    assert len(rows) == 1
    return rows[0]


@pytest.mark.parametrize(
    ("link", "frame"),
    [
        (1, ethernet(BODY)),
        (1, ethernet(BODY, tags=[0x8100])),
        (1, ethernet(BODY, tags=[0x88A8, 0x8100])),
        (1, ethernet(BODY, tags=[0x9100, 0x8100, 0x8100])),
        (1, ethernet(struct.pack("!II", 1 << 12, 2 << 12 | 0x100) + BODY, 0x8847)),
        (1, ethernet(struct.pack("!BBHHH", 0x11, 0, 1, 42, 0x0021) + BODY, 0x8864)),
        (1, ethernet(b"\xaa\xaa\x03\0\0\0\x08\0" + BODY, 48)),
        (101, BODY),
        (12, BODY),
        (228, BODY),
        (113, bytes(14) + b"\x08\0" + BODY),
        (113, bytes(14) + b"\x81\0" + b"\0\x05\x08\0" + BODY),
        (276, b"\x08\0" + bytes(18) + BODY),
        (0, b"\x02\0\0\0" + BODY),
        (0, b"\0\0\0\x02" + BODY),
        (108, b"\0\0\0\x02" + BODY),
    ],
)
def test_every_link_layer_leads_to_the_same_flow(link: int, frame: bytes) -> None:
    row = only_flow(frame, link)
    assert row | FLOW == row
    assert (row["protocol"], row["bytes_fwd"], row["packets_fwd"]) == (6, 40, 1)


def test_padding_of_ethernet_does_not_count() -> None:
    assert only_flow(ethernet(BODY) + bytes(20))["bytes_fwd"] == 40


def test_options_of_ipv4_are_stepped_over() -> None:
    row = only_flow(ethernet(ipv4(tcp(), options=b"\x94\x04\0\0" + b"\x01" * 4)))
    assert row | FLOW == row
    assert row["bytes_fwd"] == 48


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [0],
        [0, 60, 43],
        [0, 60, 43, 60, 135, 139, 140],
    ],
)
def test_extension_headers_of_ipv6_are_stepped_over(headers: list[int]) -> None:
    body, following = tcp(), 6
    for kind in reversed(headers):
        body = bytes([following, 0]) + bytes(6) + body
        following = kind
    row = only_flow(ethernet(ipv6(body, following), 0x86DD))
    assert row | FLOW6 == row
    assert row["protocol"] == 6


def test_longer_extension_and_authentication_headers() -> None:
    authentication = bytes([6, 4]) + bytes(22) + tcp()
    body = bytes([51, 1]) + bytes(14) + authentication
    row = only_flow(ethernet(ipv6(body, 60), 0x86DD))
    assert row | FLOW6 == row


def test_endless_extension_headers_are_damage() -> None:
    body = b"".join(bytes([60, 0]) + bytes(6) for _ in range(100))
    rows, counts = flows_of(pcap([(1.0, ethernet(ipv6(body, 60), 0x86DD))]))
    assert (rows, counts.damaged) == ([], 1)


def test_fragments_share_the_flow_of_the_first() -> None:
    frames = [
        ethernet(ipv4(udp(payload=bytes(24)), 17, fragment=0x2000)),
        ethernet(ipv4(bytes(16), 17, fragment=0x2004)),
        ethernet(ipv4(bytes(8), 17, fragment=0x0006)),
    ]
    rows, counts = flows_of(pcap([(float(i), f) for i, f in enumerate(frames)]))
    assert counts.lone_fragments == 0
    assert [(r["src_port"], r["dst_port"], r["packets_fwd"], r["bytes_fwd"]) for r in rows] == [
        (1000, 53, 3, 52 + 36 + 28)
    ]


def test_fragments_of_ipv6_share_the_flow_of_the_first() -> None:
    def piece(body: bytes, offset: int, more: int) -> bytes:
        header = struct.pack("!BBHI", 17, 0, offset << 3 | more, 99)
        return ethernet(ipv6(header + body, 44), 0x86DD)

    frames = [piece(udp(payload=bytes(8)), 0, 1), piece(bytes(8), 2, 0)]
    rows, _ = flows_of(pcap([(float(i), f) for i, f in enumerate(frames)]))
    assert [(r["src_port"], r["packets_fwd"]) for r in rows] == [(1000, 2)]


@pytest.mark.parametrize("gap", [0.0, 31.0])
def test_a_later_fragment_without_its_first_is_counted(gap: float) -> None:
    first = [(0.0, ethernet(ipv4(udp(), 17, fragment=0x2000)))] if gap else []
    capture = pcap([*first, (gap, ethernet(ipv4(bytes(16), 17, fragment=0x0002)))])
    rows, counts = flows_of(capture)
    assert counts.lone_fragments == 1
    assert (0, 0) in [(row["src_port"], row["dst_port"]) for row in rows]


INNER = ipv4(tcp(), source="192.168.0.1", destination="192.168.0.2")


@pytest.mark.parametrize(
    "outer",
    [
        ipv4(INNER, 4),
        ipv6(INNER, 4),
        ipv4(b"\0\0\x08\0" + INNER, 47),
        ipv4(b"\xb0\0\x08\0" + bytes(12) + INNER, 47),
        ipv4(b"\0\0\x65\x58" + ethernet(INNER), 47),
        ipv4(udp(5, 4789, b"\x08" + bytes(7) + ethernet(INNER, tags=[0x8100])), 17),
        ipv4(ipv6(INNER, 4), 41),
        ipv4(ipv4(INNER, 4), 4),
    ],
)
def test_tunnels_are_opened_when_asked(outer: bytes) -> None:
    frame = ethernet(outer, 0x0800 if outer[0] >> 4 == 4 else 0x86DD)
    inside = only_flow(frame, decapsulate=True)
    assert (inside["src_ip"], inside["dst_port"], inside["bytes_fwd"]) == ("192.168.0.1", 80, 40)
    outside = only_flow(frame)
    assert outside["bytes_fwd"] == len(outer)


def test_a_damaged_inner_packet_leaves_the_tunnel_as_the_flow() -> None:
    frame = ethernet(ipv4(b"\x44" + bytes(30), 4))
    assert only_flow(frame, decapsulate=True) == only_flow(frame)


def test_packets_cut_by_the_snap_length_keep_their_full_size() -> None:
    frame = ethernet(ipv4(tcp(payload=bytes(1000))))
    rows, _ = flows_of(pcap([(1.0, frame)], snap=60), keep_packets=1)
    assert rows[0]["bytes_fwd"] == 1040
    assert rows[0]["kept"] == [(10**9, False, 40, 6, 1000)]
    rows, _ = flows_of(pcap([(1.0, frame)], snap=50), keep_packets=1)
    assert rows[0]["kept"] == [(10**9, False, 36, 0, 1000)]


def test_a_claim_beyond_the_wire_is_cut_and_counted() -> None:
    rows, counts = flows_of(pcap([(1.0, ethernet(ipv4(tcp(), length=9000)))]))
    assert (rows[0]["bytes_fwd"], counts.shortened) == (40, 1)


@pytest.mark.parametrize(
    ("frame", "count"),
    [
        (b"", "damaged"),
        (ethernet(b""), "damaged"),
        (ethernet(BODY[:19]), "damaged"),
        (ethernet(b"\x44" + BODY[1:]), "damaged"),
        (ethernet(b"\x65" + BODY[1:]), "damaged"),
        (ethernet(BODY[:22]), "damaged"),
        (ethernet(ipv4(tcp(), length=10)), "damaged"),
        (ethernet(BODY6[:39], 0x86DD), "damaged"),
        (ethernet(b"", tags=[0x8100] * 20), "damaged"),
        (ethernet(bytes(28), 0x0806), "not_ip"),
        (ethernet(bytes(40), 40), "not_ip"),
    ],
)
def test_what_is_no_flow_is_counted_and_the_rest_goes_on(frame: bytes, count: str) -> None:
    rows, counts = flows_of(pcap([(1.0, frame), (2.0, ethernet(BODY))]))
    assert getattr(counts, count) == 1
    assert counts.packets == 2
    assert [row["packets_fwd"] for row in rows] == [1]


def test_a_link_type_that_nobody_knows_is_unsupported() -> None:
    rows, counts = flows_of(pcap([(1.0, BODY)], 9999))
    assert (rows, counts.unsupported) == ([], 1)
