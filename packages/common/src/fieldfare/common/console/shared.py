# SPDX-License-Identifier: Apache-2.0
"""Groups of options that verbs share; each verb's own class derives from what it needs.

They mean the same in every command, and `tests/architecture/` holds them to it.
"""

from dataclasses import dataclass
from pathlib import Path

import click

from fieldfare.common.console.options import option

from .types import FILE, POSITIVE, Bytes, Duration, Operations


def model_option(default: str | None, extra: str = "") -> str:
    """`--model NAME|PATH` with a command's default; required where that is None."""
    given = {"required": True} if default is None else {"default": default}
    text = f"A packaged model (see `models`) or a .safetensors file.{extra}"
    found: str = option(metavar="NAME|PATH", help=text, **given)
    return found


def models_option(default: str) -> tuple[str, ...]:
    """`--model` of `eval`: any number of them, to compare."""
    found: tuple[str, ...] = option(
        "--model", multiple=True, default=[default], help="Repeat to compare."
    )
    return found


@dataclass(frozen=True, kw_only=True)
class JsonOptions:
    """How the result is printed."""

    as_json: bool = option(
        "--json", is_flag=True, help="Print the result as one JSON object on stdout."
    )


@dataclass(frozen=True, kw_only=True)
class TalkOptions(JsonOptions):
    """What is said on the way, and how the result is printed."""

    quiet: bool = option(is_flag=True, help="No progress on stderr.")


@dataclass(frozen=True, kw_only=True)
class SeedOptions:
    """What everything random depends on."""

    seed: int = option(
        type=click.IntRange(min=0),
        default=0,
        help="Of everything random: same seed, same result.",
    )


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Where to compute."""

    device: str = option(
        type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute."
    )


@dataclass(frozen=True, kw_only=True)
class PrecisionOptions(DeviceOptions):
    """Where and how precisely to compute."""

    precision: str = option(
        type=click.Choice(["auto", "fp32", "bf16"]),
        default="auto",
        help="auto takes bf16 only where the processor has it natively.",
    )


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """The file that a verb writes."""

    output: Path = option("-o", "--output", type=FILE, required=True, help="Where to write.")
    overwrite: bool = option(is_flag=True, help="Replace an existing output.")


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How many inputs are worked through; names as those of `batch.run`."""

    engine: str = option(
        type=click.Choice(["local", "ray"]),
        default="local",
        help="Run the workers on this machine, or on a Ray cluster (RAY_ADDRESS).",
    )
    workers: int = option(
        type=click.IntRange(min=1),
        default=1,
        help="Processes that work at the same time; each loads the model once.",
    )
    gpus_per_worker: float = option(
        type=click.FloatRange(min=0),
        default=0.0,
        help="GPUs of each worker; 0.5 lets two workers share one.",
    )
    retries: int = option(
        type=click.IntRange(min=0),
        default=2,
        help="Further attempts when a worker dies or a file cannot be read or written.",
    )
    resume: bool = option(
        "--resume/--no-resume", default=True, help="Skip what an earlier run finished."
    )


@dataclass(frozen=True, kw_only=True)
class ManyOptions(WriteOptions, BatchOptions, TalkOptions):
    """Of every verb that works through inputs, one or many."""

    dry_run: bool = option(is_flag=True, help="Print plan, cost and memory; write nothing.")


@dataclass(frozen=True, kw_only=True)
class InferOptions(ManyOptions, DeviceOptions):
    """Of every `infer`."""


@dataclass(frozen=True, kw_only=True)
class TrustOptions:
    """What is done about an input that is unlike what the model knows."""

    strict: bool = option(
        is_flag=True, help="Fail on an input that is unlike what the model knows; write nothing."
    )


@dataclass(frozen=True, kw_only=True)
class GuardOptions(TrustOptions):
    """Of applications that can ask for the answers to slightly changed inputs, too."""

    guard: bool = option(
        is_flag=True,
        help="Also compare the answers to slightly changed copies; several times slower.",
    )


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """How much a run may take; the best variant that fits is taken, see `budget.choose`."""

    within: float | None = option(
        type=Duration(),
        help="Take the best packaged variant that is through in this time: 90s, 5min, 2h.",
    )
    max_memory: int | None = option(
        type=Bytes(), help="Take the best packaged variant that keeps below: 800MiB, 2GiB."
    )
    budget: float | None = option(
        type=Operations(),
        help="Take the best packaged variant of at most so many operations a unit: 3GMAC.",
    )
    variant: str | None = option(
        metavar="NAME", help="Take this packaged variant, as an earlier run named it."
    )


@dataclass(frozen=True, kw_only=True)
class RunFolderOptions(SeedOptions, DeviceOptions, TalkOptions):
    """Of every verb that trains; the batch that suits differs."""

    output: Path = option(
        "-o", "--output", type=FILE, required=True, help="Folder of checkpoint, log and model."
    )
    batch: int = option(type=click.IntRange(min=1), default=8, help="Samples a step.")


@dataclass(frozen=True, kw_only=True)
class RunOptions(RunFolderOptions):
    """Of every verb that trains by one schedule; the steps and learning rate that suit differ."""

    steps: int = option(type=click.IntRange(min=1), default=2000, help="Steps.")
    learning_rate: float = option(type=POSITIVE, default=1e-3, help="Peak of the cosine.")


@dataclass(frozen=True, kw_only=True)
class StartOptions:
    """What a run begins with."""

    init: str | None = option(metavar="NAME|PATH", help="Start from this model instead.")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(RunOptions, StartOptions):
    """Of every `train`."""


@dataclass(frozen=True, kw_only=True)
class ParallelOptions(PrecisionOptions):
    """How several processes train together."""

    workers: int = option(type=click.IntRange(min=0), default=0, help="Loading processes.")
    devices: int = option(type=click.IntRange(min=1), default=1, help="Training processes.")
    num_nodes: int = option(type=click.IntRange(min=1), default=1, help="Machines.")


@dataclass(frozen=True, kw_only=True)
class ParallelTrainingOptions(TrainingOptions, ParallelOptions):
    """Of a `train` that several processes can share."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions(DeviceOptions, TalkOptions):
    """Of every `eval`."""

    output: Path | None = option(
        "-o", "--output", type=FILE, help="Folder for tables and pictures."
    )


@dataclass(frozen=True, kw_only=True)
class BenchOptions(DeviceOptions, JsonOptions):
    """Of every `bench`."""

    repeats: int = option(type=click.IntRange(min=2), default=5, help="Timed runs.")


@dataclass(frozen=True, kw_only=True)
class ExportOptions(WriteOptions, TalkOptions):
    """Of every `export`."""


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(WriteOptions, TalkOptions):
    """Of every `convert`."""
