# SPDX-License-Identifier: Apache-2.0
"""The command rs-detect: parse, call, print. Everything heavy is imported inside the verbs."""

from pathlib import Path

import click

from fieldfare.common import console
from fieldfare.common.console.shared import JsonOptions

from .options import BenchOptions, EvalOptions, ExportOptions, InferOptions, TrainOptions


@click.group(cls=console.CommandGroup)
@click.version_option(package_name="fieldfare-remote-sensing")
def main() -> None:
    """Find single objects, such as trees, in aerial imagery (LeYOLO)."""


@main.command()
@click.argument("inputs", nargs=-1, required=True, type=console.FILE, metavar="SCENE.tif...")
@console.options(InferOptions)
def infer(inputs: tuple[Path, ...], options: InferOptions) -> None:
    """Find the objects of scenes and write their boxes.

    OUTPUT is a .gpkg, .parquet, .geojson or .json (COCO) file for one scene, a folder for several
    (or when it is an existing folder).
    """
    from .commands import infer as work

    work.infer(inputs, options)


@main.command()
@click.argument("table", type=console.FILE, metavar="SCENES.csv")
@console.options(TrainOptions)
def train(table: Path, options: TrainOptions) -> None:
    """Train on scenes with boxes or points; run again to resume.

    SCENES.csv has a header and a row for each scene: image, labels, split (train, val, test) and,
    optionally, area, window ("row column height width") and gsd (metres per pixel, without CRS). No
    area may lie in two splits. Labels are boxes, outlines or points in a vector file with a column
    class, COCO, or a CSV in pixels: image, x, y (or left, top, right, bottom) and class.
    """
    from .commands import train as work

    work.train(table, options)


@main.command("eval")
@click.argument("table", type=console.FILE, metavar="SCENES.csv")
@console.options(EvalOptions)
def evaluate(table: Path, options: EvalOptions) -> None:
    """Measure models on the labelled scenes of a split, area by area."""
    from .commands import evaluate as work

    work.evaluate(table, options)


@main.command()
@console.options(JsonOptions)
def models(options: JsonOptions) -> None:
    """List the packaged models with what was measured, and what they cost."""
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
