# SPDX-License-Identifier: Apache-2.0
"""Changed flows are flows that another recording could have held."""

import numpy as np
import pytest
from labelled_captures import name, web
from make_captures import pcap

from fieldfare.netsec.capture import FlowOptions, read_flows
from fieldfare.netsec.data import variations
from fieldfare.netsec.data.flow_rows import concatenate, packet_number
from fieldfare.netsec.data.variations import Chances, capped

KEPT = FlowOptions(keep_packets=20, keep_header=128, keep_payload=64)
CHANCES = ("MISSING_FIRST", "LATER_PART", "OTHER_OPTIONS", "OTHER_VERSION", "SNAPPED")


@pytest.fixture(scope="module")
def flows(tmp_path_factory):
    """40 flows of TCP over IPv4, six packets each, and 40 of UDP over IPv6."""
    path = tmp_path_factory.mktemp("captures") / "c.pcap"
    ports = range(2000, 2040)
    path.write_bytes(
        pcap([*(p for n in ports for p in web(n, 6)), *(p for n in ports for p in name(n))])
    )
    return concatenate(list(read_flows(path, options=KEPT)))


@pytest.fixture
def only(monkeypatch):
    """Let one kind of change befall all flows, the others none."""

    def choose(kind):
        for chance in CHANCES:
            monkeypatch.setattr(variations, chance, 0.0 if chance != kind else 1.0)

    return choose


def vary(flows, rng):
    return variations.vary(flows, Chances.draw(len(flows), rng))


def payloads(flows):
    """Of each packet, by flow and content."""
    p = flows.first_packets
    return [
        (int(f), p.data[i, h : h + n].tobytes())
        for i, (f, h, n) in enumerate(zip(p.flow, p.header, p.payload, strict=True))
    ]


def ip_lengths(packets):
    data = packets.data.astype(int)
    return np.where(
        data[:, 0] >> 4 == 6,
        data[:, 4] * 256 + data[:, 5] + 40,
        data[:, 2] * 256 + data[:, 3],
    )


def test_the_same_draws_give_the_same_flows_and_the_given_ones_stay(flows):
    before = flows.first_packets.data.copy()
    first, again = (vary(flows, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.first_packets.data, again.first_packets.data)
    np.testing.assert_array_equal(flows.first_packets.data, before)
    assert len(first) == len(flows)
    assert (np.bincount(first.first_packets.flow, minlength=len(flows)) > 0).all()


def test_the_other_version_of_ip_carries_the_same(flows, only):
    only("OTHER_VERSION")
    changed = vary(flows, np.random.default_rng(0))
    assert set(zip(flows.family.tolist(), changed.family.tolist(), strict=True)) == {(4, 6), (6, 4)}
    packets = changed.first_packets
    np.testing.assert_array_equal(packets.data[:, 0] >> 4, changed.family[packets.flow])
    np.testing.assert_array_equal(ip_lengths(packets), packets.bytes)
    assert payloads(changed) == payloads(flows)
    back = vary(changed, np.random.default_rng(1))
    np.testing.assert_array_equal(back.first_packets.bytes, flows.first_packets.bytes)
    np.testing.assert_array_equal(back.first_packets.transport, flows.first_packets.transport)


def test_options_come_and_go_and_headers_say_so(flows, only):
    only("OTHER_OPTIONS")
    changed = vary(flows, np.random.default_rng(0))
    packets, rows = changed.first_packets, np.arange(len(changed.first_packets.flow))
    tcp = changed.protocol[packets.flow] == 6
    offset = packets.data[rows, packets.transport + 12] >> 4
    assert set(offset[tcp].tolist()) == {8}
    np.testing.assert_array_equal((packets.header - packets.transport)[tcp], offset[tcp] * 4)
    np.testing.assert_array_equal(ip_lengths(packets), packets.bytes)
    back = vary(changed, np.random.default_rng(1))
    np.testing.assert_array_equal(back.first_packets.data, flows.first_packets.data)


def test_later_packets_take_the_place_of_those_left_out(flows, only):
    only("MISSING_FIRST")
    changed = vary(flows, np.random.default_rng(0))
    count = np.bincount(changed.first_packets.flow, minlength=len(flows))
    assert set(count[flows.protocol == 6].tolist()) == {3, 4, 5}
    assert set(count[flows.protocol == 17].tolist()) == {1}  # one packet at least stays
    first = packet_number(changed) == 0
    assert not changed.first_packets.backward[first].any()
    turned = changed.src_port != flows.src_port
    assert turned.any()
    np.testing.assert_array_equal(changed.dst_port[turned], flows.src_port[turned])


def test_snapped_packets_keep_their_lengths_on_the_wire(flows, only):
    only("SNAPPED")
    changed = vary(flows, np.random.default_rng(0))
    packets, whole = changed.first_packets, flows.first_packets
    np.testing.assert_array_equal(packets.payload_length, whole.payload_length)
    cut = packets.header + packets.payload
    assert (cut <= whole.header + whole.payload).all()
    column = np.arange(packets.data.shape[1])
    assert not packets.data[column >= cut[:, None]].any()


def test_no_capture_gives_more_than_its_share():
    label = np.array([0] * 30 + [1] * 3 + [0] * 4)
    capture = np.array([0] * 33 + [1] * 4)
    rows = capped(label, capture, 5, seed=1)
    pairs, count = np.unique(np.stack([label, capture])[:, rows], axis=1, return_counts=True)
    assert pairs.T.tolist() == [[0, 0], [0, 1], [1, 0]]
    assert count.tolist() == [5, 4, 3]
    np.testing.assert_array_equal(rows, capped(label, capture, 5, seed=1))
    assert rows.tolist() != capped(label, capture, 5, seed=2).tolist()
