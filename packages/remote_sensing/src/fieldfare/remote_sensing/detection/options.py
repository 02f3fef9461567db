# SPDX-License-Identifier: Apache-2.0
"""The options of rs-detect's verbs; nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path

import click

from fieldfare.common import console
from fieldfare.common.console import shared

from .. import options as rasters

DEFAULT_MODEL = "leyolo_nano_trees"

ARCHITECTURES = ("leyolo_nano", "leyolo_small", "leyolo_medium", "leyolo_large", "leyolo_whole")
FORMATS = ("gpkg", "parquet", "geojson", "json")
SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


@dataclass(frozen=True, kw_only=True)
class TileOptions:
    """Of every verb that runs a tile."""

    tile: int = rasters.tile_option(576, least=64, help="Side in pixels of the model.")


@dataclass(frozen=True, kw_only=True)
class SceneOptions(TileOptions, shared.PrecisionOptions):
    """How a scene is looked at."""

    threshold: float | None = console.option(
        type=SHARE, help="Least confidence of a detection. [default: the model's]"
    )
    nms: float | None = console.option(
        type=SHARE,
        help="IoU above which the less confident of two boxes goes. [default: the model's]",
    )
    gsd: float | None = console.option(
        type=console.POSITIVE,
        help="Metres per pixel of scenes without CRS. [default: the model's]",
    )
    pixel_size: float | None = console.option(
        type=console.POSITIVE,
        help="Metres per pixel at which the model looks; coarser is quicker and finds fewer. "
        "[default: the model's]",
    )
    value_range: str | None = rasters.range_option(
        "LOW:HIGH",
        "Values seen as 0 and 1. [default: 0:255 for uint8, else percentiles of the scene]",
    )
    bands: tuple[int, ...] | None = rasters.bands_option(
        "Bands for the model, from 1. [default: the first]"
    )
    overlap: int = rasters.overlap_option(64)


@dataclass(frozen=True, kw_only=True)
class InferOptions(rasters.InferOptions, shared.TrustOptions, SceneOptions, shared.BudgetOptions):
    """Of `infer`."""

    model: str = shared.model_option(DEFAULT_MODEL)
    points: bool = console.option(is_flag=True, help="Write middles instead of boxes.")
    preview: Path | None = console.option(
        type=console.FILE, help="Also draw the boxes on the scene (PNG)."
    )
    suffix: str = console.option(
        "--format",
        type=click.Choice(FORMATS),
        default="gpkg",
        help="Of several scenes' detections; one scene's follow the name of OUTPUT.",
    )


@dataclass(frozen=True, kw_only=True)
class TrainOptions(shared.ParallelTrainingOptions):
    """Of `train`."""

    architecture: str = console.option(
        type=click.Choice(ARCHITECTURES), default="leyolo_nano", help="Of a fresh network."
    )
    classes: str | None = console.option(
        metavar="NAMES", help="To learn, between commas. [default: all that the labels name]"
    )
    gsd: float | None = console.option(
        type=console.POSITIVE,
        help="Metres per pixel that the model shall work at; an object should be some 20 wide. "
        "[default: 0.3, or that of --init]",
    )
    point_size: float = console.option(
        type=console.POSITIVE, default=6.0, help="Side in metres of the box that a point becomes."
    )
    reach: float = console.option(
        type=console.POSITIVE,
        default=6.0,
        help="Metres that a detection may lie from an object's middle, in validation.",
    )
    patch: int = console.option(
        type=click.IntRange(min=64), default=256, help="Side of the training patch; 32 divides it."
    )


@dataclass(frozen=True, kw_only=True)
class EvalOptions(shared.ReportOptions, SceneOptions):
    """Of `eval`."""

    models: tuple[str, ...] = shared.models_option(DEFAULT_MODEL)
    split: str = console.option(
        type=click.STRING, default="test", help="Which rows of the table: train, val or test."
    )
    reach: float = console.option(
        type=console.POSITIVE,
        default=6.0,
        help="Metres that a detection may lie from an object's middle and count as right.",
    )
    baseline: bool = console.option(
        is_flag=True, help="Also measure maxima of greenness, which find trees without training."
    )


@dataclass(frozen=True, kw_only=True)
class BenchOptions(shared.BenchOptions, shared.PrecisionOptions, TileOptions):
    """Of `bench`."""

    model: str = shared.model_option(DEFAULT_MODEL)


@dataclass(frozen=True, kw_only=True)
class ExportOptions(shared.ExportOptions, TileOptions):
    """Of `export`."""

    model: str = shared.model_option(DEFAULT_MODEL)
