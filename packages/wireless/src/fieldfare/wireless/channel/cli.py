# SPDX-License-Identifier: Apache-2.0
"""The command wl-channel: parse, call, print. Everything heavy is imported inside the verbs."""

from pathlib import Path

import click

from fieldfare.common import console
from fieldfare.common.console.shared import JsonOptions

from .options import ConvertOptions, GenerateOptions


@click.group(cls=console.CommandGroup)
@click.version_option(package_name="fieldfare-wireless")
def main() -> None:
    """Draw channels and cell-free networks, describe and convert files of them."""


@main.command()
@console.options(GenerateOptions)
def gen(options: GenerateOptions) -> None:
    """Write channels of unit mean gain for wl-precode, or cell-free networks for wl-power."""
    from .commands import gen as work

    work.generate(options)


@main.command()
@click.argument("source", type=console.FILE, metavar="FILE.npz")
@console.options(JsonOptions)
def info(source: Path, options: JsonOptions) -> None:
    """Sizes, gains, SNR and condition of what a file holds."""
    from .commands import info as work

    work.info(source, options)


@main.command()
@click.argument("source", type=console.FILE, metavar="FILE")
@console.options(ConvertOptions)
def convert(source: Path, options: ConvertOptions) -> None:
    """Write channels of MATLAB, Sionna or DeepMIMO as an npz of H (B, F, K, N)."""
    from .commands import convert as work

    work.convert(source, options)
