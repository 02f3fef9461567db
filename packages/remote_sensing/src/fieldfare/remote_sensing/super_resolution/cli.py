# SPDX-License-Identifier: Apache-2.0
"""The command rs-sr: parse, call, print. Everything heavy is imported inside the commands."""

from pathlib import Path
from typing import Any

import click

from fieldfare.common import console

from .. import options as shared

DEFAULT_MODEL = "ediffsr_small_x4"

SAMPLERS = ("multistep", "sde", "ode", "posterior")

sampler_option = click.option(
    "--sampler",
    type=click.Choice(SAMPLERS),
    default="multistep",
    show_default=True,
    help="multistep takes --steps; the published sde, ode and posterior take every time.",
)
steps_option = click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Solver steps; 1 is the best PSNR, more add detail. [default: the model's]",
)
tile_option = shared.tile_option(64, least=8, help="Side in input pixels.")
overlap_option = shared.overlap_option(16)


@click.group(cls=console.CommandGroup)
@click.version_option(package_name="fieldfare-remote-sensing")
def main() -> None:
    """Super-resolve GeoTIFFs with diffusion (EDiffSR)."""


@main.command()
@click.argument("inputs", nargs=-1, required=True, type=shared.file_path, metavar="IN.tif...")
@console.output_option
@console.model_option(DEFAULT_MODEL, " `bicubic` is the baseline.")
@steps_option
@sampler_option
@shared.range_option(
    "LOW:HIGH|auto",
    "Values the model sees as 0 and 1. [default: 0:255 for uint8, else auto]",
)
@shared.bands_option("Bands to enlarge, from 1. [default: all]")
@shared.window_option
@shared.bbox_option
@tile_option
@overlap_option
@shared.batch_option
@click.option(
    "--uncertainty",
    type=click.IntRange(min=2),
    metavar="K",
    help="Also write the standard deviation over K seeds, to NAME_std.tif.",
)
@click.option("--preview", type=shared.file_path, help="Write a before/after picture (PNG).")
@click.option(
    "--layout",
    type=click.Choice(["cog", "gtiff"]),
    default="cog",
    show_default=True,
    help="Cloud-optimised with overviews, or plain tiled GeoTIFF.",
)
@console.seed_option
@shared.infer_run_options
def infer(inputs: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Enlarge rasters four times.

    OUTPUT is a file for one input, a folder for several (or when it is an existing folder).
    """
    from . import commands

    commands.infer(inputs, output, options)


@main.command()
@click.argument("tiles", type=shared.file_path, metavar="TILES")
@shared.training_folder_option
@click.option("--steps", type=click.IntRange(min=1), default=6000, show_default=True, help="Steps.")
@click.option("--batch", type=click.IntRange(min=1), default=4, show_default=True, help="Crops.")
@click.option(
    "--patch", type=click.IntRange(min=8), default=32, show_default=True, help="Crop, input pixels."
)
@click.option(
    "--learning-rate", type=float, default=5e-4, show_default=True, help="Peak of the cosine."
)
@click.option(
    "--preset",
    type=click.Choice(["small", "published"]),
    default="small",
    show_default=True,
    help="Network and objective: ours for few steps, or the published ones.",
)
@click.option(
    "--perceptual-weight",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Weight of the feature distance at t < T (small preset).",
)
@click.option(
    "--cpem",
    type=click.Choice(["published", "folded"]),
    default="published",
    show_default=True,
    help="Prior enhancement: as in the published code, or as in the paper's figure.",
)
@shared.init_option
@shared.training_run_options
def train(tiles: Path, output: Path, **options: Any) -> None:
    """Train on a folder of uint8 GeoTIFF tiles; run again to resume.

    The inputs are made from the tiles by Pillow's bicubic filter.
    """
    from . import commands

    commands.train(tiles, output, options)


@main.command("eval")
@click.argument("folder", type=shared.file_path, metavar="DIR")
@shared.reports_option
@shared.models_option(DEFAULT_MODEL)
@click.option("--steps", type=click.IntRange(min=1), multiple=True, help="Repeat to compare.")
@sampler_option
@click.option("--match", default="*", show_default=True, help="Only files of this pattern.")
@tile_option
@overlap_option
@console.seed_option
@console.device_option
@console.precision_option
@console.quiet_option
@console.json_option
def evaluate(folder: Path, **options: Any) -> None:
    """Measure models on DIR (hr/ and lr_x4/, or truth alone), bicubic beside them."""
    from . import commands

    commands.evaluate(folder, options)


@main.command()
@console.json_option
def models(as_json: bool) -> None:
    """List the packaged models with what was measured."""
    from . import commands

    commands.models(as_json)


@main.command()
@console.model_option(DEFAULT_MODEL)
@steps_option
@tile_option
@shared.repeats_option
@console.device_option
@console.precision_option
@console.json_option
def bench(**options: Any) -> None:
    """Cost and speed of one tile."""
    from . import commands

    commands.bench(options)


@main.command()
@console.output_option
@console.model_option(DEFAULT_MODEL)
@tile_option
@console.overwrite_option
def export(output: Path, model: str, tile: int, overwrite: bool) -> None:
    """Write the network as ONNX; ONNX Runtime must agree with torch before it is kept."""
    from . import commands

    commands.export(output, model, tile, overwrite)


@main.command()
@click.argument("published", type=shared.file_path, metavar="PUBLISHED.pth")
@console.output_option
@console.overwrite_option
def convert(published: Path, output: Path, overwrite: bool) -> None:
    """Turn a published EDiffSR checkpoint into a safetensors file that every command takes."""
    from . import commands

    commands.convert(published, output, overwrite)
