# SPDX-License-Identifier: Apache-2.0
"""NetMamba: bytes of a flow as tokens of a few bytes each, read in one direction by Mamba blocks.

The CLS token stands last, since only there has a causal model seen everything. Names of the
parameters are those of the published checkpoints.

Source: NetMamba, Wang et al. 2024, arXiv 2405.11449.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import NetMambaConfig
from .mamba import Block, RMSNorm, run_blocks
from .mixers import make_mixer

if TYPE_CHECKING:
    from .experts import Routing

POSITION_STD = 0.02
TABLE_STD = 0.1


def normalise(data: Tensor) -> Tensor:
    """Bytes 0 to 255, uint8, as float32 in [-1, 1]."""
    return (data.float() / 255 - 0.5) / 0.5


class StrideEmbedding(nn.Module):
    """`stride` neighbouring bytes to one token; (B, L) -> (B, L / stride, dim)."""

    def __init__(self, stride: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv1d(1, dim, stride, stride)
        # LeCun normal, from normals cut off at two deviations, which leaves .8796 of their own.
        std = math.sqrt(1 / stride) / 0.87962566103423978
        nn.init.trunc_normal_(self.proj.weight, std=std, a=-2 * std, b=2 * std)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L) -> (B, L / stride, dim)."""
        found: Tensor = self.proj(x[:, None]).mT
        return found


class StrideTable(nn.Module):
    """The same as a sum of vectors, one for each byte's value and place in its token.

    A linear map of byte values can hardly tell one value from its neighbours; with a table the
    fixed bytes by which protocols are told apart are linear features.
    """

    def __init__(self, stride: int, dim: int) -> None:
        super().__init__()
        self.stride = stride
        self.table = nn.Embedding(256 * stride, dim)
        nn.init.normal_(self.table.weight, std=TABLE_STD)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L), as `normalise` gives it -> (B, L / stride, dim)."""
        values = ((x.float() + 1) * 127.5).round().long().unflatten(1, (-1, self.stride))
        places = torch.arange(self.stride, device=x.device) * 256
        vectors: Tensor = self.table(values + places)
        return vectors.sum(dim=2)


class NetMamba(nn.Module):
    """The encoder.

    Args:
        config: sizes.
    """

    def __init__(self, config: NetMambaConfig) -> None:
        super().__init__()
        self.config = config
        self.routing: Routing | None = None
        embedding = StrideTable if config.embedding == "table" else StrideEmbedding
        width = config.widths[0]
        self.patch_embed = embedding(config.stride, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens + 1, width))
        self.blocks = (
            nn.ModuleList() if config.cells else make_blocks(config, config.widths, config.mixers)
        )
        if config.front_depth:
            self.stitch = nn.Linear(width, config.embed_dim)
        if config.cells:
            from .cells import CellTrunk

            self.cells = CellTrunk(config)
        self.norm_f = RMSNorm(config.embed_dim)
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=POSITION_STD)

    def embed_tokens(self, data: Tensor) -> Tensor:
        """Tokens with their positions, without CLS; (B, byte_length) -> (B, tokens, widths[0]).

        Args:
            data: uint8, or float as `normalise` gives it.

        Raises:
            ValueError: another number of bytes.
        """
        if data.ndim != 2 or data.shape[1] != self.config.byte_length:
            raise ValueError(
                f"bytes must be (B, {self.config.byte_length}), got {list(data.shape)}"
            )
        if self.routing is not None:
            self.routing.begin(data)
        if data.dtype == torch.uint8:
            data = normalise(data)
        found: Tensor = self.patch_embed(data.to(self.cls_token.dtype)) + self.pos_embed[:, :-1]
        return found

    def encode(self, tokens: Tensor) -> Tensor:
        """CLS put last, then the blocks; (B, T, embed_dim) -> (B, T + 1, embed_dim).

        Cells give the mean over the tokens alone: (B, 1, embed_dim). A stitched network takes
        tokens of width front_dim.
        """
        if self.config.cells:
            mean: Tensor = self.norm_f(self.cells(tokens))
            return mean
        x, first = self.with_cls(tokens), self.config.front_depth
        blocks: list[Any] = list(self.blocks)
        if first:
            rate = blocks[first].drop_path
            x = run_blocks(blocks[:first], x, rate, training=self.training)
            x = self.stitch(x.to(self.stitch.weight.dtype))
        x = run_blocks(blocks[first:], x, self.config.drop_path, training=self.training)
        found: Tensor = self.norm_f(x)
        return found

    def with_cls(self, tokens: Tensor) -> Tensor:
        """CLS with its position behind the tokens; (B, T, D) -> (B, T + 1, D)."""
        cls = (self.cls_token + self.pos_embed[:, -1:]).expand(tokens.shape[0], -1, -1)
        return torch.cat([tokens, cls], dim=1)


class NetMambaClassifier(NetMamba):
    """NetMamba with a linear head on CLS.

    Args:
        config: sizes.
        classes: C.
    """

    def __init__(self, config: NetMambaConfig, classes: int) -> None:
        super().__init__(config)
        self.head = nn.Linear(config.embed_dim, classes)
        nn.init.zeros_(self.head.bias)

    def embed(self, data: Tensor) -> Tensor:
        """One vector for each flow: (B, byte_length), uint8 or normalised -> (B, embed_dim)."""
        return self.encode(self.embed_tokens(data))[:, -1]

    def classify(self, embeddings: Tensor) -> Tensor:
        """(B, embed_dim) of `embed` -> logits, (B, C)."""
        found: Tensor = self.head(embeddings)
        return found

    def forward(self, data: Tensor) -> Tensor:
        """(B, byte_length), uint8 or normalised -> logits, (B, C)."""
        return self.classify(self.embed(data))


def make_blocks(
    config: NetMambaConfig, widths: Sequence[int], mixers: Sequence[str] = ()
) -> nn.ModuleList:
    """Blocks whose stochastic depth rises from 0; the rate `drop_path` itself follows the last.

    Args:
        widths: of each.
        mixers: of each; all scan when empty.
    """
    depth = len(widths)
    rates = [0.0, *(config.drop_path * i / (depth - 1) for i in range(depth - 1))]
    blocks = nn.ModuleList()
    for rate, dim, kind in zip(rates, widths, mixers or ("scan",) * depth, strict=True):
        mixer = make_mixer(
            kind,
            dim,
            config.tokens + 1,
            state_dim=config.state_dim,
            conv_kernel=config.conv_kernel,
            expand=config.expand,
        )
        # GPT-2's rule for layers that write into the residual; the encoder's depth, everywhere.
        written: Any = mixer.proj if kind == "linear" else mixer.out_proj
        nn.init.kaiming_uniform_(written.weight, a=math.sqrt(5))
        with torch.no_grad():
            written.weight /= math.sqrt(config.depth)
        blocks.append(Block(mixer, dim, rate))
    return blocks


def resize_positions(positions: Tensor, tokens: int) -> Tensor:
    """Position embeddings for another number of tokens, interpolated linearly; CLS stays as it is.

    Args:
        positions: (1, T + 1, dim), that of CLS last.
        tokens: without CLS.

    Returns:
        (1, tokens + 1, dim).
    """
    *_, count, _ = positions.shape
    if count == tokens + 1:
        return positions
    resized = F.interpolate(positions[:, :-1].mT, tokens, mode="linear", align_corners=False)
    return torch.cat([resized.mT, positions[:, -1:]], dim=1)
