# SPDX-License-Identifier: Apache-2.0
"""The same flows from a file, a pipe, a growing file, an interface, and without numba."""

import io
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flow_dicts import flows_of
from make_captures import ethernet, ipv4, pcap, pcapng, tcp, udp

from fieldfare.common.errors import InputError
from fieldfare.netsec.capture import (
    FlowOptions,
    FlowStream,
    flows,
    links,
    read_flows,
    scan,
    to_table,
)
from fieldfare.netsec.capture.container import Packets
from fieldfare.netsec.capture.flow_state import END_REASONS
from fieldfare.netsec.capture.live import InterfaceSource
from fieldfare.netsec.capture.sources import StreamSource, open_source


def mixed_frames(count: int = 600) -> list[tuple[float, bytes]]:
    """Many flows with gaps, ends, fragments and damage."""
    generator = np.random.default_rng(5)
    now, frames = 1e9, []
    for _ in range(count):
        now += float(generator.exponential(4))
        port, size = int(generator.integers(1, 30)), int(generator.integers(0, 300))
        kind = int(generator.integers(0, 12))
        ends = [f"10.0.0.{end}" for end in generator.integers(1, 4, 2)]
        if kind < 6:
            flags = int(generator.choice([16, 2, 1, 4, 17]))
            body = ipv4(tcp(port, 80, flags, bytes(size)), 6, *ends)
        elif kind < 10:
            body = ipv4(udp(port, 53, bytes(size)), 17, *ends, fragment=0x2000 * (kind == 9))
        elif kind == 10:
            body = ipv4(bytes(size), 17, *ends, fragment=3)
        else:
            body = ipv4(tcp(port), 6, *ends)[: size % 40]
        frames.append((round(now, 6), ethernet(body)))
    return frames


FRAMES = mixed_frames()
OPTIONS = {"idle_timeout": 60, "active_timeout": 600, "keep_packets": 3, "max_flows": 15}


def test_an_early_flow_is_the_beginning_of_the_whole_one() -> None:
    options = OPTIONS | {"max_flows": 1000}
    whole, _ = flows_of(pcap(FRAMES), **options)
    early, counts = flows_of(pcap(FRAMES), **options, early_packets=2)
    assert counts.packets_without_bytes == counts.evicted == 0
    assert [row["id"] for row in early] != [row["id"] for row in whole]
    whole.sort(key=itemgetter("id"))
    early.sort(key=itemgetter("id"))
    assert [row["id"] for row in early] == [row["id"] for row in whole]
    cut = 0
    for row, full in zip(early, whole, strict=True):
        if full["packets_fwd"] + full["packets_bwd"] < 2:
            assert row == full
            continue
        cut += 1
        assert row["reason"] == "early"
        assert row["packets_fwd"] + row["packets_bwd"] == 2
        assert row["kept"] == full["kept"][:2]
        assert full["data"].startswith(row["data"])
        assert {name: row[name] for name in ("src_ip", "src_port", "dst_ip", "start")} == {
            name: full[name] for name in ("src_ip", "src_port", "dst_ip", "start")
        }
    assert 10 < cut < len(whole)


@pytest.mark.parametrize("form", [pcap, pcapng])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1000, 4096])
def test_flows_do_not_depend_on_the_chunk_size(form: Any, chunk: int) -> None:
    capture = form(FRAMES)
    rows, counts = flows_of(capture, **OPTIONS)
    assert counts.evicted > 0
    again, same = flows_of(capture, chunk=chunk, **OPTIONS)
    assert again == rows
    assert same == counts


def test_a_pipe_gives_the_flows_of_the_file() -> None:
    capture = pcap(FRAMES)
    read, write = os.pipe()

    def feed() -> None:
        with os.fdopen(write, "wb", buffering=0) as pipe:
            for start in range(0, len(capture), 777):
                pipe.write(capture[start : start + 777])

    feeder = threading.Thread(target=feed)
    feeder.start()
    source = StreamSource(os.fdopen(read, "rb", buffering=0), "pipe")
    rows = rows_of(FlowStream([source], FlowOptions()))
    feeder.join()
    file = StreamSource(io.BytesIO(capture), "capture")
    assert rows == rows_of(FlowStream([file], FlowOptions()))


def test_a_quiet_pipe_gives_the_flows_that_have_ended() -> None:
    read, write = os.pipe()
    os.write(write, pcap([(0.0, ethernet(ipv4(tcp(7))))]))
    source = StreamSource(os.fdopen(read, "rb", buffering=0), "pipe")
    batch = next(iter(FlowStream([source], FlowOptions(early_packets=1))))
    assert batch.src_port.tolist() == [7]  # though the pipe is still open
    source.close()
    os.close(write)


def rows_of(stream: FlowStream) -> list[dict[str, Any]]:
    return [row for batch in stream for row in to_table(batch).to_pylist()]


def test_a_growing_file_gives_flows_as_they_end(tmp_path: Path) -> None:
    path = tmp_path / "growing.pcap"
    capture = pcap([(0.0, ethernet(ipv4(tcp(1)))), (200.0, ethernet(ipv4(tcp(2))))])
    path.write_bytes(capture[:-30])
    batches = iter(read_flows(path, options=FlowOptions(idle_timeout=100), follow=True))

    def grow() -> None:
        time.sleep(0.5)
        with open(path, "ab") as file:
            file.write(capture[-30:])

    grower = threading.Thread(target=grow)
    grower.start()
    first = next(batches)
    grower.join()
    assert first.src_port.tolist() == [1]


def test_a_quiet_file_ends_no_flow_of_which_it_may_hold_packets_back(tmp_path: Path) -> None:
    """Live as offline: what writes the file may be slow, so only its packets tell the time."""
    path = tmp_path / "slow.pcap"
    capture = pcap([(0.0, ethernet(ipv4(tcp(1)))), (0.1, ethernet(ipv4(tcp(1))))])
    path.write_bytes(capture[:-70])
    source = open_source(path, follow=True)

    def grow() -> None:
        time.sleep(0.6)
        with open(path, "ab") as file:
            file.write(capture[-70:])
        time.sleep(0.4)
        source.stop()

    grower = threading.Thread(target=grow)
    grower.start()
    (batch,) = FlowStream([source], FlowOptions(idle_timeout=0.2))
    grower.join()
    assert batch.packets_fwd.tolist() == [2]


class Replay:
    """An interface that replays frames a few at a time, unless busy with pauses in between."""

    name = "replay"
    lost = 0

    def __init__(
        self, frames: list[tuple[float, bytes]], quiet: int = 0, busy: bool = False
    ) -> None:
        self.frames = frames
        self.quiet = quiet
        self.busy = busy

    def __iter__(self) -> Iterator[Packets]:
        for start in range(0, len(self.frames), 5):
            some = self.frames[start : start + 5]
            content = b"".join(frame for _, frame in some)
            records, at = np.zeros((5, scan.RECORD_FIELDS), np.int64), 0
            for row, (when, frame) in enumerate(some):
                # Whole microseconds, as in the file that it is compared with.
                nanoseconds = round(when * 1e6) * 1000
                records[row] = (at, len(frame), len(frame), nanoseconds, links.ETHERNET, 0)
                at += len(frame)
            yield Packets(np.frombuffer(bytearray(content or b"\0"), np.uint8), records, len(some))
            if not self.busy:
                yield Packets(np.zeros(1, np.uint8), records, 0)
        for _ in range(self.quiet):
            time.sleep(0.1)
            yield Packets(np.zeros(1, np.uint8), records, 0)


def test_live_and_offline_give_the_same_flows() -> None:
    for options in ({}, OPTIONS):
        live = FlowStream([Replay(FRAMES)], FlowOptions(**options))
        source = StreamSource(io.BytesIO(pcap(FRAMES)), "capture")
        offline = FlowStream([source], FlowOptions(**options))
        key = itemgetter("start", "src_ip", "src_port", "dst_ip", "dst_port")
        assert sorted(rows_of(live), key=key) == sorted(rows_of(offline), key=key)
        assert live.counts.packets == offline.counts.packets == len(FRAMES)
        assert live.counts.evicted == offline.counts.evicted


def test_a_quiet_interface_lets_flows_go_idle() -> None:
    frames = [(0.0, ethernet(ipv4(tcp(1))))]
    replay = Replay(frames, quiet=14)
    (batch,) = FlowStream([replay], FlowOptions(idle_timeout=0.1))
    assert [END_REASONS[reason] for reason in batch.end_reason] == ["idle"]


def test_a_busy_interface_gives_flows_before_it_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for patience in (1e9, -1.0):
        monkeypatch.setattr(flows, "_PATIENCE", patience)
        found.append(list(FlowStream([Replay(FRAMES, busy=True)], FlowOptions(**OPTIONS))))
    late, soon = found
    assert len(late) == 1
    assert len(soon) > 20
    rows = [row for batch in soon for row in to_table(batch).to_pylist()]
    assert rows == to_table(late[0]).to_pylist()


def test_an_interface_gives_the_flows_that_pass_it() -> None:
    try:
        source = InterfaceSource("lo")
    except InputError as error:
        pytest.skip(f"NOT CHECKED: {error}")
    batches: list[Any] = []
    stream = FlowStream([source], FlowOptions(keep_packets=2, idle_timeout=None))
    listener = threading.Thread(target=lambda: batches.extend(stream))
    listener.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        port = sender.getsockname()[1]
        for _ in range(3):
            sender.sendto(b"fieldfare", ("127.0.0.1", port))
        time.sleep(0.6)
    source.stop()
    listener.join()
    rows = [row for batch in batches for row in to_table(batch).to_pylist()]
    (row,) = [r for r in rows if r["src_port"] == r["dst_port"] == port]
    assert row["packets_fwd"] == 3  # the kernel shows them as sent and as received
    assert row["bytes_fwd"] == 3 * (28 + 9)


def test_an_interface_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="nosuch0"):
        InterfaceSource("nosuch0")


NO_NUMBA = "sys.modules['numba'] = None; "


@pytest.mark.parametrize(("before", "early"), [("", 0), (NO_NUMBA, 2)])
def test_the_fallback_gives_the_same_flows(tmp_path: Path, before: str, early: int) -> None:
    path = tmp_path / "mixed.pcapng"
    path.write_bytes(pcapng(FRAMES))
    options = OPTIONS | {"early_packets": early}
    rows, counts = flows_of(path, **options)
    printed = in_new_process(
        f"import sys; {before}from pathlib import Path; from flow_dicts import flows_of\n"
        "from fieldfare.netsec.capture import compiled\n"
        "assert not compiled.COMPILED\n"
        f"print(flows_of(Path({str(path)!r}), **{options!r}))",
        {} if before else {"FIELDFARE_PURE_PYTHON": "1"},
    )
    assert printed == str((rows, counts))


def test_where_nothing_can_be_cached_the_reader_still_compiles() -> None:
    pytest.importorskip("numba", reason="NOT CHECKED: numba is not installed")
    printed = in_new_process(
        "import warnings; import numba\n"
        "njit = numba.njit\n"
        "def uncached(*functions, cache=False, **more):\n"
        "    if not functions: return lambda function: uncached(function, cache=cache, **more)\n"
        "    if cache: raise RuntimeError('cannot cache function: no locator available')\n"
        "    return njit(*functions, **more)\n"
        "numba.njit = uncached\n"
        "with warnings.catch_warnings(record=True) as told:\n"
        "    from fieldfare.netsec.capture import frames\n"
        "print(frames.u16(b'\\x01\\x02', 0), 'NUMBA_CACHE_DIR' in str(told[0].message))",
        {"FIELDFARE_PURE_PYTHON": ""},
    )
    assert printed == "258 True"


def in_new_process(program: str, environment: dict[str, str]) -> str:
    """What a program prints that can import the helpers beside this file."""
    here = str(Path(__file__).parent)
    folders = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": folders, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
