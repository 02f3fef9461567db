# SPDX-License-Identifier: Apache-2.0
"""The options of `fieldfare front`; nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path

import click

from fieldfare.common.console.options import option

from ..console import FILE
from ..console.shared import TalkOptions


@dataclass(frozen=True, kw_only=True)
class FrontOptions(TalkOptions):
    """Of `front`."""

    output: Path | None = option(
        "-o", "--output", type=FILE, help="Write the table (.csv) or the picture (.png)."
    )
    overwrite: bool = option(is_flag=True, help="Replace an existing output.")
    measure: bool = option(
        is_flag=True, help="Measure time and memory here instead of showing those of the cards."
    )
    repeats: int = option(
        type=click.IntRange(min=2), default=5, help="Timed units of each variant."
    )
