# SPDX-License-Identifier: Apache-2.0
"""Kinds of values that options take, beside click's own."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path)

POSITIVE = click.FloatRange(min=0, min_open=True)

SHARE = click.FloatRange(0, 1)

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}

_SECONDS = {"ms": 0.001, "s": 1, "min": 60, "m": 60, "h": 3600}
_MACS = {"mac": 1, "kmac": 10**3, "mmac": 10**6, "gmac": 10**9, "tmac": 10**12}


class Numbers(click.ParamType[tuple[Any, ...]]):
    """Comma-separated numbers, of a fixed count where one is given."""

    def __init__(self, kind: type[int] | type[float], count: int | None = None) -> None:
        self.kind, self.count = kind, count
        self.name = ",".join(["N"] * (count or 1)) + ("" if count else ",...")

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        try:
            numbers = tuple(self.kind(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not {self.name}", param, ctx)
        if self.count and len(numbers) != self.count:
            self.fail(f"{value!r} is not {self.count} numbers", param, ctx)
        return numbers


class Pairs(click.ParamType[tuple[tuple[int, int], ...]]):
    """Comma-separated pairs of whole numbers: 8x8,16x32."""

    name = "NxN,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[int, int], ...]:
        try:
            pairs = [tuple(map(int, part.split("x"))) for part in str(value).split(",")]
        except ValueError:
            pairs = []
        if not pairs or any(len(pair) != 2 or min(pair) < 1 for pair in pairs):
            self.fail(f"{value!r}: write pairs such as 8x8,16x32", param, ctx)
        return tuple((first, second) for first, second in pairs)


class Bytes(click.ParamType[int]):
    """An amount of memory: 2GiB, 800MiB, 2GB or plain bytes."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip().lower().removesuffix("b")
        digits = text.rstrip("kmgi ")
        try:
            amount = int(float(digits) * _UNITS[text[len(digits) :].strip()])
        except (KeyError, ValueError, OverflowError):
            self.fail(f"{value!r} is no amount of memory; write 2GiB or 800MiB", param, ctx)
        if amount <= 0:
            self.fail(f"{value!r} must be above 0", param, ctx)
        return amount


class _Quantity(click.ParamType[float]):
    """A number and its unit."""

    units: Mapping[str, float]
    advice: str

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        text = str(value).strip().lower().replace(" ", "")
        unit = text.lstrip("0123456789.")
        try:
            amount = float(text.removesuffix(unit)) * self.units[unit]
        except (KeyError, ValueError):
            self.fail(f"{value!r}: {self.advice}", param, ctx)
        if not 0 < amount < math.inf:
            self.fail(f"{value!r} must be above 0", param, ctx)
        return amount


class Duration(_Quantity):
    """A time, in seconds: 50ms, 90s, 5min, 2h."""

    name, units, advice = "TIME", _SECONDS, "is no time; write 50ms, 90s, 5min or 2h"


class Operations(_Quantity):
    """A number of multiply-accumulates: 3GMAC, 250MMAC."""

    name, units, advice = "MACS", _MACS, "is no number of operations; write 3GMAC or 250MMAC"
