# SPDX-License-Identifier: Apache-2.0
"""The command rs-dehaze: parse, call, print. Everything heavy is imported inside the verbs."""

from pathlib import Path

import click

from fieldfare.common import console
from fieldfare.common.console.shared import ConvertOptions, JsonOptions

from .options import BenchOptions, EvalOptions, ExportOptions, InferOptions, TrainOptions


@click.group(cls=console.CommandGroup)
@click.version_option(package_name="fieldfare-remote-sensing")
def main() -> None:
    """Take haze and thin cloud off GeoTIFFs (DEA-Net)."""


@main.command()
@click.argument("inputs", nargs=-1, required=True, type=console.FILE, metavar="IN.tif...")
@console.options(InferOptions)
def infer(inputs: tuple[Path, ...], options: InferOptions) -> None:
    """Take the haze off rasters.

    OUTPUT is a file for one input, a folder for several (or when it is an existing folder).
    """
    from .commands import infer as work

    work.infer(inputs, options)


@main.command()
@click.argument("tiles", nargs=-1, required=True, type=console.FILE, metavar="TILES...")
@console.options(TrainOptions)
def train(tiles: tuple[Path, ...], options: TrainOptions) -> None:
    """Train on folders of clear uint8 GeoTIFF tiles; run again to resume.

    The hazy inputs are made from the tiles by the scattering model.
    """
    from .commands import train as work

    work.train(tiles, options)


@main.command("eval")
@click.argument("folder", type=console.FILE, metavar="DIR")
@console.options(EvalOptions)
def evaluate(folder: Path, options: EvalOptions) -> None:
    """Measure models on the clear rasters of DIR under synthetic haze, the baseline beside them."""
    from .commands import evaluate as work

    work.evaluate(folder, options)


@main.command()
@console.options(JsonOptions)
def models(options: JsonOptions) -> None:
    """List the packaged models with what was measured."""
    from .commands import models as work

    work.models(options)


@main.command()
@console.options(BenchOptions)
def bench(options: BenchOptions) -> None:
    """Cost and speed of one tile."""
    from .commands import models as work

    work.bench(options)


@main.command()
@console.options(ExportOptions)
def export(options: ExportOptions) -> None:
    """Write the network as ONNX; ONNX Runtime must agree with torch before it is kept."""
    from .commands import export as work

    work.export(options)


@main.command()
@click.argument("published", type=console.FILE, metavar="PUBLISHED.pk")
@console.options(ConvertOptions)
def convert(published: Path, options: ConvertOptions) -> None:
    """Turn a published DEA-Net checkpoint into a safetensors file that every command takes."""
    from .commands import export as work

    work.convert(published, options)
