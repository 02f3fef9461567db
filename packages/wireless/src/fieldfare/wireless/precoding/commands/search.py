# SPDX-License-Identifier: Apache-2.0
"""What `fieldfare search precoding` searches: depth, width and pooling of the ICGNN precoder."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from fieldfare.common.commands.train import today
from fieldfare.common.elastic.genes import Choice, Space, Value
from fieldfare.common.search.tasks import Given
from fieldfare.common.training import TrainSettings
from fieldfare.common.weights import Metric, ModelCard, save_with_page

from ...channels.rayleigh import rayleigh
from ...networks.cost import network_macs
from ...networks.layer import UserLayer
from ...networks.models import PRECODING_TASK
from ...networks.precoder import IcgnnPrecoder
from ...signals.cost import gram_macs, inverse_macs, product_macs
from ...training.own import OwnChannels
from ...training.run import train_precoder, training_settings
from ...training.samples import CellBatches, CellSettings
from ...training.validation import PrecoderValidation
from .bench import SLOT_PRECODERS, SNR_DB

STEPS, BATCH = 200, 32
USERS = ANTENNAS = 8
"""Of the slot whose cost is counted."""

CELLS = CellSettings(users=tuple(range(2, 11)), max_antennas=24)
"""As `wl-precode train` draws them."""

MARGIN_DB = 5.0
"""About the SNR of the user's channels, in training."""

OWN_METRIC = "sum rate over that of WMMSE, mean over DATA's last quarters, without the guard"

POOLS = {"none": (0, 0), "mean": (1, 0), "max": (0, 1), "both": (1, 1)}
"""What a user sees of the others: the mean of their states, the maximum of their states."""

SPACE = Space(
    {
        "layers": (1, 2, 3, 4, 5, 6, 8),
        "width": (4, 6, 8, 10, 12, 16),
        "pool": tuple(POOLS),
        "learning_rate": (2e-3, 4e-3, 8e-3, 16e-3),
    }
)
HAND_MADE: dict[str, Value] = {"layers": 6, "width": 10, "pool": "both", "learning_rate": 4e-3}
"""That of the packaged network, and of `wl-precode train`."""


class ShortRuns:
    """What searches for precoders share: short trainings without labels, and what they reach.

    Without DATA channels are drawn; else half of the cells are of the user's files, all at their
    SNR, and their last quarters are what is measured.

    Raises:
        InputError: a file of channels that cannot be read or is too short.
    """

    verb, kind = "search", "precoding"
    """As the command line names them."""

    metric = (
        "sum rate over that of WMMSE, mean over validation channels with 9 users (full and "
        "correlated) and 6, at 0, 10 and 20 dB, without the guard"
    )
    command = "wl-precode infer CHANNELS -o PRECODERS"

    def __init__(self, given: Given) -> None:
        self.steps, self.seed, self.device = given.steps or STEPS, given.seed, given.device
        self.identity: dict[str, Any] = {"steps": self.steps, "batch": BATCH}
        self.data = "channels drawn for every step, as wl-precode train draws them"
        self.cells, self.stored = CELLS, list[Tensor]()
        self.validate: Callable[[IcgnnPrecoder], dict[str, float]]
        if given.data:
            own = OwnChannels(given.data)
            self.validate, self.stored = own.validate, own.stored
            low, high = own.snr_db
            self.cells = replace(CELLS, correlated=1.0, snr_db=(low - MARGIN_DB, high + MARGIN_DB))
            self.identity |= {"data": own.digest}
            self.metric = OWN_METRIC
            self.data = f"half of the cells of {', '.join(own.names)}, the rest drawn at their SNR"
        else:
            self.validate = PrecoderValidation(count=128)

    def batches(self, batch: int = BATCH) -> CellBatches:
        """Channels to train on."""
        return CellBatches(self.cells, batch, self.stored)

    def train(
        self, network: IcgnnPrecoder, settings: TrainSettings, work: Path, batch: int = BATCH
    ) -> IcgnnPrecoder:
        """On channels of its own for every step."""
        return train_precoder(self.batches(batch), settings, work, start=network, quiet=True)

    def keep(self, network: IcgnnPrecoder, target: Path, summary: str, how: str) -> float:
        """Measure a trained network on other channels and write its file; the quality.

        Args:
            summary, how: of the network and of its training, in words.
        """
        ratio = self.validate(network)["ratio"]
        card = ModelCard(
            name=target.stem,
            task=PRECODING_TASK,
            summary=summary,
            config=network.config,
            data=self.data,
            data_licence="the user's own" if self.stored else "none: drawn at random",
            split="the last quarter of every file is measured on"
            if self.stored
            else "none: every channel is new; validation channels have their own seed",
            weights_licence="Apache-2.0",
            training=f"fieldfare {self.verb} {self.kind}: {self.steps} steps, {how}, {self.device}",
            limits="a short run; wl-precode train --init goes on from it",
            seed=self.seed,
            date=today(),
            metrics=(Metric("ratio_wmmse", ratio, self.metric),),
        )
        save_with_page(target, network.state_dict(), card)
        return ratio


class Shapes(ShortRuns):
    """What searches share whose genes have the network's shape among them: what a slot takes."""

    unit = f"slot of {SLOT_PRECODERS} precoders, {USERS} users, {ANTENNAS} antennas, one pass"

    def macs(self, choice: Choice) -> float:
        """Real ones of the slot: what is multiplied by zeros counts, too."""
        network = shape(choice)
        each = gram_macs(USERS, ANTENNAS) + product_macs(USERS, ANTENNAS)
        each += (len(network.layers) + 1) * inverse_macs(USERS) + network_macs(network, USERS)
        return float(SLOT_PRECODERS * each)

    def runner(self, choice: Choice) -> Callable[[], object]:
        """The compiled loops on one slot's channels."""
        from ...networks.kernels.channels import compile_network  # loads numba
        from ...networks.kernels.users import precode_compiled

        H = rayleigh((SLOT_PRECODERS, USERS, ANTENNAS), torch.Generator().manual_seed(0))
        one = H.real.new_ones(len(H))
        numbers = compile_network(shape(choice))
        power = one * 10 ** (SNR_DB / 10)
        return partial(precode_compiled, numbers, H, power, one, None, select=False)


class PrecodingSearch(Shapes):
    """A `search.tasks.Task`: sum rate after a short training without labels; see `ShortRuns`."""

    space = SPACE
    recipe = ("pool", "learning_rate")

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self.presets = {"icgnn_precoder": SPACE.canonical(HAND_MADE)}

    def evaluate(self, choice: Choice, target: Path, work: Path) -> float:
        """Train without labels on channels drawn for every step; measure on others."""
        torch.manual_seed(self.seed)
        rate = float(choice["learning_rate"])
        network = self.train(
            restricted(shape(choice), str(choice["pool"])),
            training_settings(self.steps, rate, self.seed, self.device),
            work,
        )
        return self.keep(
            network,
            target,
            f"ICGNN precoder found by fieldfare search; users see of others: {choice['pool']}.",
            f"{BATCH} channels a step, learning rate {rate:g}",
        )


def shape(choice: Choice) -> IcgnnPrecoder:
    """A fresh network of the genes `layers` and `width`."""
    return IcgnnPrecoder(choice.number("width"), choice.number("layers"))


def restricted(network: IcgnnPrecoder, pool: str) -> IcgnnPrecoder:
    """The network that sees only so much of the other users, a name of `POOLS`.

    What multiplies the rest is zero and stays so in training: the file fits the ordinary network,
    with its compiled loops and its ONNX.
    """
    for layer in network.layers:
        weight = cast(UserLayer, layer).mix.weight
        own = weight.new_ones(len(weight))
        mask = torch.cat([own] + [own * seen for seen in POOLS[pool]])
        weight.data *= mask
        weight.register_hook(mask.mul)
    return network
