# SPDX-License-Identifier: Apache-2.0
"""Options that wl-precode, wl-power and wl-channel share; nothing heavy is imported here."""

from dataclasses import dataclass

import click

from fieldfare.common.console import option, shared

CHANNELS = ("rayleigh", "correlated", "umi", "uma", "rma")

LEARNED = "icgnn"
"""The method that takes a model; all others are conventional."""


def batch_option(default: int) -> int:
    """`--batch`, which bounds the memory and changes no result."""
    found: int = option(
        type=click.IntRange(min=1), default=default, help="At a time; bounds the memory."
    )
    return found


def repeats_option() -> int:
    """`--repeats` of `bench`, whose calls are short."""
    found: int = option(type=click.IntRange(min=2), default=20, help="Timed calls.")
    return found


@dataclass(frozen=True, kw_only=True)
class DrawOptions(shared.SeedOptions):
    """How many channels or networks to draw, and from what seed."""

    count: int = option(type=click.IntRange(min=1), default=200, help="Channels drawn.")


@dataclass(frozen=True, kw_only=True)
class ServingOptions:
    """Who serves whom in drawn cell-free networks."""

    serving: int | None = option(
        type=click.IntRange(min=1),
        help="Of cell-free: each user's strongest APs serve it. [default: all]",
    )
    clusters: bool = option(
        is_flag=True,
        help="Of cell-free: each AP serves one user of each pilot instead, the one it hears best;"
        " every user's strongest AP serves it.",
    )


@dataclass(frozen=True, kw_only=True)
class InferOptions(shared.InferOptions, shared.BudgetOptions):
    """Of both `infer`; each says what its methods, model and batch are."""

    method: str
    model: str
    batch: int
