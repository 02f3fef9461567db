# SPDX-License-Identifier: Apache-2.0
"""The options of `fieldfare stitch`; nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path

import click

from fieldfare.common.console.options import option

from ..console import FILE
from ..console.shared import DeviceOptions, SeedOptions, TalkOptions
from .slim_options import data_option


@dataclass(frozen=True, kw_only=True)
class StitchOptions(SeedOptions, DeviceOptions, TalkOptions):
    """Of `stitch`."""

    output: Path = option(
        "-o", "--output", type=FILE, required=True, help="Folder of the training and the networks."
    )
    data: tuple[Path, ...] = data_option()
    steps: int | None = option(
        type=click.IntRange(min=1), help="Of the training. [default: the task's]"
    )
    frozen: bool = option(
        is_flag=True,
        help="Train the layers between the models alone and leave their blocks, of which stitches "
        "hold copies, as they are.",
    )
    repeats: int = option(
        type=click.IntRange(min=2), default=5, help="Timed units of each network."
    )
    dry_run: bool = option(is_flag=True, help="Print the networks and their costs; write nothing.")
