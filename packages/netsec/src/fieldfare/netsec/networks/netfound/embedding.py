# SPDX-License-Identifier: Apache-2.0
"""Tokens, burst metadata and protocol in one vector for each token.

The names of the sub-modules are those of the published checkpoints.

Source: netFound, Guthula et al., arXiv 2310.17025, section on multi-modal embedding.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import ATTENTION_EPS
from .config import CLS, MASK, PAD, PROTOCOLS, VOCABULARY, NetFoundConfig

META_FEATURES, META_WIDTH = 4, 1024
BYTE_ROWS = 256 + 3
"""The byte values, then PAD, CLS and MASK."""


class FlowInputs(NamedTuple):
    """B flows of S bursts of L tokens, padded.

    Attributes:
        ids: (B, S, L) int64, tokens below 65,600; each burst begins with CLS; 0 is padding.
        mask: (B, S, L) bool, True at tokens.
        direction: (B, S) float32, 1 forward, -1 backward, 0 at padding.
        bytes: (B, S) float32, IP bytes of the burst.
        packets: (B, S) float32.
        interval: (B, S) float32, milliseconds since the start of the previous burst in the same
            direction.
        protocol: (B,) int64, below 18.
    """

    ids: Tensor
    mask: Tensor
    direction: Tensor
    bytes: Tensor
    packets: Tensor
    interval: Tensor
    protocol: Tensor

    def to(self, device: torch.device) -> "FlowInputs":
        """The same on another device."""
        return FlowInputs(*(value.to(device) for value in self))

    def bursts(self, rows: Tensor, length: int) -> "FlowInputs":
        """Some of the B * S bursts, (R,) int64, cut to a length: R flows of one burst each."""
        return FlowInputs(
            ids=self.ids.flatten(0, 1)[rows, None, :length],
            mask=self.mask.flatten(0, 1)[rows, None, :length],
            direction=self.direction.flatten()[rows, None],
            bytes=self.bytes.flatten()[rows, None],
            packets=self.packets.flatten()[rows, None],
            interval=self.interval.flatten()[rows, None],
            protocol=self.protocol[rows // self.ids.shape[1]],
        )


def log_metadata(inputs: FlowInputs) -> Tensor:
    """Natural logarithms of 1 + bytes, packets and milliseconds, (B, S, 3)."""
    return torch.log1p(torch.stack([inputs.bytes, inputs.packets, inputs.interval], dim=-1))


class ByteEmbedding(nn.Module):
    """A token's vector as the sum of two: of its value's high byte and of its low byte.

    2 x 259 rows stand for 65,539 tokens; CLS, MASK and padding have a row of their own in each.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.high = nn.Embedding(BYTE_ROWS, hidden_size)
        self.low = nn.Embedding(BYTE_ROWS, hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        """(...) int64 -> (..., H)."""
        high, low = byte_rows(ids)
        found: Tensor = self.high(high) + self.low(low)
        return found


def byte_rows(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the high and the low byte of tokens: 0 to 255, or 256 PAD, 257 CLS, 258 MASK.

    Args:
        ids: (...) int64.

    Returns:
        Two of the same shape.
    """
    value = ids - 1
    special = (ids == PAD) * 256 + (ids == CLS) * 257 + (ids >= MASK) * 258
    ordinary = special == 0
    return torch.where(ordinary, value >> 8, special), torch.where(ordinary, value & 255, special)


class FlowEmbedding(nn.Module):
    """Word, metadata and protocol embeddings, joined and projected to H."""

    def __init__(self, config: NetFoundConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.metadata = config.metadata
        if config.vocabulary == "bytes":
            self.word_embeddings: nn.Module = ByteEmbedding(hidden)
        else:
            self.word_embeddings = nn.Embedding(VOCABULARY, hidden, padding_idx=PAD)
            # Published checkpoints carry it; it is never read.
            self.token_type_embeddings = nn.Embedding(2, hidden)
        self.metaEmbeddingLayer1 = nn.Linear(META_FEATURES, META_WIDTH)
        self.metaEmbeddingLayer2 = nn.Linear(META_WIDTH, hidden)
        self.protoEmbedding = nn.Embedding(PROTOCOLS, hidden)
        self.compressEmbeddings = nn.Linear(3 * hidden, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=ATTENTION_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, inputs: FlowInputs) -> Tensor:
        """One vector a token, (B, S, L, H)."""
        words = self.word_embeddings(inputs.ids)
        if self.metadata == "log":
            sizes = log_metadata(inputs)
        else:
            sizes = torch.stack([inputs.bytes / 1000, inputs.packets, inputs.interval], dim=-1)
        meta = torch.cat([inputs.direction[..., None], sizes], dim=-1)
        # Once a burst instead of once a token; padding has the vector of zeros, as published.
        per_burst = self.embed_metadata(meta)[:, :, None]
        padding = self.embed_metadata(meta.new_zeros(META_FEATURES))
        per_token = torch.where(inputs.mask[..., None], per_burst, padding)
        protocol = self.protoEmbedding(inputs.protocol)[:, None, None, :].expand_as(words)
        joined = torch.cat([words, per_token, protocol], dim=-1)
        found: Tensor = self.dropout(self.LayerNorm(self.compressEmbeddings(joined)))
        return found

    def embed_metadata(self, meta: Tensor) -> Tensor:
        """(..., 4) -> (..., H)."""
        found: Tensor = self.metaEmbeddingLayer2(F.gelu(self.metaEmbeddingLayer1(meta)))
        return found
