# SPDX-License-Identifier: Apache-2.0
"""Attention whose heads are experts: each attends among the tokens that want it, and no others.

Yang et al., *Union of Experts* (arXiv 2503.02495); its feed-forward layer is an `ExpertLayer` of
split units with `choice.ByExpert`.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .choice import largest
from .pregate import rotate
from .routing import LinearRouter, State


class SelectiveAttention(nn.Module):
    """Causal attention of H heads, each among its own tokens; positions are ranks among them.

    By default a token goes to the heads it wants most, half of them, and its output of a head
    counts p / stop_gradient(p), which is 1 and lets the router learn. `compat="published"` fills
    all heads up to the size of the busiest in the batch with tokens that do not want them.

    Args:
        width: D.
        heads: H.
        size: of a head, even; D / H by default.
        compat: see above.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        size: int | None = None,
        *,
        compat: Literal["published"] | None = None,
    ) -> None:
        super().__init__()
        size = width // heads if size is None else size
        if size % 2:
            raise ValueError(f"heads of size {size}: must be even")
        self.compat = compat
        self.router = LinearRouter(width, heads, bias=True)
        self.enter = nn.Parameter(torch.randn(heads, width, 3 * size) * width**-0.5)
        self.enter_bias = nn.Parameter(torch.zeros(heads, 1, 3 * size))
        self.leave = nn.Parameter(torch.randn(heads, size, width) * size**-0.5)
        self.leave_bias = nn.Parameter(torch.zeros(heads, width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            x: (B, T, D).
            mask: (B, T) bool, tokens that count.

        Returns:
            (B, T, D), for the residual; and (B, T, H) bool, the heads of each token.
        """
        logits, _ = self.router(x, State())
        likely = logits.log_softmax(dim=-1)
        chosen = largest(logits, max(1, logits.shape[-1] // 2))
        if mask is not None:
            chosen = chosen & mask[..., None]
        places, filled = self._places(likely.exp(), chosen)
        batch = torch.arange(len(x), device=x.device)[None, :, None]
        own = x[batch, places]
        parts = torch.einsum("hbnd,hde->hbne", own, self.enter) + self.enter_bias[:, None]
        query, key, value = parts.chunk(3, dim=-1)
        number = places.shape[-1]
        causal = torch.ones(number, number, dtype=torch.bool, device=x.device).tril()
        # tokens stand in rising order and fillings last, so no true token sees a filling
        attended = F.scaled_dot_product_attention(
            rotate(query), rotate(key), value, attn_mask=causal
        )
        output = torch.einsum("hbns,hsd->hbnd", attended, self.leave)
        output = output + self.leave_bias[:, None, None]
        if self.compat is None:
            one = 1 + (likely - likely.detach()).permute(2, 0, 1).gather(-1, places)
            output = output * (one * filled).to(output.dtype)[..., None]
        else:
            chosen = torch.zeros_like(chosen).scatter(1, places.permute(1, 2, 0), True)
        total = x.new_zeros(x.shape[0] * x.shape[1], x.shape[2])
        rows = (batch * x.shape[1] + places).flatten()
        return total.index_add(0, rows, output.flatten(0, -2)).view_as(x), chosen

    def _places(self, probability: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """(H, B, n) the tokens of each head, rising, and whether each wants it."""
        wanted = chosen.permute(2, 0, 1)
        number = max(1, int(wanted.sum(dim=-1).max()))
        if self.compat == "published":
            wish = probability * chosen
            wish = (wish / (wish.sum(dim=0, keepdim=True) + 1e-8)).permute(2, 0, 1)
            places = wish.topk(number, dim=-1).indices.sort(dim=-1).values
        else:
            places = (~wanted).to(torch.int8).argsort(dim=-1, stable=True)[..., :number]
        return places, wanted.gather(-1, places)
