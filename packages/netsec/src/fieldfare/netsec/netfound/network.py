# SPDX-License-Identifier: Apache-2.0
"""netFound: a hierarchical transformer over the bursts of a flow, and its classifier.

The names of the sub-modules are those of the published checkpoints. With `config.compat` the
published computation is reproduced, two oversights included:

- the embedding of a burst's position is added to a copy of the CLS vectors that nothing reads;
- padded bursts take part in the attentive pooling, so that a flow's logits depend on the batch.

By default both are corrected.

Source: netFound, Guthula et al., arXiv 2310.17025.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import EncoderLayer, RotaryTable
from .config import NetFoundConfig
from .embedding import FlowEmbedding, FlowInputs

INITIAL_STD = 0.02


class HierarchicalLayer(nn.Module):
    """Attention within each burst, then among the CLS vectors of a flow's bursts."""

    def __init__(self, config: NetFoundConfig, position_embeddings: nn.Embedding) -> None:
        super().__init__()
        self.compat = config.compat
        self.burst_encoder = EncoderLayer(config)
        self.flow_encoder = EncoderLayer(config)
        self.position_embeddings = position_embeddings

    def forward(
        self, x: Tensor, mask: Tensor, rows: Tensor | None, burst_table: Tensor, flow_table: Tensor
    ) -> Tensor:
        """One layer.

        Args:
            x: (B, S, L, H).
            mask: (B, S, L) bool.
            rows: (R,) int64, the bursts to compute, of B * S; all when None.
            burst_table: (L, H / heads) rotary table.
            flow_table: (S, H / heads) rotary table.

        Returns:
            (B, S, L, H).
        """
        tokens, token_mask = x.flatten(0, 1), mask.flatten(0, 1)
        if rows is None:
            tokens = self.burst_encoder(tokens, token_mask, burst_table)
        else:
            encoded = self.burst_encoder(tokens[rows], token_mask[rows], burst_table)
            tokens = torch.zeros_like(tokens, dtype=encoded.dtype).index_copy(0, rows, encoded)
        x = tokens.view_as(x)
        cls = x[:, :, 0]
        if not self.compat:
            cls = cls + self.position_embeddings.weight[1 : cls.shape[1] + 1]
        cls = self.flow_encoder(cls, mask[:, :, 0], flow_table)
        return torch.cat([cls[:, :, None], x[:, :, 1:]], dim=2)


class HierarchicalEncoder(nn.Module):
    """A stack of hierarchical layers with their rotary tables."""

    def __init__(self, config: NetFoundConfig) -> None:
        super().__init__()
        self.compat = config.compat
        # One for all layers; row 0 stands for padding, burst 0 is row 1.
        positions = nn.Embedding(config.max_bursts + 1, config.hidden_size)
        self.layer = nn.ModuleList(
            HierarchicalLayer(config, positions) for _ in range(config.layers)
        )
        width = config.hidden_size // config.heads
        self.burst_positions = RotaryTable(config.burst_length, width)
        self.flow_positions = RotaryTable(config.max_bursts + 1, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, S, L, H), mask (B, S, L) bool -> (B, S, L, H)."""
        burst_table = self.burst_positions(x.shape[2])
        flow_table = self.flow_positions(x.shape[1])
        rows = None
        # Most flows have few bursts: padded ones are left out, unless a graph of fixed shape is
        # wanted or their values must be as published.
        if not (self.compat or torch.compiler.is_compiling()):
            rows = mask[:, :, 0].flatten().nonzero()[:, 0]
        for layer in self.layer:
            x = layer(x, mask, rows, burst_table, flow_table)
        return x


class NetFound(nn.Module):
    """Embedding and encoder: one vector for each token of a flow."""

    def __init__(self, config: NetFoundConfig) -> None:
        super().__init__()
        self.embeddings = FlowEmbedding(config)
        self.encoder = HierarchicalEncoder(config)

    def forward(self, inputs: FlowInputs) -> Tensor:
        """Encode flows.

        Returns:
            (B, S, L, H); the vectors of padding are meaningless.
        """
        return self.encoder(self.embeddings(inputs), inputs.mask)


class AttentivePooling(nn.Module):
    """Mean of a flow's burst vectors, weighted by a learned score of each."""

    def __init__(self, config: NetFoundConfig) -> None:
        super().__init__()
        self.compat = config.compat
        self.lin_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v = nn.Linear(config.hidden_size, 1, bias=False)

    def forward(self, bursts: Tensor, mask: Tensor) -> Tensor:
        """(B, S, H), mask (B, S) bool -> (B, H); padding is left out unless `compat`."""
        scores = torch.tanh(self.v(self.lin_proj(bursts)))[..., 0]
        if not self.compat:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return (scores.softmax(dim=1)[..., None] * bursts).sum(dim=1)


class NetFoundClassifier(nn.Module):
    """netFound with a classification head.

    Args:
        config: sizes.
        classes: C.
    """

    def __init__(self, config: NetFoundConfig, classes: int) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.config = config
        self.base_transformer = NetFound(config)
        self.attentivePooling = AttentivePooling(config)
        self.hiddenLayer = nn.Linear(hidden, hidden)
        self.hiddenLayer2 = nn.Linear(hidden, hidden)
        self.classifier = nn.Linear(hidden, classes)
        self.dropout = nn.Dropout(config.dropout)
        initialise(self)

    def embed(self, inputs: FlowInputs) -> Tensor:
        """One vector for each flow, (B, H): what the head reads."""
        bursts = self.base_transformer(inputs)[:, :, 0]
        return self.attentivePooling(bursts, inputs.mask[:, :, 0])

    def classify(self, pooled: Tensor) -> Tensor:
        """(B, H) of `embed` -> logits (B, C)."""
        x = self.dropout(F.gelu(self.hiddenLayer(pooled)))
        return self.classifier(self.hiddenLayer2(x))

    def forward(self, inputs: FlowInputs) -> Tensor:
        """Logits, (B, C)."""
        return self.classify(self.embed(inputs))


def initialise(network: nn.Module) -> None:
    """Normal weights of deviation 0.02, zero biases, as is usual for BERT."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=INITIAL_STD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
