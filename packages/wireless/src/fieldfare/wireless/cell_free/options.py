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
FRACTIONAL = "fractional"
METHODS = ("equal", FRACTIONAL, "max-min", CONES, "sum-rate", SATISFACTION, LEARNED)

REFINEMENT = 8
"""Plain steps behind the network's layers, by default."""

MAXIMUM_RATIO, JOINT = "mr", "p-mmse"
PRECODINGS = (MAXIMUM_RATIO, "lp-mmse", JOINT)


@dataclass(frozen=True, kw_only=True)
class CooperationOptions:
    """Precoding beyond maximum ratio, of drawn channels, and what it costs."""

    realisations: int = option(
        type=click.IntRange(min=2),
        default=100,
        help="Channels drawn of a network for the mean rates of MMSE precoding.",
    )
    uplink_power: float | None = option(
        type=POSITIVE,
        help="Of a user, which MMSE precoding weighs it with. [default: half an AP's limit]",
    )
    block: int = option(
        type=click.IntRange(min=2),
        default=200,
        help="Samples of a coherence block, pilots among them; for the fronthaul.",
    )
    pilots: int = option(type=click.IntRange(min=1), default=10, help="Orthogonal pilots.")


def precodings_option() -> tuple[str, ...]:
    """`--precoding`, any number of them."""
    found: tuple[str, ...] = option(
        "--precoding",
        type=click.Choice(PRECODINGS),
        multiple=True,
        default=[MAXIMUM_RATIO],
        help="Repeat to compare: maximum ratio, MMSE at every AP (lp-mmse), over all APs of a user"
        " (p-mmse, of fractional powers).",
    )
    return found


@dataclass(frozen=True, kw_only=True)
class AllocationOptions(shared.DeviceOptions):
    """How allocations are run; the conventional ones heed the batch alone."""

    batch: int = both.batch_option(256)
    refine: int = option(
        type=click.IntRange(min=0),
        default=REFINEMENT,
        help="Plain steps from the network's point; two cost about as much as a layer.",
    )
    profile: Path | None = option(
        type=console.FILE,
        metavar="USERS.csv",
        help="What users ask for: user, adequate, desired (bits/s/Hz) and, optionally, weight; for"
        " --method satisfaction and models trained for it.",
    )
    satisfied: float | None = option(
        type=SHARE,
        help="Mean satisfaction that is enough: --method satisfaction then spends the least power"
        " for it.",
    )


@dataclass(frozen=True, kw_only=True)
class InferOptions(AllocationOptions, CooperationOptions, both.InferOptions, shared.SeedOptions):
    """Of `infer`."""

    precoding: str = option(
        type=click.Choice(PRECODINGS),
        default=MAXIMUM_RATIO,
        help="Of the access points: maximum ratio; MMSE at every one (lp-mmse); over all of a user"
        " (p-mmse, with --method fractional).",
    )

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
class EvaluateOptions(
    AllocationOptions,
    CooperationOptions,
    both.DrawOptions,
    both.ServingOptions,
    shared.ReportOptions,
):
    """Of `eval`."""

    precodings: tuple[str, ...] = precodings_option()

    sizes: tuple[tuple[int, int], ...] = option(
        type=Pairs(),
        default="10x50",
        help="Users x access points of drawn networks; several are compared.",
    )
    antennas: int = option(type=click.IntRange(min=1), default=4, help="Of every AP.")
    methods: tuple[str, ...] = option(
        "--method",
        type=click.Choice(METHODS),
        multiple=True,
        help="Repeat to compare. [default: all but max-min-socp; satisfaction with --profile]",
    )
    models: tuple[str, ...] = shared.models_option(DEFAULT_MODEL)


@dataclass(frozen=True, kw_only=True)
class BenchOptions(shared.BenchOptions, CooperationOptions, both.ServingOptions):
    """Of `bench`."""

    precodings: tuple[str, ...] = precodings_option()

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

    steps: int = option(type=click.IntRange(min=1), default=4500, help="Steps.")
    batch: int = option(type=click.IntRange(min=1), default=32, help="Networks a step.")
    learning_rate: float = option(type=POSITIVE, default=4e-3, help="Peak of the cosine.")
    objective: Literal["max-min", "sum-rate", "proportional-fair", "satisfaction"] = option(
        type=click.Choice(["max-min", "sum-rate", "proportional-fair", SATISFACTION]),
        default="max-min",
        help="What is maximised; satisfaction, of any profiles of users.",
    )
    width: int = option(type=click.IntRange(min=4), default=12, help="Of a user's state.")
    layers: int = option(type=click.IntRange(min=1), default=8, help="Corrected steps.")
