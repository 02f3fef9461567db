# SPDX-License-Identifier: Apache-2.0
"""The options of med-seg's verbs; nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from fieldfare.common import console
from fieldfare.common.console import shared

DEFAULT_MODEL = "reversible_unet_phantom"
ENSEMBLE = "reversible_unet_phantom+resunet_aspp_phantom"
ENSEMBLE_STEPS = "hysteresis,fill-holes"

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
GENERATORS = ("atlas", "growth")
NORMS = ("group", "instance", "evonorm")
ATTENTIONS = ("none", "se", "eca")
GROUPS = ("depthwise", "e2gc")
MEMORY = ("none", "checkpoint", "reversible")
SIDE = click.IntRange(min=16)


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """The images of one case, named one by one."""

    t1: Path | None = console.option(type=console.FILE, help="T1 image, instead of CASE_DIR.")
    t1ce: Path | None = console.option(
        type=console.FILE, help="T1 with contrast agent image, instead of CASE_DIR."
    )
    t2: Path | None = console.option(type=console.FILE, help="T2 image, instead of CASE_DIR.")
    flair: Path | None = console.option(
        type=console.FILE, help="T2-FLAIR image, instead of CASE_DIR."
    )


@dataclass(frozen=True, kw_only=True)
class InferOptions(
    ImageOptions,
    shared.InferOptions,
    shared.PrecisionOptions,
    shared.GuardOptions,
    shared.BudgetOptions,
):
    """Of `infer`."""

    model: str = shared.model_option(DEFAULT_MODEL, " ONE+TWO averages two.")
    ensemble: bool = console.option(
        is_flag=True,
        help=f"Both packaged networks, of volumes and of slices, averaged, with --postprocess "
        f"{ENSEMBLE_STEPS} unless another is given.",
    )
    labels: str = console.option(
        type=click.Choice(SCHEMES),
        default="brats2023",
        help="What the numbers written mean; ET is 4 in brats2020, else 3. Also in the JSON file.",
    )
    prob: Path | None = console.option(
        type=console.FILE, help="Also write the probabilities of WT, TC, ET (4D)."
    )
    report: Path | None = console.option(
        type=console.FILE, help="Also write a report (one self-contained HTML)."
    )
    viewer: bool = console.option(is_flag=True, help="Put a three-plane viewer into the report.")
    png: Path | None = console.option(
        type=console.FILE, help="Also draw the slices of the report (PNG)."
    )
    threshold: float = console.option(
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.5,
        help="Probability from which a voxel belongs to a region.",
    )
    postprocess: str = console.option(
        metavar="NAME,...",
        default="none",
        help="hysteresis: probability from 0.4 counts where it is joined to 0.7; fill-holes; "
        "replace-small-et turns enhancing tumour of under 200 mm3 in all into necrotic core.",
    )
    tta: str = console.option(
        type=click.Choice(TTA),
        default="none",
        help="Average over flips: axial left-right and front-back (4 times the work), full also "
        "up-down (8 times).",
    )
    channels: str | None = console.option(
        metavar="NAME,...",
        help="CASE is one 4D file of these channels, in its order: flair,t1,t1ce,t2 in the "
        "Medical Decathlon.",
    )
    resample_to: str | None = console.option(
        type=click.Choice(MODALITIES),
        help="Put images of differing grids on that of this one, which the result then has.",
    )
    allow_missing: bool = console.option(
        is_flag=True,
        help="Do without missing modalities; for models trained with modality dropout.",
    )
    force: bool = console.option(
        is_flag=True, help="Take heads that are not stripped of their skull; expect nonsense."
    )
    max_memory: int | None = console.option(
        type=console.Bytes(),
        help="Plan tile and precision so that the peak fits: 2GiB. Of the process; on CUDA of the "
        "GPU.",
    )
    tile: int | None = console.option(
        type=SIDE,
        help="Longest side of a tile, in voxels of the model. [default: as in training, or less]",
    )
    overlap: int | None = console.option(
        type=click.IntRange(min=0),
        help="Voxels that neighbouring tiles share. [default: half of the tile]",
    )
    batch: int | None = console.option(
        type=click.IntRange(min=1), help="Tiles or slices at a time. [default: by network]"
    )


@dataclass(frozen=True, kw_only=True)
class BenchOptions(shared.BenchOptions, shared.PrecisionOptions):
    """Of `bench`."""

    model: str = shared.model_option(DEFAULT_MODEL)
    tile: int = console.option(type=SIDE, default=64, help="Side in voxels of the model.")


@dataclass(frozen=True, kw_only=True)
class ExportOptions(shared.ExportOptions):
    """Of `export`."""

    model: str = shared.model_option(DEFAULT_MODEL)
    tile: int = console.option(
        type=SIDE, default=64, help="Side in voxels with which the export is checked."
    )


@dataclass(frozen=True, kw_only=True)
class TrainOptions(shared.ParallelTrainingOptions):
    """Of `train`."""

    preset: str = console.option(
        type=click.Choice(PRESETS),
        default="reversible_small",
        help="The fresh network's shape.",
    )
    encoder: str | None = console.option(
        metavar="NAME",
        help="Of a network of slices: any name of timm's, fieldfare's backbones too. [default: the "
        "preset's]",
    )
    norm: str | None = console.option(
        type=click.Choice(NORMS),
        help="Of a fresh network; evonorm is for the reversible presets. [default: the preset's]",
    )
    attention: str | None = console.option(
        type=click.Choice(ATTENTIONS), help="To channels. [default: the preset's]"
    )
    groups: str | None = console.option(
        type=click.Choice(GROUPS),
        help="Channels that filters of the reversible presets mix: depthwise none, e2gc 8.",
    )
    labels: str | None = console.option(
        type=click.Choice(SCHEMES),
        help="What the numbers of the label files mean. [default: as the JSON file beside each "
        "says]",
    )
    fold: str | None = console.option(
        metavar="K/N", help="Hold out the K-th of N parts of the patients."
    )
    batch: int = console.option(type=click.IntRange(min=1), default=2, help="Patches a step.")
    patch_size: tuple[int, ...] = console.option(
        type=console.Numbers(int),
        default="64",
        help="Sides of a patch in voxels of the network: one number or X,Y,Z (X,Y in 2D).",
    )
    spacing: float | None = console.option(
        type=console.POSITIVE, help="Voxels of the network, mm. [default: the preset's or model's]"
    )
    memory: str = console.option(
        type=click.Choice(MEMORY),
        default="none",
        help="What the backward pass recomputes to save memory; the result stays the same.",
    )
    foreground: float = console.option(
        type=console.SHARE,
        default=0.67,
        help="Share of the patches that are laid around a voxel of the tumour.",
    )
    modality_dropout: float = console.option(
        type=console.SHARE,
        default=0.0,
        help="Share of the patches that lack modalities, for use with `infer --allow-missing`; "
        "with it cases may lack some, too.",
    )
    synthetic: float = console.option(
        type=console.SHARE,
        default=0.0,
        help="Share of the patches that are of phantoms drawn on the way, none twice; 1 needs no "
        "case to train on.",
    )
    region_weights: tuple[float, ...] = console.option(
        type=console.Numbers(float, 3), default="1,1,1", help="Of WT, TC, ET in the loss."
    )
    validate_every: int | None = console.option(
        type=click.IntRange(min=1),
        help="Steps between validations. [default: a fifth of all, 200 at most]",
    )
    force: bool = console.option(
        is_flag=True, help="Take heads that are not stripped of their skull; infer refuses them."
    )
    prepared: Path | None = console.option(
        type=console.FILE,
        help="Folder of the cases made ready, which runs may share. [default: prepared in OUTPUT]",
    )


@dataclass(frozen=True, kw_only=True)
class PhantomOptions(shared.SeedOptions, shared.TalkOptions):
    """Of `phantom`."""

    output: Path = console.option(
        "-o", "--output", type=console.FILE, required=True, help="Folder for the cases."
    )
    count: int = console.option(type=click.IntRange(min=1), default=20, help="Cases.")
    val: int = console.option(type=click.IntRange(min=0), default=0, help="Of them for validation.")
    spacing: float = console.option(
        type=click.FloatRange(min=0.5, max=8),
        default=1.0,
        help="Side of a voxel, mm; 1 gives 240 x 240 x 155.",
    )
    generator: str = console.option(
        type=click.Choice(GENERATORS),
        default="atlas",
        help="atlas: MNI152 and drawn tumours, to train on. growth: other brains, tumours that "
        "grow, contrasts by relaxation, to judge what was trained.",
    )
    naming: str = console.option(
        type=click.Choice(("brats2020", "brats2023")),
        default="brats2020",
        help="Of the files: _t1ce or -t1c.",
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(shared.TalkOptions):
    """Of `eval`."""

    labels: str | None = console.option(
        type=click.Choice(SCHEMES),
        help="What the numbers in PREDICTED mean. [default: as the JSON file beside it says]",
    )
    truth_labels: str | None = console.option(
        type=click.Choice(SCHEMES),
        help="The same of TRUTH. [default: as the JSON file beside it says, or --labels]",
    )
    hd: Literal["max", "pooled"] = console.option(
        type=click.Choice(("max", "pooled")),
        default="max",
        help="HD95: the larger of two directed percentiles, or one of all.",
    )
    empty: str = console.option(
        type=click.Choice(("nan", "brats")),
        default="nan",
        help="Empty regions: no value, or by BraTS Dice 1, HD95 0 (both empty), 0 and 373 mm "
        "(one).",
    )
    tolerance: float = console.option(type=click.FloatRange(0), default=1.0, help="Of the NSD, mm.")
    lesions: Literal["brats2023", "one_to_one"] = console.option(
        type=click.Choice(("brats2023", "one_to_one")),
        default="brats2023",
        help="How lesions are paired; one_to_one as in 2026.",
    )
    dilation: int = console.option(type=click.IntRange(min=0), default=3, help="Of brats2023.")
    least: float = console.option(
        type=click.FloatRange(min=0),
        default=50.0,
        help="Lesions of at most this many mm3 do not count in brats2023.",
    )
    skip_missing: bool = console.option(
        is_flag=True, help="Leave out cases of which only one side is there, and count them."
    )
    output: Path | None = console.option(
        "-o", "--output", type=console.FILE, help="Folder for CSV, JSON and box plot."
    )


@dataclass(frozen=True, kw_only=True)
class RelabelOptions(shared.WriteOptions, shared.JsonOptions):
    """Of `relabel`."""

    source_scheme: str | None = console.option(
        "--from",
        type=click.Choice(SCHEMES),
        help="What the numbers mean. [default: as the JSON file beside SEG says]",
    )
    target_scheme: str = console.option(
        "--to", type=click.Choice(SCHEMES), required=True, help="What they shall mean."
    )
