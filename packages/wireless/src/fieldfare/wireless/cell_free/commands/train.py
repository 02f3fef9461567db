# SPDX-License-Identifier: Apache-2.0
"""wl-power train."""

from fieldfare.common.training import TrainSettings

from ...networks.models import load_power_network
from ...networks.power import IcgnnPower
from ...training.run import train_power
from ...training.samples import NetworkBatches, NetworkSettings
from ...training.save import train_and_save
from ..options import SATISFACTION, TrainOptions


def train(options: TrainOptions) -> None:
    """Train, then write `model.safetensors` with its card."""
    networks = NetworkSettings(profiles=options.objective == SATISFACTION)
    start = load_power_network(options.init)[0] if options.init else None

    def run(settings: TrainSettings) -> IcgnnPower:
        return train_power(
            NetworkBatches(networks, options.batch),
            settings,
            options.output,
            objective=options.objective,
            width=options.width,
            layers=options.layers,
            start=start,
            quiet=options.quiet,
        )

    train_and_save(
        options,
        run,
        command="wl-power",
        noun="network",
        summary=f"ICGNN power allocation for cell-free networks of any size: {options.objective}.",
        data=f"networks drawn for every step: {networks}",
        limits="sizes, gains and pilot reuse far from those of the training; compare with max-min",
    )
