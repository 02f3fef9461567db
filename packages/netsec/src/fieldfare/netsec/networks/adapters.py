# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters of a frozen classifier, one for each site, and their mixture.

Li et al. 2024, *Glider* (arXiv 2410.07172): adapters are trained apart, then a row of each gate;
afterwards a token's gate and what the whole input is like decide together who speaks.
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fieldfare.common.errors import InputError
from fieldfare.common.experts import Bank, State
from fieldfare.common.experts.choice import TopK
from fieldfare.common.experts.glider import LocalGlobalRouter, adapters, gated, glider

ADAPTED = ("query", "value", "Wi", "Wo", "out_proj")
"""Linear layers of these names get adapters: attention and feed-forward layers of netFound, the
mixers' outputs of NetMamba."""

PARTS = ("down", "up", "gate")
"""Of an adapter's layer D -> O at rank R: (R, D), (O, R) and (D,)."""

TOGETHER = 2
"""Adapters that a token gets at most."""


class Tuned(nn.Module):
    """A frozen linear layer with one adapter, which changes nothing at first.

    Attributes:
        gating: the adapter is frozen too, and its gate is trained.
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.bank = Bank(1, base.in_features, rank, base.out_features, activation="identity")
        nn.init.zeros_(self.bank.outer)
        self.gate = nn.Parameter(torch.zeros(base.in_features))
        self.gating = False

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., O)."""
        tokens = x.flatten(0, -2)
        if self.gating:
            found = gated(self.base, self.bank, 0, self.gate, tokens)
        else:
            found = self.base(tokens) + self.bank.run(tokens, self.bank.fetch(0))
        return found.view(*x.shape[:-1], -1)


class Mixed(nn.Module):
    """A linear layer with the adapters of several sites.

    Attributes:
        task: (F,) what the input is like as a whole, set before a pass.
    """

    def __init__(self, base: nn.Linear, bank: Bank, router: LocalGlobalRouter) -> None:
        super().__init__()
        self.layer = glider(base, bank, router, TopK(TOGETHER))
        self.task: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(..., T, D) -> (..., T, O)."""
        found: Tensor = self.layer(x, State(task=self.task)).output
        return found


def adapted_layers(network: nn.Module) -> list[str]:
    """Names of the linear layers that get adapters."""
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in ADAPTED
    ]


def _replace(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, layer.train(network.training))


def tune(network: nn.Module, rank: int, tensors: Mapping[str, Tensor] | None = None) -> None:
    """Freeze a classifier and give it an adapter to train, in place.

    Args:
        rank: of the adapter, at least 1.
        tensors: of a trained adapter, by `adapter_of`: it is frozen too, and its gates train.

    Raises:
        InputError: a network without such layers.
    """
    names = adapted_layers(network)
    if not names:
        raise InputError(f"an adapter needs a layer named {', '.join(ADAPTED)}; there is none")
    network.requires_grad_(False)
    for name in names:
        layer = Tuned(cast(nn.Linear, network.get_submodule(name)), rank)
        layer.gate.requires_grad_(tensors is not None)
        if tensors is not None:
            layer.gating = True
            layer.bank.requires_grad_(False)
            layer.bank.inner.data.copy_(tensors[f"{name}.down"][None])
            layer.bank.outer.data.copy_(tensors[f"{name}.up"][None])
        _replace(network, name, layer)


def adapter_of(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a tuned network's adapter: those of `PARTS` of each layer."""
    found: dict[str, Tensor] = {}
    for name, layer in network.named_modules():
        if isinstance(layer, Tuned):
            values = (layer.bank.inner[0], layer.bank.outer[0], layer.gate)
            found |= {f"{name}.{part}": v.detach() for part, v in zip(PARTS, values, strict=True)}
    return found


def mixed(
    network: nn.Module,
    several: Sequence[Mapping[str, Tensor]],
    sites: Tensor,
    scale: float,
    least: float,
) -> nn.Module:
    """A copy of a classifier with the adapters of several sites; see `tell`.

    Args:
        several: E adapters, of any ranks.
        sites: (E, F), what their sites are like.
        scale, least: see `LocalGlobalRouter`.

    Raises:
        ValueError: an adapter that does not fit the network.
    """
    changed = copy.deepcopy(network)
    for name in adapted_layers(network):
        base = cast(nn.Linear, changed.get_submodule(name))
        parts, gates = [], []
        rank = max(len(_part(own, name, "down", (None, base.in_features))) for own in several)
        for own in several:
            down = _part(own, name, "down", (None, base.in_features))
            up = _part(own, name, "up", (base.out_features, len(down)))
            missing = rank - len(down)
            parts.append((F.pad(down, (0, 0, 0, missing)), F.pad(up, (0, missing))))
            gates.append(_part(own, name, "gate", (base.in_features,)))
        router = LocalGlobalRouter(torch.stack(gates), sites, scale, least)
        _replace(changed, name, Mixed(base, adapters(parts, alpha=rank), router))
    return changed.eval().requires_grad_(False)


def _part(
    own: Mapping[str, Tensor], layer: str, part: str, shape: tuple[int | None, ...]
) -> Tensor:
    """One of an adapter's tensors."""
    found = own.get(f"{layer}.{part}")
    if found is None or found.ndim != len(shape) or not len(found):
        raise ValueError(f"it has no {part} for {layer}")
    if any(w is not None and w != size for w, size in zip(shape, found.shape, strict=True)):
        raise ValueError(f"its {part} of {layer} is {tuple(found.shape)}, not {shape}")
    return found


def tell(network: nn.Module, task: Tensor) -> None:
    """Set what the next passes' input is like, (F,)."""
    for module in network.modules():
        if isinstance(module, Mixed):
            module.task = task


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Of a network's weights: which model an adapter belongs to."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
