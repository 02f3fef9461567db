# SPDX-License-Identifier: Apache-2.0
"""The options of `fieldfare latency`; nothing heavy is imported here."""

from dataclasses import dataclass

import click

from fieldfare.common.console.options import option

from ..console.shared import TalkOptions


@dataclass(frozen=True, kw_only=True)
class LatencyOptions(TalkOptions):
    """Of `latency`."""

    renew: bool = option(is_flag=True, help="Forget what was measured before.")
    repeats: int = option(type=click.IntRange(min=2), default=12, help="Timed calls of each layer.")
    most: int = option(type=click.IntRange(min=1), default=12, help="Layers that are listed.")
