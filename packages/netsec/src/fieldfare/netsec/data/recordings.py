# SPDX-License-Identifier: Apache-2.0
"""From the options of a command to a stream of flows, and what to say of it afterwards."""

import itertools
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fieldfare.common import console
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress

from ..capture import FlowBatch, FlowCounts, FlowOptions, FlowStream, read_flows
from ..capture.compiled import COMPILED
from ..capture.live import InterfaceSource
from ..capture.sources import open_source
from .flow_files import STANDARD_OUTPUT

_SMALL = 16 << 20
"""Bytes of captures below which no progress is shown."""


@contextmanager
def open_recording(
    captures: Sequence[str], options: Mapping[str, Any], **kept: Any
) -> Iterator[FlowStream]:
    """The flows of captures, of standard input or of an interface.

    Inside, Ctrl-C ends a recording that has no end of its own; what came before counts.

    Args:
        captures: files in order, or `-`.
        options: of `options.capture_options`.
        kept: further fields of `FlowOptions`.

    Raises:
        InputError: neither or both of captures and an interface, a missing capture.
    """
    made = FlowOptions(
        idle_timeout=options["idle_timeout"],
        active_timeout=options["active_timeout"],
        directed=options["directed"],
        decapsulate=options["decapsulate"],
        max_flows=options["max_flows"],
        **kept,
    )
    interface = options["interface"]
    if bool(captures) == bool(interface):
        raise InputError("give captures or --interface")
    if interface:
        source = InterfaceSource(None if interface == "any" else interface)
        with _first_interrupt(source.stop):
            yield FlowStream([source], made)
        return
    for capture in captures:
        if capture != "-" and not os.path.exists(capture):
            raise InputError(f"{capture}: no such file")
    *finished, last = captures
    if not (options["follow"] or _is_pipe(last)):
        yield read_flows(*captures, options=made)
        return
    growing = open_source(last, follow=options["follow"] and not _is_pipe(last))
    with _first_interrupt(growing.stop):
        yield FlowStream(itertools.chain(map(open_source, finished), [growing]), made)


def has_no_end(captures: Sequence[str], options: Mapping[str, Any]) -> bool:
    """Whether flows must be handed on as they end, since nobody knows when the last one comes."""
    return bool(options["interface"] or options["follow"] or any(map(_is_pipe, captures)))


def _is_pipe(capture: str) -> bool:
    return capture == "-" or Path(capture).is_fifo()


def watched(
    stream: FlowStream, captures: Sequence[str], label: str, *, quiet: bool
) -> Iterator[FlowBatch]:
    """The same batches, with progress on stderr where the sizes of the captures are known."""
    paths = [Path(capture) for capture in captures]
    if not paths or not all(path.is_file() for path in paths):
        yield from stream
        return
    size = sum(path.stat().st_size for path in paths)
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

    class Told(event.Listener):  # type: ignore[misc]
        seen = False

        def on_start(self, _: object) -> None:
            if not self.seen:
                console.say("compiling for this processor, once: some 20 seconds", quiet=quiet)
            self.seen = True

        def on_end(self, _: object) -> None:
            pass

    with event.install_listener("numba:compile", Told()):
        yield


def tell(
    output: Path,
    result: Mapping[str, Any],
    counts: Mapping[str, int],
    options: Mapping[str, Any],
) -> None:
    """Say on stderr what was read, and on stdout where the flows are, unless they went there."""
    trouble = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in counts.items())
    console.say(f"{result['flows']} flows of {trouble}", quiet=options["quiet"])
    if output != STANDARD_OUTPUT:
        whole = {"output": output, **result, **counts}
        console.emit(whole, as_json=options["as_json"], text=str(output))


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
