# SPDX-License-Identifier: Apache-2.0
"""net-traffic flows."""

import functools
from collections.abc import Sequence
from pathlib import Path

from fieldfare.common import batch

from ..data.flow_files import write_flows
from ..data.recordings import (
    describe,
    expand_folders,
    open_recording,
    read_at_all,
    tell,
    told_of_compiling,
)
from ..options import FlowsOptions
from . import tables


def flows(captures: Sequence[Path], options: FlowsOptions) -> None:
    """Write the flows as they end, and tell what became of the packets."""
    captures = expand_folders(captures)
    if tables.goes_to_folder(captures, options):
        tables.write_each(captures, functools.partial(_make_worker, options), options, settings={})
        return
    tables.check_recording(captures, options)
    if options.dry_run:
        tables.show_recording(captures, options)
        return
    with told_of_compiling(quiet=options.quiet):
        count, counts = _write(captures, options.output, options)
    tell({"flows": count}, counts, options)


def _write(
    captures: Sequence[Path], target: Path, options: FlowsOptions
) -> tuple[int, dict[str, int]]:
    """How many flows there are, and what became of the packets."""
    with open_recording(captures, options) as stream:
        count = write_flows(
            read_at_all(stream), target, statistics=options.statistics, sizes=options.packet_sizes
        )
    return count, describe(stream.counts)


def _make_worker(options: FlowsOptions) -> batch.Process:
    """The returned function writes the flows of one capture."""

    def process(item: batch.Item, temporaries: Sequence[Path]) -> dict[str, int]:
        count, counts = _write(item.inputs, temporaries[0], options)
        return {"flows": count, **counts}

    return process
