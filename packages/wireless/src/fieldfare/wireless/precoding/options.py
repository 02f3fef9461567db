# SPDX-License-Identifier: Apache-2.0
"""Options of wl-precode, a class for each verb; nothing heavy is imported here."""

from dataclasses import dataclass
from typing import Literal

import click

from fieldfare.common.console import POSITIVE, SHARE, Numbers, Pairs, option, shared

from .. import options as both
from ..options import CHANNELS, LEARNED

DEFAULT_MODEL = "icgnn_precoder"
BASELINES = ("mrt", "zf", "zf-wf", "rzf", "greedy", "wmmse")
METHODS = (*BASELINES, LEARNED)
WEIGHTED = ("greedy", "wmmse", LEARNED)
"""Methods that heed the users' weights, and so whom they serve."""

LEARN_BITS = "learn"

FAIR = "proportional-fair"
SCHEDULES = ("best", "network")


@dataclass(frozen=True, kw_only=True)
class SolverOptions:
    """How linear systems are solved."""

    solver: Literal["cg", "cholesky"] = option(
        type=click.Choice(["cg", "cholesky"]),
        default="cholesky",
        help="Of the linear systems: conjugate gradients (no inverse) or a factorisation.",
    )


@dataclass(frozen=True, kw_only=True)
class PrecoderOptions(SolverOptions, shared.PrecisionOptions):
    """How precoders are run; the conventional ones heed the batch alone."""

    refine: int = option(
        type=click.IntRange(min=0),
        default=0,
        help="WMMSE steps from the network's point; each costs about one solve.",
    )
    guard: bool = option(
        "--guard/--no-guard",
        default=True,
        help="Take RZF where it has the higher predicted sum rate.",
    )
    schedule: str = option(
        type=click.Choice(SCHEDULES),
        default="best",
        help="Whom the network serves: as it likes (network), which takes half the time, or the"
        " better of that and of a start from greedy selection (best).",
    )
    batch: int = both.batch_option(4096)


@dataclass(frozen=True, kw_only=True)
class InferOptions(PrecoderOptions, both.InferOptions):
    """Of `infer`."""

    method: str = option(
        type=click.Choice(METHODS),
        default=LEARNED,
        help="The network or a conventional precoder.",
    )
    model: str = shared.model_option(DEFAULT_MODEL)
    power: float | None = option(type=POSITIVE, help="Instead of the file's.")
    noise_power: float | None = option(type=POSITIVE, help="Instead of the file's.")
    antenna_power: float | None = option(
        type=POSITIVE,
        help="Limit of every antenna, used by icgnn and wmmse; others are scaled down to keep it.",
    )
    schedule: str = option(
        type=click.Choice((*SCHEDULES, FAIR)),
        default="best",
        help="Whom the network serves: as it likes (network), which takes half the time, or the"
        " better of that and of a start from greedy selection (best); with the users' rate over"
        " their past_rate in the file as what counts (proportional-fair, also for greedy and"
        " wmmse).",
    )
    past_slots: float = option(
        type=click.FloatRange(min=1),
        default=100,
        help="Slots that past_rate is an average over; it is written for the next.",
    )
    streams: int | None = option(
        type=click.IntRange(min=1),
        help="Of users with several antennas, each. [default: users of one antenna]",
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(PrecoderOptions, both.DrawOptions, shared.ReportOptions):
    """Of `eval`."""

    channel: str = option(
        type=click.Choice(CHANNELS),
        default="rayleigh",
        help="Drawn where no file is given; the last three are 3GPP TR 38.901 (extra [sionna]).",
    )
    sizes: tuple[tuple[int, int], ...] = option(
        type=Pairs(),
        default="8x8",
        help="Users x antennas of drawn channels; several are compared.",
    )
    snr: tuple[float, ...] | None = option(
        type=Numbers(float),
        metavar="DB,...",
        help="power / noise_power, dB. [default: as in the file; 0,10,20 for drawn channels]",
    )
    methods: tuple[str, ...] = option(
        "--method",
        type=click.Choice(METHODS),
        multiple=True,
        help="Repeat to compare. [default: all]",
    )
    models: tuple[str, ...] = shared.models_option(DEFAULT_MODEL)
    csi_error: float = option(
        type=SHARE,
        default=0.0,
        help="Share of error in the estimates that the precoders see.",
    )
    bound: bool = option(
        "--bound/--no-bound", default=True, help="Also find the bound of the sum capacity."
    )
    batch: int = both.batch_option(1024)


@dataclass(frozen=True, kw_only=True)
class BenchOptions(SolverOptions, shared.BenchOptions):
    """Of `bench`."""

    model: str = shared.model_option(DEFAULT_MODEL)
    sizes: tuple[tuple[int, int], ...] = option(
        type=Pairs(), default="4x16,8x32,16x64", help="Users x antennas."
    )
    batches: tuple[int, ...] = option(type=Numbers(int), default="1,256", help="Channels a call.")
    onnx: bool = option(is_flag=True, help="Also time ONNX Runtime (extra [onnx]).")
    repeats: int = both.repeats_option()


@dataclass(frozen=True, kw_only=True)
class ExportOptions(shared.ExportOptions):
    """Of `export`."""

    model: str = shared.model_option(DEFAULT_MODEL)


@dataclass(frozen=True, kw_only=True)
class TrainOptions(shared.TrainingOptions):
    """Of `train`."""

    steps: int = option(type=click.IntRange(min=1), default=12000, help="Steps.")
    batch: int = option(type=click.IntRange(min=1), default=128, help="Cells a step.")
    learning_rate: float = option(type=POSITIVE, default=4e-3, help="Peak of the cosine.")
    width: int = option(type=click.IntRange(min=4), default=10, help="Of a user's state.")
    layers: int = option(type=click.IntRange(min=1), default=6, help="Corrected WMMSE steps.")
    max_users: int = option(
        type=click.IntRange(min=2), default=10, help="K is drawn from 2 to this for every step."
    )
    max_antennas: int = option(
        type=click.IntRange(min=2), default=24, help="N is drawn from K to this."
    )
    snr_range: tuple[float, float] = option(
        type=Numbers(float, 2),
        default="-20,60",
        help="power / noise_power, dB, from a uniform distribution.",
    )
    correlated: float = option(
        type=SHARE, default=0.5, help="Share of the steps with correlated antennas."
    )
    csi_error: float = option(
        type=SHARE,
        default=0.0,
        help="Share of error in the estimates that the network sees.",
    )
    bits: str | None = option(
        type=click.Choice((LEARN_BITS, "2", "4", "8")),
        help="Of a weight: the network of --init is trained on with these, and inputs of its layers"
        " of 8; learn finds both, layer by layer. [default: not rounded]",
    )
