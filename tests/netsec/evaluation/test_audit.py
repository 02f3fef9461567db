# SPDX-License-Identifier: Apache-2.0
"""The shortcut audit hides what it says, and nothing else; a cheat is found out."""

import numpy as np
import pytest
from labelled_captures import write_folder
from make_captures import ethernet, ipv4, pcap, tcp

from fieldfare.netsec.capture import FlowOptions, read_flows
from fieldfare.netsec.data.dataset import load_flows
from fieldfare.netsec.data.flow_rows import concatenate, take
from fieldfare.netsec.data.labels import read_labels
from fieldfare.netsec.evaluation.audit import FIELDS, LOOKUP, MASKS, audit, audit_rows, mask
from fieldfare.netsec.evaluation.baselines import PortLookup
from fieldfare.netsec.evaluation.early import first_packets_curve

# Places in an IPv4 header of 20 bytes with TCP behind it, and in IPv6 with UDP.
TCP4 = {
    "ports": range(20, 24),
    "ttl": [8],
    "addresses": range(12, 20),
    "numbers": [4, 5, *range(24, 32)],
    "checksums": [10, 11, 36, 37],
}
UDP6 = {
    "ports": range(40, 44),
    "ttl": [7],
    "addresses": range(8, 40),
    "numbers": [2, 3],
    "checksums": [46, 47],
}


@pytest.fixture
def labelled(tmp_path):
    return load_flows(read_labels(write_folder(tmp_path)), quiet=True)


@pytest.mark.parametrize("field", FIELDS)
def test_a_mask_hides_its_bytes_and_no_others(labelled, field):
    for row, places in ((0, TCP4), (2, UDP6)):
        flows = take(labelled.flows, np.array([row]))
        data = flows.first_packets.data
        data[:, 1:] |= 1  # so that every byte could change
        before = data.copy()
        hidden = mask(flows, [field]).first_packets.data
        np.testing.assert_array_equal(data, before)
        wanted = before.copy()
        wanted[:, list(places[field])] = 0
        np.testing.assert_array_equal(hidden, wanted)


def test_columns_are_hidden_too(labelled):
    flows = mask(labelled.flows, FIELDS)
    for name in ("src_port", "dst_port", "src_ip", "dst_ip"):
        assert not getattr(flows, name).any()
    for name in ("protocol", "family", "packets_fwd", "bytes_bwd", "start"):
        np.testing.assert_array_equal(getattr(flows, name), getattr(labelled.flows, name))
    with pytest.raises(ValueError, match="'colour'"):
        mask(labelled.flows, ["colour"])


def test_ip_options_move_the_ports_and_short_headers_keep_their_payload(tmp_path):
    body = tcp(1000, 80, payload=b"\xff" * 8)
    packet = ethernet(ipv4(body, options=b"\x01" * 8))
    (tmp_path / "x.pcap").write_bytes(pcap([(0.0, packet)]))

    def hidden(**kept):
        options = FlowOptions(keep_packets=1, **kept)
        flows = concatenate(list(read_flows(tmp_path / "x.pcap", options=options)))
        return mask(flows, FIELDS).first_packets.data[0]

    whole = hidden(keep_header=60, keep_payload=8)
    assert not whole[28:32].any()
    assert whole[20:28].tolist() == [1] * 8
    assert whole[48:56].tolist() == [0xFF] * 8
    # Headers cut inside the ports: the payload lies where the rest of TCP would.
    short = hidden(keep_header=30, keep_payload=8)
    assert short[28:38].tolist() == [0, 0, *[0xFF] * 8]
    assert hidden(keep_header=0, keep_payload=8).tolist() == [0xFF] * 8


def test_a_classifier_that_reads_ports_or_ttl_is_found_out(labelled):
    def by_port(flows):
        return np.eye(2)[(flows.first_packets.data[:, 23] == 80).astype(int)][first(flows)]

    def by_size(flows):
        return np.eye(2)[(flows.protocol == 6).astype(int)]

    def first(flows):
        return np.searchsorted(flows.first_packets.flow, np.arange(len(flows)))

    lookup = PortLookup(2).fit(labelled.flows, labelled.label)
    found = audit(by_port, labelled.flows, labelled.label, labelled.classes, lookup)
    assert list(found) == [*MASKS, LOOKUP]
    assert {name for name, scores in found.items() if scores.macro_f1 < 1} == {"ports", "all"}
    honest = audit(by_size, labelled.flows, labelled.label, labelled.classes)
    assert {scores.macro_f1 for scores in honest.values()} == {1}
    rows = audit_rows(found)
    assert [row["hidden"] for row in rows] == [*MASKS, "(baseline) port lookup"]
    assert rows[-1]["change"] is None
    assert rows[1]["change"] == found["ports"].macro_f1 - 1


def test_flows_without_kept_packets_can_be_masked(labelled):
    bare = take(labelled.flows, np.array([], int))
    assert len(mask(bare, FIELDS)) == 0


def test_the_curve_shows_k_packets_and_how_long_they_take(labelled):
    def by_count(flows):
        """The first flow is known by its third packet."""
        counts = np.bincount(flows.first_packets.flow, minlength=len(flows))
        return np.eye(2)[(counts > 2).astype(int)]

    flows = take(labelled.flows, np.array([0, 2]))
    label = np.array([1, 0])
    rows = first_packets_curve(by_count, flows, label, ("A", "B"), (1, 3, 72))
    assert [row["packets"] for row in rows] == [1, 3, 72]
    assert [row["accuracy"] for row in rows] == [0.5, 1, 1]
    assert [row["wait_median"] for row in rows] == pytest.approx([0, 0.1, 0.35], abs=1e-6)
    assert rows[2]["wait_90"] == pytest.approx(0.63, abs=1e-6)
