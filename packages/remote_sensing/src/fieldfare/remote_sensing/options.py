# SPDX-License-Identifier: Apache-2.0
"""Options that the commands for rasters share; nothing heavy is imported here."""

from dataclasses import dataclass

import click

from fieldfare.common import console
from fieldfare.common.console import shared


def range_option(metavar: str, help: str) -> str | None:
    """`--range`, for a field `value_range`."""
    found: str | None = console.option("--range", metavar=metavar, help=help)
    return found


def bands_option(help: str) -> tuple[int, ...] | None:
    """`--bands`, numbers from 1."""
    found: tuple[int, ...] | None = console.option(type=console.Numbers(int), help=help)
    return found


def tile_option(default: int, *, least: int, help: str) -> int:
    """`--tile`, of at least so many pixels."""
    found: int = console.option(type=click.IntRange(min=least), default=default, help=help)
    return found


def overlap_option(default: int) -> int:
    """`--overlap`, in pixels of `--tile`."""
    found: int = console.option(
        type=click.IntRange(min=0),
        default=default,
        help="Pixels that neighbouring tiles share.",
    )
    return found


@dataclass(frozen=True, kw_only=True)
class WindowOptions:
    """A part of the raster."""

    window: tuple[int, int, int, int] | None = console.option(
        type=console.Numbers(int, 4), help="ROW,COLUMN,HEIGHT,WIDTH of the raster."
    )


@dataclass(frozen=True, kw_only=True)
class InferOptions(WindowOptions, shared.InferOptions, shared.PrecisionOptions):
    """Of both `infer`."""

    bbox: tuple[float, float, float, float] | None = console.option(
        type=console.Numbers(float, 4),
        help="LEFT,BOTTOM,RIGHT,TOP in the raster's own coordinates.",
    )
    allow_remote: bool = console.option(
        is_flag=True, help="Inputs may lie on the network (/vsicurl/, https://, WMS)."
    )
    batch: int | None = console.option(
        type=click.IntRange(min=1), help="Tiles at a time. [default: by device]"
    )
