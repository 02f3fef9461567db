# SPDX-License-Identifier: Apache-2.0
"""From the options of a command to a stream of flows, and what to say of it afterwards."""

import itertools
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
from ..capture.live import InterfaceSource
from ..capture.sources import open_source
from ..options import CaptureOptions, FlowsOptions
from .flow_files import STANDARD_OUTPUT

COMPRESSIONS = (".gz", ".zst")
FORMATS = (".pcap", ".pcapng", ".cap")

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

    Inside, Ctrl-C ends a recording that has no end of its own; what came before counts.

    Args:
        captures: files in order, or `-`.
        kept, early_packets: see `FlowOptions`.

    Raises:
        InputError: neither or both of captures and an interface, a missing capture.
    """
    made = FlowOptions(
        idle_timeout=options.idle_timeout,
        active_timeout=options.active_timeout,
        directed=options.directed,
        decapsulate=options.decapsulate,
        max_flows=options.max_flows,
        early_packets=early_packets,
        **kept,
    )
    check_captures(captures, options)
    if options.interface is not None:
        source = InterfaceSource(None if options.interface == "any" else options.interface)
        with _first_interrupt(source.stop):
            yield FlowStream([source], made)
        return
    *finished, last = captures
    if not (options.follow or is_pipe(last)):
        yield read_flows(*captures, options=made)
        return
    growing = open_source(last, follow=options.follow and not is_pipe(last))
    with _first_interrupt(growing.stop):
        yield FlowStream(itertools.chain(map(open_source, finished), [growing]), made)


def check_captures(captures: Sequence[Path], options: CaptureOptions) -> None:
    """Refuse what cannot be opened; errors as of `open_recording`."""
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
        found = next((ending for ending in endings if name.lower().endswith(ending)), "")
        name = name[: len(name) - len(found)] or name
    return name


def find_captures(sources: Sequence[Path]) -> list[Path]:
    """Files as they are, and all captures within folders, by name.

    Raises:
        InputError: a missing path, or a folder without captures.
    """
    known = (*FORMATS, *COMPRESSIONS)
    found: list[Path] = []
    for source in sources:
        if not source.exists():
            raise InputError(f"{source}: no such file")
        if source.is_file():
            found.append(source)
            continue
        inside = sorted(p for p in source.rglob("*") if p.suffix in known and p.is_file())
        if not inside:
            raise InputError(f"{source}: holds no captures ({', '.join(known)})")
        found += inside
    return found


def watched(
    stream: FlowStream, captures: Sequence[Path], label: str, *, quiet: bool
) -> Iterator[FlowBatch]:
    """The same batches, with progress on stderr where the sizes of the captures are known."""
    if not captures or not all(path.is_file() for path in captures):
        yield from stream
        return
    size = sum(path.stat().st_size for path in captures)
    count = 0
    with Progress(label, size >> 20, unit="megabyte", quiet=quiet or size < _SMALL) as progress:
        for batch in stream:
            count += len(batch)
            # Compressed captures expand to more than their size.
            progress.update(min(stream.counts.read.bytes, size) >> 20, flows=count)
            yield batch


@contextmanager
def _first_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C calls `stop`, so that what was seen is written; a second one is as ever.

    Where the packets come through a pipe, the program that writes them ends by the same Ctrl-C.
    """

    def end(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        stop()

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def told_of_compiling(*, quiet: bool) -> Iterator[None]:
    """Inside, say once if code has to be compiled: nothing else is seen for some 20 seconds."""
    if not COMPILED:
        yield
        return
    from numba.core import event

    class Told(event.Listener):
        seen = False

        def on_start(self, _: object) -> None:
            if not self.seen:
                console.say("compiling for this processor, once: some 20 seconds", quiet=quiet)
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
    ):
        if getattr(counts, name):
            told[name] = getattr(counts, name)
    told |= {name: value for name, value in vars(counts.read).items() if value}
    return told
