# SPDX-License-Identifier: Apache-2.0
"""net-traffic flows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldfare.common import console, files

from ..capture import to_table
from ..flow_files import FLOW_SCHEMA, check_ending, open_table
from ..recordings import describe, open_recording


def flows(captures: Sequence[str], output: Path, options: Mapping[str, Any]) -> None:
    """Write the flows as they end, and tell what became of the packets."""
    check_ending(output)
    files.check_output(output, overwrite=options["overwrite"])
    count = 0
    with (
        open_recording(captures, options) as stream,
        open_table(output, FLOW_SCHEMA) as table,
    ):
        for batch in stream:
            table.write(to_table(batch))
            count += len(batch)
    told = describe(stream.counts)
    trouble = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in told.items())
    console.say(f"{count} flows of {trouble}", quiet=options["quiet"])
    result = {"output": output, "flows": count, **told}
    console.emit(result, as_json=options["as_json"], text=str(output))
