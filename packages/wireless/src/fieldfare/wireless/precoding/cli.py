# SPDX-License-Identifier: Apache-2.0
"""The command wl-precode: parse, call, print. Everything heavy is imported inside the verbs."""

from pathlib import Path

import click

from fieldfare.common import console
from fieldfare.common.console.shared import JsonOptions

from .options import BenchOptions, EvaluateOptions, ExportOptions, InferOptions, TrainOptions


@click.group(cls=console.CommandGroup)
@click.version_option(package_name="fieldfare-wireless")
def main() -> None:
    """Precode for any number of users and antennas (ICGNN, WMMSE, RZF and others)."""


@main.command()
@click.argument("inputs", nargs=-1, required=True, type=console.FILE, metavar="H.npz...")
@console.options(InferOptions)
def infer(inputs: tuple[Path, ...], options: InferOptions) -> None:
    """Write the precoders W and the users' rates for the channels in H.npz.

    H.npz holds H, complex, (B, K, N) or (B, F, K, N): row k is used as in y_k = H[k] W s;
    noise_power and power; optionally weights of the users, and H_true if H is an estimate. OUTPUT
    is an npz with W (..., N, K) and rate (..., K) in bits/s/Hz; for several files a folder of
    NAME_W.npz.
    """
    from .commands import infer as work

    work.infer(inputs, options)


@main.command("eval")
@click.argument("channels", nargs=-1, type=console.FILE, metavar="[H.npz]...")
@console.options(EvaluateOptions)
def evaluate(channels: tuple[Path, ...], options: EvaluateOptions) -> None:
    """Rates of the network and of every conventional precoder on the same channels."""
    from .commands import evaluate as work

    work.evaluate(channels, options)


@main.command()
@console.options(JsonOptions)
def models(options: JsonOptions) -> None:
    """List the packaged models with what was measured."""
    from fieldfare.common.commands.models import list_models

    from ..networks.models import precoder_size

    list_models("precoding", options, more=lambda card: precoder_size(card.name))


@main.command()
@console.options(BenchOptions)
def bench(options: BenchOptions) -> None:
    """Time and operations of a channel for every precoder and size, and the budget of a slot."""
    from .commands import bench as work

    work.bench(options)


@main.command()
@console.options(ExportOptions)
def export(options: ExportOptions) -> None:
    """Write the whole precoder as ONNX in real arithmetic, for any batch, users and antennas."""
    from .commands import export as work

    work.export(options)


@main.command()
@console.options(TrainOptions)
def train(options: TrainOptions) -> None:
    """Train without labels, on channels drawn anew for every step; run again to resume."""
    from .commands import train as work

    work.train(options)
