# SPDX-License-Identifier: Apache-2.0
"""Pre-training of netFound: what is hidden from the network, its four heads and their losses.

Source: netFound, Guthula et al., arXiv 2310.17025, section on self-supervised pre-training.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import ATTENTION_EPS
from .config import CLS, MASK, VOCABULARY, NetFoundConfig
from .embedding import FlowInputs, byte_rows, log_metadata
from .network import AttentivePooling, NetFound, initialise

IGNORED = -100
"""Label of a token that is not to be predicted."""

LEAST_BURSTS = 4
"""Metadata are hidden only in flows of so many bursts or more."""


class PretrainingBatch(NamedTuple):
    """Flows with parts hidden or exchanged, and what they were.

    Attributes:
        inputs: tokens hidden and exchanged; metadata whole.
        labels: (B, S, L) int64, the tokens to predict, IGNORED elsewhere.
        swapped: (B,) int64, 1 where a burst was exchanged.
        hidden_bursts: (B, S) bool, bursts whose metadata the network must not see.
    """

    inputs: FlowInputs
    labels: Tensor
    swapped: Tensor
    hidden_bursts: Tensor


@dataclass(frozen=True)
class PretrainingSettings:
    """Rates of corruption and weights of the four losses.

    Attributes:
        mask_rate: share of tokens to predict; of these 80 % become MASK, 10 % a random token.
        swap_rate: share of flows in which one burst's tokens are those of another flow's burst.
        metadata_rate: share of bursts whose metadata are hidden, in flows of 4 bursts or more.
        token_weight, swap_weight, metadata_weight, direction_weight: of the losses; the published
            training script has 0.4 for metadata.
    """

    mask_rate: float = 0.3
    swap_rate: float = 0.5
    metadata_rate: float = 0.3
    token_weight: float = 1.0
    swap_weight: float = 1.0
    metadata_weight: float = 1.0
    direction_weight: float = 1.0


class PretrainingLosses(NamedTuple):
    """The four losses and their weighted sum, scalars; 0 where a batch has nothing to predict."""

    token: Tensor
    swap: Tensor
    metadata: Tensor
    direction: Tensor
    total: Tensor


def corrupt(
    inputs: FlowInputs, seed: int, settings: PretrainingSettings | None = None
) -> PretrainingBatch:
    """Hide and exchange parts of a batch; the same seed and batch give the same result.

    Args:
        inputs: on the CPU. Nothing is exchanged in a batch of one flow.
        seed: for example a hash of the run's seed and the step.
    """
    settings = settings or PretrainingSettings()
    generator = torch.Generator().manual_seed(seed)
    real = inputs.mask[:, :, 0]
    ids, mask, exchanged = _exchange(inputs, settings.swap_rate, generator)
    eligible = mask & (ids != CLS) & ~exchanged[..., None]
    chosen = eligible & (torch.rand(ids.shape, generator=generator) < settings.mask_rate)
    labels = torch.where(chosen, ids, IGNORED)
    fate = torch.rand(ids.shape, generator=generator)
    random_ids = torch.randint(1, CLS, ids.shape, generator=generator)
    ids = torch.where(chosen & (fate < 0.8), MASK, ids)
    ids = torch.where(chosen & (fate >= 0.8) & (fate < 0.9), random_ids, ids)
    hidden = torch.rand(real.shape, generator=generator) < settings.metadata_rate
    hidden &= real & (real.sum(dim=1, keepdim=True) >= LEAST_BURSTS)
    return PretrainingBatch(
        inputs._replace(ids=ids, mask=mask), labels, exchanged.any(dim=1).long(), hidden
    )


def _exchange(
    inputs: FlowInputs, rate: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Put a burst of another flow into some flows.

    The metadata stay those of the burst that was there. The published code cuts or pads the new
    tokens to the old burst's length and attends to that padding; here the whole burst is taken.

    Returns:
        ids (B, S, L), mask (B, S, L), exchanged (B, S) bool.
    """
    real = inputs.mask[:, :, 0]
    flows = len(real)
    exchanged = torch.zeros_like(real)
    if flows < 2:
        return inputs.ids, inputs.mask, exchanged
    turned = torch.rand(flows, generator=generator) < rate
    step = torch.randint(1, flows, (flows,), generator=generator)
    donor = (torch.arange(flows) + step) % flows
    place = torch.multinomial(real.float(), 1, generator=generator)[:, 0]
    taken = torch.multinomial(real[donor].float(), 1, generator=generator)[:, 0]
    rows = turned.nonzero()[:, 0]
    ids, mask = inputs.ids.clone(), inputs.mask.clone()
    ids[rows, place[rows]] = inputs.ids[donor[rows], taken[rows]]
    mask[rows, place[rows]] = inputs.mask[donor[rows], taken[rows]]
    exchanged[rows, place[rows]] = True
    return ids, mask, exchanged


class WordHead(nn.Module):
    """Scores of all 65,600 tokens; the decoder is the word embedding's matrix."""

    def __init__(self, config: NetFoundConfig, words: nn.Embedding) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=ATTENTION_EPS)
        self.decoder = nn.Linear(config.hidden_size, VOCABULARY)
        self.decoder.weight = words.weight
        self.bias = self.decoder.bias  # under both names, as published

    def forward(self, x: Tensor) -> Tensor:
        """(..., H) -> logits (..., 65600)."""
        found: Tensor = self.decoder(self.layer_norm(F.gelu(self.dense(x), approximate="tanh")))
        return found

    def loss(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Mean cross-entropy of (K, H) against (K,) tokens."""
        return F.cross_entropy(self(x), tokens)


class ByteHead(nn.Module):
    """Scores of a token's high byte and of its low byte, as if they were independent."""

    def __init__(self, config: NetFoundConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=ATTENTION_EPS)
        self.decoder = nn.Linear(config.hidden_size, 2 * 256)

    def forward(self, x: Tensor) -> Tensor:
        """(..., H) -> logits (..., 2, 256), high byte first."""
        x = self.layer_norm(F.gelu(self.dense(x), approximate="tanh"))
        found: Tensor = self.decoder(x).unflatten(-1, (2, 256))
        return found

    def loss(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Mean cross-entropy of (K, H) against (K,) tokens: that of the two bytes, summed."""
        scores = self(x)
        high, low = byte_rows(tokens)
        return F.cross_entropy(scores[:, 0], high) + F.cross_entropy(scores[:, 1], low)


class NetFoundPretraining(nn.Module):
    """netFound with its four pre-training heads: tokens, exchanged burst, metadata, direction."""

    def __init__(self, config: NetFoundConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.config = config
        self.base_transformer = NetFound(config)
        words = self.base_transformer.embeddings.word_embeddings
        self.lm_head = (
            WordHead(config, words) if isinstance(words, nn.Embedding) else ByteHead(config)
        )
        self.attentivePooling = AttentivePooling(config)
        self.swappedClassifierHiddenLayer = nn.Linear(hidden, 2)
        self.linearMetadataPred = nn.Linear(hidden, 3)
        self.dirPred = nn.Linear(hidden, 2)
        initialise(self)

    def encode(self, batch: PretrainingBatch) -> Tensor:
        """Token vectors (B, S, L, H), hidden metadata read as 0."""
        inputs, shown = batch.inputs, ~batch.hidden_bursts
        found: Tensor = self.base_transformer(
            inputs._replace(
                direction=inputs.direction * shown,
                bytes=inputs.bytes * shown,
                packets=inputs.packets * shown,
                interval=inputs.interval * shown,
            )
        )
        return found

    def swap_logits(self, bursts: Tensor, mask: Tensor) -> Tensor:
        """(B, S, H), mask (B, S) -> logits (B, 2) of no burst and of one being exchanged."""
        found: Tensor = self.swappedClassifierHiddenLayer(self.attentivePooling(bursts, mask))
        return found

    def metadata_targets(self, inputs: FlowInputs) -> Tensor:
        """(B, S, 3): seconds, kilobytes and packets; or `log_metadata`, by the configuration."""
        if self.config.metadata == "log":
            return log_metadata(inputs)
        return torch.stack([inputs.interval / 1000, inputs.bytes / 1000, inputs.packets], dim=-1)

    def forward(
        self, batch: PretrainingBatch, settings: PretrainingSettings | None = None
    ) -> PretrainingLosses:
        """The losses of a batch.

        Metadata are predicted as `metadata_targets` gives them.
        """
        settings = settings or PretrainingSettings()
        inputs, hidden = batch.inputs, batch.hidden_bursts
        real = inputs.mask[:, :, 0]
        x = self.encode(batch)
        bursts = x[:, :, 0]
        wanted = batch.labels != IGNORED
        nothing = x.new_zeros(())
        token = self.lm_head.loss(x[wanted], batch.labels[wanted]) if wanted.any() else nothing
        swap = F.cross_entropy(self.swap_logits(bursts, real), batch.swapped)
        metadata = direction = nothing
        if hidden.any():
            targets = self.metadata_targets(inputs)
            metadata = F.l1_loss(self.linearMetadataPred(bursts[hidden]), targets[hidden])
        if (hidden & real).any():
            forward = (inputs.direction[hidden & real] > 0).long()
            direction = F.cross_entropy(self.dirPred(bursts[hidden & real]), forward)
        total = (
            settings.token_weight * token
            + settings.swap_weight * swap
            + settings.metadata_weight * metadata
            + settings.direction_weight * direction
        )
        return PretrainingLosses(token, swap, metadata, direction, total)
