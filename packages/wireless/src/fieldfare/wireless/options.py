# SPDX-License-Identifier: Apache-2.0
"""Options that wl-precode, wl-power and wl-channel share; nothing heavy is imported here."""

from pathlib import Path
from typing import Any

import click

file_path = click.Path(path_type=Path)

positive = click.FloatRange(min=0, min_open=True)

count_option = click.option(
    "--count", type=click.IntRange(min=1), default=200, show_default=True, help="Channels drawn."
)
repeats_option = click.option(
    "--repeats", type=click.IntRange(min=2), default=20, show_default=True, help="Timed calls."
)
folder_option = click.option(
    "-o", "--output", type=file_path, help="Folder for CSV, JSON and pictures."
)


def batch_option(default: int) -> Any:
    """`--batch`, which bounds the memory and changes no result."""
    return click.option(
        "--batch",
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        help="At a time; bounds the memory.",
    )


class Sizes(click.ParamType):
    """Comma-separated pairs of whole numbers: 8x8,16x32."""

    name = "NxN,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[tuple[int, int], ...]:
        try:
            pairs = [tuple(map(int, part.split("x"))) for part in str(value).split(",")]
        except ValueError:
            pairs = []
        if not pairs or any(len(pair) != 2 or min(pair) < 1 for pair in pairs):
            self.fail(f"{value!r}: write pairs such as 8x8,16x32", param, ctx)
        return tuple((first, second) for first, second in pairs)


def sizes_option(default: str, help: str) -> Any:
    """`--sizes`, of what is drawn."""
    return click.option("--sizes", type=Sizes(), default=default, show_default=True, help=help)


def training_options(steps: int, batch: int, learning_rate: float) -> Any:
    """Of `train`, for both networks."""

    def decorate(command: Any) -> Any:
        for option in reversed(
            (
                click.option(
                    "-o",
                    "--output",
                    type=file_path,
                    required=True,
                    help="Folder of checkpoint, log and model.",
                ),
                click.option("--init", metavar="NAME|PATH", help="Start from this model instead."),
                click.option(
                    "--steps",
                    type=click.IntRange(min=1),
                    default=steps,
                    show_default=True,
                    help="Steps.",
                ),
                click.option(
                    "--batch",
                    type=click.IntRange(min=1),
                    default=batch,
                    show_default=True,
                    help="Cells or networks a step.",
                ),
                click.option(
                    "--learning-rate",
                    type=float,
                    default=learning_rate,
                    show_default=True,
                    help="Peak of the cosine.",
                ),
            )
        ):
            command = option(command)
        return command

    return decorate
