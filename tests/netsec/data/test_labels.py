# SPDX-License-Identifier: Apache-2.0
"""Labels files: what is read, what is refused, which flows a label names."""

import datetime
import zoneinfo

import pytest
from labelled_captures import COLUMNS, ROWS, row, write_folder, write_labels

from fieldfare.common.errors import InputError
from fieldfare.netsec.capture import FlowOptions, read_flows
from fieldfare.netsec.data.flow_rows import concatenate
from fieldfare.netsec.data.labels import Matched, match, read_labels


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path)
    return tmp_path


def refused(folder, rows, columns=COLUMNS) -> str:
    path = write_labels(folder, rows, columns)
    with pytest.raises(InputError) as refusal:
        read_labels(path)
    message = str(refusal.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def test_labels_name_flows_whichever_end_comes_first(folder):
    turned = [(*r[:4], *r[6:], *r[4:6]) for r in ROWS]
    for rows in (ROWS, turned):
        table = read_labels(write_labels(folder, rows))
        assert table.classes == ("NAME", "WEB")
        assert [capture.split for capture in table.captures] == ["train", "test"]
        capture = table.captures[0]
        batch = concatenate(list(read_flows(folder / capture.file)))
        matched = Matched()
        names = dict(zip(batch.src_port.tolist(), match(capture, batch, matched), strict=True))
        assert names == {2001: "WEB", 2002: "WEB", 2003: "NAME", 2009: None}
        assert matched == Matched(flows=3, flows_without_label=1)


def test_what_does_not_match_is_counted_both_ways(folder):
    rows = [
        row("train", "a.pcap", "WEB", 2001),
        row("train", "a.pcap", "WEB", 4000),
        ("train", "a.pcap", "WEB", "TCP", "2600:1901::7a0b::", 1, "10.0.0.2", 80),
    ]
    table = read_labels(write_labels(folder, rows))
    batch = concatenate(list(read_flows(folder / "a.pcap", options=FlowOptions())))
    matched = Matched()
    match(table.captures[0], batch, matched)
    assert matched == Matched(flows=1, flows_without_label=3, labels_without_flow=1, unreadable=1)


def test_a_capture_as_a_whole(folder):
    rows = [("a.pcap", "WEB", "train"), ("b.pcap", "NAME", "test")]
    table = read_labels(write_labels(folder, rows, ("file", "class", "split")))
    batch = concatenate(list(read_flows(folder / "b.pcap")))
    assert match(table.captures[1], batch, Matched()) == ["NAME", "NAME"]


def test_protocols_by_number_and_icmp_of_both_versions(folder):
    rows = [("train", "a.pcap", "X", text, "::1", 0, "::2", 0) for text in ("1", "58", "ICMP")]
    assert len(read_labels(write_labels(folder, rows)).captures[0].flows) == 1


def test_splits_are_kept_apart(folder):
    twice = refused(folder, [*ROWS, row("val", "a.pcap", "WEB", 2002)])
    assert "a.pcap is in the splits train and val" in twice
    shared = refused(folder, [*ROWS, row("test", "b.pcap", "WEB", 2001)])
    assert "5-tuple TCP 10.0.0.2 80 10.0.0.1 2001 is in the splits train and test" in shared
    whole = [("a.pcap", "WEB", "train"), ("a.pcap", "WEB", "val")]
    assert "train and val" in refused(folder, whole, ("file", "class", "split"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"split": "tets"}, "split 'tets'"),
        ({"file": "../a.pcap"}, "relative"),
        ({"file": "missing.pcap"}, "no such capture"),
        ({"class": " "}, "must not be empty"),
        ({"l4": "QUIC"}, "no protocol"),
        ({"l4": "300"}, "no protocol"),
        ({"port_a": "65536"}, "0..65535"),
        ({"port_b": "-1"}, "0..65535"),
        ({"port_b": "²"}, "0..65535"),
    ],
)
def test_values_that_cannot_be_are_refused(folder, change, said):
    bad = dict(zip(COLUMNS, row("train", "a.pcap", "WEB", 5000), strict=True)) | change
    assert said in refused(folder, [*ROWS, tuple(bad.values())])


def test_two_classes_for_one_flow_are_refused(folder):
    other = ("train", "a.pcap", "NAME", *row("train", "a.pcap", "WEB", 2001)[3:])
    assert "has the classes WEB and NAME in a.pcap" in refused(folder, [*ROWS, other])
    whole = [("a.pcap", "WEB", "train"), ("a.pcap", "NAME", "train")]
    assert "classes WEB and NAME" in refused(folder, whole, ("file", "class", "split"))


def test_files_of_another_form_are_refused(folder):
    renamed = ("splitt", *COLUMNS[1:])
    assert "column 'split' is missing" in refused(folder, ROWS, renamed)
    short = [r[:-1] for r in ROWS]
    assert "column 'port_b' is missing" in refused(folder, short, COLUMNS[:-1])
    assert "one field for each column" in refused(folder, [(*ROWS[0], "more")])
    assert "two columns have one name" in refused(folder, [], (*COLUMNS, "file"))
    assert "no usable label" in refused(folder, [])
    path = folder / "labels.csv"
    for content in (b"\xff\xfe\x00", b'split,file,class\n"a', b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"labels\.csv"):
            read_labels(path)
    with pytest.raises(InputError, match="no such file"):
        read_labels(folder / "none.csv")


def test_further_columns_are_for_people(folder):
    rows = [(number, *r, "a note") for number, r in enumerate(ROWS)]
    noted = read_labels(write_labels(folder, rows, ("", *COLUMNS, "comment")))
    assert noted == read_labels(write_labels(folder, ROWS))


def keys_and_times(folder, rows, columns):
    table = read_labels(write_labels(folder, rows, columns))
    batch = concatenate(list(read_flows(folder / table.captures[0].file)))
    matched = Matched()
    names = match(table.captures[0], batch, matched)
    return table, dict(zip(batch.src_port.tolist(), names, strict=True)), matched


def test_times_tell_flows_of_one_tuple_apart(folder):
    batch = concatenate(list(read_flows(folder / "a.pcap")))
    row_of = batch.src_port.tolist().index(2001)
    begun = batch.start[row_of] / 1e9
    rows = [
        (*row("train", "a.pcap", "WEB", 2001), begun, begun + 5),
        (*row("train", "a.pcap", "NAME", 2001), begun + 3600, begun + 3700),
        (*row("train", "a.pcap", "NAME", 2002), "2001-09-09T01:46:40", "2001-09-09T01:46:41Z"),
    ]
    table, names, matched = keys_and_times(folder, rows, (*COLUMNS, "start", "end"))
    assert table.timed
    assert table.classes == ("NAME", "WEB")
    assert (names[2001], names[2002]) == ("WEB", None)
    assert matched.flows == 1
    bad = [(*row("train", "a.pcap", "WEB", 2001), "yesterday", "")]
    assert "start and end" in refused(folder, bad, (*COLUMNS, "start", "end"))


CIC = ("Flow ID", " Source IP", " Source Port", " Destination IP", " Destination Port")
CIC += (" Protocol", " Timestamp", " Flow Duration", " Fwd Header Length", " Fwd Header Length")
CIC += (" Label",)
UNSW = ("srcip", "sport", "dstip", "dsport", "proto", "state", "Stime", "Ltime", "attack_cat")
UNSW += ("Label",)


def test_labels_of_cic_ids(folder):
    def cic(port, label, number=6):
        ends = ("10.0.0.1", port, "10.0.0.2", 80)
        return ("id", *ends, number, "03/07/2017 08:55:58", 4, 1, 1, label)

    rows = [cic(2001, "BENIGN"), cic(2002, "DoS"), ("",) * 11]
    table, names, matched = keys_and_times(folder, rows, CIC)
    assert (names[2001], names[2002], names[2003]) == ("BENIGN", "DoS", None)
    assert [capture.file for capture in table.captures] == ["a.pcap", "b.pcap"]
    assert {capture.split for capture in table.captures} == {"train"}
    assert matched.unreadable == 1  # the empty row
    path = folder / "labels.csv"
    path.write_bytes(path.read_bytes().replace(b"BENIGN", b"Web Attack \x96 XSS", 1))
    assert len(read_labels(path).classes) == 2


def test_times_of_cic_ids_need_a_zone(folder):
    batch = concatenate(list(read_flows(folder / "a.pcap")))
    at = batch.start[batch.src_port.tolist().index(2002)] / 1e9

    def cic(label, begun):
        there = datetime.datetime.fromtimestamp(begun, zoneinfo.ZoneInfo("America/Halifax"))
        ends = ("10.0.0.1", 2002, "10.0.0.2", 80)
        return ("id", *ends, 6, f"{there:%d/%m/%Y %H:%M:%S}", 5_000_000, 1, 1, label)

    path = write_labels(folder, [cic("DoS", at + 7200), cic("BENIGN", at)], CIC)
    with pytest.raises(InputError, match=r"line 3: .* classes DoS and BENIGN.*--label-timezone"):
        read_labels(path)
    for zone, expected in (("America/Halifax", "BENIGN"), ("UTC", None)):
        table = read_labels(path, timezone=zone)
        names = match(table.captures[0], batch, Matched())
        assert names[batch.src_port.tolist().index(2002)] == expected
    with pytest.raises(InputError, match="no time zone is named 'Halifax'"):
        read_labels(path, timezone="Halifax")


def test_labels_of_unsw(folder):
    batch = concatenate(list(read_flows(folder / "a.pcap")))
    begun = int(batch.start.min() / 1e9)
    rows = [
        ("10.0.0.1", 2001, "10.0.0.2", 80, "tcp", "FIN", begun, begun + 9, "Exploits", 1),
        ("10.0.0.1", 2002, "10.0.0.2", 80, "tcp", "FIN", begun, begun + 9, "", 0),
        ("10.0.0.1", 2002, "10.0.0.2", 80, "tcp", "FIN", begun + 999, begun + 1000, "DoS", 1),
        ("10.0.0.1", "-", "10.0.0.2", "-", "arp", "INT", begun, begun, "", 0),
    ]
    _, names, matched = keys_and_times(folder, rows, UNSW)
    assert (names[2001], names[2002]) == ("Exploits", "Normal")
    assert matched.unreadable == 1


def test_the_labels_of_the_corpus(data):
    table = read_labels(data / "pcaps" / "labels.csv")
    assert len(table.classes) == 20
    assert len(table.captures) == 570
    assert sum(capture.unreadable for capture in table.captures) == 2
