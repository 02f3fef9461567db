# SPDX-License-Identifier: Apache-2.0
"""Bytes of first packets: the published arrays, and ours on packets made in code."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fieldfare.common.errors import InputError
from fieldfare.netsec.capture import FlowOptions, read_flows
from fieldfare.netsec.data.flow_rows import concatenate, take
from fieldfare.netsec.data.masking import mask
from fieldfare.netsec.networks.netmamba import packet_bytes, published_bytes

OPTIONS = FlowOptions(
    idle_timeout=None, active_timeout=None, linger=None, keep_packets=5, keep_header=80,
    keep_payload=240,
)  # fmt: skip
DISSECTED = ("dns", "6in4")
"""Captures whose payload scapy takes apart, so that it lies among the published headers."""


def flows_of(path):
    flows = concatenate(list(read_flows(str(path), options=OPTIONS)))
    return take(flows, np.argsort(flows.flow_id))


@pytest.fixture(scope="session")
def published(reference):
    """(folder of captures, arrays by the capture's name)."""
    folder: Path = reference / "netmamba" / "bytes"
    return folder / "flows", load_file(folder / "arrays.safetensors")


def test_published_bytes_of_34_flows_are_exact(published):
    pytest.importorskip("scapy")
    folder, arrays = published
    paths = sorted(folder.glob("*.pcap"))
    assert len(paths) == 34
    for path in paths:
        assert np.array_equal(published_bytes(path), arrays[path.name]), path.name


def test_ours_are_the_published_ones_on_26_flows_where_only_addresses_are_masked(published):
    folder, arrays = published
    ours = {
        path.name: packet_bytes(mask(flows_of(path), ["addresses"]))[0]
        for path in folder.glob("*.pcap")
    }
    differing = [name for name in ours if not np.array_equal(ours[name], arrays[name])]
    assert len(differing) == 8
    assert all(name.startswith(DISSECTED) for name in differing)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One flow each of IPv4 with TCP, IPv6 with UDP and IPv4 with ICMP; no byte of theirs is 0."""
    scapy = pytest.importorskip("scapy.all")
    tcp = [
        scapy.IP(src="1.2.3.4", dst="5.6.7.8", id=0x1111, ttl=64)
        / scapy.TCP(sport=1025, dport=443, seq=0x01020304 + i, ack=0x05060708, flags="PA")
        / scapy.Raw(bytes([65 + i]) * (300 if i == 1 else 3))
        for i in range(7)
    ]
    udp = [
        scapy.IPv6(src="2001:db8::1", dst="2001:db8::2", fl=0x12345, hlim=55)
        / scapy.UDP(sport=1026, dport=4433)
        / scapy.Raw(b"xyz")
    ]
    icmp = [scapy.IP(src="1.2.3.4", dst="9.9.9.9", id=0x2222) / scapy.ICMP() / scapy.Raw(b"ping")]
    path = tmp_path_factory.mktemp("made") / "made.pcap"
    scapy.wrpcap(str(path), [scapy.Ether() / p for p in tcp + udp + icmp])
    return flows_of(path)


def packets_of(rows):
    return rows.reshape(len(rows), 5, 320)


def test_headers_and_payload_lie_apart_and_missing_packets_are_zero(made):
    tcp, udp, icmp = packets_of(packet_bytes(made))
    assert tcp[0, 0] == 0x45
    assert tcp[0, 12:20].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert tcp[0, 20:24].tolist() == [4, 1, 1, 187]
    assert not tcp[0, 40:80].any()
    assert tcp[0, 80:84].tolist() == [65, 65, 65, 0]
    assert (tcp[1, 80:320] == 66).all()  # 300 bytes, cut
    assert tcp[4, 80] == 69
    assert udp[0, 0] >> 4 == 6
    assert not udp[0, 48:80].any()
    assert bytes(udp[0, 80:84]) == b"xyz\0"
    assert bytes(icmp[0, 80:85]) == b"ping\0"
    assert not udp[1:].any()
    assert not icmp[1:].any()


@pytest.mark.parametrize(
    ("name", "tcp_places", "udp_places"),
    [
        ("addresses", range(12, 20), range(8, 40)),
        ("ports", range(20, 24), range(40, 44)),
        ("ttl", [8], [7]),
        ("numbers", [4, 5, *range(24, 32)], [2, 3]),
        ("checksums", [10, 11, 36, 37], [46, 47]),
    ],
)
def test_each_field_is_masked_by_its_name_and_nothing_else(name, tcp_places, udp_places, made):
    plain, masked = (packets_of(packet_bytes(mask(made, names))) for names in ([], [name]))
    for flow, places in ((0, tcp_places), (1, udp_places)):
        expected = plain[flow].copy()
        expected[:, list(places)] = 0
        assert np.array_equal(masked[flow], expected)
    assert plain[0][:, list(tcp_places)].any()


def test_the_direction_is_marked_within_the_source_address(tmp_path):
    scapy = pytest.importorskip("scapy.all")
    there = scapy.IP(src="1.2.3.4", dst="5.6.7.8") / scapy.UDP(sport=1, dport=2) / b"a"
    back = scapy.IP(src="5.6.7.8", dst="1.2.3.4") / scapy.UDP(sport=2, dport=1) / b"b"
    path = tmp_path / "both.pcap"
    scapy.wrpcap(str(path), [scapy.Ether() / p for p in (there, back, there)])
    rows = packets_of(packet_bytes(mask(flows_of(path), ["addresses"]), mark_direction=True))[0]
    assert rows[:, 12].tolist() == [0, 255, 0, 0, 0]
    assert not rows[:, 13:20].any()


def test_sizes_can_be_chosen(made):
    rows = packet_bytes(made, packets=2, header_bytes=20, payload_bytes=7)
    whole = packets_of(packet_bytes(made))
    assert rows.shape == (3, 54)
    assert np.array_equal(rows.reshape(3, 2, 27)[..., :20], whole[:, :2, :20])
    assert np.array_equal(rows.reshape(3, 2, 27)[..., 20:], whole[:, :2, 80:87])


def test_wider_than_what_was_kept_is_filled_with_zeros(made):
    rows = packet_bytes(made, header_bytes=100, payload_bytes=400).reshape(3, 5, 500)
    whole = packets_of(packet_bytes(made))
    assert np.array_equal(rows[..., :80], whole[..., :80])
    assert np.array_equal(rows[..., 100:340], whole[..., 80:])
    assert not rows[..., 340:].any()


def test_published_bytes_of_no_capture_are_refused(tmp_path):
    pytest.importorskip("scapy")
    path = tmp_path / "x.pcap"
    path.write_bytes(b"this is no capture at all")
    with pytest.raises(InputError, match=r"x\.pcap: not a readable capture"):
        published_bytes(path)
