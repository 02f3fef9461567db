# SPDX-License-Identifier: Apache-2.0
"""What `fieldfare search precoding-bits` searches: bits of the packaged network's numbers.

Zhao et al. 2020, *Learned Low Precision Graph Neural Networks* (arXiv 2009.09232): the parts of a
graph network bear different numbers of bits. There the bits are learnt by gradient; here they are
genes. Of every part (`input`, `mix`, `head`) all layers are alike.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from fieldfare.common.elastic.genes import Choice, Space
from fieldfare.common.errors import InputError
from fieldfare.common.search.tasks import Given

from ...networks.models import load_precoder_network
from ...networks.precoder import IcgnnPrecoder
from ...networks.quantised import ACTIVATION_BITS, BITS, WEIGHT_BITS, QuantisedLinear
from ...networks.rounded import freeze
from ...training.run import training_settings
from .bench import SLOT_PRECODERS
from .search import BATCH, USERS, ShortRuns

MODEL = "icgnn_precoder"
RATE = 2e-3
"""Learning rate of what is trained already."""

PARTS = ("input", "mix", "head")
SPACE = Space({f"{part}_{of}": BITS for part in PARTS for of in ("weights", "values")})
HAND_MADE = {f"{part}_weights": WEIGHT_BITS for part in PARTS} | {
    f"{part}_values": ACTIVATION_BITS for part in PARTS
}
"""As `wl-precode train --bits 4` rounds."""

PRODUCT = 64
"""Bits of a weight times bits of a value that count as one operation: 8 times 8."""


class BitsSearch(ShortRuns):
    """A `search.tasks.Task`: sum rate of a rounded network after a short training on.

    Raises:
        InputError: a file of channels that cannot be read or is too short.
    """

    kind = "precoding-bits"
    space = SPACE
    recipe = ()
    unit = (
        f"slot of {SLOT_PRECODERS} precoders, {USERS} users: products of the network's layers, one "
        "of 8 by 8 bits as 1, of w by v bits as w v / 64"
    )

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self.network, _ = load_precoder_network(MODEL)
        self.identity = {"steps": self.steps, "batch": BATCH, "model": MODEL}
        self.presets = {"--bits 4": SPACE.canonical(HAND_MADE)}

    def macs(self, choice: Choice) -> float:
        """Products by their bits; the solves between are in double precision and not counted."""
        total = 0.0
        for name, layer in linear_layers(self.network):
            weights, values = bits_of(name, choice)
            total += layer.weight.numel() * weights * values / PRODUCT
        return SLOT_PRECODERS * USERS * total

    def runner(self, choice: Choice) -> Callable[[], object]:
        """Refused: this machine multiplies no numbers of so few bits."""
        raise InputError("--limit: of precoding-bits is a number of operations, 300kMAC say")

    def evaluate(self, choice: Choice, target: Path, work: Path) -> float:
        """Round, train on, freeze; measure on other channels."""
        torch.manual_seed(self.seed)
        settings = training_settings(self.steps, RATE, self.seed, self.device)
        network = freeze(self.train(rounded(self.network, choice), settings, work))
        return self.keep(
            network,
            target,
            f"ICGNN precoder {MODEL}, rounded to bits found by fieldfare search.",
            f"{BATCH} channels a step, learning rate {RATE:g}, from {MODEL}",
        )


def linear_layers(network: IcgnnPrecoder) -> list[tuple[str, nn.Linear]]:
    """Names and layers that are rounded."""
    return [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Linear)]


def bits_of(name: str, choice: Choice) -> tuple[int, int]:
    """Of the weights and the values of a layer: layers.0.mix -> genes of mix."""
    part = name.rsplit(".", 1)[-1]
    return choice.number(f"{part}_weights"), choice.number(f"{part}_values")


def rounded(network: IcgnnPrecoder, choice: Choice) -> IcgnnPrecoder:
    """A copy that rounds every layer by the choice while it trains."""
    twin = copy.deepcopy(network)
    for name, layer in linear_layers(twin):
        parent, _, own = name.rpartition(".")
        setattr(twin.get_submodule(parent), own, QuantisedLinear(layer, *bits_of(name, choice)))
    return twin
