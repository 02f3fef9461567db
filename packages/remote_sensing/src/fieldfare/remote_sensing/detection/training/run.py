# SPDX-License-Identifier: Apache-2.0
"""The training run of a detector."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fieldfare.common.training import TrainSettings, fit

from ...scenes.table import LabelledScene
from ...weights.digest import digest
from ..data.objects import Objects
from ..data.patches import PatchDataset
from ..networks.leyolo import DetectorConfig, LeYOLO
from .losses import Objective
from .validation import Validation


@dataclass(frozen=True)
class DataSettings:
    """What is drawn, and how a detection is judged.

    Attributes:
        patch: side of the training patch in pixels.
        zoom: patches are read at a ground sampling distance up to this factor finer or coarser.
        point_size: side in metres of the box that a point becomes.
        reach: metres that a detection's centre may lie from an object's, in validation.
    """

    patch: int = 256
    zoom: float = 1.25
    point_size: float = 6.0
    reach: float = 6.0


def train(
    config: DetectorConfig,
    scenes: Sequence[LabelledScene[Objects]],
    settings: TrainSettings,
    data: DataSettings,
    folder: Path,
    *,
    start: Mapping[str, Tensor] | None = None,
    quiet: bool = False,
) -> tuple[LeYOLO, Validation | None]:
    """Train a network on the scenes of the split train; those of val are only measured.

    Args:
        start: weights to begin with; a fresh network when None.

    Returns:
        The network with averaged weights, and what measured it on the scenes of val, if there are
        any; log, curve and checkpoint lie in `folder`.
    """
    dataset = PatchDataset(
        [scene for scene in scenes if scene.split == "train"],
        gsd=config.gsd,
        patch=data.patch,
        classes=config.classes,
        point_size=data.point_size,
        zoom=data.zoom,
    )
    held_out = [scene for scene in scenes if scene.split == "val"]
    validation = None
    if held_out:
        validation = Validation(held_out, config, point_size=data.point_size, reach=data.reach)
    identity = json.dumps(
        [
            *(config.to_dict(), dataclasses.asdict(data)),
            None if start is None else digest(start),
            [scene.identity for scene in scenes],
        ]
    )
    torch.manual_seed(settings.seed)
    network = LeYOLO(config)
    if start is not None:
        network.load_state_dict(start)
    network.to(memory_format=torch.channels_last)
    trained = fit(
        network,
        dataset,
        Objective(),
        dataclasses.replace(settings, identity=identity),
        folder,
        validate=validation,
        quiet=quiet,
    )
    return trained, validation
