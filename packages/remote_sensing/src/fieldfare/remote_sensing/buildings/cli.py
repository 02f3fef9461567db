# SPDX-License-Identifier: Apache-2.0
"""The command rs-buildings: parse, call, print. Everything heavy is imported inside the verbs."""

from pathlib import Path
from typing import Any

import click

from fieldfare.common import console

from .. import options as shared

DEFAULT_MODEL = "unetplusplus_lite0_kampala"

depth_option = click.option(
    "--depth",
    type=click.IntRange(1, 4),
    help="Of U-Net++: 1 is fastest, 4 is whole. [default: whole]",
)
threshold_option = click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Building probability from which a pixel belongs to a footprint.",
)
min_area_option = click.option(
    "--min-area",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="Smaller footprints are left out, m2.",
)
scene_gsd_option = click.option(
    "--gsd",
    type=click.FloatRange(min=0, min_open=True),
    help="Metres per pixel of scenes without CRS. [default: the model's]",
)
bands_option = shared.bands_option("Bands for the model, from 1. [default: the first]")
range_option = shared.range_option(
    "LOW:HIGH", "Values seen as 0 and 1. [default: 0:255 for uint8, else percentiles of the scene]"
)
tile_option = shared.tile_option(512, least=64, help="Side in pixels of the model.")
overlap_option = shared.overlap_option(128)


@click.group(cls=console.CommandGroup)
@click.version_option(package_name="fieldfare-remote-sensing")
def main() -> None:
    """Outline buildings in aerial and drone imagery (U-Net++)."""


@main.command()
@click.argument("inputs", nargs=-1, required=True, type=shared.file_path, metavar="SCENE.tif...")
@console.output_option
@console.model_option(DEFAULT_MODEL)
@depth_option
@click.option("--mask", type=shared.file_path, help="Also write the mask, 0 and 1 (GeoTIFF).")
@click.option("--prob", type=shared.file_path, help="Also write the probabilities (GeoTIFF).")
@click.option("--preview", type=shared.file_path, help="Also draw the outlines on the scene (PNG).")
@threshold_option
@min_area_option
@click.option(
    "--max-hole",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="Smaller holes are filled, m2.",
)
@click.option("--raw", is_flag=True, help="Leave outlines as found instead of squaring them.")
@click.option("--no-split", is_flag=True, help="Leave roofs that touch each other in one piece.")
@scene_gsd_option
@range_option
@bands_option
@shared.window_option
@shared.bbox_option
@tile_option
@overlap_option
@shared.batch_option
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["gpkg", "parquet", "geojson"]),
    default="gpkg",
    show_default=True,
    help="Of several scenes' footprints; one scene's follow the name of OUTPUT.",
)
@shared.infer_run_options
def infer(inputs: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Find the buildings of scenes and write their outlines.

    OUTPUT is a .gpkg, .parquet or .geojson file for one scene, a folder for several (or when it is
    an existing folder).
    """
    from .commands import infer as work

    work.infer(inputs, output, options)


# What `train` and `adapt` share.
training_options = shared.stacked(
    click.argument("table", type=shared.file_path, metavar="SCENES.csv"),
    shared.training_folder_option,
    shared.init_option,
    click.option(
        "--architecture",
        type=click.Choice(["unetplusplus", "unet", "lraspp"]),
        default="unetplusplus",
        show_default=True,
        help="Of a fresh network.",
    ),
    click.option(
        "--encoder",
        default="lite0",
        show_default=True,
        help="Of a fresh network: b0 to b4, lite0 to lite2, resnest14, mobilevit, "
        "mobilenetv3, ... or any timm name.",
    ),
    click.option(
        "--encoder-weights",
        metavar="imagenet|none|PATH",
        default="imagenet",
        show_default=True,
        help="Start of a fresh encoder; imagenet exists for lite0 to lite2.",
    ),
    click.option(
        "--encoder-rate",
        type=click.FloatRange(min=0),
        help="Learning rate of the encoder as a share of --learning-rate. [default: 0.1 "
        "where it starts from --encoder-weights, else 1]",
    ),
    click.option(
        "--gsd",
        type=click.FloatRange(min=0, min_open=True),
        help="Metres per pixel that the model shall work at. [default: 0.15, or that of --init]",
    ),
    click.option(
        "--patch",
        type=click.IntRange(min=128),
        default=256,
        show_default=True,
        help="Side of the training patch; below 128 the deepest features learn nothing.",
    ),
    click.option(
        "--batch",
        type=click.IntRange(min=1),
        default=8,
        show_default=True,
        help="Patches a step.",
    ),
    click.option(
        "--loss",
        default="bce+dice",
        show_default=True,
        help="bce, dice, focal, boundary, added up, with weights: bce+0.5*dice.",
    ),
    click.option(
        "--depth-weights",
        type=console.Numbers(float, 4),
        default="0.5,0.5,0.5,1",
        show_default=True,
        help="Of the depths L1 to L4 in the loss.",
    ),
    click.option(
        "--edge-weight",
        type=click.FloatRange(min=0),
        default=0.5,
        show_default=True,
        help="Of the edge map in the loss; 0 trains without one.",
    ),
    shared.training_run_options,
)


@main.command()
@training_options
@click.option("--steps", type=click.IntRange(min=1), default=2000, show_default=True, help="Steps.")
@click.option(
    "--learning-rate", type=float, default=1e-3, show_default=True, help="Peak of the cosine."
)
def train(table: Path, output: Path, **options: Any) -> None:
    """Train on labelled scenes; run again to resume.

    SCENES.csv has a header and a row for each scene: image, labels (polygons or a mask), split
    (train, val, test) and, optionally, area, window ("row column height width") and gsd (metres per
    pixel, without CRS). No area may lie in two splits.
    """
    from .commands import train as work

    work.train(table, output, options)


@main.command()
@training_options
@click.option(
    "--stage",
    type=click.Choice(["noisy", "clean"]),
    required=True,
    help="noisy: many labels, some wrong; clean: go on from --init with few right ones.",
)
@click.option(
    "--method",
    type=click.Choice(["finetune", "distillation", "mutual"]),
    default="finetune",
    show_default=True,
    help="How the clean stage learns from --init.",
)
@click.option("--steps", type=click.IntRange(min=1), help="[default: 2000 noisy, 500 clean]")
@click.option("--learning-rate", type=float, help="[default: 1e-3 noisy, 5e-4 clean]")
def adapt(table: Path, output: Path, **options: Any) -> None:
    """Train on noisy labels, then adapt to clean ones, with a report of before and after."""
    from .commands import train as work

    work.adapt(table, output, options)


@main.command("eval")
@click.argument("truth", type=shared.file_path, metavar="TRUTH")
@click.option(
    "--scene", type=shared.file_path, help="Run models on this scene; TRUTH is its labels."
)
@click.option(
    "--prediction",
    type=shared.file_path,
    help="Compare this instead: polygons, a mask or a folder of them, or a SpaceNet CSV.",
)
@shared.models_option(DEFAULT_MODEL)
@click.option(
    "--depth", type=click.IntRange(1, 4), multiple=True, help="Repeat to compare. [default: whole]"
)
@threshold_option
@click.option(
    "--min-area",
    type=click.FloatRange(min=0),
    help="Smaller buildings do not count. [default: 5 m2; 20 pixels in SpaceNet tables]",
)
@scene_gsd_option
@range_option
@bands_option
@shared.window_option
@tile_option
@overlap_option
@shared.reports_option
@console.device_option
@console.precision_option
@console.quiet_option
@console.json_option
def evaluate(truth: Path, **options: Any) -> None:
    """Measure models on a scene, or finished predictions, against TRUTH."""
    from .commands import evaluate as work

    work.evaluate(truth, options)


@main.command()
@console.json_option
def models(as_json: bool) -> None:
    """List the packaged models with what was measured, and what each depth costs."""
    from .commands import models as work

    work.models(as_json)


@main.command()
@console.model_option(DEFAULT_MODEL)
@tile_option
@shared.repeats_option
@console.device_option
@console.precision_option
@console.json_option
def bench(**options: Any) -> None:
    """Cost and speed of one tile at each depth."""
    from .commands import models as work

    work.bench(options)


@main.command()
@console.output_option
@console.model_option(DEFAULT_MODEL)
@depth_option
@tile_option
@console.overwrite_option
def export(output: Path, model: str, depth: int | None, tile: int, overwrite: bool) -> None:
    """Write the network as ONNX; ONNX Runtime must agree with torch before it is kept."""
    from .commands import models as work

    work.export(output, model, depth, tile, overwrite)
