# SPDX-License-Identifier: Apache-2.0
"""What `fieldfare slim` needs of tumour networks."""

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fieldfare.common import console, efficiency
from fieldfare.common.errors import InputError
from fieldfare.common.slim.narrow import Group
from fieldfare.common.slim.steps import Channels, Halves, stored_tensors
from fieldfare.common.slim.widths import changed_widths
from fieldfare.common.slim.workshop import Data, Draft, Joined, Step
from fieldfare.common.weights import ModelCard, save_with_page

from ..data.patches import CachedCase, cache_cases
from ..data.table import LabelledCase, read_table
from ..inference.predict import Predictor
from ..inference.units import SHAPES
from ..networks.config import NetworkConfig
from ..networks.create import Network, create_network
from ..networks.models import load_model
from ..training.run import Validation

CROPS, BATCH = 16, 4
"""Number of the pieces on which activations are measured, and how many at a time."""

SIDE = {3: 48, 2: 96}
"""Of a piece, by the network's dimensions, where the network does not say its patch."""

TRACED = {3: 16, 2: 64}
"""Side of the image with which a network is traced."""

OVERLAP = 8
"""Voxels that tiles share while quality is measured: as good as half a tile, and much quicker."""


class TumourData:
    """Cases of a table: quality is measured on the split val, activations on the split train."""

    def __init__(
        self, cases: Sequence[LabelledCase], config: NetworkConfig, *, quiet: bool
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()  # goes with the data
        place = Path(self._folder.name)
        self.config = config

        def ready(split: str) -> list[CachedCase]:
            own = [case for case in cases if case.split == split]
            return cache_cases(own, config, place, quiet=quiet)

        self._seen, self._validation = ready("train"), Validation(ready("val"), config, OVERLAP)

    def score(self, network: nn.Module) -> float:
        """Mean Dice of the regions in the precision that `infer` computes in."""
        predictor = Predictor(network, device="cpu")
        with predictor.autocast():
            return self._validation(predictor.network).get("dice", 0.0)

    @cached_property
    def _pieces(self) -> Tensor:
        rng, found = np.random.default_rng(0), []
        images = [np.asarray(case.open().image, np.float32) for case in self._seen]
        side = max(self.config.patch, default=SIDE[self.config.ndim])
        for number in range(CROPS):
            image = images[number % len(images)]
            inside = np.argwhere(image.any(axis=0))
            middle = inside[int(rng.integers(len(inside)))]
            tile = np.zeros((len(image), *(side,) * self.config.ndim), np.float32)
            plane = image if self.config.ndim == 3 else image[..., middle[2]]
            corner = [
                min(max(0, int(at) - side // 2), max(0, length - side))
                for at, length in zip(middle[: self.config.ndim], plane.shape[1:], strict=True)
            ]
            part = plane[(slice(None), *(slice(first, first + side) for first in corner))]
            tile[(slice(None), *(slice(0, length) for length in part.shape[1:]))] = part
            found.append(tile)
        return torch.from_numpy(np.stack(found))

    def batches(self) -> Sequence[Tensor]:
        """Pieces of the brains, drawn the same every time."""
        return torch.split(self._pieces, BATCH)


class TumourWorkshop:
    """A `slim.workshop.Workshop`."""

    unit = "batch of 2 tiles of 48 x 48 x 48 voxels (or 24 slices of 96 x 96)"
    metric = f"Dice, mean over WT, TC and ET, tiles sharing {OVERLAP} voxels"

    def load(self, model: str) -> tuple[Network, ModelCard]:
        """A network of volumes or of slices."""
        return load_model(model)

    def read(self, network: nn.Module, data: Sequence[Path], *, quiet: bool) -> TumourData:
        """CASES.csv with the splits train and val, as med-seg train takes it."""
        if len(data) != 1:
            raise InputError("--data: give one CASES.csv, as med-seg train takes it")
        config = _config_of(network)
        cases = read_table(
            data[0], modalities=config.modalities, allow_missing=config.modality_dropout
        )
        if missing := {"train", "val"} - {case.split for case in cases}:
            raise InputError(f"{data[0]}: has no case in the split {min(missing)}")
        return TumourData(cases, config, quiet=quiet)

    def unit_of(self, network: nn.Module) -> tuple[nn.Module, Callable[[], object]]:
        """As `infer` predicts it with `--precision auto`."""
        predictor = Predictor(network, device="cpu")
        tile = np.zeros(SHAPES[predictor.ndim], np.float32)
        return predictor.network, lambda: predictor(tile)

    def macs(self, network: nn.Module) -> int:
        """Of a unit."""
        shape: tuple[int, ...] = SHAPES[_config_of(network).ndim]
        if _config_of(network).ndim == 2:
            count, channels, *plane, depth = shape
            shape = (count * depth, channels, *plane)
        return efficiency.cost(network, shape).macs

    def steps(self, network: nn.Module, data: Data) -> list[Step]:
        """Channels, half precision; infer takes bfloat16 by itself."""
        config = _config_of(network)
        example = torch.zeros(1, len(config.modalities), *(TRACED[config.ndim],) * config.ndim)
        batches = data.batches()
        if config.ndim == 3:
            return [Channels("channels inside the blocks", batches, example), Halves()]
        decoder, encoder = (
            Channels(f"{part} channels", batches, example, wanted=wanted)
            for part, wanted in (("decoder", in_decoder), ("encoder", in_encoder))
        )
        return [decoder, encoder, Halves()]

    def save(self, draft: Draft, card: ModelCard, data: Data | None, path: Path) -> None:
        """The network alone: what a model knows takes more cases than are at hand here."""
        config = _own(draft).to_dict()
        if data is not None:
            console.say(
                f"{path.name}: keeps nothing of what the model was trained on, so that infer will "
                "not warn of cases of another kind",
                quiet=False,
            )
        card = dataclasses.replace(card, config=config)
        save_with_page(path, stored_tensors(draft), card)

    def join(self, models: tuple[str, str], data: Sequence[Path], *, quiet: bool) -> Joined:
        """Refused."""
        raise InputError(
            "brain-tumour-segmentation: has no cascade; med-seg infer --model ONE+TWO averages two"
        )


def in_encoder(group: Group) -> bool:
    """Channels within the encoder; what it gives to the decoder stays."""
    return all(name.startswith("encoder.") for name in (*group.makers, *group.readers))


def in_decoder(group: Group) -> bool:
    """Channels that pyramid, decoder and attention make for each other."""
    return not any(name.startswith("encoder.") for name in group.makers)


def _own(draft: Draft) -> NetworkConfig:
    """The network's configuration, saying how wide its layers are."""
    config = _config_of(draft.network)
    whole = create_network(dataclasses.replace(config, widths={}))
    return dataclasses.replace(config, widths=changed_widths(draft.network, whole))


def _config_of(network: nn.Module) -> NetworkConfig:
    config = network.config
    assert isinstance(config, NetworkConfig)
    return config
