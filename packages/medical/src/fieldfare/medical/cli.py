# SPDX-License-Identifier: Apache-2.0
"""The command med-seg: parse, call, print. Everything heavy is imported inside the verbs.

Not a medical device.
"""

from pathlib import Path

import click

from fieldfare.common import console
from fieldfare.common.console.shared import JsonOptions

from .options import (
    BenchOptions,
    EvaluateOptions,
    ExportOptions,
    InferOptions,
    PhantomOptions,
    RelabelOptions,
    TrainOptions,
)


@click.group(cls=console.CommandGroup)
@click.version_option(package_name="fieldfare-medical")
def main() -> None:
    """Segment brain tumours in MRI. Not a medical device."""


@main.command()
@click.argument("cases", nargs=-1, type=console.FILE, metavar="[CASE_DIR]...")
@console.options(InferOptions)
def infer(cases: tuple[Path, ...], options: InferOptions) -> None:
    """Segment the tumour of a case. Not a medical device.

    CASE_DIR holds the four images, skull-stripped and on one grid, with names that end as BraTS'
    do, t1 t1ce t2 flair or t1n t1c t2w t2f, or other data sets' (see docs/med-seg.md). OUTPUT is a
    .nii.gz, .nii or .nrrd file on the grid of the images, with a .json beside it; for several cases
    a folder, which gets <case>_seg.nii.gz.
    """
    from .commands import infer as work

    work.infer(cases, options)


@main.command()
@console.options(JsonOptions)
def models(options: JsonOptions) -> None:
    """List the packaged models with what was measured."""
    from .commands import models as work

    work.models(options)


@main.command()
@console.options(BenchOptions)
def bench(options: BenchOptions) -> None:
    """Cost, speed and memory of one tile."""
    from .commands import bench as work

    work.bench(options)


@main.command()
@console.options(ExportOptions)
def export(options: ExportOptions) -> None:
    """Write the network as ONNX; ONNX Runtime must agree with torch before it is kept."""
    from .commands import export as work

    work.export(options)


@main.command()
@click.argument("table", type=console.FILE, metavar="CASES.csv")
@console.options(TrainOptions)
def train(table: Path, options: TrainOptions) -> None:
    """Train on labelled cases; run again to resume. Not a medical device.

    CASES.csv has a header and a row for each case: case (its folder, relative to the table), split
    (train, val, test) and, optionally, patient. Labels are the file that ends in _seg or -seg. No
    patient may lie in two splits.
    """
    from .commands import train as work

    work.train(table, options)


@main.command()
@console.options(PhantomOptions)
def phantom(options: PhantomOptions) -> None:
    """Draw synthetic labelled cases and a table of them for training; run again to go on.

    Healthy anatomy comes from the MNI152 atlas, or with --generator growth from FreeSurfer's
    fsaverage; lesions, contrasts and the scanner's faults are random. Labels: 1 necrotic or
    non-enhancing core, 2 oedema, 3 enhancing tumour (brats2023).
    """
    from .commands import phantom as work

    work.phantom(options)


@main.command("eval")
@click.argument("predicted", type=console.FILE, metavar="PREDICTED")
@click.argument("truth", type=console.FILE, metavar="TRUTH")
@console.options(EvaluateOptions)
def evaluate(predicted: Path, truth: Path, options: EvaluateOptions) -> None:
    """Measure PREDICTED labels against TRUTH: two files, or two folders with the same cases."""
    from .commands import evaluate as work

    work.evaluate(predicted, truth, options)


@main.command()
@click.argument("source", type=console.FILE, metavar="SEG.nii.gz")
@console.options(RelabelOptions)
def relabel(source: Path, options: RelabelOptions) -> None:
    """Convert labels between schemes: 4 is enhancing tumour in brats2020, but 3 from 2023 on."""
    from .commands import relabel as work

    work.relabel(source, options)
