# SPDX-License-Identifier: Apache-2.0
"""Folders, ring buffers, outputs and labels as people have them, through the commands."""

import json
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from make_captures import ethernet, ipv4, pcap, tcp, udp
from sessions import BEGAN, SESSION, row_of, session

from fieldfare.netsec.cli import main

CASES = Path(__file__).parents[1] / "cases"


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def ring(tmp_path) -> Path:
    """Files of a ring buffer, their names not in the order of their times; one is empty yet."""
    folder = tmp_path / "ring"
    folder.mkdir()
    frames = session()
    (folder / "cap1.pcap").write_bytes(pcap(frames[:5]))
    (folder / "cap.pcap2").write_bytes(pcap(frames[5:9]))
    (folder / "cap0.pcap").write_bytes(pcap(frames[9:])[:-3])
    (folder / "cap3.pcap").touch()
    (folder / "notes.txt").write_text("no capture")
    return folder


def test_a_folder_is_one_recording_in_the_order_of_its_packets(ring, tmp_path):
    target = tmp_path / "f.parquet"
    done = run("flows", ring, "-o", target)
    assert done.exit_code == 0, done.output
    assert f"left out: {ring / 'cap3.pcap'}: is empty" in done.stderr
    (row,) = pyarrow.parquet.read_table(target).to_pylist()
    assert row_of(row) == (*SESSION[:5], 7, 6, 680, 1040)  # the last packet is still being written
    listed = run("flows", *sorted(ring.glob("cap*")), "-o", tmp_path / "g.parquet")
    assert listed.exit_code == 0
    assert "left out" in listed.stderr


def test_files_none_of_which_is_a_capture_are_refused(ring, tmp_path):
    done = run("flows", ring / "cap3.pcap", ring / "notes.txt", "-o", tmp_path / "f.csv")
    assert done.exit_code == 2
    assert "none of these files" in done.stderr
    assert not (tmp_path / "f.csv").exists()


def test_a_link_that_nobody_reads_is_named_with_its_packets(tmp_path):
    capture = tmp_path / "usb.pcap"
    capture.write_bytes(pcap([(1.0, bytes(64))] * 3, 220))
    done = run("flows", capture, "-o", tmp_path / "f.csv")
    assert done.exit_code == 2
    assert "none of 3 packets" in done.stderr
    assert "link type 220 (USB of Linux, padded): 3 packets" in done.stderr
    assert not (tmp_path / "f.csv").exists()


def test_reports_and_outputs_are_no_inputs(tmp_path):
    capture = tmp_path / "c.pcap"
    capture.write_bytes(pcap(session()))
    before = capture.read_bytes()
    for report, said in ((capture, "is an input"), (tmp_path / "r.csv", "name it *.html")):
        done = run("infer", capture, "-o", tmp_path / "f.csv", "--report", report, "--overwrite")
        assert done.exit_code == 2
        assert said in done.stderr
    assert capture.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.pcap"]


def test_no_application_is_named_where_none_spoke(tmp_path):
    scan = [(BEGAN + n / 1e3, ethernet(ipv4(tcp(5, 1 + n, 2), 6))) for n in range(50)]
    refused = (BEGAN + 1, ethernet(ipv4(tcp(1, 5, 20), 6, "10.0.0.2", "10.0.0.1")))
    esp = (BEGAN + 2, ethernet(ipv4(bytes(80), 50)))
    empty = (BEGAN + 3, ethernet(ipv4(udp(), 17)))
    capture = tmp_path / "c.pcap"
    capture.write_bytes(pcap([*scan, refused, esp, empty]))
    for source in (CASES / "ospf.pcap", capture):
        target = tmp_path / f"{source.stem}.csv"
        assert run("infer", source, "-o", target, "--quiet").exit_code == 0
        rows = pyarrow.csv.read_csv(target).to_pylist()
        assert {(row["label"], row["probability"]) for row in rows} == {("unknown", 0)}
    done = run("infer", capture, "-o", tmp_path / "f.jsonl", "--embeddings", "--quiet")
    assert done.exit_code == 0
    rows = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    assert {row["label"] for row in rows} == {"unknown"}
    assert {len(row["embedding"]) > 0 for row in rows} == {True}


def test_filters_and_vlans_by_option(tmp_path):
    capture = tmp_path / "c.pcap"
    capture.write_bytes(pcap([*session(), (BEGAN + 1, ethernet(ipv4(udp(), 17)))]))
    done = run("flows", capture, "-o", tmp_path / "f.csv", "--filter", "udp port 53", "--json")
    assert json.loads(done.stdout)["filtered"] == 14
    done = run("flows", capture, "-o", tmp_path / "g.csv", "--filter", "port what", "--vlan-key")
    assert done.exit_code == 2
    assert "--filter 'port what': 'what' is no port" in done.stderr


def test_statistics_and_sizes_by_option(tmp_path):
    capture = tmp_path / "c.pcap"
    capture.write_bytes(pcap(session()))
    for verb in ("flows", "infer"):
        target = tmp_path / f"{verb}.parquet"
        done = run(verb, capture, "-o", target, "--statistics", "--packet-sizes", 12, "--quiet")
        assert done.exit_code == 0, done.output
        (row,) = pyarrow.parquet.read_table(target).to_pylist()
        assert row["sizes"] == [40, -40, 40, *[140, -240] * 4, 40]
        assert (row["size_max_bwd"], row["size_min_fwd"]) == (240, 40)
    done = run("flows", capture, "-o", tmp_path / "f.csv", "--packet-sizes", 3)
    assert done.exit_code == 2
    assert "cannot hold --packet-sizes" in done.stderr
