# SPDX-License-Identifier: Apache-2.0
"""Training on labelled scenes: the supervised objective, validation, the run."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fieldfare.common.errors import InputError
from fieldfare.common.training import TrainSettings, fit

from ...weights.digest import digest
from ...weights.imagenet import imagenet_weights
from ..data.patches import PatchDataset, truth_maps
from ..data.sensors import pixel_of
from ..data.table import LabelledScene
from ..evaluation.metrics import Confusion, confusion
from ..networks.building_network import BuildingNetwork, NetworkConfig, expert_of
from ..networks.encoders import ENCODERS
from ..networks.experts import nearest, spread
from .instances import InstanceObjective
from .losses import DeepSupervision, parse_loss

VALIDATION_TILE = 512


@dataclass(frozen=True)
class DataSettings:
    """What is drawn, and how its error is counted.

    Attributes:
        patch: side of the training patch in pixels.
        zoom: patches are read at a ground sampling distance up to this factor finer or coarser.
        loss: names of `losses.LOSSES`, added up.
        depth_weights: of the depths L1 to L4 in deep supervision.
        edge_weight: of the edge map, beside 1 for the building map.
    """

    patch: int = 256
    zoom: float = 1.6
    loss: str = "bce+dice"
    depth_weights: tuple[float, ...] = (0.5, 0.5, 0.5, 1.0)
    edge_weight: float = 0.5

    def patches(self, scenes: Sequence[LabelledScene], config: NetworkConfig) -> PatchDataset:
        """What this network is trained on: patches of the scenes of the split train."""
        return PatchDataset(
            [scene for scene in scenes if scene.split == "train"],
            gsd=config.gsd,
            patch=self.patch,
            outputs=("instances",) if config.architecture == "pem" else config.outputs,
            zoom=self.zoom,
            choose=functools.partial(expert_of, config) if config.experts else None,
        )

    def objective(self, config: NetworkConfig) -> "Objective | InstanceObjective":
        """The loss of this network."""
        if config.architecture == "pem":
            return InstanceObjective()
        return Objective(self.supervision(config))

    def supervision(self, config: NetworkConfig) -> DeepSupervision:
        """The loss for the maps that this network gives in training."""
        nested = config.architecture == "unetplusplus" and config.deep_supervision
        if nested and (len(self.depth_weights) != 4 or min(self.depth_weights) < 0):
            raise InputError("--depth-weights: four numbers of at least 0, for L1 to L4")
        if nested and not sum(self.depth_weights):
            raise InputError("--depth-weights: at least one must be above 0")
        weights = {"building": 1.0, "edge": self.edge_weight}
        return DeepSupervision(
            parse_loss(self.loss),
            self.depth_weights[-config.levels :] if nested else (1.0,),
            [weights[name] for name in config.outputs],
        )


class Objective:
    """The loss of one batch of `PatchDataset`: every depth against the labels."""

    def __init__(self, supervision: DeepSupervision) -> None:
        self.supervision = supervision

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        told = (batch["expert"],) if "expert" in batch else ()
        return self.supervision(model(image, *told), batch["truth"], batch["weight"])


class Validation:
    """Building IoU of each depth on whole scenes at the model's pixel size, pooled; of a network
    with experts also that of each expert at the whole depth.

    Args:
        scenes: of the split val.
        experts: of the network, see `NetworkConfig`.
    """

    def __init__(
        self, scenes: Sequence[LabelledScene], gsd: float, experts: Sequence[float] = ()
    ) -> None:
        self.tiles: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.experts, self.chosen = experts, list[int]()
        for scene in scenes:
            tiles = scene_tiles(scene, gsd)
            self.tiles += tiles
            if experts:
                self.chosen += [nearest(experts, pixel_of(scene), gsd)] * len(tiles)

    def __call__(self, model: BuildingNetwork) -> dict[str, float]:
        device = next(model.parameters()).device
        counts: dict[str, Confusion] = {}
        for place, (image, truth, valid) in enumerate(self.tiles):
            pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].to(device)
            told = self.chosen[place : place + 1]
            expert = [torch.tensor(told, device=device)] if told else []
            maps = model.all_depths(pixels.float() / 255, *expert)
            names = [f"iou_l{depth}" for depth in range(1, len(maps))] + ["iou"]
            names += [f"iou_{self.experts[number]:g}m" for number in told]
            for name, logits in zip(names, [*maps, maps[-1]], strict=False):
                found = confusion((logits[0, 0] > 0).cpu().numpy(), truth, valid)
                counts[name] = counts[name] + found if name in counts else found
        return {name: count.building_iou for name, count in counts.items()}


def validation(
    scenes: Sequence[LabelledScene], gsd: float, experts: Sequence[float] = ()
) -> Validation | None:
    """Of the scenes of the split val; None without any."""
    held_out = [scene for scene in scenes if scene.split == "val"]
    return Validation(held_out, gsd, experts) if held_out else None


def scene_tiles(
    scene: LabelledScene, gsd: float
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A scene cut into tiles at a ground sampling distance: image, building mask, validity."""
    window, tiles = scene.window, []
    height = VALIDATION_TILE * gsd / scene.gsd[1]
    width = VALIDATION_TILE * gsd / scene.gsd[0]
    for top in np.arange(0, window.height, height):
        for left in np.arange(0, window.width, width):
            rows, columns = min(height, window.height - top), min(width, window.width - left)
            shape = (
                max(1, round(rows * scene.gsd[1] / gsd)),
                max(1, round(columns * scene.gsd[0] / gsd)),
            )
            place = (window.row_off + top, window.col_off + left, rows, columns)
            image, valid = scene.read(*place, shape)
            truth = truth_maps(scene.labels.instances(*place, shape), ("building",))[0] > 0
            tiles.append((image, truth, valid))
    return tiles


def initial_weights(network: BuildingNetwork, source: str) -> None:
    """Give the encoder its start: `imagenet`, `none`, or a file of the timm model's weights.

    Raises:
        InputError: no such weights, or they do not fit.
    """
    if source == "none":
        return
    name = ENCODERS.get(network.config.encoder, network.config.encoder)
    model = network.encoder.get_submodule("model")
    if source == "imagenet":
        tensors = imagenet_weights(name)
    else:
        tensors = _read_tensors(Path(source))
    wanted = model.state_dict()
    first = next(key for key, tensor in wanted.items() if tensor.ndim == 4)
    if network.config.in_channels != 3 and first in tensors and tensors[first].shape[1:2] == (3,):
        tensors = tensors | {first: _for_bands(tensors[first], network.config.in_channels)}
    bad = [k for k, t in wanted.items() if k not in tensors or tensors[k].shape != t.shape]
    if bad:
        raise InputError(f"{source}: does not fit {name}: {bad[0]} is missing or of another shape")
    model.load_state_dict({key: tensors[key] for key in wanted})


def _for_bands(weight: Tensor, bands: int) -> Tensor:
    """A first layer for another number of bands: R, G, B in turn, scaled; for one, their sum."""
    if bands == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight[:, [band % 3 for band in range(bands)]] * (3 / bands)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give imagenet, none or a file of weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises many kinds for a broken file
        raise InputError(f"{path}: not a readable file of weights ({error})") from None


def train(
    config: NetworkConfig,
    scenes: Sequence[LabelledScene],
    settings: TrainSettings,
    data: DataSettings,
    folder: Path,
    *,
    start: Mapping[str, Tensor] | None = None,
    encoder_weights: str = "none",
    quiet: bool = False,
) -> BuildingNetwork:
    """Train a network on the scenes of the split train; those of val are only measured.

    Args:
        start: weights to begin with (fine-tuning), those of a dense network in every expert; a
            fresh network when None.
        encoder_weights: see `initial_weights`; for a fresh network.

    Returns:
        The network with averaged weights; log, curve and checkpoint lie in `folder`.
    """
    dataset = data.patches(scenes, config)
    begin = encoder_weights if start is None else digest(start)
    identity = json.dumps(
        [config.to_dict(), dataclasses.asdict(data), begin, [scene.identity for scene in scenes]]
    )
    settings = dataclasses.replace(settings, identity=identity)
    torch.manual_seed(settings.seed)
    network = BuildingNetwork(config)
    if start is None:
        plain = network.dense(0) if config.experts else network
        initial_weights(plain, encoder_weights)
        start = plain.state_dict()
    network.load_state_dict(spread(start, list(network.state_dict())) if config.experts else start)
    network.to(memory_format=torch.channels_last)
    return fit(
        network,
        dataset,
        data.objective(config),
        settings,
        folder,
        validate=validation(scenes, config.gsd, config.experts),
        quiet=quiet,
    )
