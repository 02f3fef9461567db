# SPDX-License-Identifier: Apache-2.0
"""net-traffic flows, from captures to tables."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from make_captures import ethernet, ipv4, pcap, udp

from fieldfare.netsec.capture import compiled
from fieldfare.netsec.cli import main
from fieldfare.netsec.data.recordings import told_of_compiling

COLUMNS = ["src_ip", "src_port", "dst_ip", "dst_port", "protocol", "start", "end"]
COLUMNS += [
    "packets_fwd",
    "packets_bwd",
    "bytes_fwd",
    "bytes_bwd",
    "duration",
    "start_ns",
    "end_ns",
]
COLUMNS += ["tcp_flags_fwd", "tcp_flags_bwd", "vlan", "vlan_inner", "end_reason", "flow_id"]
COLUMNS += ["community_id"]


def run(*arguments):
    return CliRunner().invoke(main, ["flows", *map(str, arguments)])


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Three packets of one flow, the second against its direction, and one of another."""
    ask, answer = udp(1000, 53, b"ask"), udp(53, 1000, b"answer")
    frames = [
        (1.0, ethernet(ipv4(ask, 17, "10.0.0.1", "10.0.0.2"))),
        (1.5, ethernet(ipv4(answer, 17, "10.0.0.2", "10.0.0.1"))),
        (2.0, ethernet(ipv4(ask, 17, "10.0.0.1", "10.0.0.2"))),
        (2.5, ethernet(ipv4(ask, 17, "10.0.0.3", "10.0.0.2"))),
    ]
    path = tmp_path / "c.pcap"
    path.write_bytes(pcap(frames))
    return path


def test_all_formats_hold_the_same_flows(tmp_path, capture):
    for ending in ("parquet", "csv", "jsonl"):
        done = run(capture, "-o", tmp_path / f"f.{ending}")
        assert done.exit_code == 0, done.output
    table = pyarrow.parquet.read_table(tmp_path / "f.parquet")
    assert table.column_names == COLUMNS
    rows = table.to_pylist()
    assert rows == [json.loads(line) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    assert rows == pyarrow.csv.read_csv(tmp_path / "f.csv").to_pylist()
    first = next(row for row in rows if row["src_ip"] == "10.0.0.1")
    assert (first["start"], first["end"]) == (1.0, 2.0)
    assert (first["packets_fwd"], first["packets_bwd"]) == (2, 1)
    assert (first["bytes_fwd"], first["bytes_bwd"]) == (2 * (28 + 3), 28 + 6)
    assert len(rows) == 2


def test_directed_flows_have_one_direction(tmp_path, capture):
    done = run(capture, "-o", tmp_path / "f.parquet", "--directed", "--json")
    assert json.loads(done.stdout)["flows"] == 3
    table = pyarrow.parquet.read_table(tmp_path / "f.parquet")
    assert not any(table.column("packets_bwd").to_pylist())


def test_standard_input_gives_the_same_file(tmp_path, capture):
    run(capture, "-o", tmp_path / "a.csv")
    code = "from fieldfare.netsec.cli import main; main()"
    command = [sys.executable, "-c", code, "flows", "-", "-o", str(tmp_path / "b.csv")]
    subprocess.run(command, input=capture.read_bytes(), check=True, capture_output=True)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_following_and_keeps_what_was_seen(tmp_path, capture, ending):
    target = tmp_path / "f.csv"
    code = "from fieldfare.netsec.cli import main; main()"
    command = [sys.executable, "-c", code, "flows", capture, "--follow", "-o", target]
    with subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".*")) and time.monotonic() < deadline:
            time.sleep(0.1)  # until the table has been begun
        time.sleep(1)
        os.kill(process.pid, ending)
        assert process.wait(60) == 0, process.stderr.read()
    assert len(target.read_text().splitlines()) == 3
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"neither this nor that" * 10, "neither pcap nor pcapng"),
    ],
)
def test_bad_captures_are_one_line_and_exit_code_2(tmp_path, content, said):
    capture = tmp_path / "bad.pcap"
    if content is not None:
        capture.write_bytes(content)
    done = run(capture, "-o", tmp_path / "f.csv")
    assert done.exit_code == 2
    assert said in done.stderr
    assert "bad.pcap" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "f.csv").exists()
    assert not list(tmp_path.glob(".*"))


def test_other_formats_and_existing_files_are_refused(tmp_path, capture):
    assert run(capture, "-o", tmp_path / "f.xlsx").exit_code == 2
    (tmp_path / "f.csv").write_text("mine")
    assert run(capture, "-o", tmp_path / "f.csv").exit_code == 2
    assert (tmp_path / "f.csv").read_text() == "mine"
    assert run("-o", tmp_path / "g.csv").exit_code == 2


def test_damaged_packets_are_told(tmp_path, capture):
    content = bytearray(capture.read_bytes())
    content[24 + 16 + 14] = 0x41  # an IPv4 header of 4 bytes
    capture.write_bytes(content)
    done = run(capture, "-o", tmp_path / "f.csv", "--json")
    result = json.loads(done.stdout)
    assert result["damaged"] == 1
    assert result["packets"] == 4


def test_compiling_is_told_once(capsys):
    numba = pytest.importorskip("numba")
    if not compiled.COMPILED:
        pytest.skip("NOT CHECKED: numba is switched off")
    double = numba.njit(lambda x: x + x)
    with told_of_compiling(quiet=False):
        assert double(1) + double(1.5) == 5  # two types, compiled twice
    with told_of_compiling(quiet=False):
        assert double(2) == 4
    with told_of_compiling(quiet=True):
        assert double(1j) == 2j
    printed = capsys.readouterr().err.splitlines()
    assert printed == ["compiling for this processor, once: some 30 seconds"]
