# SPDX-License-Identifier: Apache-2.0
"""The command wl-power: parse, call, print. Everything heavy is imported inside the verbs."""

from pathlib import Path
from typing import Any

import click

from fieldfare.common import console

from .. import options as shared

DEFAULT_MODEL = "icgnn_power_max_min"
METHODS = ("equal", "fractional", "max-min", "max-min-gradient", "sum-rate", "icgnn")

model_option = console.model_option(DEFAULT_MODEL)


@click.group(cls=console.CommandGroup)
@click.version_option(package_name="fieldfare-wireless")
def main() -> None:
    """Allocate downlink power in cell-free networks of any size (ICGNN and others)."""


@main.command()
@click.argument("network", type=shared.file_path, metavar="NETWORK.npz")
@console.output_option
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="icgnn",
    show_default=True,
    help="The network or a conventional allocation; max-min takes the extra [socp].",
)
@model_option
@click.option("--power", type=shared.positive, help="Limit of every AP, instead of the file's.")
@click.option("--antennas", type=click.IntRange(min=1), help="Of every AP, instead of the file's.")
@shared.batch_option(256)
@console.device_option
@console.overwrite_option
@console.json_option
def infer(network: Path, output: Path, **options: Any) -> None:
    """Write the powers and spectral efficiencies for the networks in NETWORK.npz.

    NETWORK.npz holds beta and gamma, (K, L) or (B, K, L): gain of K users at L access points and
    mean square of its estimate, both over the noise; power, antennas; optionally serving and
    pilots. OUTPUT is an npz with mu, the square root of every power, and se in bits/s/Hz.
    """
    from . import commands as work

    work.infer(network, output, options)


@main.command("eval")
@click.argument("networks", nargs=-1, type=shared.file_path, metavar="[NETWORK.npz]...")
@shared.sizes_option("10x50", "Users x access points of drawn networks; several are compared.")
@click.option(
    "--antennas", type=click.IntRange(min=1), default=4, show_default=True, help="Of every AP."
)
@click.option(
    "--serving",
    type=click.IntRange(min=1),
    help="Each user is served by so many of its strongest APs. [default: all]",
)
@shared.count_option
@click.option(
    "--method",
    "methods",
    type=click.Choice(METHODS),
    multiple=True,
    help="Repeat to compare. [default: all]",
)
@click.option("--model", multiple=True, default=[DEFAULT_MODEL], help="Repeat to compare.")
@shared.folder_option
@shared.batch_option(256)
@console.seed_option
@console.device_option
@console.quiet_option
@console.json_option
def evaluate(networks: tuple[Path, ...], **options: Any) -> None:
    """Spectral efficiency of the network and of every conventional allocation."""
    from . import commands as work

    work.evaluate(networks, options)


@main.command()
@console.json_option
def models(as_json: bool) -> None:
    """List the packaged models with what was measured."""
    from ..commands import models as work

    work("power", as_json)


@main.command()
@model_option
@shared.sizes_option("4x25,10x50,20x100", "Users x access points.")
@click.option("--socp/--no-socp", default=True, help="Also time the SOCP solver (extra [socp]).")
@shared.repeats_option
@console.json_option
def bench(**options: Any) -> None:
    """Time of a network for every allocation and size."""
    from . import benching as work

    work.bench(options)


@main.command()
@console.output_option
@model_option
@console.overwrite_option
def export(output: Path, **options: Any) -> None:
    """Write the network as ONNX, for any batch, users and access points."""
    from . import export as work

    work.export(output, options)


@main.command()
@shared.training_options(steps=5000, batch=32, learning_rate=2e-3)
@click.option(
    "--objective",
    type=click.Choice(["max-min", "sum-rate", "proportional-fair"]),
    default="max-min",
    show_default=True,
    help="What is maximised.",
)
@click.option(
    "--width", type=click.IntRange(min=4), default=24, show_default=True, help="Of a node's state."
)
@click.option(
    "--layers", type=click.IntRange(min=1), default=6, show_default=True, help="Message passing."
)
@console.seed_option
@console.device_option
@console.quiet_option
@console.json_option
def train(**options: Any) -> None:
    """Train without labels, on networks drawn anew for every step; run again to resume."""
    from . import train as work

    work.train(options)
