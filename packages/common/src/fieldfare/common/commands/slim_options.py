# SPDX-License-Identifier: Apache-2.0
"""The options of `fieldfare slim` and `cascade`; nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from fieldfare.common.console.options import option

from ..console import FILE
from ..console.shared import TalkOptions, WriteOptions
from ..console.types import Bytes, Duration, Operations

KINDS = (("seconds", Duration()), ("macs", Operations()), ("bytes", Bytes()))


class Cost(click.ParamType[tuple[str, float]]):
    """A time, a number of operations or a size of file: 50ms, 3GMAC, 4MB."""

    name = "TIME|MACS|SIZE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        for name, kind in KINDS:
            try:
                return name, kind.convert(value, None, None)
            except click.BadParameter:
                continue
        self.fail(f"{value!r}: write a time (50ms), operations (3GMAC) or a size (4MB)", param, ctx)


def data_option() -> tuple[Path, ...]:
    """`--data` of a user."""
    found: tuple[Path, ...] = option(
        type=FILE,
        multiple=True,
        required=True,
        help="Labelled data as the domain's train takes it; repeat for several files.",
    )
    return found


@dataclass(frozen=True, kw_only=True)
class SlimOptions(WriteOptions, TalkOptions):
    """Of `slim`."""

    target: tuple[tuple[str, float], ...] = option(
        type=Cost(),
        multiple=True,
        required=True,
        help="Stop when a unit takes at most this, or the file: 50ms, 3GMAC, 4MB; repeatable.",
    )
    data: tuple[Path, ...] = data_option()
    max_loss: float = option(
        type=click.FloatRange(min=0),
        default=0.01,
        help="Quality that all steps together may cost, in the metric's own unit.",
    )
    repeats: int = option(
        type=click.IntRange(min=2), default=12, help="Timed units of each network."
    )
    dry_run: bool = option(is_flag=True, help="Print the whole network's cost and the steps.")


@dataclass(frozen=True, kw_only=True)
class CascadeOptions(WriteOptions, TalkOptions):
    """Of `cascade`."""

    data: tuple[Path, ...] = data_option()
