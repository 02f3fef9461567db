# SPDX-License-Identifier: Apache-2.0
"""What a set of flows is like as a whole."""

import numpy as np
import pytest
from judged_flows import fetch, icmp
from labelled_captures import name, web
from make_captures import ethernet, ipv4, pcap, tcp

from fieldfare.netsec.capture import FlowOptions, read_flows
from fieldfare.netsec.data.flow_rows import concatenate, take
from fieldfare.netsec.data.site import CENTRE, FEATURES, SCALE, raw_vector, site_vector

KEPT = FlowOptions(keep_packets=8, keep_header=128, keep_payload=64)


def flows_of(tmp_path, packets):
    path = tmp_path / "c.pcap"
    path.write_bytes(pcap(sorted(packets, key=lambda packet: packet[0])))
    return concatenate(list(read_flows(path, options=KEPT)))


def test_the_features_of_four_flows_by_hand(tmp_path):
    flows = flows_of(tmp_path, [*web(1000, 4), *fetch(3), *name(2000), *icmp(7)])
    found = dict(zip(FEATURES, raw_vector(flows), strict=True))
    assert found["tcp"] == 0.5
    assert found["udp"] == found["ipv6"] == 0.25
    assert found["answered"] == 0.25
    assert found["private"] == 1.0
    assert found["low_port"] == 0.75
    assert found["packets"] == pytest.approx(0.5)
    assert found["late"] == 0.5  # neither begins with a SYN
    assert found["cut"] == 0
    assert found["vlan"] == 0
    assert all(len(values) == len(FEATURES) for values in (CENTRE, SCALE))


def test_routers_passed_are_told_from_the_time_to_live(tmp_path):
    def aged(live):
        packet = bytearray(ipv4(tcp(1000 + live, 80), 6, "10.0.0.1", "10.0.0.2"))
        packet[8] = live
        return [(1.0 + live, ethernet(bytes(packet)))]

    for live, hops, began in ((57, 7, None), (120, 8, "from_128"), (250, 5, "from_255")):
        found = dict(zip(FEATURES, raw_vector(flows_of(tmp_path, aged(live))), strict=True))
        assert found["hops"] == hops
        assert [k for k in ("from_128", "from_255") if found[k]] == ([began] if began else [])


def test_order_does_not_matter_and_no_flow_is_like_nothing(tmp_path):
    flows = flows_of(tmp_path, [p for port in range(2000, 2008) for p in web(port, port % 5 + 1)])
    turned = take(flows, np.arange(len(flows))[::-1])
    assert np.allclose(site_vector(flows), site_vector(turned))
    assert np.abs(site_vector(flows)).max() <= 3
    assert not site_vector(take(flows, np.zeros(0, np.int64))).any()
    bare = concatenate(list(read_flows(tmp_path / "c.pcap", options=FlowOptions())))
    assert np.isfinite(site_vector(bare)).all()
