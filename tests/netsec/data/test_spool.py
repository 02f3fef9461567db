# SPDX-License-Identifier: Apache-2.0
"""Flows on disk are the flows that were in memory."""

import os
from dataclasses import fields

import numpy as np
import pytest
from labelled_captures import name, web
from make_captures import pcap

from fieldfare.netsec.capture import FlowOptions, read_flows
from fieldfare.netsec.data import dataset, spool
from fieldfare.netsec.data.dataset import load_flows, read_captures
from fieldfare.netsec.data.flow_rows import concatenate, take
from fieldfare.netsec.data.labels import read_labels
from fieldfare.netsec.data.spool import FlowSpool, RowSpool, pieces, spooled


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    path = tmp_path_factory.mktemp("captures") / "c.pcap"
    ports = range(2000, 2020)
    path.write_bytes(
        pcap([*(p for n in ports for p in web(n, 4)), *(p for n in ports for p in name(n))])
    )
    return path


@pytest.fixture(scope="module")
def batches(capture):
    return list(read_flows(capture, options=FlowOptions(keep_packets=5, keep_payload=64), chunk=99))


def same(one, other):
    for a, b in ((one, other), (one.first_packets, other.first_packets)):
        for field in fields(a):
            if field.name != "first_packets":
                mine, theirs = getattr(a, field.name), getattr(b, field.name)
                assert mine.dtype == theirs.dtype, field.name
                np.testing.assert_array_equal(mine, theirs, err_msg=field.name)


def test_batches_are_put_together_as_in_memory(batches, tmp_path):
    whole = concatenate(batches)
    kept = FlowSpool(tmp_path)
    for batch in batches:
        kept.add(batch)
    assert len(kept) == len(whole) == 40
    found = kept.finish()
    same(found, whole)
    assert not os.listdir(tmp_path)  # files without a name: nothing is left, even by a kill
    with pytest.raises(ValueError, match="read-only"):
        found.first_packets.data[0, 0] = 1
    rows = np.array([7, 0, 0, 39])
    same(spooled(found, rows), take(whole, rows))
    same(spooled(found, np.zeros(40, bool)), take(whole, np.zeros(40, bool)))


def test_pieces_are_all_of_it_in_order(batches):
    whole = concatenate(batches)
    assert next(pieces(whole)) is whole
    parts = list(pieces(whole, 7))
    assert [len(part) for part in parts] == [7] * 5 + [5]
    same(concatenate(parts), whole)


def test_nothing_can_be_finished_but_no_rows_can():
    with pytest.raises(ValueError, match="nothing was appended"):
        RowSpool().finish()
    rows = RowSpool()
    rows.append({"a": np.empty((0, 3), np.int32)})
    assert rows.finish()["a"].shape == (0, 3)


def test_many_flows_are_read_in_pieces_to_the_same_end(capture, tmp_path, monkeypatch):
    labels = tmp_path / "labels.csv"
    (tmp_path / "c.pcap").write_bytes(capture.read_bytes())
    labels.write_text("file,class,split\nc.pcap,A,train\n")
    whole = load_flows(read_labels(labels), quiet=True)
    unlabelled = read_captures([capture], quiet=True)
    for module in (spool, dataset):
        monkeypatch.setattr(module, "PIECE", 7)
    cache = tmp_path / "kept"
    first = load_flows(read_labels(labels), cache=cache, quiet=True)
    monkeypatch.setattr(dataset, "read_flows", None)
    for found in (first, load_flows(read_labels(labels), cache=cache, quiet=True)):
        same(found.flows, whole.flows)
        np.testing.assert_array_equal(found.label, whole.label)
        assert found.matched == whole.matched
        same(found.of_split("train").flows, whole.flows)
    assert [path.suffix for path in cache.iterdir()] == [".npz"]
    monkeypatch.undo()
    monkeypatch.setattr(dataset, "PIECE", 7)
    same(read_captures([capture], folder=tmp_path, quiet=True), unlabelled)
