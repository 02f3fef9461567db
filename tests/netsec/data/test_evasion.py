# SPDX-License-Identifier: Apache-2.0
"""A sender's disguises change what is his to choose, and nothing that arrives."""

import dataclasses

import numpy as np
import pytest
from labelled_captures import name, web
from make_captures import pcap

from fieldfare.netsec.capture import FlowOptions, read_flows
from fieldfare.netsec.data.evasion import Evasion, evade
from fieldfare.netsec.data.flow_rows import concatenate
from fieldfare.netsec.evaluation.robust import robust_scores
from fieldfare.netsec.networks.netfound.records import packet_fields


@pytest.fixture(scope="module")
def flows(tmp_path_factory):
    path = tmp_path_factory.mktemp("captures") / "c.pcap"
    path.write_bytes(pcap([*web(2001, 6), *name(2003)]))
    options = FlowOptions(keep_packets=9, keep_header=128, keep_payload=64)
    return concatenate(list(read_flows(path, options=options)))


def still(count):
    """Leaves all as it is but TTL and identification."""
    zero = np.zeros(count)
    return Evasion(np.full(count, 33), np.full(count, 0x1234), zero, zero)


def test_ttl_and_identification_are_those_of_the_senders_packets_alone(flows):
    found, before = evade(flows, still(2)).first_packets, flows.first_packets
    own = ~found.backward
    tcp = flows.protocol[found.flow] == 6
    assert set(found.data[own & tcp, 8]) == set(found.data[own & ~tcp, 7]) == {33}
    number = found.data[own & tcp, 4].astype(int) << 8 | found.data[own & tcp, 5]
    assert number.tolist() == [0x1234, 0x1236, 0x1238]
    assert np.array_equal(found.data[~own], before.data[~own])
    changed = (found.data != before.data).any(axis=0).nonzero()[0]
    assert set(changed) <= {4, 5, 7, 8}
    assert np.array_equal(found.time, before.time)
    assert np.array_equal(found.bytes, before.bytes)


def test_what_waits_makes_all_wait_behind_it_and_never_hastens(flows):
    how = still(2)._replace(wait=np.array([0.1, 0.1]))
    found, before = evade(flows, how).first_packets, flows.first_packets
    waited = (found.time - before.time) / 1e9
    tcp = flows.protocol[found.flow] == 6
    assert waited[tcp] == pytest.approx([0.0, 0.0, 0.1, 0.1, 0.2, 0.2])
    assert waited[~tcp] == pytest.approx([0.0])


def test_padding_leaves_the_payload_and_keeps_headers_whole(flows):
    how = still(2)._replace(padding=np.array([0.99, 0.99]))
    found, before = evade(flows, how).first_packets, flows.first_packets
    tcp, own = flows.protocol[found.flow] == 6, ~found.backward
    longer = found.bytes - before.bytes
    assert longer.tolist() == np.where(own, np.where(tcp, 40, 63), 0).tolist()
    for row in np.flatnonzero(own & tcp):
        first, end = before.header[row], before.header[row] + before.payload[row]
        payload = before.data[row, first:end]
        assert np.array_equal(found.data[row, first + 40 : end + 40], payload)
        assert set(found.data[row, first : first + 40]) == {1}
        assert found.data[row, found.transport[row] + 12] >> 4 == 15
        length = int.from_bytes(found.data[row, 2:4].tobytes(), "big")
        assert length == found.bytes[row]
    row = int(np.flatnonzero(~tcp)[0])
    end = before.header[row] + before.payload[row]
    assert np.array_equal(found.data[row, 40:end], before.data[row, 40:end])
    assert int.from_bytes(found.data[row, 4:6].tobytes(), "big") == found.bytes[row] - 40
    packet_fields(evade(flows, how), 2)  # can be read


def test_the_given_flows_stay_and_a_seed_gives_one_disguise(flows):
    before = flows.first_packets.data.copy()
    draws = [Evasion.draw(2, np.random.default_rng(5)) for _ in range(2)]
    one, two = (evade(flows, draw).first_packets for draw in draws)
    for field in dataclasses.fields(one):
        assert np.array_equal(getattr(one, field.name), getattr(two, field.name))
    assert np.array_equal(flows.first_packets.data, before)


def test_of_several_disguises_each_flow_keeps_the_one_that_is_worst(flows):
    label = np.array([0, 1])

    def by_ttl(some):
        """The lower the time to live, the surer of the flow's own class."""
        packets = some.first_packets
        first = np.searchsorted(packets.flow, np.arange(len(some)))
        ttl = np.where(
            packets.data[first, 0] >> 4 == 6, packets.data[first, 7], packets.data[first, 8]
        )
        share = ttl / 300
        return np.where(np.eye(2)[label] == 1, (1 - share)[:, None], share[:, None])

    assert robust_scores(by_ttl, flows, label, ("a", "b"), 0).accuracy == 1
    assert robust_scores(by_ttl, flows, label, ("a", "b"), 20).accuracy == 0
