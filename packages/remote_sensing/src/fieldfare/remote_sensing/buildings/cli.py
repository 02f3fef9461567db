# SPDX-License-Identifier: Apache-2.0
"""The command rs-buildings: parse, call, print. Everything heavy is imported inside the verbs."""

from pathlib import Path

import click

from fieldfare.common import console
from fieldfare.common.console.shared import JsonOptions

from .options import (
    AdaptOptions,
    BenchOptions,
    EvalOptions,
    ExportOptions,
    InferOptions,
    TrainOptions,
)


@click.group(cls=console.CommandGroup)
@click.version_option(package_name="fieldfare-remote-sensing")
def main() -> None:
    """Outline buildings in aerial and drone imagery (U-Net++)."""


@main.command()
@click.argument("inputs", nargs=-1, required=True, type=console.FILE, metavar="SCENE.tif...")
@console.options(InferOptions)
def infer(inputs: tuple[Path, ...], options: InferOptions) -> None:
    """Find the buildings of scenes and write their outlines.

    OUTPUT is a .gpkg, .parquet or .geojson file for one scene, a folder for several (or when it is
    an existing folder).
    """
    from .commands import infer as work

    work.infer(inputs, options)


@main.command()
@click.argument(
    "inputs", nargs=-1, required=True, type=console.FILE, metavar="SCENES.csv | SCENE LABELS"
)
@console.options(TrainOptions)
def train(inputs: tuple[Path, ...], options: TrainOptions) -> None:
    """Train on labelled scenes, or teach a model by a few roofs of one; run again to resume.

    SCENES.csv has a header and a row for each scene: image, labels (polygons or a mask), split
    (train, val, test) and, optionally, area, window ("row column height width") and gsd (metres per
    pixel, without CRS). No area may lie in two splits.

    SCENE LABELS: a raster and some 20 outlines of roofs on it. The packaged model, or that of
    --init, goes on from there; what has no label counts as unknown.
    """
    from .commands import train as work

    work.train(inputs, options)


@main.command()
@click.argument("table", type=console.FILE, metavar="SCENES.csv")
@console.options(AdaptOptions)
def adapt(table: Path, options: AdaptOptions) -> None:
    """Train on noisy labels, then adapt to clean ones, with a report of before and after."""
    from .commands import train as work

    work.adapt(table, options)


@main.command("eval")
@click.argument("truth", type=console.FILE, metavar="TRUTH")
@console.options(EvalOptions)
def evaluate(truth: Path, options: EvalOptions) -> None:
    """Measure models on a scene, or finished predictions, against TRUTH."""
    from .commands import evaluate as work

    work.evaluate(truth, options)


@main.command()
@console.options(JsonOptions)
def models(options: JsonOptions) -> None:
    """List the packaged models with what was measured, and what each depth costs."""
    from .commands import models as work

    work.models(options)


@main.command()
@console.options(BenchOptions)
def bench(options: BenchOptions) -> None:
    """Cost and speed of one tile at each depth, or on the encoder of each family."""
    if options.encoders:
        from .commands.encoders import bench_encoders as work
    else:
        from .commands.models import bench as work

    work(options)


@main.command()
@console.options(ExportOptions)
def export(options: ExportOptions) -> None:
    """Write the network as ONNX; ONNX Runtime must agree with torch before it is kept."""
    from .commands import export as work

    work.export(options)
