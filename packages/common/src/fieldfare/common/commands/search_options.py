# SPDX-License-Identifier: Apache-2.0
"""The options of `fieldfare search`; nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click

from fieldfare.common.console.options import option

from ..console import FILE, Duration, Operations
from ..console.shared import DeviceOptions, SeedOptions, TalkOptions

STRATEGIES = ("predictor", "nsga", "evolution", "controller")


class Bound(NamedTuple):
    """The most that a unit may cost: `macs` or `seconds`, and how many."""

    kind: str
    amount: float


class Limit(click.ParamType[Bound]):
    """A time or a number of operations: 20ms, 3MMAC."""

    name = "TIME|MACS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Bound:
        if isinstance(value, Bound):
            return value
        if str(value).strip().lower().endswith("mac"):
            return Bound("macs", Operations().convert(value, param, ctx))
        try:
            return Bound("seconds", Duration().convert(value, param, ctx))
        except click.UsageError:
            self.fail(f"{value!r}: write a time or operations, such as 20ms or 3MMAC", param, ctx)


@dataclass(frozen=True, kw_only=True)
class SearchOptions(SeedOptions, DeviceOptions, TalkOptions):
    """Of `search`."""

    output: Path | None = option(
        "-o", "--output", type=FILE, help="Folder of evaluations, front and networks."
    )
    evaluations: int = option(
        type=click.IntRange(min=4),
        default=48,
        help="Networks trained for the strategy; random search trains as many.",
    )
    limit: Bound | None = option(
        type=Limit(), help="What a unit may cost at most: 20ms here, or 3MMAC."
    )
    strategy: str = option(
        type=click.Choice(STRATEGIES), default=STRATEGIES[0], help="Beside random search."
    )
    steps: int | None = option(
        type=click.IntRange(min=1),
        help="Of the short run that each network gets. [default: the task's]",
    )
    engine: str = option(
        type=click.Choice(["local", "ray"]),
        default="local",
        help="Run the workers on this machine, or on a Ray cluster (RAY_ADDRESS).",
    )
    workers: int = option(
        type=click.IntRange(min=1), default=1, help="Networks that are trained at the same time."
    )
    dry_run: bool = option(
        is_flag=True, help="Print size of the space, costs and expected time; write nothing."
    )
