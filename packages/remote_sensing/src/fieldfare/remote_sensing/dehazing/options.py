# SPDX-License-Identifier: Apache-2.0
"""The options of rs-dehaze's verbs; nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path

import click

from fieldfare.common import console
from fieldfare.common.console import shared

from .. import options as rasters

DEFAULT_MODEL = "deanet_small"

PRESETS = ("small", "published")
LAYOUTS = ("cog", "gtiff")


@dataclass(frozen=True, kw_only=True)
class TileOptions:
    """Of every verb that runs a tile."""

    tile: int = rasters.tile_option(256, least=16, help="Side in pixels.")


@dataclass(frozen=True, kw_only=True)
class InferOptions(rasters.InferOptions, TileOptions, shared.TrustOptions, shared.BudgetOptions):
    """Of `infer`."""

    model: str = shared.model_option(DEFAULT_MODEL, " `dark-channel` is the baseline.")
    overlap: int = rasters.overlap_option(64)
    value_range: str | None = rasters.range_option(
        "LOW:HIGH|auto",
        "Values the model sees as 0 and 1. [default: 0:255 for uint8, else auto]",
    )
    bands: tuple[int, ...] | None = rasters.bands_option("Bands to dehaze, from 1. [default: all]")
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
        type=console.POSITIVE, default=1e-3, help="Peak of the cosine."
    )
    patch: int = console.option(type=click.IntRange(min=16), default=192, help="Crop, pixels.")
    preset: str = console.option(
        type=click.Choice(PRESETS),
        default="small",
        help="Network: ours for few steps, or the published one.",
    )
    clear_share: float = console.option(
        type=click.FloatRange(0, 1), default=0.4, help="Share of inputs without haze."
    )
    cloud_share: float = console.option(
        type=click.FloatRange(0, 1), default=0.35, help="Share of the hazes that are thin clouds."
    )
    thickness: float = console.option(
        type=console.POSITIVE, default=1.2, help="Largest mean optical thickness, at 550 nm."
    )


@dataclass(frozen=True, kw_only=True)
class EvalOptions(shared.ReportOptions, shared.PrecisionOptions, shared.SeedOptions, TileOptions):
    """Of `eval`."""

    models: tuple[str, ...] = shared.models_option(DEFAULT_MODEL)
    overlap: int = rasters.overlap_option(64)
    match: str = console.option(default="*", help="Only files of this pattern.")


@dataclass(frozen=True, kw_only=True)
class BenchOptions(shared.BenchOptions, shared.PrecisionOptions, TileOptions):
    """Of `bench`."""

    model: str = shared.model_option(DEFAULT_MODEL)


@dataclass(frozen=True, kw_only=True)
class ExportOptions(shared.ExportOptions, TileOptions):
    """Of `export`."""

    model: str = shared.model_option(DEFAULT_MODEL)
