# SPDX-License-Identifier: Apache-2.0
"""The options of rs-sr's verbs; nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path

import click

from fieldfare.common import console
from fieldfare.common.console import shared

from .. import options as rasters

DEFAULT_MODEL = "ediffsr_small_x4"

SAMPLERS = ("multistep", "sde", "ode", "posterior")
PRESETS = ("small", "published")
CPEMS = ("published", "folded")
LAYOUTS = ("cog", "gtiff")


def steps_option() -> int | None:
    """`--steps` of the solver."""
    found: int | None = console.option(
        type=click.IntRange(min=1),
        help="Solver steps; 1 is the best PSNR, more add detail. [default: the model's]",
    )
    return found


@dataclass(frozen=True, kw_only=True)
class TileOptions:
    """Of every verb that runs a tile."""

    tile: int = rasters.tile_option(64, least=8, help="Side in input pixels.")


@dataclass(frozen=True, kw_only=True)
class RestoreOptions(TileOptions, shared.PrecisionOptions, shared.SeedOptions):
    """How whole images are restored."""

    overlap: int = rasters.overlap_option(16)
    consistent: bool | None = console.option(
        "--consistent/--no-consistent",
        default=None,
        help="The result reduced again is the input. [default: by how the input looks]",
    )
    sampler: str = console.option(
        type=click.Choice(SAMPLERS),
        default="multistep",
        help="multistep takes --steps; the published sde, ode and posterior take every time.",
    )


@dataclass(frozen=True, kw_only=True)
class InferOptions(rasters.InferOptions, RestoreOptions, shared.TrustOptions, shared.BudgetOptions):
    """Of `infer`."""

    model: str = shared.model_option(DEFAULT_MODEL, " `bicubic` is the baseline.")
    steps: int | None = steps_option()
    value_range: str | None = rasters.range_option(
        "LOW:HIGH|auto",
        "Values the model sees as 0 and 1. [default: 0:255 for uint8, else auto]",
    )
    bands: tuple[int, ...] | None = rasters.bands_option("Bands to enlarge, from 1. [default: all]")
    uncertainty: int | None = console.option(
        type=click.IntRange(min=2),
        metavar="K",
        help="Also write the standard deviation over K seeds, to NAME_std.tif.",
    )
    preview: Path | None = console.option(
        type=console.FILE, help="Write a before/after picture (PNG)."
    )
    layout: str = console.option(
        type=click.Choice(LAYOUTS),
        default="cog",
        help="Cloud-optimised with overviews, or plain tiled GeoTIFF.",
    )


@dataclass(frozen=True, kw_only=True)
class TrainOptions(shared.ParallelTrainingOptions):
    """Of `train`."""

    steps: int = console.option(type=click.IntRange(min=1), default=6000, help="Steps.")
    batch: int = console.option(type=click.IntRange(min=1), default=4, help="Crops a step.")
    learning_rate: float = console.option(
        type=console.POSITIVE, default=5e-4, help="Peak of the cosine."
    )
    patch: int = console.option(type=click.IntRange(min=8), default=32, help="Crop, input pixels.")
    preset: str = console.option(
        type=click.Choice(PRESETS),
        default="small",
        help="Network and objective: ours for few steps, or the published ones.",
    )
    perceptual_weight: float = console.option(
        type=click.FloatRange(min=0),
        default=0.0,
        help="Weight of the feature distance at t < T (small preset).",
    )
    degraded_share: float | None = console.option(
        type=click.FloatRange(0, 1),
        help="Share of inputs degraded as imagery is; 0 none. [default: 0.5, published 0]",
    )
    blur_sigma: float = console.option(
        type=click.FloatRange(min=0), default=1.0, help="Largest blur, in input pixels."
    )
    noise_sigma: float = console.option(
        type=click.FloatRange(min=0), default=6.0, help="Strongest noise, in levels of 255."
    )
    sharpen_amount: float = console.option(
        type=click.FloatRange(min=0), default=2.0, help="Strongest unsharp mask."
    )
    jpeg_quality: int = console.option(
        type=click.IntRange(0, 95), default=40, help="Lowest quality of JPEG; 0 none."
    )
    cpem: str = console.option(
        type=click.Choice(CPEMS),
        default="published",
        help="Prior enhancement: as in the published code, or as in the paper's figure.",
    )


@dataclass(frozen=True, kw_only=True)
class EvalOptions(shared.ReportOptions, RestoreOptions):
    """Of `eval`."""

    models: tuple[str, ...] = shared.models_option(DEFAULT_MODEL)
    steps: tuple[int, ...] = console.option(
        type=click.IntRange(min=1), multiple=True, help="Repeat to compare."
    )
    match: str = console.option(default="*", help="Only files of this pattern.")


@dataclass(frozen=True, kw_only=True)
class BenchOptions(shared.BenchOptions, shared.PrecisionOptions, TileOptions):
    """Of `bench`."""

    model: str = shared.model_option(DEFAULT_MODEL)
    steps: int | None = steps_option()


@dataclass(frozen=True, kw_only=True)
class ExportOptions(shared.ExportOptions, TileOptions):
    """Of `export`."""

    model: str = shared.model_option(DEFAULT_MODEL)
