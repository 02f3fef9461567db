# SPDX-License-Identifier: Apache-2.0
"""Losses in which one network learns from another: distillation and deep mutual learning."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.building_network import BuildingNetwork
from .losses import DeepSupervision, Loss


def softened_divergence(temperature: float) -> Loss:
    """KL divergence from a target's to a network's distribution of building or not, per pixel.

    The loss takes logits of both, (B, H, W), and gives T^2 KL(target || network) with logits
    divided by T, the mean over the known pixels; T = 1 is plain KL. No gradient reaches the target.

    Source: Hinton et al. 2015, arXiv 1503.02531, section 2, for two classes.
    """

    def loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        own, other = logits / temperature, target.detach().float() / temperature
        inside = F.logsigmoid(other) - F.logsigmoid(own)
        outside = F.logsigmoid(-other) - F.logsigmoid(-own)
        share = torch.sigmoid(other)
        divergence = share * inside + (1 - share) * outside
        return temperature**2 * (divergence * weight).sum() / weight.sum().clamp(min=1)

    return loss


def _towards(supervision: DeepSupervision, temperature: float) -> DeepSupervision:
    """The same weights of depths and outputs, with logits of another network in place of truth."""
    return DeepSupervision(
        softened_divergence(temperature), supervision.depth_weights, supervision.output_weights
    )


class Distillation:
    """The loss of one batch: labels, and the softened predictions of a fixed teacher.

    Every depth of the student looks at the teacher's deepest map.

    Args:
        outputs: of the student, in its order.
        temperature: the higher, the softer the predictions.
        teacher_weight: share of the teacher in the loss, 0 to 1; the labels have the rest.
        precision: `fp32` or `bf16`, of the teacher's predictions.
    """

    def __init__(
        self,
        teacher: BuildingNetwork,
        supervision: DeepSupervision,
        outputs: tuple[str, ...],
        *,
        temperature: float,
        teacher_weight: float,
        precision: str,
    ) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.supervision, self.share = supervision, teacher_weight
        self.imitation = _towards(supervision, temperature)
        self.channels = [teacher.config.outputs.index(name) for name in outputs]
        self.bf16 = precision == "bf16"

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        self.teacher.to(image.device)
        with (
            torch.no_grad(),
            torch.autocast(image.device.type, torch.bfloat16, enabled=self.bf16),
        ):
            target = self.teacher(image)[:, self.channels]
        maps = model(image)
        labels = self.supervision(maps, batch["truth"], batch["weight"])
        taught = self.imitation(maps, target.float(), batch["weight"])
        return (1 - self.share) * labels + self.share * taught


class Pair(nn.Module):
    """Two networks that see the same images."""

    def __init__(self, first: BuildingNetwork, second: BuildingNetwork) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The maps of each, as `BuildingNetwork` gives them."""
        return self.first(image), self.second(image)


class MutualLearning:
    """The loss of one batch for a `Pair`: each learns from the labels and from the other.

    Every depth of one looks at the deepest map of the other, which gets no gradient from that.

    Source: Zhang et al. 2018, arXiv 1706.00384, eqs. 5 and 6, both in one step.
    """

    def __init__(self, supervision: DeepSupervision) -> None:
        self.supervision = supervision
        self.imitation = _towards(supervision, 1.0)

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        image, weight = batch["image"], batch["weight"]
        first, second = model(image.contiguous(memory_format=torch.channels_last))
        return torch.stack(
            [
                self.supervision(own, batch["truth"], weight)
                + self.imitation(own, other[-1], weight)
                for own, other in ((first, second), (second, first))
            ]
        ).sum()
