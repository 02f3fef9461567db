# SPDX-License-Identifier: Apache-2.0
"""The command med-seg: parse, call, print. Everything heavy is imported inside the verbs.

Not a medical device.
"""

from pathlib import Path
from typing import Any

import click

from fieldfare.common import console
from fieldfare.common.batch.options import batch_options

from .options import Bytes, file_path, modality_option, one_of

DEFAULT_MODEL = "reversible_unet_phantom"

SCHEMES = ("brats2020", "brats2023", "brats2024")
MODALITIES = ("t1", "t1ce", "t2", "flair")
TTA = ("none", "axial", "full")
PRESETS = (
    "reversible",
    "reversible_deep",
    "reversible_wide",
    "reversible_small",
    "resunet_aspp",
    "resunet_aspp_small",
    "resunet_aspp_3d",
)
POSTPROCESSING = ("none", "replace-small-et")


@click.group(cls=console.CommandGroup)
@click.version_option(package_name="fieldfare-medical")
def main() -> None:
    """Segment brain tumours in MRI. Not a medical device."""


@main.command()
@click.argument("cases", nargs=-1, type=file_path, metavar="[CASE_DIR]...")
@modality_option("t1", "T1")
@modality_option("t1ce", "T1 with contrast agent")
@modality_option("t2", "T2")
@modality_option("flair", "T2-FLAIR")
@console.output_option
@console.model_option(DEFAULT_MODEL)
@click.option(
    "--labels",
    type=click.Choice(SCHEMES),
    default="brats2023",
    show_default=True,
    help="What the numbers written mean; ET is 4 in brats2020, else 3. Also in the JSON file.",
)
@click.option("--prob", type=file_path, help="Also write the probabilities of WT, TC, ET (4D).")
@click.option("--report", type=file_path, help="Also write a report (one self-contained HTML).")
@click.option("--viewer", is_flag=True, help="Put a three-plane viewer into the report.")
@click.option("--png", type=file_path, help="Also draw the slices of the report (PNG).")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Probability from which a voxel belongs to a region.",
)
@one_of(
    "--postprocess",
    POSTPROCESSING,
    "replace-small-et turns enhancing tumour of under 200 mm3 in all into necrotic core.",
)
@one_of(
    "--tta",
    TTA,
    "Average over flips: axial left-right and front-back (4 times the work), full also up-"
    "down (8 times).",
)
@click.option(
    "--resample-to",
    type=click.Choice(MODALITIES),
    help="Put images of differing grids on that of this one, which the result then has.",
)
@click.option(
    "--allow-missing",
    is_flag=True,
    help="Do without missing modalities; for models trained with modality dropout.",
)
@click.option(
    "--max-memory",
    type=Bytes(),
    help="Plan tile and precision so that the peak fits: 2GiB. Of the process; on CUDA of the GPU.",
)
@click.option(
    "--tile",
    type=click.IntRange(min=16),
    help="Longest side of a tile, in voxels of the model. [default: as in training, or less]",
)
@click.option(
    "--overlap",
    type=click.IntRange(min=0),
    help="Voxels that neighbouring tiles share. [default: half of the tile]",
)
@click.option(
    "--batch", type=click.IntRange(min=1), help="Tiles or slices at a time. [default: by network]"
)
@console.device_option
@console.precision_option
@batch_options
@console.overwrite_option
@console.dry_run_option
@console.quiet_option
@console.json_option
def infer(cases: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Segment the tumour of a case. Not a medical device.

    CASE_DIR holds the four images, skull-stripped and on one grid, with names that end as BraTS'
    do: t1 t1ce t2 flair, or t1n t1c t2w t2f. OUTPUT is a .nii.gz, .nii or .nrrd file on the grid of
    the images, with a .json beside it; for several cases a folder, which gets <case>_seg.nii.gz.
    """
    from .commands import infer as work

    work.infer(cases, output, options)


@main.command()
@console.json_option
def models(as_json: bool) -> None:
    """List the packaged models with what was measured."""
    from .commands import models as work

    work.models(as_json)


@main.command()
@console.model_option(DEFAULT_MODEL)
@click.option(
    "--tile",
    type=click.IntRange(min=16),
    default=64,
    show_default=True,
    help="Side in voxels of the model.",
)
@click.option(
    "--repeats", type=click.IntRange(min=2), default=5, show_default=True, help="Timed runs."
)
@console.device_option
@console.precision_option
@console.json_option
def bench(**options: Any) -> None:
    """Cost, speed and memory of one tile."""
    from .commands import models as work

    work.bench(options)


@main.command()
@console.output_option
@console.model_option(DEFAULT_MODEL)
@click.option(
    "--tile",
    type=click.IntRange(min=16),
    default=64,
    show_default=True,
    help="Side in voxels with which the export is checked.",
)
@console.overwrite_option
def export(output: Path, model: str, tile: int, overwrite: bool) -> None:
    """Write the network as ONNX; ONNX Runtime must agree with torch before it is kept."""
    from .commands import models as work

    work.export(output, model, tile, overwrite)


@main.command()
@click.argument("table", type=file_path, metavar="CASES.csv")
@click.option(
    "-o", "--output", type=file_path, required=True, help="Folder of checkpoint, log and model."
)
@click.option(
    "--preset",
    type=click.Choice(PRESETS),
    default="reversible_small",
    show_default=True,
    help="The fresh network's shape.",
)
@click.option("--init", metavar="NAME|PATH", help="Start from this model instead.")
@click.option(
    "--labels",
    type=click.Choice(SCHEMES),
    help="What the numbers of the label files mean. [default: as the JSON file beside each says]",
)
@click.option("--fold", metavar="K/N", help="Hold out the K-th of N parts of the patients.")
@click.option("--steps", type=click.IntRange(min=1), default=2000, show_default=True, help="Steps.")
@click.option(
    "--batch", type=click.IntRange(min=1), default=2, show_default=True, help="Patches a step."
)
@click.option(
    "--patch-size",
    type=console.Numbers(int),
    default="64",
    show_default=True,
    help="Sides of a patch in voxels of the network: one number or X,Y,Z (X,Y in 2D).",
)
@click.option(
    "--spacing",
    type=click.FloatRange(min=0, min_open=True),
    help="Voxels of the network, mm. [default: the preset's or model's]",
)
@one_of(
    "--memory",
    ["none", "checkpoint", "reversible"],
    "What the backward pass recomputes to save memory; the result stays the same.",
)
@click.option(
    "--foreground",
    type=click.FloatRange(0, 1),
    default=0.67,
    show_default=True,
    help="Share of the patches that are laid around a voxel of the tumour.",
)
@click.option(
    "--modality-dropout",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of the patches that lack modalities, for use with `infer --allow-missing`; with it "
    "cases may lack some, too.",
)
@click.option(
    "--region-weights",
    type=console.Numbers(float, 3),
    default="1,1,1",
    show_default=True,
    help="Of WT, TC, ET in the loss.",
)
@click.option(
    "--learning-rate", type=float, default=1e-3, show_default=True, help="Peak of the cosine."
)
@click.option(
    "--prepared",
    type=file_path,
    help="Folder of the cases made ready, which runs may share. [default: prepared in OUTPUT]",
)
@click.option("--workers", type=click.IntRange(min=0), default=0, help="Loading processes.")
@click.option("--devices", type=click.IntRange(min=1), default=1, help="Training processes.")
@click.option("--num-nodes", type=click.IntRange(min=1), default=1, help="Machines.")
@console.seed_option
@console.device_option
@console.precision_option
@console.quiet_option
@console.json_option
def train(table: Path, output: Path, **options: Any) -> None:
    """Train on labelled cases; run again to resume. Not a medical device.

    CASES.csv has a header and a row for each case: case (its folder, relative to the table), split
    (train, val, test) and, optionally, patient. Labels are the file that ends in _seg or -seg. No
    patient may lie in two splits.
    """
    from .commands import train as work

    work.train(table, output, options)


@main.command()
@click.option("-o", "--output", required=True, type=file_path, help="Folder for the cases.")
@click.option("--count", type=click.IntRange(min=1), default=20, show_default=True, help="Cases.")
@click.option(
    "--val",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of them for validation.",
)
@click.option(
    "--spacing",
    type=click.FloatRange(min=0.5, max=8),
    default=1.0,
    show_default=True,
    help="Side of a voxel, mm; 1 gives 240 x 240 x 155.",
)
@one_of("--naming", ["brats2020", "brats2023"], "Of the files: _t1ce or -t1c.")
@console.seed_option
@console.quiet_option
@console.json_option
def phantom(output: Path, **options: Any) -> None:
    """Draw synthetic labelled cases and a table of them for training; run again to go on.

    Healthy anatomy comes from the MNI152 atlas; lesions, contrasts and the scanner's faults are
    random. Labels: 1 necrotic or non-enhancing core, 2 oedema, 3 enhancing tumour (brats2023).
    """
    from .commands import phantom as work

    if options["val"] > options["count"]:
        raise click.BadParameter(f"{options['val']} is more than --count", param_hint="--val")
    work.phantom(output, options)


@main.command("eval")
@click.argument("predicted", type=file_path, metavar="PREDICTED")
@click.argument("truth", type=file_path, metavar="TRUTH")
@click.option(
    "--labels",
    type=click.Choice(SCHEMES),
    help="What the numbers in PREDICTED mean. [default: as the JSON file beside it says]",
)
@click.option(
    "--truth-labels",
    type=click.Choice(SCHEMES),
    help="The same of TRUTH. [default: as the JSON file beside it says, or --labels]",
)
@one_of("--hd", ["max", "pooled"], "HD95: the larger of two directed percentiles, or one of all.")
@one_of(
    "--empty",
    ["nan", "brats"],
    "Empty regions: no value, or by BraTS Dice 1, HD95 0 (both empty), 0 and 373 mm (one).",
)
@click.option(
    "--tolerance", type=click.FloatRange(0), default=1.0, show_default=True, help="Of the NSD, mm."
)
@one_of("--lesions", ["brats2023", "one_to_one"], "How lesions are paired; one_to_one as in 2026.")
@click.option(
    "--dilation", type=click.IntRange(min=0), default=3, show_default=True, help="Of brats2023."
)
@click.option(
    "--least",
    type=click.FloatRange(min=0),
    default=50.0,
    show_default=True,
    help="Lesions of at most this many mm3 do not count in brats2023.",
)
@click.option("-o", "--output", type=file_path, help="Folder for CSV, JSON and box plot.")
@console.quiet_option
@console.json_option
def evaluate(predicted: Path, truth: Path, **options: Any) -> None:
    """Measure PREDICTED labels against TRUTH: two files, or two folders with the same cases."""
    from .commands import evaluate as work

    work.evaluate(predicted, truth, options)


@main.command()
@click.argument("source", type=file_path, metavar="SEG.nii.gz")
@click.option(
    "--from",
    "source_scheme",
    type=click.Choice(SCHEMES),
    help="What the numbers mean. [default: as the JSON file beside SEG says]",
)
@click.option(
    "--to", "target_scheme", type=click.Choice(SCHEMES), required=True, help="What they shall mean."
)
@console.output_option
@console.overwrite_option
@console.json_option
def relabel(source: Path, output: Path, **options: Any) -> None:
    """Convert labels between schemes: 4 is enhancing tumour in brats2020, but 3 from 2023 on."""
    from .commands import evaluate as work

    work.convert(source, output, options)
