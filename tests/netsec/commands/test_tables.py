# SPDX-License-Identifier: Apache-2.0
"""One recording to one table, or each of many captures to its own in a folder."""

import gzip
import json
import os
from pathlib import Path

import pyarrow.parquet
import pytest
from click.testing import CliRunner
from labelled_captures import name, web
from make_captures import ethernet, pcap

from fieldfare.netsec.capture.container import first_record
from fieldfare.netsec.capture.sources import open_source
from fieldfare.netsec.cli import main


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def captures(tmp_path) -> list[Path]:
    """Of two flows, of one and, compressed, of one; in a row they are one recording of three."""
    (tmp_path / "in").mkdir()
    paths = [tmp_path / "in" / name for name in ("a.pcap", "b.pcapng", "c.pcap.gz")]
    paths[0].write_bytes(pcap([*web(2001), *name(2003)]))
    paths[1].write_bytes(pcap(web(2001, 4)))
    paths[2].write_bytes(gzip.compress(pcap(name(2005))))
    return paths


def flows_in(path: Path) -> int:
    return pyarrow.parquet.read_table(path).num_rows


def test_several_captures_to_a_table_are_one_recording(captures, tmp_path):
    done = run("flows", *captures, "-o", tmp_path / "f.parquet", "--json", "--workers", 2)
    assert json.loads(done.stdout)["flows"] == flows_in(tmp_path / "f.parquet") == 3


def test_several_captures_to_a_folder_are_recordings_of_their_own(captures, tmp_path):
    folder = tmp_path / "out"
    done = run("flows", *captures, "-o", folder, "--json", "--quiet", "--workers", 2)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["done"] == 3
    assert done.stderr == ""
    assert {path.name: flows_in(path) for path in folder.glob("*.parquet")} == {
        "a.parquet": 2, "b.parquet": 1, "c.parquet": 1,
    }  # fmt: skip
    alone = tmp_path / "alone.parquet"
    run("flows", captures[0], "-o", alone)
    assert alone.read_bytes() == (folder / "a.parquet").read_bytes()
    again = json.loads(run("flows", *captures, "-o", folder, "--json", "--quiet").stdout)
    assert (again["done"], again["skipped"]) == (0, 3)
    changed = run("flows", *captures, "-o", folder, "--directed")
    assert changed.exit_code == 2
    assert "other settings (directed)" in changed.stderr
    entry = json.loads((folder / "manifest.jsonl").read_text().splitlines()[-2])
    assert entry["numbers"]["packets"] > 0


def test_infer_writes_to_a_folder_what_it_writes_one_by_one(captures, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "in" / "d.pcap").write_bytes(b"no capture at all")
    given = [*captures[:2], tmp_path / "in" / "d.pcap", tmp_path / "in" / "none.pcap"]
    done = run("infer", *given, "-o", folder, "--format", "csv", "--quiet", "--json")
    assert done.exit_code == 3, done.output
    told = json.loads(done.stdout)
    assert (told["done"], told["failed"]) == (2, 2)
    assert "failed: d: " in done.stderr
    assert "neither pcap nor pcapng" in done.stderr
    assert "none.pcap: No such file" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["a.csv", "b.csv", "manifest.jsonl"]
    alone = tmp_path / "alone.csv"
    assert run("infer", captures[0], "-o", alone, "--quiet").exit_code == 0
    assert alone.read_bytes() == (folder / "a.csv").read_bytes()


@pytest.mark.parametrize("verb", ["infer", "flows"])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_tells_what_is_there_and_writes_nothing(verb, as_json, captures, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    more = ["--dry-run", *["--json"] * as_json]
    one = run(verb, *captures, "-o", tmp_path / "f.csv", *more)
    each = run(verb, *captures, tmp_path / "none.cap", "-o", tmp_path / "out", *more)
    assert one.exit_code == each.exit_code == 0, one.output + each.output
    assert sorted(tmp_path.rglob("*")) == before
    if not as_json:
        assert "captures: 3\n" in one.stdout
        assert "link: Ethernet\n" in one.stdout
        assert each.stdout.count("to do\n") == 3
        return
    plan = json.loads(one.stdout)
    size = sum(path.stat().st_size for path in captures)
    assert (plan["captures"], plan["megabytes"]) == (3, round(size / 1e6, 3))
    assert plan["link"] == "Ethernet"
    assert plan.get("model") == ("traffic_pair" if verb == "infer" else None)
    rows = json.loads(each.stdout)["inputs"]
    assert [row["input"] for row in rows] == ["a", "b", "c", "none"]
    assert [row["state"] for row in rows] == ["to do"] * 3 + ["missing"]


def test_a_dry_run_waits_for_no_packet_and_minds_no_table(captures, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "f.csv").touch()
    done = run("flows", tmp_path / "pipe", "-o", tmp_path / "f.csv", "--dry-run")
    assert done.exit_code == 0, done.output
    assert f"reads: {tmp_path / 'pipe'}\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "{t}"], "give captures or --interface"),
        (["-o", "{t}", "--interface", "lo"], "--interface: takes a single recording"),
        (["{a}", "-o", "{t}", "--follow"], "--follow: takes a single recording"),
        (["-", "-o", "{t}"], "-: takes a single recording"),
        (["{a}", "{t}/pipe", "-o", "{t}/out"], "pipe: takes a single recording"),
        (["{a}", "{a}", "-o", "{t}/out"], "two captures are named a"),
        (["{a}", "{a}", "-o", "{t}/out.xlsx"], "out.xlsx: name it"),
        (["{a}", "-o", "{t}/out"], "or a folder that exists"),
        (["{a}", "-o", "{a}"], "a.pcap: name it"),
        (["{a}", "{a}", "-o", "-", "--json"], "leave --json out"),
    ],
)
def test_what_fits_no_table_or_no_folder_is_refused(arguments, said, captures, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.rglob("*"))
    for verb in ("flows", "infer"):
        done = run(verb, *(text.format(a=captures[0], t=tmp_path) for text in arguments))
        assert done.exit_code == 2, done.output
        assert said in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_infer_has_more_that_takes_a_single_recording_or_another_format(captures, tmp_path):
    done = run("infer", *captures, "-o", tmp_path / "out", "--report", tmp_path / "r.html")
    assert done.exit_code == 2
    assert "--report: takes a single recording" in done.stderr
    done = run("infer", *captures, "-o", tmp_path / "out", "--format", "csv", "--embeddings")
    assert done.exit_code == 2
    assert "cannot hold embeddings" in done.stderr
    table = tmp_path / "f.csv"
    done = run("infer", captures[0], "-o", table, "--report", table)
    assert done.exit_code == 2
    assert "--output and --report are one file" in done.stderr


def test_the_first_packet_tells_the_link(captures, tmp_path):
    assert [first_record(open_source(path)).link for path in captures] == [1, 1, 1]
    empty, raw = tmp_path / "empty.pcap", tmp_path / "raw.pcap"
    empty.write_bytes(pcap([]))
    assert first_record(open_source(empty)) is None
    content = bytearray(pcap([(1.0, ethernet(b"\0" * 50))]))
    content[20:24] = (105).to_bytes(4, "little")  # IEEE 802.11
    raw.write_bytes(content)
    assert first_record(open_source(raw)).link == 105
    told = run("flows", raw, captures[0], "-o", tmp_path / "f.csv", "--dry-run").stdout
    assert "link: IEEE 802.11, Ethernet\n" in told
