# SPDX-License-Identifier: Apache-2.0
"""One router for a whole network, from the tokens alone, before the network runs.

Cai et al. 2024, *Read-ME* (arXiv 2410.19123). Each token gets one expert in all layers, so inputs
can be sorted by expert and weights fetched ahead. `classes` of the pass's state is the result, for
`routing.LookupRouter` in each layer.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PreGate(nn.Module):
    """Token numbers to a logit for each expert: embedding, causal attention, one map.

    A token's logits depend on the tokens before it in its sequence and on no hidden state.

    Args:
        embedding: (V, D) of the network; copied and frozen.
        count: E.
        width: of the layers.
        layers: how many.
        heads: of each; a divisor of width, with an even quotient.
    """

    table: Tensor

    def __init__(
        self, embedding: Tensor, count: int, *, width: int = 64, layers: int = 1, heads: int = 4
    ) -> None:
        super().__init__()
        self.count = count
        self.register_buffer("table", embedding.detach().clone())
        self.enter = nn.Linear(embedding.shape[1], width)
        self.layers = nn.ModuleList(_CausalLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, count)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T) int64, mask (B, T) bool of the tokens that count -> logits (B, T, E)."""
        x = self.enter(self.table[ids])
        for layer in self.layers:
            x = layer(x, mask)
        found: Tensor = self.leave(self.norm(x))
        return found

    def route(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T) the expert of each token."""
        return self.forward(ids, mask).argmax(dim=-1)


class _CausalLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        length = x.shape[1]
        parts = self.mix(self.before(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        query, key = rotate(query), rotate(key)
        allowed = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        if mask is not None:
            # a token always sees itself, so that no row is empty
            itself = torch.eye(length, dtype=torch.bool, device=x.device)
            allowed = allowed & (mask[:, None, None, :] | itself)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        found: Tensor = x + self.feed(self.between(x))
        return found


def rotate(x: Tensor, positions: Tensor | None = None) -> Tensor:
    """Turn pairs of channels (i, i + W/2) by their position's angle (arXiv 2104.09864, eq. 15).

    Args:
        x: (..., T, W), W even.
        positions: (..., T); by default 0 to T - 1.
    """
    length, width = x.shape[-2:]
    rates = 10000.0 ** (-torch.arange(0, width, 2, device=x.device).double() / width)
    at = torch.arange(length, device=x.device) if positions is None else positions
    angles = at[..., None].double() * rates
    sine, cosine = angles.sin().to(x.dtype), angles.cos().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def votes(activation: Tensor, masks: Tensor) -> Tensor:
    """How well each expert's units cover a token's most active ones.

    Args:
        activation: (..., H) of the dense layer's hidden units.
        masks: (E, H) by `recycle.by_activation`.

    Returns:
        (..., E): five nested sets of a token's top units, from N - 1 down to N / 5 of them with N
        units a mask, vote for the experts that have them, a vote counting 1 / (3 N).
    """
    number = int(masks[0].sum())
    ranked = activation.sort(dim=-1, descending=True).values
    weight = torch.zeros_like(activation)
    for size in (number - 1, *(int(number / 5 * part) for part in (4, 3, 2, 1))):
        weight = weight + (activation > ranked[..., size : size + 1]).to(weight.dtype)
    return weight / (3 * number) @ masks.to(weight.dtype).T


def distillation(logits: Tensor, vote: Tensor, smoothing: float = 0.5) -> Tensor:
    """What a pre-gating router learns from a layer's votes.

    0.75 of the cross-entropy to the expert with most votes, smoothed, and 0.25 of that to the
    softmax of ten times the votes less their mean over all tokens.

    Args:
        logits, vote: (..., E).
        smoothing: of the label; the paper's is 0.5.
    """
    scaled = (vote - vote.mean()) * 10
    likely = logits.log_softmax(dim=-1)
    soft = -(scaled.softmax(dim=-1) * likely).sum(dim=-1).mean()
    label = scaled.argmax(dim=-1).flatten()
    hard = F.cross_entropy(logits.flatten(0, -2), label, label_smoothing=smoothing)
    return 0.75 * hard + 0.25 * soft
