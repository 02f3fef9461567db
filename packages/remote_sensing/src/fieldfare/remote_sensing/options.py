# SPDX-License-Identifier: Apache-2.0
"""Command-line options that rs-sr and rs-buildings share; nothing heavy is imported here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fieldfare.common import console
from fieldfare.common.batch.options import batch_options

Function = TypeVar("Function", bound=Callable[..., Any])

file_path = click.Path(path_type=Path)


def stacked(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Several options or arguments as one decorator; `--help` lists them in this order."""

    def decorate(command: Function) -> Function:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def range_option(metavar: str, help: str) -> Callable[[Function], Function]:
    """`--range`, passed as `value_range`."""
    return click.option("--range", "value_range", metavar=metavar, help=help)


def bands_option(help: str) -> Callable[[Function], Function]:
    """`--bands`, numbers from 1."""
    return click.option("--bands", type=console.Numbers(int), help=help)


def tile_option(default: int, *, least: int, help: str) -> Callable[[Function], Function]:
    """`--tile`, of at least so many pixels."""
    return click.option(
        "--tile", type=click.IntRange(min=least), default=default, show_default=True, help=help
    )


def overlap_option(default: int) -> Callable[[Function], Function]:
    """`--overlap`, in pixels of `--tile`."""
    return click.option(
        "--overlap",
        type=click.IntRange(min=0),
        default=default,
        show_default=True,
        help="Pixels that neighbouring tiles share.",
    )


def models_option(default: str) -> Callable[[Function], Function]:
    """`--model`, of `eval`: any number of them."""
    return click.option(
        "--model", multiple=True, default=[default], show_default=True, help="Repeat to compare."
    )


window_option = click.option(
    "--window", type=console.Numbers(int, 4), help="ROW,COLUMN,HEIGHT,WIDTH of the raster."
)
bbox_option = click.option(
    "--bbox",
    type=console.Numbers(float, 4),
    help="LEFT,BOTTOM,RIGHT,TOP in the raster's own coordinates.",
)
batch_option = click.option(
    "--batch", type=click.IntRange(min=1), help="Tiles at a time. [default: by device]"
)
repeats_option = click.option(
    "--repeats", type=click.IntRange(min=2), default=5, show_default=True, help="Runs."
)
reports_option = click.option(
    "-o", "--output", type=file_path, help="Folder for CSV, JSON and picture."
)
training_folder_option = click.option(
    "-o", "--output", type=file_path, required=True, help="Folder of checkpoint, log and model."
)
init_option = click.option("--init", metavar="NAME|PATH", help="Start from this model.")

infer_run_options = stacked(
    console.device_option,
    console.precision_option,
    batch_options,
    console.overwrite_option,
    console.dry_run_option,
    console.quiet_option,
    console.json_option,
)
"""How `infer` runs."""

training_run_options = stacked(
    click.option("--workers", type=click.IntRange(min=0), default=0, help="Loading processes."),
    click.option("--devices", type=click.IntRange(min=1), default=1, help="Training processes."),
    click.option("--num-nodes", type=click.IntRange(min=1), default=1, help="Machines."),
    console.seed_option,
    console.device_option,
    console.precision_option,
    console.quiet_option,
    console.json_option,
)
"""How `train` and `adapt` run."""
