# SPDX-License-Identifier: Apache-2.0
"""Labelled flows: read once, kept, picked."""

import dataclasses
from dataclasses import fields

import numpy as np
import pytest
from labelled_captures import row, write_folder, write_labels
from make_captures import ethernet, ipv4, pcap, udp

from fieldfare.common.errors import InputError
from fieldfare.netsec.capture import FlowOptions
from fieldfare.netsec.data import dataset
from fieldfare.netsec.data.dataset import (
    class_weights,
    few_shot,
    load_flows,
    read_captures,
    training_options,
)
from fieldfare.netsec.data.flow_rows import concatenate, first_packets_only, packet_number, take
from fieldfare.netsec.data.labels import read_labels


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path)
    return tmp_path


def load(folder, **more):
    return load_flows(read_labels(folder / "labels.csv"), quiet=True, **more)


def same(one, other) -> bool:
    mine, theirs = one.first_packets, other.first_packets
    return all(
        np.array_equal(getattr(a, field.name), getattr(b, field.name))
        for a, b in ((one, other), (mine, theirs))
        for field in fields(a)
        if field.name != "first_packets"
    )


def test_flows_come_with_class_split_capture_and_packets(folder):
    found = load(folder)
    assert found.classes == ("NAME", "WEB")
    assert found.flows.src_port.tolist() == [2001, 2002, 2003, 3001, 3002]
    assert found.label.tolist() == [1, 1, 0, 1, 0]
    assert [found.captures[i] for i in found.capture] == ["a.pcap"] * 3 + ["b.pcap"] * 2
    assert np.bincount(found.flows.first_packets.flow).tolist() == [8, 2, 1, 2, 1]
    assert found.of_split("test").flows.src_port.tolist() == [3001, 3002]
    assert found.of_split("train").support().tolist() == [1, 2]
    assert found.matched.flows_without_label == 1
    with pytest.raises(InputError, match="no flows in the split 'val'"):
        found.of_split("val")
    with pytest.raises(InputError, match="choose one of"):
        found.of_split("tset")


def test_the_kept_file_gives_the_same_and_is_read_instead_of_captures(folder, monkeypatch):
    cache = folder / "kept"
    first = load(folder, cache=cache)
    monkeypatch.setattr(dataset, "read_flows", None)
    again = load(folder, cache=cache)
    assert same(first.flows, again.flows)
    for name in ("label", "capture", "split"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (again.classes, again.captures, again.matched) == (
        first.classes,
        first.captures,
        first.matched,
    )


def test_a_change_or_damage_is_noticed(folder):
    cache = folder / "kept"
    load(folder, cache=cache)
    load(folder, cache=cache, options=FlowOptions(keep_packets=1))
    capture = folder / "b.pcap"
    capture.write_bytes(capture.read_bytes()[:-70])
    assert len(load(folder, cache=cache)) == 4  # the last packet's flow is gone
    kept = sorted(cache.iterdir())
    assert len(kept) == 3
    for path in kept:
        path.write_bytes(path.read_bytes()[:100])
    assert len(load(folder, cache=cache)) == 4


def test_flows_of_another_split_are_left_out_of_captures_labelled_as_a_whole(folder):
    (folder / "b.pcap").write_bytes((folder / "a.pcap").read_bytes())
    rows = [("b.pcap", "WEB", "test"), ("a.pcap", "NAME", "train")]
    write_labels(folder, rows, ("file", "class", "split"))
    found = load(folder, options=FlowOptions())
    assert found.matched.in_earlier_split == found.matched.flows == len(found) == 4
    assert found.of_split("train").support().tolist() == [4, 0]


def test_pre_training_reads_all_flows_of_a_split(folder):
    (folder / "empty.pcap").write_bytes(pcap([]))
    paths = [folder / "empty.pcap", *read_labels(folder / "labels.csv").paths("train")]
    flows = read_captures(paths, quiet=True)
    assert flows.src_port.tolist() == [2001, 2002, 2003, 2009]
    with pytest.raises(InputError, match="no flow in 1 captures"):
        read_captures(paths[:1], quiet=True)


def test_a_folder_without_any_match_is_refused(folder):
    write_labels(folder, [row("train", "a.pcap", "WEB", 9)])
    with pytest.raises(InputError, match="none of its labels"):
        load(folder)


def test_rows_are_taken_with_their_packets(folder):
    flows = load(folder).flows
    rows = np.array([4, 0, 0, 2])
    some = take(flows, rows)
    assert some.src_port.tolist() == flows.src_port[rows].tolist()
    assert np.bincount(some.first_packets.flow).tolist() == [1, 8, 8, 1]
    for place, row_ in enumerate(rows):
        np.testing.assert_array_equal(
            some.first_packets.data[some.first_packets.flow == place],
            flows.first_packets.data[flows.first_packets.flow == row_],
        )
    assert len(take(flows, np.zeros(len(flows), bool))) == 0
    parts = [take(flows, np.array([i])) for i in range(len(flows))]
    assert same(concatenate(parts), flows)


def test_first_packets_are_numbered_in_their_flow(folder):
    flows = load(folder).flows
    assert packet_number(flows).tolist() == [*range(8), 0, 1, 0, 0, 1, 0]
    assert np.bincount(first_packets_only(flows, 2).first_packets.flow).tolist() == [2, 2, 1, 2, 1]
    assert same(first_packets_only(flows, 99), flows)


def test_few_flows_of_each_class():
    label = np.repeat([0, 1, 3], [100, 3, 40])
    rows = few_shot(label, 5, seed=1)
    assert np.bincount(label[rows]).tolist() == [5, 3, 0, 5]
    assert len(set(rows.tolist())) == len(rows)
    assert rows.tolist() == few_shot(label, 5, seed=1).tolist()
    assert rows.tolist() != few_shot(label, 5, seed=2).tolist()
    # A further class changes nothing in the draw of the others.
    assert few_shot(np.append(label, [7] * 9), 5, seed=1)[: len(rows)].tolist() == rows.tolist()


def test_weights_balance_the_classes():
    label = np.repeat([0, 1, 3], [100, 4, 40])
    weights = class_weights(label, 5)
    support = np.bincount(label, minlength=5)
    np.testing.assert_allclose((weights * support)[[0, 1, 3]], 48)
    assert weights[[2, 4]].tolist() == [0, 0]
    np.testing.assert_allclose(class_weights(label, 5, power=0)[[0, 1, 3]], 1)
    assert weights[label].mean() == pytest.approx(1)
    assert class_weights(label, 5, power=0.5)[label].mean() == pytest.approx(1)


def test_the_corpus_matches_its_labels(data):
    found = load_flows(read_labels(data / "pcaps" / "labels.csv"), quiet=True)
    assert found.matched.flows == len(found) == 2795
    assert found.matched.labels_without_flow == 0  # also of those inside GTP tunnels
    assert found.matched.unreadable == 2
    assert [len(found.of_split(split)) for split in ("train", "val", "test")] == [1876, 397, 522]


def test_flows_that_are_cut_for_memory_are_told(folder, monkeypatch, capsys):
    kept = {"keep_packets": 5, "keep_header": 80, "keep_payload": 240}
    options = training_options(kept)
    assert options.kept_width * options.keep_packets < 2_000
    assert training_options(kept, trees=True).keep_header == 128
    frames = [
        (1.0 + turn + n / 1e4, ethernet(ipv4(udp(1000 + n, 53, b"x"), 17)))
        for turn in range(3)
        for n in range(300)
    ]
    path = folder / "many.pcap"
    path.write_bytes(pcap(frames))
    assert len(read_captures([path], options=options, quiet=True)) == 300
    assert "cut" not in capsys.readouterr().err
    tight = dataclasses.replace(options, max_kept_mb=0.2)
    assert len(read_captures([path], options=tight, quiet=True)) > 300
    assert "flows were cut" in capsys.readouterr().err


def test_captures_that_are_none_do_not_lose_the_others(folder, capsys):
    (folder / "new.pcap").touch()
    flows = read_captures([folder / "new.pcap", folder / "a.pcap"], quiet=True)
    assert len(flows) == 4
    assert "new.pcap: is empty" in capsys.readouterr().err
