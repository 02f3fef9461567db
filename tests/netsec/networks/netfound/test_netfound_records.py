# SPDX-License-Identifier: Apache-2.0
"""Header fields from record files and from captures."""

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

from fieldfare.common.errors import InputError
from fieldfare.netsec.capture import FlowOptions, read_flows
from fieldfare.netsec.networks.netfound import packet_fields, read_records
from fieldfare.netsec.networks.netfound.records import TCP as TCP_NUMBER

KEEP = FlowOptions(
    idle_timeout=None, active_timeout=None, linger=None,
    keep_packets=130, keep_header=120, keep_payload=40,
)  # fmt: skip

CAPTURED = {
    "443-curl": "val/ndpi__443-curl.pcap",
    "ftp": "val/ndpi__ftp.pcap",
    "icmp-tunnel": "train/ndpi__icmp-tunnel.pcap",
}


def fields_of(packets, folder, *, options=KEEP, **arguments):
    wrpcap(str(folder / "made.pcap"), [Ether() / packet for packet in packets])
    (batch,) = read_flows(folder / "made.pcap", options=options)
    return packet_fields(batch, **arguments)


@pytest.mark.parametrize("stem", CAPTURED)
def test_fields_of_captures_equal_the_published_records(stem, published, data):
    records = sorted((published / "extracted").glob(f"{stem}-*"))
    (batch,) = read_flows(data / "pcaps" / CAPTURED[stem], options=KEEP)
    ours = packet_fields(batch, 6, compat=True)
    first = {int(ours.time[ours.flow == flow][0]): flow for flow in range(len(batch))}
    assert records
    for path in records:
        wanted = read_records(path)
        rows = np.flatnonzero(ours.flow == first[int(wanted.time[0])])[: len(wanted.time)]
        assert np.array_equal(ours.header[rows], wanted.header)
        assert np.array_equal(ours.backward[rows], wanted.backward)
        assert np.array_equal(ours.time[rows], wanted.time)
        if stem == "icmp-tunnel":  # its payload is known to be taken 8 bytes too early
            assert np.array_equal(ours.payload[rows, :2], wanted.payload[:, 4:])
        else:
            assert np.array_equal(ours.payload[rows], wanted.payload)


def test_tcp_fields_are_those_that_scapy_wrote(tmp_path):
    client, server = {"src": "10.0.0.1", "dst": "10.0.0.2"}, {"src": "10.0.0.2", "dst": "10.0.0.1"}
    there, back = {"sport": 1234, "dport": 80}, {"sport": 80, "dport": 1234}
    packets = [
        IP(**client, tos=8, ttl=63, flags="DF")
        / TCP(**there, seq=2**32 - 1, flags="S", window=1000, options=[("MSS", 1460)]),
        IP(**server) / TCP(**back, seq=500, ack=0, flags="SA", window=2000),
        IP(**client) / TCP(**there, seq=0, ack=501, flags="PA", urgptr=7) / Raw(b"\x01\x02\x03"),
        IP(**server) / TCP(**back, seq=501, ack=70_000, flags="A") / Raw(b"x"),
        IP(**server) / TCP(**back, seq=502, ack=99, flags="R"),
    ]
    fields = fields_of(packets, tmp_path, payload_words=2)
    assert fields.protocol.tolist() == [TCP_NUMBER]
    assert fields.header.tolist() == [
        [20, 8, 44, 2, 63, 2, 1000, 0, 0, 0, 0, 0],
        [20, 0, 40, 0, 64, 18, 2000, 0, 0, 0, 1, 0],
        [20, 0, 43, 0, 64, 24, 8192, 0, 1, 0, 1, 7],
        [20, 0, 41, 0, 64, 16, 8192, 0, 1, 70001 >> 16, 70001 & 0xFFFF, 0],
        [20, 0, 40, 0, 64, 4, 8192, 0, 2, 0, 0, 0],
    ]
    assert fields.payload.tolist() == [[0, 0], [0, 0], [0x0102, 0x0300], [0x7800, 0], [0, 0]]
    published = fields_of(packets, tmp_path, compat=True)
    assert published.header[4, 9:11].tolist() == [0, 100]  # counted though RST acknowledges nothing


def test_a_flow_joined_midway_counts_from_what_was_acknowledged(tmp_path):
    packets = [
        IP(src="10.0.0.1", dst="10.0.0.2") / TCP(seq=900, ack=100, flags="A"),
        IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=80, dport=20, seq=181, ack=968, flags="A"),
    ]
    header = fields_of(packets, tmp_path).header
    assert header[:, 7:11].tolist() == [[0, 0, 0, 0], [0, 81, 0, 68]]


def test_udp_icmp_ipv6_and_other_protocols(tmp_path):
    six = {"src": "2001:db8::1", "dst": "2001:db8::2"}
    packets = [
        IPv6(**six, tc=0xB8, hlim=7) / UDP(sport=1, dport=2) / Raw(b"abcd"),
        IPv6(**six) / ICMPv6EchoRequest(data=b"abcdefghij"),
        IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(type=8, id=5) / Raw(b"abcdefghij"),
        IP(src="10.0.0.1", dst="10.0.0.2", proto=132) / Raw(b"\0\1\0\2abcdefgh"),
    ]
    fields = fields_of(packets, tmp_path, payload_words=2)
    assert fields.protocol.tolist() == [17, 1, 1, 0]
    assert fields.header[0, :6].tolist() == [40, 0xB8, 52, 0, 7, 12]
    assert fields.header[1, :7].tolist() == [40, 0, 58, 0, 64, 128, 0]
    assert fields.header[2, :7].tolist() == [20, 0, 38, 0, 64, 8, 0]
    assert fields.header[3, 5:].tolist() == [0] * 7
    assert fields.payload[0].tolist() == [0x6162, 0x6364]
    assert fields.payload[2].tolist() == [0x696A, 0]  # an echo's first 8 bytes are left out


@pytest.mark.parametrize("kept", [0, 1, 19, 21, 33])
def test_fields_that_were_not_kept_are_zero(kept, tmp_path):
    packet = IP(src="10.0.0.1", dst="10.0.0.2", ttl=255) / TCP(flags=255, window=65535, seq=5)
    options = FlowOptions(keep_packets=1, keep_header=kept, keep_payload=0)
    header = fields_of([packet], tmp_path, options=options, payload_words=3).header[0]
    assert header[4] == (255 if kept >= 9 else 0)
    assert header[6] == 0
    assert header[2] == 40  # the capture's own count


def test_fields_can_be_hidden_by_name(make_packets):
    packets = make_packets([3, 3, 3, 3], seed=4)
    hidden = packets.without({"time_to_live", "window", "udp_length"})
    assert not hidden.header[:, 4].any()
    assert not hidden.header[:3, 6].any()  # TCP window
    assert not hidden.header[3:6, 5].any()  # UDP length
    assert np.array_equal(hidden.header[6:9, 5:], packets.header[6:9, 5:])  # ICMP
    assert np.array_equal(hidden.header[:3, 5], packets.header[:3, 5])
    with pytest.raises(ValueError, match="no field is named ports"):
        packets.without({"ports"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no TCP, UDP or ICMP"),
        (b"\x2f" + bytes(40), "no TCP, UDP or ICMP"),
        (b"\x11", "no whole number"),
        (b"\x06" + bytes(91), "no whole number of 51-byte records"),
    ],
)
def test_files_that_are_no_records_are_refused(content, message, tmp_path):
    path = tmp_path / "flow.pcap.6"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_records(path)
    assert str(path) in str(caught.value)


def test_a_missing_record_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_records(tmp_path / "gone")
