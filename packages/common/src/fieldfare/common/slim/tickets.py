# SPDX-License-Identifier: Apache-2.0
"""Search and prune in one training: channels fade by their cost, weights by their size.

SuperTickets (You et al. 2022, arXiv 2207.03677). A penalty on the scales of batch norms, weighted
by what their channels cost, lets expensive channels fade; whole channels leave for good when that
saves enough. At the same events the smallest weights of all layers together become zero, more of
them each time. Nothing is trained again afterwards.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .ap import Masks, prunable_weights

EVERY, STEP = 25, 0.1


def ratio(epoch: int, target: float, every: int = EVERY) -> float:
    """Share of zeros from this epoch on: a tenth more at each event, up to the target."""
    return min(target, (epoch // every) * STEP)


def scale_penalty(
    norms: Mapping[str, _BatchNorm],
    macs: Mapping[str, float],
    progress: float,
    weight: float = 1.8e-4,
) -> Tensor:
    """L1 of the norms' scales, each channel weighted by what it costs; scalar, for the loss.

    Args:
        norms: those whose channels may leave.
        macs: multiply-accumulates that one channel of each norm costs.
        progress: through the warm-up, 0 to 1; the penalty grows linearly.
    """
    total = sum(norm.num_features * macs[name] for name, norm in norms.items())
    sums = [norm.weight.abs().sum() * macs[name] for name, norm in norms.items()]
    return (
        weight
        * min(1.0, progress)
        * torch.stack(sums).sum()
        / total
        * sum(norm.num_features for norm in norms.values())
    )


class Tickets:
    """Keeps a network's dropped weights and channels at zero.

    Args:
        model: changed in place.
        norms: whose channels may leave for good.
        macs: that one channel of each costs.
        reset: dropped weights may grow again after each event (channels may not).

    Attributes:
        kept: masks of the weights, bool.
        channels: masks of the norms' channels, bool.
    """

    def __init__(
        self,
        model: nn.Module,
        norms: Mapping[str, _BatchNorm],
        macs: Mapping[str, float],
        *,
        reset: bool = False,
    ) -> None:
        self._weights = prunable_weights(model)
        self._norms, self._macs, self._reset = dict(norms), dict(macs), reset
        self.kept: Masks = {
            n: torch.ones_like(w, dtype=torch.bool) for n, w in self._weights.items()
        }
        self.channels: Masks = {
            n: torch.ones_like(norm.weight, dtype=torch.bool) for n, norm in self._norms.items()
        }

    @torch.no_grad()
    def drop_channels(self, threshold: float = 1e-3, least_saved: float = 1e6) -> int:
        """Let channels whose scale is below the threshold go, where a norm's save enough.

        Returns:
            How many went.
        """
        gone = 0
        for name, norm in self._norms.items():
            small = self.channels[name] & (norm.weight.abs() < threshold)
            if int(small.sum()) * self._macs[name] >= least_saved:
                self.channels[name] &= ~small
                gone += int(small.sum())
        self.hold()
        return gone

    @torch.no_grad()
    def prune(self, share: float) -> None:
        """Let the smallest weights of all layers together be zero: exactly this share of them.

        Weights that are zero already are among the smallest, so that more of them stay.
        """
        sizes = torch.cat([weight.abs().flatten() for weight in self._weights.values()])
        count = round(share * len(sizes))
        dropped = torch.zeros_like(sizes, dtype=torch.bool)
        dropped[sizes.argsort(stable=True)[:count]] = True
        start = 0
        for name, weight in self._weights.items():
            part = dropped[start : start + weight.numel()].view_as(weight)
            weight.masked_fill_(part, 0.0)
            self.kept[name] = torch.ones_like(part) if self._reset else ~part
            start += weight.numel()

    @torch.no_grad()
    def hold(self) -> None:
        """After each step of an optimiser: what was dropped is zero again."""
        for name, weight in self._weights.items():
            weight.mul_(self.kept[name])
        for name, norm in self._norms.items():
            norm.weight.mul_(self.channels[name])
            norm.bias.mul_(self.channels[name])
