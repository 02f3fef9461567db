# SPDX-License-Identifier: Apache-2.0
"""wl-precode train."""

from fieldfare.common.errors import InputError
from fieldfare.common.training import TrainSettings

from ...networks.models import load_precoder_network
from ...networks.precoder import IcgnnPrecoder
from ...training.run import train_precoder
from ...training.samples import CellBatches, CellSettings
from ...training.save import train_and_save
from ..options import TrainOptions


def train(options: TrainOptions) -> None:
    """Train, then write `model.safetensors` with its card."""
    low, high = options.snr_range
    if low > high:
        raise InputError(f"--snr-range {low:g},{high:g}: the lower end comes first")
    cells = CellSettings(
        users=tuple(range(2, options.max_users + 1)),
        max_antennas=options.max_antennas,
        snr_db=(low, high),
        correlated=options.correlated,
        csi_error=options.csi_error,
    )
    start = load_precoder_network(options.init)[0] if options.init else None

    def run(settings: TrainSettings) -> IcgnnPrecoder:
        return train_precoder(
            CellBatches(cells, options.batch),
            settings,
            options.output,
            width=options.width,
            layers=options.layers,
            start=start,
            quiet=options.quiet,
        )

    train_and_save(
        options,
        run,
        command="wl-precode",
        noun="channel",
        summary="ICGNN precoder for any number of users and antennas.",
        data=f"channels drawn for every step: 2 to {options.max_users} users, up to "
        f"{options.max_antennas} antennas, {low:g} to {high:g} dB, a share of "
        f"{options.correlated:g} correlated, error of the estimates {options.csi_error:g}",
        limits="sizes, correlation and SNR far from those of the training; compare with wmmse",
    )
