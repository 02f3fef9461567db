# SPDX-License-Identifier: Apache-2.0
"""What `fieldfare slim` needs of building networks."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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

from ..data.table import LabelledScene, read_scene, read_table
from ..evaluation.metrics import Confusion, confusion
from ..inference.predict import Predictor
from ..inference.units import TILE
from ..networks.building_network import BuildingNetwork
from ..networks.models import load_model
from ..training.knowledge import learn_parts
from ..training.run import scene_tiles

CROP, CROPS, BATCH = 256, 16, 4
"""Side and number of the pieces on which activations are measured."""

TRACED = 64
"""Side of the image with which a network is traced."""


class BuildingData:
    """Scenes of a table, or one scene with its outlines.

    Quality is measured on the split val, activations on the split train; of one scene on itself.
    """

    def __init__(self, scenes: Sequence[LabelledScene], gsd: float, *, table: bool) -> None:
        self.scenes = scenes
        self._tiles = [tile for scene in self._of("val") for tile in scene_tiles(scene, gsd)]
        self._seen = [tile for scene in self._of("train") for tile in scene_tiles(scene, gsd)]
        if not table:
            self._seen = self._tiles = [t for scene in scenes for t in scene_tiles(scene, gsd)]

    def _of(self, split: str) -> list[LabelledScene]:
        return [scene for scene in self.scenes if scene.split == split]

    def score(self, network: nn.Module) -> float:
        """Building IoU of what `infer` computes, all pixels pooled."""
        assert isinstance(network, BuildingNetwork)
        predictor = Predictor(network, device="cpu")
        counts: list[Confusion] = []
        for image, truth, valid in self._tiles:
            tile = image.transpose(2, 0, 1)[None].astype(np.float32) / 255
            found = predictor(tile, np.zeros((1, 2), np.int64))[0, 0] > 0.5
            counts.append(confusion(found, truth, valid))
        total = counts[0]
        for count in counts[1:]:
            total += count
        return total.building_iou

    def batches(self) -> Sequence[Tensor]:
        """Crops of the tiles, drawn the same every time."""
        rng = np.random.default_rng(0)
        fit = [image for image, *_ in self._seen if min(image.shape[:2]) >= CROP]
        if not fit:
            raise InputError(
                f"--data: no scene is {CROP} pixels wide and high at the model's pixel size"
            )
        pieces = []
        for _ in range(CROPS):
            image = fit[int(rng.integers(len(fit)))]
            top, left = (int(rng.integers(side - CROP + 1)) for side in image.shape[:2])
            pieces.append(image[top : top + CROP, left : left + CROP].transpose(2, 0, 1))
        every = torch.from_numpy(np.stack(pieces)).float() / 255
        return [every[first : first + BATCH] for first in range(0, CROPS, BATCH)]


class BuildingWorkshop:
    """A `slim.workshop.Workshop`."""

    unit = f"tile of {TILE} x {TILE} pixels"
    metric = "building IoU"

    def load(self, model: str) -> tuple[BuildingNetwork, ModelCard]:
        """A U-Net++, U-Net or LR-ASPP."""
        network, card = load_model(model)
        if network.config.architecture == "pem":
            raise InputError(f"{model}: is a PEM, whose queries cannot be slimmed")
        return network, card

    def read(self, network: nn.Module, data: Sequence[Path], *, quiet: bool) -> BuildingData:
        """SCENES.csv with the splits train and val, or SCENE and LABELS."""
        assert isinstance(network, BuildingNetwork)
        bands = network.config.in_channels
        if len(data) == 1 and data[0].suffix == ".csv":
            scenes, messages = read_table(data[0], bands=bands)
            if missing := {"train", "val"} - {scene.split for scene in scenes}:
                raise InputError(f"{data[0]}: has no scene in the split {sorted(missing)[0]}")
        elif len(data) == 2:
            scene, messages = read_scene(*data, bands=bands)
            scenes = [scene]
        else:
            raise InputError("--data: give SCENES.csv, or SCENE and LABELS (--data twice)")
        for text in messages:
            console.say(text, quiet=quiet)
        return BuildingData(scenes, network.config.gsd, table=len(data) == 1)

    def unit_of(self, network: nn.Module) -> tuple[nn.Module, Callable[[], object]]:
        """A tile, as `infer` predicts it with `--precision auto`."""
        assert isinstance(network, BuildingNetwork)
        predictor = Predictor(network, device="cpu")
        tile = np.zeros((1, network.config.in_channels, TILE, TILE), np.float32)
        start = np.zeros((1, 2), np.int64)
        return predictor.network, lambda: predictor(tile, start)

    def macs(self, network: nn.Module) -> int:
        """Of a tile, as trained."""
        assert isinstance(network, BuildingNetwork)
        return efficiency.cost(network, (1, network.config.in_channels, TILE, TILE)).macs

    def steps(self, network: nn.Module, data: Data) -> list[Step]:
        """Channels, half precision; infer folds norms and takes bfloat16 by itself."""
        assert isinstance(network, BuildingNetwork)
        batches = data.batches()
        example = torch.zeros(1, network.config.in_channels, TRACED, TRACED)
        decoder, encoder = (
            Channels(f"{part} channels", batches, example, _every_depth, wanted, match_shares)
            for part, wanted in (("decoder", in_decoder), ("encoder", in_encoder))
        )
        return [decoder, encoder, Halves()]

    def save(self, draft: Draft, card: ModelCard, data: Data | None, path: Path) -> None:
        """With what the model knows, learnt anew where the table allows it."""
        network = _own(draft)
        card = dataclasses.replace(card, config=network.config.to_dict())
        parts = {}
        if isinstance(data, BuildingData):
            train, val = (_places(data.scenes, split) for split in ("train", "val"))
            parts = learn_parts(network, train, val) if train and val else {}
        save_with_page(path, stored_tensors(draft), card, parts)

    def join(self, models: tuple[str, str], data: Sequence[Path], *, quiet: bool) -> Joined:
        """Refused."""
        raise InputError(
            "building-footprints: has no cascade; a smaller depth of one U-Net++ is cheaper than a "
            "second network (rs-buildings infer --within)"
        )


def _own(draft: Draft) -> BuildingNetwork:
    """The network, its configuration saying how wide its layers are."""
    network = draft.network
    assert isinstance(network, BuildingNetwork)
    whole = BuildingNetwork(dataclasses.replace(network.config, widths={}))
    network.config = dataclasses.replace(network.config, widths=changed_widths(network, whole))
    return network


def _places(scenes: Sequence[LabelledScene], split: str) -> dict[str, list[LabelledScene]]:
    found: dict[str, list[LabelledScene]] = {}
    for scene in scenes:
        if scene.split == split:
            found.setdefault(scene.area, []).append(scene)
    return found


def _every_depth(network: nn.Module, image: Tensor) -> Any:
    assert isinstance(network, BuildingNetwork)
    return network.all_depths(image)


def in_encoder(group: Group) -> bool:
    """Channels within the encoder; what it gives to the decoder stays."""
    return all(name.startswith("encoder.") for name in (*group.makers, *group.readers))


def in_decoder(group: Group) -> bool:
    """Channels that decoder and heads make for each other."""
    return not any(name.startswith("encoder.") for name in group.makers)


def match_shares(small: nn.Module, whole: nn.Module, batches: Sequence[Tensor]) -> None:
    """Shift the heads of a network so that they call as many pixels positive as the whole one's.

    Fewer channels make logits smaller, which moves the share that is above 0 most.

    Args:
        small: changed in place.
        batches: images in [0, 1].
    """
    assert isinstance(small, BuildingNetwork)
    assert isinstance(whole, BuildingNetwork)
    shift_heads(small, positive_pixels(whole, batches), batches)


@torch.no_grad()
def positive_pixels(network: BuildingNetwork, batches: Sequence[Tensor]) -> Tensor:
    """How many pixels of images each depth calls positive, (depths, outputs) int64."""
    counts = [
        torch.stack([(logits > 0).sum(dim=(0, 2, 3)) for logits in network.all_depths(batch)])
        for batch in batches
    ]
    return torch.stack(counts).sum(dim=0)


@torch.no_grad()
def shift_heads(network: BuildingNetwork, wanted: Tensor, batches: Sequence[Tensor]) -> None:
    """Shift the heads of a network so that they call so many pixels of images positive.

    Args:
        network: changed in place.
        wanted: (depths, outputs), shallowest first; depths that it does not have are left out.
    """
    found = zip(*map(network.all_depths, batches), strict=True)
    for head, maps, counts in zip(_heads(network), found, wanted, strict=False):
        for place, logits in enumerate(torch.cat(maps).transpose(0, 1).flatten(1)):
            below = len(logits) - int(counts[place])
            if 0 < below < len(logits):
                edges = [logits.kthvalue(rank).values for rank in (below, below + 1)]
                head.bias[place] -= (edges[0] + edges[1]) / 2


def _heads(network: BuildingNetwork) -> list[Any]:
    """The last convolutions of the depths, shallowest first."""
    if network.config.architecture == "lraspp":
        return [network.get_submodule("decoder.low_classifier")]
    return [*network.deep_heads, *network.segmentation_head.children()]
