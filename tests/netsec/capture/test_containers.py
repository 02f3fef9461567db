# SPDX-License-Identifier: Apache-2.0
"""pcap and pcapng in all their forms, whole, cut and hostile."""

import gzip
import struct
from pathlib import Path

import pytest
from flow_dicts import flows_of
from make_captures import (
    block,
    enhanced,
    ethernet,
    interface,
    ipv4,
    pcap,
    pcapng,
    section,
    tcp,
)

from fieldfare.common.errors import InputError
from fieldfare.netsec.capture import read_flows

FRAME = ethernet(ipv4(tcp()))
FRAMES = [(1_700_000_000.25 + i, FRAME) for i in range(3)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
def test_pcap_in_both_byte_orders_and_units(order: str, nano: bool) -> None:
    rows, counts = flows_of(pcap(FRAMES, order=order, nano=nano))
    assert (rows[0]["start"], rows[0]["end"]) == (1_700_000_000.25, 1_700_000_002.25)
    assert counts.packets == rows[0]["packets_fwd"] == 3


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_in_both_byte_orders(order: str) -> None:
    rows, _ = flows_of(pcapng(FRAMES, order=order))
    assert (rows[0]["start"], rows[0]["packets_fwd"]) == (1_700_000_000.25, 3)


@pytest.mark.parametrize(
    ("resolution", "ticks"),
    [
        (0, 1000),
        (3, 1000_500),
        (6, 1000_500_000),
        (9, 1000_500_000_000),
        (12, 1000_500_000_000_000),
        (15, 1000_500_000_000_000_000),
        (0x80 | 10, 1000 << 10 | 1 << 9),
        (0x80 | 40, 1000 << 40 | 1 << 39),
        (0x80 | 52, 1000 << 52 | 1 << 51),
    ],
)
@pytest.mark.parametrize("offset", [None, 5, -5])
def test_pcapng_times_in_any_unit(resolution: int, ticks: int, offset: int | None) -> None:
    part = section() + interface(resolution=resolution, offset=offset) + enhanced(ticks, FRAME)
    rows, _ = flows_of(part)
    assert rows[0]["start"] == 1000 + (0.5 if resolution else 0) + (offset or 0)


def test_pcapng_with_sections_interfaces_and_other_blocks() -> None:
    raw = FRAME[14:]
    capture = (
        section()
        + block(0x0BAD, b"whatever")
        + interface(1)
        + interface(101)
        + enhanced(10**6, FRAME)
        + enhanced(2 * 10**6, raw, number=1)
        + section(">")
        + interface(101, order=">")
        + enhanced(3 * 10**6, raw, order=">")
        + block(3, struct.pack(">I", len(raw)) + raw, ">")
        + block(2, struct.pack(">HHIIII", 0, 0, 0, 5 * 10**6, len(raw), len(raw)) + raw, ">")
    )
    rows, counts = flows_of(capture)
    assert (rows[0]["packets_fwd"], rows[0]["end"]) == (5, 5.0)
    assert counts.read.damaged_blocks == 0


@pytest.mark.parametrize(
    "bad",
    [
        enhanced(0, FRAME, number=7),
        block(6, bytes(8)),
        block(6, struct.pack("<IIIII", 0, 0, 0, 4096, 4096) + FRAME),
    ],
)
def test_damaged_blocks_are_left_out_and_counted(bad: bytes) -> None:
    capture = section() + interface() + bad + enhanced(10**6, FRAME)
    rows, counts = flows_of(capture)
    assert (rows[0]["packets_fwd"], counts.read.damaged_blocks) == (1, 1)


@pytest.mark.parametrize(
    "tail",
    [
        struct.pack("<II", 6, 0) + bytes(40),
        struct.pack("<II", 6, 13) + bytes(40),
        struct.pack("<II", 6, 0xFFFFFFFC) + bytes(40),
        struct.pack("<II", 6, 20) + bytes(40),
        struct.pack("<II", 0x0A0D0D0A, 28) + bytes(40),
    ],
)
def test_pcapng_whose_structure_is_lost_gives_what_came_before(tail: bytes) -> None:
    rows, counts = flows_of(pcapng(FRAMES) + tail)
    assert (rows[0]["packets_fwd"], counts.read.broken) == (3, 1)


def test_an_absurd_length_in_pcap_gives_what_came_before() -> None:
    tail = struct.pack("<IIII", 0, 0, 0x7FFFFFFF, 0x7FFFFFFF) + bytes(100)
    rows, counts = flows_of(pcap(FRAMES) + tail)
    assert (rows[0]["packets_fwd"], counts.read.broken) == (3, 1)


@pytest.mark.parametrize("form", [pcap, pcapng])
def test_every_cut_gives_the_packets_before_it(form: object) -> None:
    whole = form(FRAMES)  # type: ignore[operator]
    start = len(form([]))  # type: ignore[operator]
    size = (len(whole) - start) // len(FRAMES)
    for length in range(start, len(whole)):
        _, counts = flows_of(whole[:length])
        assert counts.packets == (length - start) // size
        assert counts.read.cut_short == ((length - start) % size != 0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\xd4\xc3", "neither pcap nor pcapng"),
        (b"PK\x03\x04 and so on", "neither pcap nor pcapng"),
        (pcap([])[:20], "ends within the header"),
        (section()[:16], "section header"),
        (b"\x0a\x0d\x0d\x0a" + bytes(60), "section header"),
    ],
)
def test_what_is_no_capture_is_refused_by_name(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "odd.pcap"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        list(read_flows(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_capture_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        list(read_flows(tmp_path / "none.pcap"))
    with pytest.raises(InputError, match="is a folder"):
        list(read_flows(tmp_path))


@pytest.mark.parametrize("form", [pcap, pcapng])
def test_gzip_and_zstd(tmp_path: Path, form: object) -> None:
    zstandard = pytest.importorskip("zstandard")
    content = form(FRAMES)  # type: ignore[operator]
    expected = flows_of(content)[0]
    for name, packed in (
        ("a.gz", gzip.compress(content)),
        ("two.gz", gzip.compress(content[:50]) + gzip.compress(content[50:])),
        ("a.zst", zstandard.compress(content)),
        ("two.zst", zstandard.compress(content[:50]) + zstandard.compress(content[50:])),
    ):
        (tmp_path / name).write_bytes(packed)
        assert flows_of(tmp_path / name)[0] == expected


def test_a_cut_gzip_gives_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(pcap(FRAMES * 1000), 1)[:-200])
    rows, counts = flows_of(path)
    assert 0 < rows[0]["packets_fwd"] < 3000
    assert counts.read.broken == 1


def test_a_capture_that_expands_without_end_is_refused(tmp_path: Path) -> None:
    from fieldfare.netsec.capture import FlowOptions, FlowStream
    from fieldfare.netsec.capture.sources import open_source

    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(pcap(FRAMES) + bytes(5_000_000)))
    source = open_source(path, max_expanded=1_000_000)
    with pytest.raises(InputError, match="expands to more than"):
        list(FlowStream([source], FlowOptions()))


def test_several_captures_are_one_recording(tmp_path: Path) -> None:
    for index, frame in enumerate(FRAMES):
        (tmp_path / f"{index}.pcap").write_bytes(pcap([frame]))
    (batch,) = read_flows(*sorted(tmp_path.glob("*.pcap")))
    assert batch.packets_fwd.tolist() == [3]
