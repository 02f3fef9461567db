# SPDX-License-Identifier: Apache-2.0
"""NetMamba's pre-training: a masked autoencoder over the tokens of a flow.

The encoder sees a tenth of the tokens, in the random order in which they were drawn, which a causal
model notices; the decoder sees all places in order, most of them a mask token, CLS last.

Source: NetMamba, arXiv 2405.11449; masked autoencoders, He et al. 2021, arXiv 2111.06377.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .config import NetMambaConfig
from .mamba import RMSNorm, run_blocks
from .network import POSITION_STD, NetMamba, make_blocks, normalise

MASK_RATIO = 0.9


class Reconstruction(NamedTuple):
    """What the decoder made of B flows.

    Attributes:
        loss: mean squared error over hidden tokens.
        prediction: (B, tokens, stride), in the scale of `normalise`.
        mask: (B, tokens), 1 where a token was hidden.
    """

    loss: Tensor
    prediction: Tensor
    mask: Tensor


class NetMambaPretraining(NetMamba):
    """Encoder and decoder of the masked autoencoder.

    Args:
        config: sizes.
        normalise_targets: reconstruct each token relative to its own mean and deviation (off in the
            published training).

    Raises:
        ValueError: a network of cells, which would not see where a token was, or a stitched one.
    """

    def __init__(self, config: NetMambaConfig, *, normalise_targets: bool = False) -> None:
        super().__init__(config)
        if config.cells:
            raise ValueError("a network of cells cannot be pre-trained")
        if config.front_depth:
            raise ValueError("a stitched network cannot be pre-trained")
        width = config.decoder_embed_dim
        self.normalise_targets = normalise_targets
        self.decoder_embed = nn.Linear(config.embed_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, config.tokens + 1, width))
        self.decoder_blocks = make_blocks(config, (width,) * config.decoder_depth)
        self.decoder_norm_f = RMSNorm(width)
        self.decoder_pred = nn.Linear(width, config.stride)
        for parameter in (self.mask_token, self.decoder_pos_embed):
            nn.init.trunc_normal_(parameter, std=POSITION_STD)
        for layer in (self.decoder_embed, self.decoder_pred):
            nn.init.zeros_(layer.bias)

    def forward(
        self, data: Tensor, noise: Tensor | None = None, mask_ratio: float = MASK_RATIO
    ) -> Reconstruction:
        """Hide tokens and reconstruct them.

        Args:
            data: (B, byte_length), uint8 or normalised.
            noise: (B, tokens), the tokens of the lowest values stay visible; drawn when None.
            mask_ratio: share of hidden tokens, in [0, 1).
        """
        if data.dtype == torch.uint8:
            data = normalise(data)
        if noise is None:
            noise = torch.rand(len(data), self.config.tokens, device=data.device)
        order = noise.argsort(dim=1)
        place = order.argsort(dim=1)
        visible = int(self.config.tokens * (1 - mask_ratio))
        latent = self.encode_visible(data, order[:, :visible])
        prediction = self.decode(latent, place)
        mask = (place >= visible).to(prediction.dtype)
        error = (prediction - self.targets(data)).square().mean(dim=2)
        return Reconstruction((error * mask).sum() / mask.sum(), prediction, mask)

    def encode_visible(self, data: Tensor, order: Tensor) -> Tensor:
        """Encode some tokens only.

        Args:
            data: (B, byte_length), uint8 or normalised.
            order: (B, K) int64, places of the tokens in the order in which they are read.

        Returns:
            (B, K + 1, embed_dim), CLS last.
        """
        tokens = self.embed_tokens(data)
        return self.encode(tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[2])))

    def decode(self, latent: Tensor, place: Tensor) -> Tensor:
        """Predict all tokens.

        Args:
            latent: (B, K + 1, embed_dim), of `encode_visible`.
            place: (B, tokens) int64, rank of each token in the drawn order; below K it is visible.

        Returns:
            (B, tokens, stride).
        """
        x = self.decoder_embed(latent)
        hidden = place.shape[1] - (x.shape[1] - 1)
        filled = torch.cat([x[:, :-1], self.mask_token.expand(len(x), hidden, -1)], dim=1)
        filled = filled.gather(1, place[..., None].expand(-1, -1, x.shape[2]))
        x = torch.cat([filled, x[:, -1:]], dim=1) + self.decoder_pos_embed
        rate = self.config.drop_path
        x = run_blocks(list(self.decoder_blocks), x, rate, training=self.training)
        found: Tensor = self.decoder_pred(self.decoder_norm_f(x)[:, :-1])
        return found

    def targets(self, data: Tensor) -> Tensor:
        """(B, byte_length), normalised -> what is to be predicted, (B, tokens, stride)."""
        tokens = data.view(len(data), -1, self.config.stride)
        if not self.normalise_targets:
            return tokens
        deviation = (tokens.var(dim=2, keepdim=True) + 1e-6).sqrt()
        return (tokens - tokens.mean(dim=2, keepdim=True)) / deviation
