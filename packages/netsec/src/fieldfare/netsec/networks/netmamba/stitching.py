# SPDX-License-Identifier: Apache-2.0
"""NetMambas of one family, stitched (Pan et al. 2023, arXiv 2302.06586)."""

import dataclasses

import torch
from torch import Tensor, nn

from .config import NetMambaConfig
from .mamba import Block, add
from .network import NetMambaClassifier

SHARED = (
    "byte_length", "packets", "header_bytes", "mark_direction", "stride", "state_dim",
    "conv_kernel", "expand",
)  # fmt: skip
"""What all blocks of one network have in common, and what it reads."""


class _Step(nn.Module):
    """A block between sums: the sum before it, (B, L, D) float32, to the sum behind it."""

    def __init__(self, block: Block, drop_path: float) -> None:
        super().__init__()
        self.block, self.drop_path = block, drop_path

    def forward(self, total: Tensor) -> Tensor:
        mixed, residual = self.block(total, None)
        return add(mixed, residual, self.drop_path, training=self.block.training)


class NetMambaAnchor(nn.Module):
    """A `slim.anchors.Anchor`; gives what the network gives, bit for bit."""

    def __init__(self, model: NetMambaClassifier) -> None:
        super().__init__()
        self.model = model
        self.stages, self.axis = (model.config.depth,), -1
        inner: list[Block] = list(model.blocks)  # type: ignore[arg-type]
        rates = [*(block.drop_path for block in inner[1:]), model.config.drop_path]
        # In a tuple, so that blocks are no parts of this module a second time.
        self._steps = tuple(_Step(*pair) for pair in zip(inner, rates, strict=True))

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """In order."""
        return self._steps

    def embed(self, data: Tensor) -> Tensor:
        """(B, byte_length) -> tokens and CLS, (B, L, D), float32."""
        model = self.model
        return model.with_cls(model.embed_tokens(data)).float()

    def finish(self, total: Tensor) -> Tensor:
        """(B, L, D) -> logits (B, C)."""
        return self.model.classify(self.pool(total))

    def pool(self, total: Tensor) -> Tensor:
        """(B, L, D) -> CLS, (B, D)."""
        found: Tensor = self.model.norm_f(total)[:, -1]
        return found


def check_family(small: NetMambaConfig, large: NetMambaConfig) -> None:
    """Raise ValueError where blocks of one cannot follow those of the other."""
    for config in (small, large):
        if config.cells or config.front_depth:
            raise ValueError("cells and networks that are stitched already cannot be stitched")
    for name in SHARED:
        if getattr(small, name) != getattr(large, name):
            raise ValueError(f"{name} is {getattr(small, name)} and {getattr(large, name)}")
    if small.depth > large.depth or small.embed_dim > large.embed_dim:
        raise ValueError(
            f"{small.depth} blocks of width {small.embed_dim}, then {large.depth} of "
            f"{large.embed_dim}: name the smaller one first"
        )


@torch.no_grad()
def stitched(
    small: NetMambaClassifier, large: NetMambaClassifier, last: int, first: int, layer: nn.Linear
) -> NetMambaClassifier:
    """Blocks 0 to `last` of one, the layer, and the other from block `first`, as one network.

    Weights are copied; the network is in evaluation mode.
    """
    front, end = small.config, large.config
    mixers = (*_mixers(front)[: last + 1], *_mixers(end)[first:])
    config = dataclasses.replace(
        end,
        embedding=front.embedding,
        depth=len(mixers),
        mixers=mixers if set(mixers) != {"scan"} else (),
        front_depth=last + 1,
        front_dim=front.embed_dim,
    )
    found = NetMambaClassifier(config, large.head.out_features)
    begin = ("patch_embed.", "cls_token", "pos_embed")
    state = {name: t for name, t in small.state_dict().items() if name.startswith(begin)}
    state |= {f"stitch.{name}": tensor for name, tensor in layer.state_dict().items()}
    for name, tensor in large.state_dict().items():
        if name.startswith(("norm_f.", "head.")):
            state[name] = tensor
    blocks = [*small.blocks[: last + 1], *large.blocks[first:]]
    for number, block in enumerate(blocks):
        state |= {f"blocks.{number}.{name}": t for name, t in block.state_dict().items()}
    found.load_state_dict(state)
    return found.eval()


def _mixers(config: NetMambaConfig) -> tuple[str, ...]:
    return config.mixers or ("scan",) * config.depth
