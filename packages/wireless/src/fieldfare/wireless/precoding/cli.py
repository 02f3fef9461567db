# SPDX-License-Identifier: Apache-2.0
"""The command wl-precode: parse, call, print. Everything heavy is imported inside the verbs."""

from pathlib import Path
from typing import Any

import click

from fieldfare.common import console

from .. import options as shared

DEFAULT_MODEL = "icgnn_precoder"
METHODS = ("mrt", "zf", "zf-wf", "rzf", "wmmse", "icgnn")
CHANNELS = ("rayleigh", "correlated", "umi", "uma", "rma")

model_option = console.model_option(DEFAULT_MODEL)
refine_option = click.option(
    "--refine",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="WMMSE steps from the network's point; each costs about one solve.",
)
guard_option = click.option(
    "--guard/--no-guard",
    default=True,
    show_default=True,
    help="Take RZF where it has the higher predicted sum rate.",
)
solver_option = click.option(
    "--solver",
    type=click.Choice(["cg", "cholesky"]),
    default="cholesky",
    show_default=True,
    help="Of the linear systems: conjugate gradients (no inverse) or a factorisation.",
)
channel_option = click.option(
    "--channel",
    type=click.Choice(CHANNELS),
    default="rayleigh",
    show_default=True,
    help="Drawn where no file is given; the last three are 3GPP TR 38.901 (extra [sionna]).",
)
snr_option = click.option(
    "--snr",
    type=console.Numbers(float),
    metavar="DB,...",
    help="power / noise_power, dB. [default: as in the file; 0,10,20 for drawn channels]",
)


@click.group(cls=console.CommandGroup)
@click.version_option(package_name="fieldfare-wireless")
def main() -> None:
    """Precode for any number of users and antennas (ICGNN, WMMSE, RZF and others)."""


@main.command()
@click.argument("channels", type=shared.file_path, metavar="H.npz")
@console.output_option
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="icgnn",
    show_default=True,
    help="The network or a conventional precoder.",
)
@model_option
@refine_option
@guard_option
@solver_option
@click.option("--power", type=shared.positive, help="Instead of the file's.")
@click.option("--noise-power", type=shared.positive, help="Instead of the file's.")
@click.option(
    "--antenna-power",
    type=shared.positive,
    help="Limit of every antenna: W is scaled down by one factor until it is kept.",
)
@shared.batch_option(4096)
@console.device_option
@console.precision_option
@console.overwrite_option
@console.json_option
def infer(channels: Path, output: Path, **options: Any) -> None:
    """Write the precoders W and the users' rates for the channels in H.npz.

    H.npz holds H, complex, (B, K, N) or (B, F, K, N): row k is used as in y_k = H[k] W s;
    noise_power and power; optionally weights of the users, and H_true if H is an estimate. OUTPUT
    is an npz with W (..., N, K) and rate (..., K) in bits/s/Hz.
    """
    from . import commands as work

    work.infer(channels, output, options)


@main.command("eval")
@click.argument("channels", nargs=-1, type=shared.file_path, metavar="[H.npz]...")
@channel_option
@shared.sizes_option("8x8", "Users x antennas of drawn channels; several are compared.")
@snr_option
@shared.count_option
@click.option(
    "--method",
    "methods",
    type=click.Choice(METHODS),
    multiple=True,
    help="Repeat to compare. [default: all]",
)
@click.option("--model", multiple=True, default=[DEFAULT_MODEL], help="Repeat to compare.")
@refine_option
@guard_option
@solver_option
@click.option(
    "--csi-error",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of error in the estimates that the precoders see.",
)
@click.option("--bound/--no-bound", default=True, help="Also find the bound of the sum capacity.")
@shared.folder_option
@shared.batch_option(1024)
@console.seed_option
@console.device_option
@console.precision_option
@console.quiet_option
@console.json_option
def evaluate(channels: tuple[Path, ...], **options: Any) -> None:
    """Rates of the network and of every conventional precoder on the same channels."""
    from . import commands as work

    work.evaluate(channels, options)


@main.command()
@console.json_option
def models(as_json: bool) -> None:
    """List the packaged models with what was measured."""
    from ..commands import models as work

    work("precoding", as_json)


@main.command()
@model_option
@shared.sizes_option("4x16,8x32,16x64", "Users x antennas.")
@click.option(
    "--batches",
    type=console.Numbers(int),
    default="1,256",
    show_default=True,
    help="Channels a call.",
)
@click.option("--onnx", is_flag=True, help="Also time ONNX Runtime (extra [onnx]).")
@shared.repeats_option
@solver_option
@console.json_option
def bench(**options: Any) -> None:
    """Time and operations of a channel for every precoder and size, and the budget of a slot."""
    from . import benching as work

    work.bench(options)


@main.command()
@console.output_option
@model_option
@click.option(
    "--cg-iterations",
    type=click.IntRange(min=1),
    default=40,
    show_default=True,
    help="Most conjugate-gradient steps of a solve; 2 K are enough for K users.",
)
@console.overwrite_option
def export(output: Path, **options: Any) -> None:
    """Write the whole precoder as ONNX in real arithmetic, for any batch, users and antennas."""
    from . import export as work

    work.export(output, options)


@main.command()
@shared.training_options(steps=12000, batch=128, learning_rate=3e-3)
@click.option(
    "--width", type=click.IntRange(min=4), default=32, show_default=True, help="Of a node's state."
)
@click.option(
    "--layers", type=click.IntRange(min=1), default=3, show_default=True, help="Message passing."
)
@click.option(
    "--max-users",
    type=click.IntRange(min=2),
    default=10,
    show_default=True,
    help="K is drawn from 2 to this for every step.",
)
@click.option(
    "--max-antennas",
    type=click.IntRange(min=2),
    default=24,
    show_default=True,
    help="N is drawn from K to this.",
)
@click.option(
    "--snr-range",
    type=console.Numbers(float, 2),
    default="-5,25",
    show_default=True,
    help="power / noise_power, dB, from a uniform distribution.",
)
@click.option(
    "--correlated",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Share of the steps with correlated antennas.",
)
@click.option(
    "--csi-error",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of error in the estimates that the network sees.",
)
@console.seed_option
@console.device_option
@console.quiet_option
@console.json_option
def train(**options: Any) -> None:
    """Train without labels, on channels drawn anew for every step; run again to resume."""
    from . import train as work

    work.train(options)
