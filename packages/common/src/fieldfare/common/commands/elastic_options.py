# SPDX-License-Identifier: Apache-2.0
"""The options of `fieldfare elastic`; nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path

import click

from fieldfare.common.console.options import option

from ..console import FILE
from ..console.shared import DeviceOptions, SeedOptions, TalkOptions


@dataclass(frozen=True, kw_only=True)
class ElasticOptions(SeedOptions, DeviceOptions, TalkOptions):
    """Of `elastic`."""

    output: Path | None = option(
        "-o", "--output", type=FILE, help="Folder of the training and the networks of all sizes."
    )
    init: str | None = option(metavar="NAME|PATH", help="Model of the largest size to begin with.")
    steps: int | None = option(
        type=click.IntRange(min=1), help="Of the training. [default: the task's]"
    )
    draws: int = option(
        type=click.IntRange(min=2),
        default=4,
        help="Sizes trained a step, the largest and the smallest among them.",
    )
    networks: int = option(
        type=click.IntRange(min=2),
        default=16,
        help="Networks written: the smallest, the largest, and others drawn between.",
    )
    repeats: int = option(
        type=click.IntRange(min=2), default=5, help="Timed units of each network."
    )
    dry_run: bool = option(is_flag=True, help="Print the sizes and their costs; write nothing.")
