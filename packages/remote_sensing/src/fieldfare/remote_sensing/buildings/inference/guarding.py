# SPDX-License-Identifier: Apache-2.0
"""`--guard`: does a scene get the same answer when it is slightly changed?

Squares spread over the scene are predicted as they are and in `augmentations`, all of which leave
every pixel where it is. Source: BEYOND, arXiv 2209.00005, see `fieldfare.common.trust.beyond`.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fieldfare.common.trust.beyond import Augmentation, Encode
from fieldfare.common.trust.guard import Guard, Verdict

from ...rasters.reading import Scene, ValueRange
from ...scenes.squares import squares
from .predict import Predictor
from .trust import features_of

SIDE = 256
"""Of a square, pixels of the model."""

ACROSS = 6
"""Squares along each axis of a scene that are looked at, at most."""

RANK = 8
"""The score is the agreement of the neighbour that agrees least. An attack makes an answer firmer
against changes of light and colour (on validation squares the four neighbours that agree most told
PGD from clean in no case), and weaker against those of sharpness."""

Array = np.ndarray


def augmentations() -> list[Augmentation]:
    """Changes that a scene may well have: light, colour balance, sharpness, noise."""
    gains = torch.tensor([1.08, 1.0, 0.92])[:, None, None]
    kernel = torch.tensor([0.25, 0.5, 0.25])

    def noise(seed: int) -> Augmentation:
        def change(x: Tensor) -> Tensor:
            generator = torch.Generator().manual_seed(seed)
            drawn = torch.randn(x.shape[1:], generator=generator)
            return (x + 0.03 * drawn).clamp(0, 1)

        return change

    def soft(x: Tensor) -> Tensor:
        weight = (kernel[:, None] * kernel).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight, groups=x.shape[1])

    def coarse(x: Tensor) -> Tensor:
        small = F.avg_pool2d(x, 2)
        return F.interpolate(small, size=tuple(x.shape[-2:]), mode="bilinear")

    return [
        noise(0),
        noise(1),
        soft,
        coarse,
        lambda x: x * 0.85,
        lambda x: x.clamp(1e-4, 1) ** 0.8,
        lambda x: (x * gains).clamp(0, 1),
        lambda x: (x * gains.flip(0)).clamp(0, 1),
    ]


def encoded_by(predictor: Predictor) -> Encode:
    """Squares (N, 3, h, w) -> means of the deepest features (N, F); logits (N, 2, h, w) of no
    building and building."""

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        image = x.to(predictor.device).contiguous(memory_format=torch.channels_last)
        with features_of(predictor.network) as kept:
            logits = predictor.network(image)[:, :1].cpu()
        features = kept[-1].float().mean(dim=(2, 3)).cpu()
        return features, torch.cat((-logits, logits), dim=1) / 2

    return encode


def guard_scores(pictures: Sequence[Array], guard: Guard, predictor: Predictor) -> Array:
    """Agreement of each square (3, SIDE, SIDE) with its neighbours, (N,)."""
    near = guard.neighbourhood(encoded_by(predictor), augmentations())
    batches = [torch.from_numpy(picture)[None] for picture in pictures]
    found: Array = torch.cat([near.scores(batch) for batch in batches]).double().numpy()
    return found


def guard_scene(
    scene: Scene, values: ValueRange, guard: Guard, predictor: Predictor
) -> Verdict | None:
    """On squares spread over a scene; None where it holds no data."""
    pictures = list(squares(scene, values, SIDE, ACROSS))
    if not pictures:
        return None
    return guard.verdict(guard_scores(pictures, guard, predictor))
