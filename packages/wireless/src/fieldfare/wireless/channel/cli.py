# SPDX-License-Identifier: Apache-2.0
"""The command wl-channel: parse, call, print. Everything heavy is imported inside the verbs."""

from pathlib import Path
from typing import Any

import click

from fieldfare.common import console

from .. import options as shared

CHANNELS = ("rayleigh", "correlated", "umi", "uma", "rma", "cell-free")


@click.group(cls=console.CommandGroup)
@click.version_option(package_name="fieldfare-wireless")
def main() -> None:
    """Draw channels and cell-free networks, and describe files of them."""


@main.command()
@console.output_option
@click.option(
    "--channel",
    type=click.Choice(CHANNELS),
    default="rayleigh",
    show_default=True,
    help="umi, uma, rma: 3GPP TR 38.901 (extra [sionna]); cell-free: gains for wl-power.",
)
@shared.count_option
@click.option("--users", type=click.IntRange(min=1), default=8, show_default=True, help="K.")
@click.option(
    "--antennas", type=click.IntRange(min=1), default=8, show_default=True, help="N, or of each AP."
)
@click.option(
    "--aps", type=click.IntRange(min=1), default=50, show_default=True, help="L, of cell-free."
)
@click.option(
    "--serving",
    type=click.IntRange(min=1),
    help="Of cell-free: each user's strongest APs serve it. [default: all]",
)
@click.option(
    "--power-db",
    type=float,
    default=10.0,
    show_default=True,
    help="power / noise_power written, dB.",
)
@click.option(
    "--csi-error",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="H becomes an estimate with this share of error, H_true the channel.",
)
@console.seed_option
@console.overwrite_option
@console.json_option
def gen(output: Path, **options: Any) -> None:
    """Write channels of unit mean gain for wl-precode, or cell-free networks for wl-power."""
    from . import commands as work

    work.generate(output, options)


@main.command()
@click.argument("source", type=shared.file_path, metavar="FILE.npz")
@console.json_option
def info(source: Path, as_json: bool) -> None:
    """Sizes, gains, SNR and condition of what a file holds."""
    from . import commands as work

    work.info(source, as_json)
