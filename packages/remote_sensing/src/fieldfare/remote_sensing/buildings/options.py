# SPDX-License-Identifier: Apache-2.0
"""The options of rs-buildings' verbs; nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path

import click

from fieldfare.common import console
from fieldfare.common.console import shared

from .. import options as rasters

DEFAULT_MODEL = "unetplusplus_lite0_drone"

ARCHITECTURES = ("unetplusplus", "unet", "lraspp", "pem")
DEPTH = click.IntRange(1, 4)
FORMATS = ("gpkg", "parquet", "geojson")
METHODS = ("finetune", "distillation", "mutual")
STAGES = ("noisy", "clean")


def depth_option() -> int | None:
    """`--depth` of a nested network."""
    found: int | None = console.option(
        type=DEPTH, help="Of U-Net++: 1 is fastest, 4 is whole. [default: whole]"
    )
    return found


@dataclass(frozen=True, kw_only=True)
class TileOptions:
    """Of every verb that runs a tile."""

    tile: int = rasters.tile_option(512, least=64, help="Side in pixels of the model.")


@dataclass(frozen=True, kw_only=True)
class SceneOptions(rasters.WindowOptions, TileOptions, shared.PrecisionOptions):
    """How a scene is looked at."""

    threshold: float = console.option(
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.5,
        help="Building probability from which a pixel belongs to a footprint.",
    )
    gsd: float | None = console.option(
        type=console.POSITIVE,
        help="Metres per pixel of scenes without CRS. [default: the model's]",
    )
    pixel_size: float | None = console.option(
        type=console.POSITIVE,
        help="Metres per pixel at which the model looks; coarser is quicker, misses small houses. "
        "[default: the model's]",
    )
    value_range: str | None = rasters.range_option(
        "LOW:HIGH",
        "Values seen as 0 and 1. [default: 0:255 for uint8, else percentiles of the scene]",
    )
    bands: tuple[int, ...] | None = rasters.bands_option(
        "Bands for the model, from 1. [default: the first]"
    )
    overlap: int = rasters.overlap_option(128)


@dataclass(frozen=True, kw_only=True)
class InferOptions(rasters.InferOptions, SceneOptions, shared.GuardOptions, shared.BudgetOptions):
    """Of `infer`."""

    model: str = shared.model_option(DEFAULT_MODEL)
    depth: int | None = depth_option()
    mask: Path | None = console.option(
        type=console.FILE, help="Also write the mask, 0 and 1 (GeoTIFF)."
    )
    prob: Path | None = console.option(
        type=console.FILE, help="Also write the probabilities (GeoTIFF)."
    )
    preview: Path | None = console.option(
        type=console.FILE, help="Also draw the outlines on the scene (PNG)."
    )
    min_area: float = console.option(
        type=click.FloatRange(min=0), default=5.0, help="Smaller footprints are left out, m2."
    )
    max_hole: float = console.option(
        type=click.FloatRange(min=0), default=5.0, help="Smaller holes are filled, m2."
    )
    raw: bool = console.option(
        is_flag=True, help="Leave outlines as found instead of squaring them."
    )
    no_split: bool = console.option(
        is_flag=True, help="Leave roofs that touch each other in one piece."
    )
    suffix: str = console.option(
        "--format",
        type=click.Choice(FORMATS),
        default="gpkg",
        help="Of several scenes' footprints; one scene's follow the name of OUTPUT.",
    )


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """What is trained, and on what."""

    architecture: str = console.option(
        type=click.Choice(ARCHITECTURES), default="unetplusplus", help="Of a fresh network."
    )
    encoder: str = console.option(
        default="lite0",
        help="Of a fresh network: b0 to b4, lite0 to lite2, resnest14, mobilevit, "
        "mobilenetv3, ... or any timm name.",
    )
    encoder_weights: str = console.option(
        metavar="imagenet|none|PATH",
        default="imagenet",
        help="Start of a fresh encoder; imagenet exists for lite0 to lite2.",
    )
    encoder_rate: float | None = console.option(
        type=click.FloatRange(min=0),
        help="Learning rate of the encoder as a share of --learning-rate. [default: 0.1 "
        "where it starts from --encoder-weights, else 1]",
    )
    gsd: float | None = console.option(
        type=console.POSITIVE,
        help="Metres per pixel that the model shall work at. [default: 0.15, or that of --init]",
    )
    patch: int | None = console.option(
        type=click.IntRange(min=128),
        help="Side of the training patch; below 128 the deepest features learn nothing. "
        "[default: 256, of one scene 128]",
    )
    loss: str = console.option(
        default="bce+dice",
        help="bce, dice, focal, gce, boundary, added up, with weights: bce+0.5*dice.",
    )
    depth_weights: tuple[float, ...] = console.option(
        type=console.Numbers(float, 4),
        default="0.5,0.5,0.5,1",
        help="Of the depths L1 to L4 in the loss.",
    )
    edge_weight: float = console.option(
        type=click.FloatRange(min=0),
        default=0.5,
        help="Of the edge map in the loss; 0 trains without one.",
    )


@dataclass(frozen=True, kw_only=True)
class TrainPlan(NetworkOptions, shared.ParallelTrainingOptions):
    """Of `train` and `adapt`, once steps and learning rate are known."""


@dataclass(frozen=True, kw_only=True)
class _ScheduleOptions(
    NetworkOptions, shared.RunFolderOptions, shared.StartOptions, shared.ParallelOptions
):
    """What is trained, where and how."""

    steps: int | None = console.option(
        type=click.IntRange(min=1),
        help="Steps. [default: 2000; of one scene 200; clean stage of adapt 500]",
    )
    learning_rate: float | None = console.option(
        type=console.POSITIVE,
        help="Peak of the cosine. [default: 1e-3; of one scene 3e-4; clean stage of adapt 5e-4]",
    )


@dataclass(frozen=True, kw_only=True)
class TrainOptions(_ScheduleOptions):
    """Of `train`."""

    expert_gsd: tuple[float, ...] | None = console.option(
        type=console.Numbers(float),
        help="Pixel sizes of imagery, metres, fine to coarse: each gets layers of its own, and "
        "infer chooses by the raster. [default: those of --init, else none]",
    )


@dataclass(frozen=True, kw_only=True)
class AdaptOptions(_ScheduleOptions):
    """Of `adapt`."""

    stage: str = console.option(
        type=click.Choice(STAGES),
        required=True,
        help="noisy: many labels, some wrong; clean: go on from --init with few right ones.",
    )
    method: str = console.option(
        type=click.Choice(METHODS),
        default="finetune",
        help="How the clean stage learns from --init.",
    )


@dataclass(frozen=True, kw_only=True)
class EvalOptions(shared.ReportOptions, SceneOptions):
    """Of `eval`."""

    scene: Path | None = console.option(
        type=console.FILE, help="Run models on this scene; TRUTH is its labels."
    )
    prediction: Path | None = console.option(
        type=console.FILE,
        help="Compare this instead: polygons, a mask or a folder of them, or a SpaceNet CSV.",
    )
    layer: str | None = console.option(help="Of a vector file with several layers.")
    models: tuple[str, ...] = shared.models_option(DEFAULT_MODEL)
    depths: tuple[int, ...] = console.option(
        "--depth", type=DEPTH, multiple=True, help="Repeat to compare. [default: whole]"
    )
    min_area: float | None = console.option(
        type=click.FloatRange(min=0),
        help="Smaller buildings do not count. [default: 5 m2; 20 pixels in SpaceNet tables]",
    )


@dataclass(frozen=True, kw_only=True)
class BenchOptions(shared.BenchOptions, shared.PrecisionOptions, TileOptions):
    """Of `bench`."""

    model: str = shared.model_option(DEFAULT_MODEL)
    encoders: bool = console.option(
        is_flag=True, help="Instead of a model, U-Net++ on an encoder of each family."
    )


@dataclass(frozen=True, kw_only=True)
class ExportOptions(shared.ExportOptions, TileOptions):
    """Of `export`."""

    model: str = shared.model_option(DEFAULT_MODEL)
    depth: int | None = depth_option()
    gsd: float | None = console.option(
        type=console.POSITIVE,
        help="Of a model with experts: metres per pixel of the imagery it shall be for.",
    )
