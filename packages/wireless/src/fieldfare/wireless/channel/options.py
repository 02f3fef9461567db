# SPDX-License-Identifier: Apache-2.0
"""Options of wl-channel; nothing heavy is imported here."""

from dataclasses import dataclass

import click

from fieldfare.common.console import POSITIVE, SHARE, option, shared

from .. import options as both
from ..options import CHANNELS

CELL_FREE = "cell-free"


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(
    both.DrawOptions, both.ServingOptions, shared.WriteOptions, shared.JsonOptions
):
    """Of `gen`."""

    channel: str = option(
        type=click.Choice([*CHANNELS, CELL_FREE]),
        default="rayleigh",
        help="umi, uma, rma: 3GPP TR 38.901 (extra [sionna]); cell-free: gains for wl-power.",
    )
    users: int = option(type=click.IntRange(min=1), default=8, help="K.")
    antennas: int = option(type=click.IntRange(min=1), default=8, help="N, or of each AP.")
    aps: int = option(type=click.IntRange(min=1), default=50, help="L, of cell-free.")
    pilots: int = option(
        type=click.IntRange(min=1), default=10, help="Orthogonal ones, of cell-free."
    )
    power_db: float = option(type=float, default=10.0, help="power / noise_power written, dB.")
    csi_error: float = option(
        type=SHARE,
        default=0.0,
        help="H becomes an estimate with this share of error, H_true the channel.",
    )


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(shared.WriteOptions, shared.JsonOptions):
    """Of `convert`."""

    power: float | None = option(type=POSITIVE, help="Instead of the file's.")
    noise_power: float | None = option(type=POSITIVE, help="Instead of the file's.")
