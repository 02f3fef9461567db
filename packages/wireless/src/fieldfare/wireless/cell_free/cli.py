# SPDX-License-Identifier: Apache-2.0
"""The command wl-power: parse, call, print. Everything heavy is imported inside the verbs."""

from pathlib import Path

import click

from fieldfare.common import console
from fieldfare.common.console.shared import JsonOptions

from .options import BenchOptions, EvaluateOptions, ExportOptions, InferOptions, TrainOptions


@click.group(cls=console.CommandGroup)
@click.version_option(package_name="fieldfare-wireless")
def main() -> None:
    """Allocate downlink power in cell-free networks of any size (ICGNN and others)."""


@main.command()
@click.argument("inputs", nargs=-1, required=True, type=console.FILE, metavar="NETWORK.npz...")
@console.options(InferOptions)
def infer(inputs: tuple[Path, ...], options: InferOptions) -> None:
    """Write the powers and spectral efficiencies for the networks in NETWORK.npz.

    NETWORK.npz holds beta and gamma, (K, L) or (B, K, L): gain of K users at L access points and
    mean square of its estimate, both over the noise; power, antennas; optionally serving and
    pilots. OUTPUT is an npz with mu, the square root of every power, and se in bits/s/Hz; for
    several files a folder of NAME_mu.npz.
    """
    from .commands import infer as work

    work.infer(inputs, options)


@main.command("eval")
@click.argument("networks", nargs=-1, type=console.FILE, metavar="[NETWORK.npz]...")
@console.options(EvaluateOptions)
def evaluate(networks: tuple[Path, ...], options: EvaluateOptions) -> None:
    """Spectral efficiency of the network and of every conventional allocation."""
    from .commands import evaluate as work

    work.evaluate(networks, options)


@main.command()
@console.options(JsonOptions)
def models(options: JsonOptions) -> None:
    """List the packaged models with what was measured."""
    from fieldfare.common.commands.models import list_models

    list_models("power", options)


@main.command()
@console.options(BenchOptions)
def bench(options: BenchOptions) -> None:
    """Time of a network for every allocation and size."""
    from .commands import bench as work

    work.bench(options)


@main.command()
@console.options(ExportOptions)
def export(options: ExportOptions) -> None:
    """Write the network as ONNX, for any batch, users and access points."""
    from .commands import export as work

    work.export(options)


@main.command()
@console.options(TrainOptions)
def train(options: TrainOptions) -> None:
    """Train without labels, on networks drawn anew for every step; run again to resume."""
    from .commands import train as work

    work.train(options)
