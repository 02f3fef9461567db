# SPDX-License-Identifier: Apache-2.0
"""The command-line shell shared by every command: options, errors, exit codes, --json.

Exit codes: 0 done, 2 bad input or usage, 3 some of many inputs failed, 1 anything else, 130
interrupted. Nothing heavy is imported here, so that `--help` answers at once.
"""

import errno
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from .errors import InputError, RunError

Function = TypeVar("Function", bound=Callable[..., Any])

TRACEBACK_VARIABLE = "FIELDFARE_TRACEBACK"

output_option = click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Where to write."
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="auto takes bf16 only where the processor has it natively.",
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of everything random: same seed, same result.",
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing output.")
quiet_option = click.option("--quiet", is_flag=True, help="No progress on stderr.")
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object on stdout."
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print plan, cost and memory; write nothing."
)


def model_option(default: str | None, extra: str = "") -> Callable[[Function], Function]:
    """`--model NAME|PATH` with a package's default; required where that is None."""
    # To click a default of None is a default too, and the option never missing.
    given = {"required": True} if default is None else {"default": default, "show_default": True}
    return click.option(
        "--model",
        **given,
        metavar="NAME|PATH",
        help=f"A packaged model (see `models`) or a .safetensors file.{extra}",
    )


class Numbers(click.ParamType):
    """Comma-separated numbers, of a fixed count where one is given."""

    def __init__(self, kind: type[int] | type[float], count: int | None = None) -> None:
        self.kind, self.count = kind, count
        self.name = ",".join(["N"] * (count or 1)) + ("" if count else ",...")

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple:
        try:
            numbers = tuple(self.kind(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not {self.name}", param, ctx)
        if self.count and len(numbers) != self.count:
            self.fail(f"{value!r} is not {self.count} numbers", param, ctx)
        return numbers


class CommandGroup(click.Group):
    """A command whose failures are one line on stderr and an exit code, never a traceback.

    Set FIELDFARE_TRACEBACK=1 to see the traceback after all.
    """

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise  # click says or ends it
        except (KeyboardInterrupt, click.Abort) as stop:
            _fail(str(stop) or "interrupted; nothing half-written is left", 130)
        except InputError as error:
            _fail(str(error), 2)
        except RunError as error:
            _fail(str(error), 1)
        except OSError as error:
            _fail(_describe(error), 1)
        except Exception as error:
            name = type(error).__name__
            if name in ("MemoryError", "OutOfMemoryError") or "can't allocate memory" in str(error):
                _fail("out of memory; use a smaller batch, tile or input", 1)
            _fail(f"{name}: {error} (set {TRACEBACK_VARIABLE}=1 for details)", 1)


def _describe(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"{where}the disk is full; free some space and run the same command again"
    return f"{where}{error.strerror or error}"


def _fail(message: str, code: int) -> NoReturn:
    if os.environ.get(TRACEBACK_VARIABLE):
        import traceback

        traceback.print_exc()
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    sys.exit(code)


def say(message: str, *, quiet: bool = False) -> None:
    """Tell the user something on stderr."""
    if not quiet:
        click.echo(message, err=True)


def emit(result: Mapping[str, Any], *, as_json: bool, text: str) -> None:
    """Print a result on stdout: as one JSON object, or as text for people.

    JSON knows no NaN and no infinity: they become null.
    """
    click.echo(json.dumps(_plain(result), allow_nan=False) if as_json else text)


def _plain(value: Any) -> Any:
    """What JSON can hold: NumPy's and torch's values as plain ones, all else as a string."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of equal keys as aligned columns; floats with four significant digits."""

    def shown(value: Any) -> str:
        if value is None:
            return "-"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    if not rows:
        return "(none)"
    columns = list(rows[0])
    cells = [columns, *[[shown(row[column]) for column in columns] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )
