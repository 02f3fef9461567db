# SPDX-License-Identifier: Apache-2.0
"""Any precoder of ours as a block of a Sionna 2 chain, in the place of its RZFPrecoder.

    from fieldfare.wireless.precoding.learned import load_precoder
    from fieldfare.wireless.precoding.sionna_block import PrecoderBlock

    precode = PrecoderBlock(resource_grid, stream_management, load_precoder("icgnn_precoder"))
    x_precoded = precode(x, h, no)

Importing this module imports Sionna (extra [sionna]). Source: Sionna (arXiv 2203.11854).
"""

import torch
from sionna.phy import Block
from sionna.phy.mimo import StreamManagement
from sionna.phy.ofdm import RemoveNulledSubcarriers, ResourceGrid
from torch import Tensor

from .methods import Precoder


class PrecoderBlock(Block):  # type: ignore[misc]  # it ships no types
    """Precodes resource grids; streams have unit power on average, as Sionna's precoders give them.

    Args:
        resource_grid, stream_management: of the chain.
        precoder: of channels (..., K, N); K are the streams of a transmitter, one for each antenna
            of its receivers.
        return_effective_channel: also return the channel of the streams behind the precoder.
        precision, device: as of every block.
    """

    def __init__(
        self,
        resource_grid: ResourceGrid,
        stream_management: StreamManagement,
        precoder: Precoder,
        return_effective_channel: bool = False,
        precision: str | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__(precision=precision, device=device)
        self.precoder = precoder
        self.receivers = stream_management.precoding_ind
        self.with_channel = return_effective_channel
        self.used = RemoveNulledSubcarriers(resource_grid, precision=precision, device=device)

    def call(self, x: Tensor, h: Tensor, no: float | Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Precode.

        Args:
            x: [batch, transmitter, stream, symbol, subcarrier].
            h: [batch, receiver, its antenna, transmitter, its antenna, symbol, subcarrier].
            no: noise power of every receive antenna, positive, [batch, transmitter, symbol,
                subcarrier] or broadcastable to it; what RZFPrecoder takes as alpha.

        Returns:
            [batch, transmitter, its antenna, symbol, subcarrier]; and the effective channel
            [batch, receiver, its antenna, transmitter, stream, symbol, used subcarrier].

        Raises:
            ValueError: a noise power that is not positive.
        """
        each = [
            h[:, wanted, :, number].flatten(1, 2).permute(0, 3, 4, 1, 2)
            for number, wanted in enumerate(self.receivers)
        ]
        H = torch.stack(each, 1)  # (batch, transmitter, symbol, subcarrier, K, N)
        noise = torch.as_tensor(no, dtype=H.real.dtype, device=H.device)
        if not bool((noise > 0).all()):
            raise ValueError("no: the noise power must be positive")
        noise = noise.expand(H.shape[:-2])
        W = self.precoder(H, torch.full_like(noise, H.shape[-2]), noise, None).W
        grids = x.permute(0, 1, 3, 4, 2).unsqueeze(-1).to(W.dtype)
        precoded = (W @ grids).squeeze(-1).permute(0, 1, 4, 2, 3)
        if not self.with_channel:
            return precoded
        seen = torch.einsum("brmtnsf,btsfnk->brmtksf", h.to(W.dtype), W)
        return precoded, self.used(seen)
