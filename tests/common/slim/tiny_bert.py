# SPDX-License-Identifier: Apache-2.0
"""A BERT small enough for tests, with the published tensor names (arXiv 1810.04805)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Attention and feed-forward part, norms behind the sums."""

    def __init__(self, hidden: int, inner: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.project, self.norm1 = nn.Linear(hidden, hidden), nn.LayerNorm(hidden, 1e-12)
        self.first, self.second = nn.Linear(hidden, inner), nn.Linear(inner, hidden)
        self.norm2, self.heads = nn.LayerNorm(hidden, 1e-12), heads

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(q, k, v, mask[:, None, None].bool())
        x = self.norm1(x + self.project(attended.transpose(1, 2).flatten(2)))
        return self.norm2(x + self.second(F.gelu(self.first(x))))


RENAMES = {
    "attention.self.": "",
    "attention.output.dense": "project",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "first",
    "output.dense": "second",
    "output.LayerNorm": "norm2",
}


class TinyBert(nn.Module):
    """(B, N) ids and mask -> logits, from a published state dict."""

    def __init__(self, state: dict[str, Tensor], heads: int) -> None:
        super().__init__()
        self.state = {name: tensor for name, tensor in state.items() if "layer." not in name}
        inner = {n.removeprefix("bert.encoder."): t for n, t in state.items() if "layer." in n}
        for theirs, ours in RENAMES.items():
            inner = {name.replace(theirs, ours): tensor for name, tensor in inner.items()}
        hidden, wide = inner["layer.0.query.weight"].shape[0], inner["layer.0.first.bias"].shape[0]
        count = 1 + max(int(name.split(".")[1]) for name in inner)
        self.layer = nn.ModuleList(Block(hidden, wide, heads) for _ in range(count))
        self.load_state_dict(inner)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        s = self.state
        x = s["bert.embeddings.word_embeddings.weight"][ids]
        x = x + s["bert.embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = x + s["bert.embeddings.token_type_embeddings.weight"][0]
        norm = "bert.embeddings.LayerNorm"
        x = F.layer_norm(x, x.shape[-1:], s[f"{norm}.weight"], s[f"{norm}.bias"], 1e-12)
        for block in self.layer:
            x = block(x, mask)
        pooled = torch.tanh(F.linear(x[:, 0], *(s[f"bert.pooler.dense.{k}"] for k in KINDS)))
        return F.linear(pooled, *(s[f"classifier.{k}"] for k in KINDS))


KINDS = ("weight", "bias")
