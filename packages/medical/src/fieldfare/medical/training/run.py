# SPDX-License-Identifier: Apache-2.0
"""Training on labelled cases: the objective, validation, the run."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fieldfare.common.errors import InputError
from fieldfare.common.training import TrainSettings, fit
from fieldfare.common.windows import sliding

from ..data.patches import CachedCase, DataSettings, PatchDataset, cache_cases
from ..data.regions import REGIONS
from ..data.table import LabelledCase
from ..evaluation.metrics import dice
from ..networks.config import NetworkConfig
from ..networks.create import check_sizes, create_network
from ..phantoms.anatomy import load_atlas
from ..phantoms.generate import PHANTOMS
from .losses import deep_supervision, truth_maps
from .synthetic import SyntheticPatches

VALIDATION_TILE = 128
"""Longest side of a tile in validation, voxels: at 2 mm a brain is one tile."""

SLICES = 16
"""Axial slices at a time in validation."""


class Objective:
    """The loss of one batch of `PatchDataset`: every level against the regions.

    Args:
        regions: of the network's maps, in their order.
        weights: one for each.
    """

    def __init__(self, regions: Sequence[str], weights: Sequence[float]) -> None:
        if len(weights) != len(regions) or min(weights) < 0 or not sum(weights):
            raise InputError(
                f"--region-weights: {len(regions)} numbers of at least 0, for {', '.join(regions)}"
            )
        self.regions, self.weights = tuple(regions), tuple(weights)

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        truth = truth_maps(batch["depth"], self.regions)
        return deep_supervision(model(batch["image"]), truth, self.weights)


class Validation:
    """Mean Dice of each region over whole held-out cases at the network's spacing.

    Probabilities of 0.5 and more count. Where a case has no such region and none is found either,
    it is left out of that mean.

    Args:
        cases: of the split val.
        overlap: voxels that neighbouring tiles share; half a tile when None.
    """

    def __init__(
        self, cases: Sequence[CachedCase], config: NetworkConfig, overlap: int | None = None
    ) -> None:
        self.cases, self.config, self.overlap = list(cases), config, overlap

    def __call__(self, model: nn.Module) -> dict[str, float]:
        scores: dict[str, list[float]] = {name: [] for name in self.config.regions}
        for case in self.cases:
            sample = case.open()
            depth = np.asarray(sample.depth)
            image = np.asarray(sample.image, np.float32)
            logits = predict_logits(model, image, self.config, self.overlap)
            for name, found in zip(self.config.regions, logits >= 0, strict=True):
                scores[name].append(dice(found, depth > REGIONS.index(name)))
        means = {
            f"dice_{name.lower()}": float(np.nanmean(values))
            for name, values in scores.items()
            if not np.isnan(values).all()
        }
        return {**means, "dice": float(np.mean(list(means.values())))} if means else {}


def predict_logits(
    model: nn.Module, image: NDArray[np.float32], config: NetworkConfig, overlap: int | None = None
) -> NDArray[np.float32]:
    """Logits of a case made ready: tile by tile, or slice by slice for a network of two dimensions.

    Args:
        model: in evaluation mode.
        image: (M, X, Y, Z).
        overlap: voxels that neighbouring tiles share; half a tile when None.

    Returns:
        (R, X, Y, Z).
    """
    device = next(model.parameters()).device

    @torch.no_grad()
    def predict(tiles: NDArray[np.float32], starts: object = None) -> NDArray[np.float32]:
        logits: Tensor = model(torch.from_numpy(tiles).to(device))
        return logits.float().cpu().numpy()

    if config.ndim == 2:
        slices = np.ascontiguousarray(np.moveaxis(image, -1, 0))
        parts = [predict(slices[first : first + SLICES]) for first in range(0, len(slices), SLICES)]
        return np.moveaxis(np.concatenate(parts), 0, -1)
    longest = max(config.patch, default=VALIDATION_TILE)
    tile = [min(length, longest) for length in image.shape[1:]]
    shared = [side // 2 if config.patch else side // 4 for side in tile]
    if overlap is not None:
        shared = [min(overlap, side - 1) for side in tile]
    return sliding(predict, image, tile=tile, overlap=shared, channels=len(config.regions))


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Of weights: a run is not resumed with another start."""
    found = hashlib.sha256()
    for tensor in tensors.values():
        found.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return found.hexdigest()


def train(
    config: NetworkConfig,
    cases: Sequence[LabelledCase],
    settings: TrainSettings,
    data: DataSettings,
    folder: Path,
    *,
    synthetic: float = 0.0,
    start: Mapping[str, Tensor] | None = None,
    memory: str = "none",
    prepared: Path | None = None,
    force: bool = False,
    quiet: bool = False,
) -> nn.Module:
    """Train a network on the cases of the split train; those of val are only measured.

    Args:
        synthetic: share of the patches that are of phantoms drawn on the way, see `synthetic`.
        start: weights to begin with (fine-tuning); a fresh network when None.
        memory: `none`, `checkpoint` or `reversible`: what the backward pass keeps. The result is
            the same up to rounding, so that a run may go on in another mode.
        prepared: folder of the cases made ready, which runs may share; `prepared` in `folder` when
            None.
        force: take heads that are not stripped of their skull.

    Returns:
        The network with averaged weights; log, curve and checkpoint lie in `folder`.

    Raises:
        InputError: a patch of other dimensions than the network's, no case to train on, and what
            `data.cache_cases` and `training.fit` of fieldfare.common raise.
    """
    if len(data.size) != config.ndim:
        raise InputError(
            f"--patch-size: {len(data.size)} sides for a network of {config.ndim} dimensions; "
            f"give one number or {config.ndim}"
        )
    objective = Objective(config.regions, data.region_weights)
    wanted = [case for case in cases if case.split in ("train", "val")]
    if synthetic < 1 and not any(case.split == "train" for case in wanted):
        raise InputError("the table has no case in the split train")
    begin = "fresh" if start is None else digest(start)
    identity = json.dumps(
        [config.to_dict(), dataclasses.asdict(data), begin, [case.identity for case in wanted]]
    )
    if synthetic:
        load_atlas()  # says what is missing before work starts
        identity = json.dumps([identity, synthetic, PHANTOMS])
    settings = dataclasses.replace(settings, identity=identity)
    torch.manual_seed(settings.seed)
    try:
        network = create_network(config, memory=memory)
        check_sizes(network)
    except ValueError as error:
        about = "the network cannot be built" if memory == "none" else f"--memory {memory}"
        raise InputError(f"{about}: {error}") from None
    stride = network.stride
    if config.deep_supervision and any(side % stride for side in data.size):
        # Else the coarse maps reach beyond the patch, and their truth would be stretched.
        raise InputError(f"--patch-size: sides must be multiples of {stride}, got {data.size}")
    if start is not None:
        network.load_state_dict(start)
    ready = cache_cases(wanted, config, prepared or folder / "prepared", force=force, quiet=quiet)
    splits = {
        split: [r for r, case in zip(ready, wanted, strict=True) if case.split == split]
        for split in ("train", "val")
    }
    drawn = PatchDataset(splits["train"], data) if synthetic < 1 else None
    return fit(
        network,
        SyntheticPatches(synthetic, drawn, data, config) if synthetic or drawn is None else drawn,
        objective,
        settings,
        folder,
        validate=Validation(splits["val"], config) if splits["val"] else None,
        quiet=quiet,
    )
