# SPDX-License-Identifier: Apache-2.0
"""From the options of a command to a stream of flows, and what to say of it afterwards."""

import functools
import itertools
import math
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fieldfare.common import console
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress

from ..capture import FlowBatch, FlowCounts, FlowOptions, FlowStream, Kept, read_flows
from ..capture.compiled import COMPILED
from ..capture.container import MAGICS, first_record
from ..capture.filters import compile_filter
from ..capture.links import link_name
from ..capture.live import InterfaceSource
from ..capture.sources import open_source
from ..options import CaptureOptions, FlowsOptions
from .flow_files import STANDARD_OUTPUT

COMPRESSIONS = (".gz", ".zst", ".lz4", ".xz", ".bz2")
FORMATS = (".pcap", ".pcapng", ".cap", ".ntar", ".dmp")
_IN_PARTS = re.compile(r"\.(pcap|pcapng|cap)\d+")
"""As tcpdump names the files of a recording in parts."""

NOTHING = Kept(keep_packets=0, keep_header=0, keep_payload=0)

_SMALL = 16 << 20
"""Bytes of captures below which no progress is shown."""


@contextmanager
def open_recording(
    captures: Sequence[Path],
    options: CaptureOptions,
    *,
    kept: Kept = NOTHING,
    early_packets: int = 0,
) -> Iterator[FlowStream]:
    """The flows of captures, of standard input or of an interface.

    Inside, Ctrl-C or SIGTERM ends a recording that has no end of its own; what came before counts.
    Of several captures those that cannot be read are told on stderr, and the others count.

    Args:
        captures: files in order, or `-`.
        kept, early_packets: see `FlowOptions`.

    Raises:
        InputError: neither or both of captures and an interface, a missing capture.
    """
    check_captures(captures, options)
    made = FlowOptions(
        idle_timeout=options.idle_timeout,
        active_timeout=options.active_timeout,
        directed=options.directed,
        decapsulate=options.decapsulate,
        vlan_key=options.vlan_key,
        max_flows=options.max_flows,
        early_packets=early_packets,
        packet_filter=options.packet_filter,
        statistics=options.statistics,
        keep_packets=max(kept["keep_packets"], options.packet_sizes),
        keep_header=kept["keep_header"],
        keep_payload=kept["keep_payload"],
    )
    if options.interface is not None:
        source = InterfaceSource(None if options.interface == "any" else options.interface)
        with _first_interrupt(source.stop):
            yield FlowStream([source], made)
        return
    on_unread = None if len(captures) == 1 else _tell_unread
    *finished, last = captures
    if not (options.follow or is_pipe(last)):
        yield read_flows(*captures, options=made, on_unread=on_unread)
        return
    growing = open_source(last, follow=options.follow and not is_pipe(last))
    with _first_interrupt(growing.stop):
        opening = (functools.partial(open_source, path) for path in finished)
        yield FlowStream(itertools.chain(opening, [growing]), made, on_unread=on_unread)


def _tell_unread(error: InputError) -> None:
    console.say(f"left out: {error}")


def read_at_all(stream: FlowStream) -> Iterator[FlowBatch]:
    """The same batches.

    Raises:
        InputError: at the end: there were packets, but none that could be read; or there was no
            capture among the files.
    """
    yield from stream
    counts = stream.counts
    if counts.unread_captures and not counts.packets:
        raise InputError("none of these files is a capture that can be read")
    unread = counts.unsupported + counts.damaged
    if counts.packets and unread == counts.packets:
        links = "; ".join(
            f"{link_name(link)}: {count} packets" for link, count in counts.unread_links.items()
        )
        raise InputError(
            f"none of {counts.packets} packets could be read ({links or 'all are damaged'}); "
            "record with IP in Ethernet, or convert the capture"
        )


def check_captures(captures: Sequence[Path], options: CaptureOptions) -> None:
    """Refuse what cannot be opened; errors as of `open_recording`."""
    try:
        compile_filter(options.packet_filter)
    except ValueError as error:
        raise InputError(f"--filter {options.packet_filter!r}: {error}") from None
    if bool(captures) == (options.interface is not None):
        raise InputError("give captures or --interface")
    for capture in captures:
        if not (is_pipe(capture) or capture.exists()):
            raise InputError(f"{capture}: no such file")


def has_no_end(captures: Sequence[Path], options: CaptureOptions) -> bool:
    """Whether flows must be handed on as they end, since nobody knows when the last one comes."""
    return options.interface is not None or options.follow or any(map(is_pipe, captures))


def is_pipe(capture: Path) -> bool:
    """Whether packets come through standard input or a named pipe."""
    return capture == Path("-") or capture.is_fifo()


def recording_name(capture: Path) -> str:
    """A capture's name without the endings of its compression and format."""
    name = capture.name
    for endings in (COMPRESSIONS, FORMATS):
        if endings is FORMATS and _IN_PARTS.search(name):
            return name
        found = next((ending for ending in endings if name.lower().endswith(ending)), "")
        name = name[: len(name) - len(found)] or name
    return name


def find_captures(sources: Sequence[Path]) -> list[Path]:
    """Files as they are, and all captures within folders, by the time of their first packets.

    So the files of a ring buffer come in their order, whatever their names. What is a capture
    its name or its first bytes tell.

    Raises:
        InputError: a missing path, or a folder without captures.
    """
    if missing := [source for source in sources if not source.exists()]:
        raise InputError(f"{missing[0]}: no such file")
    return expand_folders(sources)


def expand_folders(sources: Sequence[Path]) -> list[Path]:
    """As `find_captures`; what is no folder stays as it is, there or not."""
    found: list[Path] = []
    for source in sources:
        if not source.is_dir():
            found.append(source)
            continue
        inside = [path for path in sorted(source.rglob("*")) if path.is_file() and _holds(path)]
        if not inside:
            raise InputError(
                f"{source}: holds no captures ({', '.join((*FORMATS, *COMPRESSIONS))})"
            )
        found += sorted(inside, key=_first_time)
    return found


def _holds(path: Path) -> bool:
    """Whether a file is a capture, by its name or its first bytes."""
    if path.name.startswith("."):
        return False
    if path.suffix.lower() in (*FORMATS, *COMPRESSIONS) or _IN_PARTS.fullmatch(path.suffix):
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) in MAGICS
    except OSError:
        return False


def _first_time(path: Path) -> float:
    """Of a capture's first packet; of one that has none yet, none."""
    try:
        record = first_record(open_source(path))
    except InputError:
        return math.inf
    return math.inf if record is None else record.time


def watched(
    stream: FlowStream, captures: Sequence[Path], label: str, *, quiet: bool
) -> Iterator[FlowBatch]:
    """The same batches, with progress on stderr where the sizes of the captures are known."""
    if not captures or not all(path.is_file() for path in captures):
        yield from read_at_all(stream)
        return
    size = sum(path.stat().st_size for path in captures)
    count = 0
    with Progress(label, size >> 20, unit="megabyte", quiet=quiet or size < _SMALL) as progress:
        for batch in read_at_all(stream):
            count += len(batch)
            # Compressed captures expand to more than their size.
            progress.update(min(stream.counts.read.bytes, size) >> 20, flows=count)
            yield batch


@contextmanager
def _first_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM calls `stop`, so that what was seen is written; a second is as
    ever.

    Where the packets come through a pipe, the program that writes them ends by the same Ctrl-C.
    """

    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def end(*_: object) -> None:
        restore()
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        restore()


@contextmanager
def told_of_compiling(*, quiet: bool) -> Iterator[None]:
    """Inside, say once if code has to be compiled: nothing else is seen for some 30 seconds."""
    if not COMPILED:
        yield
        return
    from numba.core import event

    class Told(event.Listener):
        seen = False

        def on_start(self, _: object) -> None:
            if not self.seen:
                console.say("compiling for this processor, once: some 30 seconds", quiet=quiet)
            self.seen = True

        def on_end(self, _: object) -> None:
            pass

    with event.install_listener("numba:compile", Told()):
        yield


def tell(result: Mapping[str, Any], counts: Mapping[str, int], options: FlowsOptions) -> None:
    """Say on stderr what was read, and on stdout where the flows are, unless they went there."""
    trouble = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in counts.items())
    console.say(f"{result['flows']} flows of {trouble}", quiet=options.quiet)
    if options.output != STANDARD_OUTPUT:
        whole = {"output": options.output, **result, **counts}
        console.emit(whole, as_json=options.as_json, text=str(options.output))


def describe(counts: FlowCounts) -> dict[str, int]:
    """The counts that a user must know, those of trouble only where there was some."""
    told = {"packets": counts.packets}
    for name in (
        "not_ip",
        "damaged",
        "unsupported",
        "shortened",
        "lone_fragments",
        "evicted",
        "packets_without_bytes",
        "lost",
        "odd_times",
        "unread_captures",
        "filtered",
        "filtered",
    ):
        if getattr(counts, name):
            told[name] = getattr(counts, name)
    for link, count in counts.unread_links.items():
        told[f"of {link_name(link)}"] = count
    told |= {name: value for name, value in vars(counts.read).items() if value}
    return told
