# SPDX-License-Identifier: Apache-2.0
"""net-traffic flows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..capture import to_table
from ..data.flow_files import FLOW_SCHEMA, check_table, open_table
from ..data.recordings import describe, open_recording, tell, told_of_compiling


def flows(captures: Sequence[str], output: Path, options: Mapping[str, Any]) -> None:
    """Write the flows as they end, and tell what became of the packets."""
    check_table(output, options)
    count = 0
    with (
        told_of_compiling(quiet=options["quiet"]),
        open_recording(captures, options) as stream,
        open_table(output, FLOW_SCHEMA) as table,
    ):
        for batch in stream:
            table.write(to_table(batch))
            count += len(batch)
    tell(output, {"flows": count}, describe(stream.counts), options)
