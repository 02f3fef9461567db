# SPDX-License-Identifier: Apache-2.0
"""Options of wl-power, a class for each verb; nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from fieldfare.common import console
from fieldfare.common.console import POSITIVE, SHARE, Pairs, option, shared

from .. import options as both
from ..options import LEARNED

DEFAULT_MODEL = "icgnn_power_max_min"
CONES = "max-min-socp"
SATISFACTION = "satisfaction"
METHODS = ("equal", "fractional", "max-min", CONES, "sum-rate", SATISFACTION, LEARNED)


@dataclass(frozen=True, kw_only=True)
class AllocationOptions(shared.DeviceOptions):
    """How allocations are run; the conventional ones heed the batch alone."""

    batch: int = both.batch_option(256)
    profile: Path | None = option(
        type=console.FILE,
        metavar="USERS.csv",
        help="What users ask for: user, adequate, desired (bits/s/Hz) and, optionally, weight; for"
        " --method satisfaction.",
    )
    satisfied: float | None = option(
        type=SHARE,
        help="Mean satisfaction that is enough: --method satisfaction then spends the least power"
        " for it.",
    )


@dataclass(frozen=True, kw_only=True)
class InferOptions(AllocationOptions, both.InferOptions):
    """Of `infer`."""

    method: str = option(
        type=click.Choice(METHODS),
        default=LEARNED,
        help="The network or a conventional allocation; max-min-socp takes the extra [socp].",
    )
    model: str = shared.model_option(DEFAULT_MODEL)
    power: float | None = option(type=POSITIVE, help="Limit of every AP, instead of the file's.")
    antennas: int | None = option(
        type=click.IntRange(min=1), help="Of every AP, instead of the file's."
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(AllocationOptions, both.DrawOptions, shared.ReportOptions):
    """Of `eval`."""

    sizes: tuple[tuple[int, int], ...] = option(
        type=Pairs(),
        default="10x50",
        help="Users x access points of drawn networks; several are compared.",
    )
    antennas: int = option(type=click.IntRange(min=1), default=4, help="Of every AP.")
    serving: int | None = option(
        type=click.IntRange(min=1),
        help="Each user is served by so many of its strongest APs. [default: all]",
    )
    methods: tuple[str, ...] = option(
        "--method",
        type=click.Choice(METHODS),
        multiple=True,
        help="Repeat to compare. [default: all but max-min-socp; satisfaction with --profile]",
    )
    models: tuple[str, ...] = shared.models_option(DEFAULT_MODEL)


@dataclass(frozen=True, kw_only=True)
class BenchOptions(shared.BenchOptions):
    """Of `bench`."""

    model: str = shared.model_option(DEFAULT_MODEL)
    sizes: tuple[tuple[int, int], ...] = option(
        type=Pairs(), default="4x25,10x50,20x100", help="Users x access points."
    )
    socp: bool = option(
        "--socp/--no-socp", default=True, help="Also time the SOCP solver (extra [socp])."
    )
    repeats: int = both.repeats_option()


@dataclass(frozen=True, kw_only=True)
class ExportOptions(shared.ExportOptions):
    """Of `export`."""

    model: str = shared.model_option(DEFAULT_MODEL)


@dataclass(frozen=True, kw_only=True)
class TrainOptions(shared.TrainingOptions):
    """Of `train`."""

    steps: int = option(type=click.IntRange(min=1), default=5000, help="Steps.")
    batch: int = option(type=click.IntRange(min=1), default=32, help="Networks a step.")
    learning_rate: float = option(type=POSITIVE, default=2e-3, help="Peak of the cosine.")
    objective: Literal["max-min", "sum-rate", "proportional-fair"] = option(
        type=click.Choice(["max-min", "sum-rate", "proportional-fair"]),
        default="max-min",
        help="What is maximised.",
    )
    width: int = option(type=click.IntRange(min=4), default=24, help="Of a node's state.")
    layers: int = option(type=click.IntRange(min=1), default=6, help="Message passing.")
