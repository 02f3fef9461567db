# SPDX-License-Identifier: Apache-2.0
"""Command-line options that every `infer` shares; their names are those of `batch.run`."""

from collections.abc import Callable
from typing import TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., object])

_OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Run the workers on this machine, or on a Ray cluster (RAY_ADDRESS).",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Processes that work at the same time; each loads the model once.",
    ),
    click.option(
        "--gpus-per-worker",
        type=click.FloatRange(min=0),
        default=0.0,
        show_default=True,
        help="GPUs of each worker; 0.5 lets two workers share one.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(min=0),
        default=2,
        show_default=True,
        help="Further attempts when a worker dies or a file cannot be read or written.",
    ),
    click.option(
        "--resume/--no-resume",
        default=True,
        show_default=True,
        help="Skip what an earlier run finished.",
    ),
)


def batch_options(command: _F) -> _F:
    """Add --engine, --workers, --gpus-per-worker, --retries and --resume to a click command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
