# SPDX-License-Identifier: Apache-2.0
"""One session in every link layer and every tunnel: always the same row."""

import struct
from typing import Any

import pytest
from flow_dicts import flows_of
from make_captures import ethernet, ipv4, ipv6, pcap, tcp, udp
from sessions import SESSION, rows_of, session

LABELS = struct.pack("!II", 1 << 12, 2 << 12 | 0x100)


@pytest.mark.parametrize("control", [b"", bytes(4)])
@pytest.mark.parametrize("first", [0x00, 0x02, 0x40, 0x45, 0x4C, 0x60, 0x6E, 0xFE])
def test_ethernet_over_mpls_invents_no_address(first: int, control: bytes) -> None:
    """Whatever address the inner frame begins with, and with a control word or without."""

    def wrap(packet: bytes) -> bytes:
        inner = bytearray(ethernet(packet))
        inner[0] = first
        return ethernet(LABELS + control + bytes(inner), 0x8847)

    assert rows_of(pcap(session(wrap))) == [SESSION]
    arp = bytes([first]) + bytes(11) + b"\x08\x06" + b"\0\1\x08\0\6\4\0\1" + bytes(20)
    rows, counts = flows_of(pcap([(1.0, ethernet(LABELS + control + arp, 0x8847))]))
    assert (rows, counts.not_ip) == ([], 1)


def in_udp(port: int, header: bytes, *, frame: bool = False) -> Any:
    return lambda p: ethernet(
        ipv4(udp(9, port, header + (ethernet(p) if frame else p)), 17, "172.16.0.1", "172.16.0.2")
    )


def in_gre(header: bytes, *, frame: bool = False) -> Any:
    return lambda p: ethernet(
        ipv4(header + (ethernet(p) if frame else p), 47, "172.16.0.1", "172.16.0.2")
    )


PPP = b"\xff\x03\0\x21"
TUNNELS = {
    "geneve with options": in_udp(6081, b"\x02\0\x65\x58\0\0\1\0" + bytes(8), frame=True),
    "geneve with ip": in_udp(6081, b"\0\0\x08\0\0\0\1\0"),
    "gtp": in_udp(2152, b"\x30\xff\0\0\0\0\0\1"),
    "gtp with sequence": in_udp(2152, b"\x32\xff\0\0\0\0\0\1\0\1\0\0"),
    "gtp with two extensions": in_udp(
        2152, b"\x34\xff\0\0\0\0\0\1\0\0\0\x85\1\0\0\xc0\2\0\0\0\0\0\0\0"
    ),
    "vxlan of linux": in_udp(8472, b"\x08" + bytes(7), frame=True),
    "vxlan gpe": in_udp(4790, b"\x0c\0\0\1" + bytes(4)),
    "mpls in udp": in_udp(6635, LABELS),
    "tzsp": in_udp(37008, b"\1\0\0\1\0\x0a\1\xb0\1", frame=True),
    "l2tp": in_udp(1701, b"\0\2\0\1\0\1" + PPP),
    "l2tp with all fields": in_udp(1701, b"\x4a\2\0\0\0\1\0\1\0\0\0\0\0\2\0\0" + PPP),
    "l2tp 3": in_udp(1701, b"\0\3\0\0\0\0\0\1" + bytes(8), frame=True),
    "l2tp 3 over ip": lambda p: ethernet(ipv4(b"\0\0\0\1" + bytes(4) + ethernet(p), 115)),
    "erspan 1": in_gre(b"\0\0\x88\xbe", frame=True),
    "erspan 2": in_gre(b"\x10\0\x88\xbe\0\0\0\1\x10\0\0\0\0\0\0\0", frame=True),
    "erspan 3": in_gre(b"\x10\0\x22\xeb\0\0\0\1\x20\0\0\0" + bytes(8), frame=True),
    "erspan 3, more": in_gre(
        b"\x10\0\x22\xeb\0\0\0\1\x20" + bytes(10) + b"\1" + bytes(8), frame=True
    ),
    "pptp": in_gre(b"\x30\x81\x88\x0b\0\x99\0\1\0\0\0\1\0\0\0\1" + PPP),
    "pptp, compressed": in_gre(b"\x30\x01\x88\x0b\0\x99\0\1\0\0\0\1\x21"),
    "mpls in ip": lambda p: ethernet(ipv4(LABELS + p, 137)),
    "etherip": lambda p: ethernet(ipv4(b"\x30\0" + ethernet(p), 97)),
    "802.1ah": lambda p: ethernet(bytes(4) + ethernet(p), 0x88E7),
    "vn-tag": lambda p: ethernet(bytes(4) + b"\x08\0" + p, 0x8926),
    "802.1br": lambda p: ethernet(bytes(6) + b"\x08\0" + p, 0x893F),
}


@pytest.mark.parametrize("name", TUNNELS)
def test_tunnels_are_opened(name: str) -> None:
    assert rows_of(pcap(session(TUNNELS[name])), decapsulate=True) == [SESSION]


def test_teredo_is_opened() -> None:
    inner = ipv6(tcp())
    for header in (b"", b"\0\0" + bytes(6), b"\0\1\0\0" + bytes(9) + b"\0\0" + bytes(6)):
        frame = ethernet(ipv4(udp(3544, 7, header + inner), 17))
        (row,), _ = flows_of(pcap([(1.0, frame)]), decapsulate=True)
        assert (row["src_ip"], row["dst_port"]) == ("fd00::1", 80)


def nflog(packet: bytes, order: str = "<") -> bytes:
    prefix = struct.pack(order + "HH", 5, 10) + b"\0" + bytes(3)
    return b"\2\0\0\0" + prefix + struct.pack(order + "HH", 4 + len(packet), 9) + packet


LINKS = {
    "nflog": (239, nflog),
    "nflog of a big-endian machine": (239, lambda p: nflog(p, ">")),
    "pktap": (258, lambda p: struct.pack("<III", 108, 1, 1) + bytes(96) + ethernet(p)),
    "pktap of old": (149, lambda p: struct.pack("<III", 108, 1, 101) + bytes(96) + p),
    "cisco hdlc": (104, lambda p: b"\x0f\0\x08\0" + p),
    "ipoib": (242, lambda p: bytes(40) + b"\x08\0\0\0" + p),
    "802.11": (105, lambda p: b"\x08\1" + bytes(22) + b"\xaa\xaa\3\0\0\0\x08\0" + p),
    "802.11, four addresses, QoS": (
        105,
        lambda p: b"\x88\3" + bytes(30) + b"\xaa\xaa\3\0\0\0\x08\0" + p,
    ),
    "radiotap, padded": (
        127,
        lambda p: b"\0\0\x09\0\2\0\0\0\x20\x88\1" + bytes(26) + b"\xaa\xaa\3\0\0\0\x08\0" + p,
    ),
}


@pytest.mark.parametrize("name", LINKS)
def test_link_layers_are_read(name: str) -> None:
    link, wrap = LINKS[name]
    assert rows_of(pcap(session(wrap), link)) == [SESSION]


@pytest.mark.parametrize("words", [1, 2, 4])
def test_a_check_sequence_behind_each_frame_is_no_part_of_it(words: int) -> None:
    """Which would show where the length is left to the network card."""
    frame = ethernet(ipv4(tcp(payload=bytes(20)), length=0)) + bytes(2 * words)
    (row,), _ = flows_of(pcap([(1.0, frame)], 1 | 0x04000000 | words << 28))
    assert row["bytes_fwd"] == 60
