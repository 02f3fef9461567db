# SPDX-License-Identifier: Apache-2.0
"""How a network is taken apart into a start, blocks and an end, for stitching and exits."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn


class Anchor(Protocol):
    """A network whose blocks run one after another.

    Attributes:
        stages: how many blocks each stage has; within one, features keep their shape.
        axis: of the channels.
    """

    stages: tuple[int, ...]
    axis: int

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """In order, of all stages."""

    def embed(self, x: Tensor) -> Tensor:
        """Input -> features before the first block."""

    def finish(self, features: Tensor) -> Any:
        """Features behind the last block -> output."""

    def pool(self, features: Tensor) -> Tensor:
        """Features behind any block -> (B, D), what a head in the middle sees."""


class VisionTransformerAnchor(nn.Module):
    """A timm VisionTransformer (DeiT, ViT) as an anchor; the model is a part of it.

    Args:
        norm: apply the last norm in `finish`; the published stitched networks leave it out, though
            not the anchors by themselves.
    """

    def __init__(self, model: nn.Module, *, norm: bool = True) -> None:
        super().__init__()
        self.model, self.norm = model, norm
        self.stages, self.axis = (len(self.blocks),), -1

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """In order."""
        return list(self.model.blocks.children())  # type: ignore[union-attr]

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> patches with positions and class token, (B, N, D)."""
        model: Any = self.model
        found: Tensor = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))
        return found

    def finish(self, features: Tensor) -> Any:
        """(B, N, D) -> (B, classes)."""
        model: Any = self.model
        return model.forward_head(model.norm(features) if self.norm else features)

    def pool(self, features: Tensor) -> Tensor:
        """(B, N, D) -> the normalised class token, (B, D)."""
        model: Any = self.model
        found: Tensor = model.norm(features)[:, 0]
        return found


class SequentialAnchor(nn.Module):
    """A convolutional network given in parts; a head in the middle sees channel means.

    Args:
        stages: how many of the blocks each stage has; one stage when None. What changes the size
            belongs to a stage's first block.

    Raises:
        ValueError: the stages do not have as many blocks as there are.
    """

    def __init__(
        self,
        stem: nn.Module,
        blocks: Sequence[nn.Module],
        end: nn.Module,
        stages: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.stem, self.end = stem, end
        self._blocks = nn.ModuleList(blocks)
        self.stages, self.axis = (len(blocks),) if stages is None else tuple(stages), 1
        if sum(self.stages) != len(blocks):
            raise ValueError(f"stages {self.stages}: there are {len(blocks)} blocks")

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """In order."""
        return list(self._blocks)

    def embed(self, x: Tensor) -> Tensor:
        """The stem's features."""
        found: Tensor = self.stem(x)
        return found

    def finish(self, features: Tensor) -> Any:
        """The end's output."""
        return self.end(features)

    def pool(self, features: Tensor) -> Tensor:
        """(B, D, *size) -> (B, D)."""
        return features.flatten(2).mean(dim=2)
