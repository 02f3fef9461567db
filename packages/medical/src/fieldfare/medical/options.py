# SPDX-License-Identifier: Apache-2.0
"""Parts of med-seg's options; nothing heavy is imported here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}

file_path = click.Path(path_type=Path)


class Bytes(click.ParamType):
    """An amount of memory: 2GiB, 800MiB, 2GB or plain bytes."""

    name = "SIZE"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        text = str(value).strip().lower().removesuffix("b")
        digits = text.rstrip("kmgi ")
        try:
            amount = int(float(digits) * UNITS[text[len(digits) :].strip()])
        except (KeyError, ValueError, OverflowError):
            self.fail(f"{value!r} is no amount of memory; write 2GiB or 800MiB", param, ctx)
        if amount <= 0:
            self.fail(f"{value!r} must be above 0", param, ctx)
        return amount


def modality_option(name: str, title: str) -> Any:
    """`--t1` and its like."""
    return click.option(f"--{name}", type=file_path, help=f"{title} image, instead of CASE_DIR.")


def one_of(flag: str, values: Sequence[str], help: str) -> Any:
    """An option of some values, the first of which is its default."""
    choice = click.Choice(values)
    return click.option(flag, type=choice, default=values[0], show_default=True, help=help)
