# SPDX-License-Identifier: Apache-2.0
"""Fewer channels without training: what a dropped channel carried is carried by the others.

Of the channels between layers the one goes whose loss changes the next layers' outputs least when
their other weights make up for it as well as they can; they are changed so, and the next one goes.
Kurtic, Frantar and Alistarh 2023, *ZipLM: Inference-Aware Structured Pruning of Language Models*
(arXiv 2302.04089), equations 2 and 3: of a dense layer with weights W and second moments G of its
inputs, dropping input j costs |W_j|^2 / [G^-1]_jj, and W loses W_j [G^-1]_j / [G^-1]_jj. There G is
over all inputs of a convolution's output, here over channels, alike for all its taps. What depends
on what is found by torch-pruning (extra `slim`).

Channels that a group norm norms together go together, by the same equations for several inputs:
dropping the inputs S costs the trace of W_S [G^-1]_SS^-1 W_S^T, and W loses W_S [G^-1]_SS^-1
[G^-1]_S. What is left then is normed as before.

Batch norms behind changed layers see other activations than before: see `moments.match_moments`.
"""

import copy
import importlib.util
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..blocks import DepthwiseConv, convolution
from ..errors import InputError
from .widths import NORMS, is_dense, is_depthwise, narrow_layer, together, width_of

Forward = Callable[[nn.Module, Tensor], Any]
"""How the network is called, all outputs that matter among the results."""

DAMPING = 1e-4
"""Share of the mean second moment that is added to each channel's own."""


@dataclass(frozen=True)
class Group:
    """Channels that can go: one layer makes them, dense layers read them.

    Attributes:
        makers: names of the layer that makes them, and of norms and depthwise convolutions behind.
        readers: name of a layer -> (C,) int64, which of its inputs they are.
        together: so many neighbours go at a time.
    """

    makers: tuple[str, ...]
    readers: dict[str, Tensor]
    together: int = 1


def call(model: nn.Module, x: Tensor) -> Any:
    """The network as it is called."""
    return model(x)


def require_library() -> None:
    """Raise InputError where torch-pruning is not installed."""
    if importlib.util.find_spec("torch_pruning") is None:
        raise InputError("narrowing needs: pip install 'fieldfare-common[slim]'")


def groups_of(model: nn.Module, example: Tensor, forward: Forward = call) -> list[Group]:
    """Where channels can go, in the order of the layers that make them.

    Left out: channels that are added to others (residual streams), that something else than a dense
    layer reads, or that are outputs.

    Args:
        model: traced with the example; unchanged.

    Raises:
        InputError: torch-pruning is not installed.
    """
    require_library()
    import torch_pruning

    own = _traceable(copy.deepcopy(model)).eval().requires_grad_(True)  # it follows gradients
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters outside layers, which stay as they are
        graph = torch_pruning.DependencyGraph().build_dependency(own, example, forward_fn=forward)
    names = {layer: name for name, layer in own.named_modules()}
    found = []
    for layer in own.modules():
        if layer not in graph.module2node or not is_dense(layer):
            continue
        cut = graph.get_pruner_of_module(layer).prune_out_channels
        everything = list(range(width_of(layer)[1]))
        group = _group(layer, graph.get_pruning_group(layer, cut, idxs=everything), names)
        if group is not None:
            found.append(group)
    return found


def _traceable(model: nn.Module) -> nn.Module:
    """With torch's layers in place of `DepthwiseConv`, which torch-pruning does not know."""
    for layer in list(model.modules()):
        for name, child in layer.named_children():
            if isinstance(child, DepthwiseConv):
                count, side = len(child.weight), child.weight.shape[-1]
                plain = convolution(
                    child.ndim, count, count, side, padding=side // 2, groups=count, bias=False
                )
                setattr(layer, name, plain)
    return model


def _group(maker: nn.Module, traced: Any, names: dict[nn.Module, str]) -> Group | None:
    makers, readers, sizes = [names[maker]], {}, [1]
    count = width_of(maker)[1]
    for dependency, indices in traced:
        layer = dependency.target.module
        reads = dependency.handler.__name__ == "prune_in_channels"
        if layer is maker and not reads:
            continue
        if layer not in names:  # an operation without weights
            continue
        if reads and is_dense(layer) and len(indices) == count and names[layer] not in readers:
            readers[names[layer]] = torch.tensor(indices)
        elif isinstance(layer, NORMS) or is_depthwise(layer):
            if names[layer] not in makers:
                makers.append(names[layer])
                sizes.append(together(layer))
        else:
            return None
    return Group(tuple(makers), readers, math.lcm(*sizes)) if readers else None


@torch.no_grad()
def second_moments(
    model: nn.Module, groups: Sequence[Group], batches: Iterable[Tensor], forward: Forward = call
) -> dict[str, Tensor]:
    """Of every reader the mean product of its inputs, over samples and places.

    Args:
        model: in evaluation mode.

    Returns:
        Name of a reader -> (inputs, inputs) float64.
    """
    found: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach()
            last = isinstance(layer, nn.Linear)
            x = x.flatten(0, -2).T if last else x.transpose(0, 1).flatten(1)
            found[name] = found.get(name, torch.zeros(())) + (x @ x.T).double()
            counts[name] = counts.get(name, 0) + x.shape[1]

        return hook

    layers = dict(model.named_modules())
    wanted = sorted({name for group in groups for name in group.readers})
    hooks = [layers[name].register_forward_pre_hook(look(name)) for name in wanted]
    try:
        for batch in batches:
            forward(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    if wanted and not found:
        raise ValueError("narrowing needs at least one batch")
    return {name: total / counts[name] for name, total in found.items()}


class Narrowing:
    """Fewer and fewer channels of a network; see `to`.

    Args:
        model: in evaluation mode; unchanged.
        groups: of `groups_of`.
        moments: of `second_moments`.
        multiple: what is left of a group is a multiple of this, and at least one; of channels that
            go together, of their number.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[Group],
        moments: dict[str, Tensor],
        *,
        multiple: int = 8,
    ) -> None:
        self._model, self._multiple = model, multiple
        layers = dict(model.named_modules())
        self._left = [_Channels(group, layers, moments) for group in groups]

    def kept(self) -> dict[str, Tensor]:
        """Name of a layer -> which of its outputs are left, where some are gone."""
        return {
            name: left.alive.nonzero().flatten()
            for left in self._left
            if not bool(left.alive.all())
            for name in left.group.makers
        }

    @torch.no_grad()
    def to(self, share: float) -> nn.Module:
        """A copy with that share of every group's channels; a share of earlier calls or less.

        Raises:
            ValueError: a share that is not above 0 and at most 1.
        """
        if not 0 < share <= 1:
            raise ValueError(f"share {share}: must be above 0, at most 1")
        own = copy.deepcopy(self._model)
        layers = dict(own.named_modules())
        inputs: dict[str, Tensor] = {}
        for left in self._left:
            size = left.group.together
            multiple = self._multiple if size == 1 else size
            count = max(1, round(left.channels * share / multiple)) * multiple
            left.drop_to(min(left.channels, count))
            if bool(left.alive.all()):
                continue
            for name, place, columns in left.weights():
                weight: Any = layers[name].weight
                weight[:, place] = columns.to(weight.dtype)
                rest = inputs.setdefault(name, torch.ones(weight.shape[1], dtype=torch.bool))
                rest[place[~left.alive]] = False
        outputs = self.kept()
        for name in {*inputs, *outputs}:
            kept = inputs[name].nonzero().flatten() if name in inputs else None
            narrow_layer(layers[name], kept, outputs.get(name))
        return own


class _Channels:
    """The channels of a group while they become fewer.

    Attributes:
        alive: (C,) bool.
    """

    def __init__(
        self, group: Group, layers: dict[str, nn.Module], moments: dict[str, Tensor]
    ) -> None:
        self.group = group
        self.channels = width_of(layers[group.makers[0]])[1]
        self.alive = torch.ones(self.channels, dtype=torch.bool)
        self._shapes, self._weights, self._inverses = [], [], []
        for name, place in group.readers.items():
            weight: Any = layers[name].weight
            columns = weight.detach()[:, place].double().movedim(1, -1)
            self._shapes.append(columns.shape)
            self._weights.append(columns.reshape(-1, self.channels).clone())
            own = moments[name][place][:, place]
            damped = float(own.diagonal().mean()) * DAMPING or 1.0
            self._inverses.append(
                torch.linalg.inv(own + damped * torch.eye(self.channels).double())
            )

    def drop_to(self, keep: int) -> None:
        """Drop what goes together, one after the other, until so many channels are left."""
        size = self.group.together
        while int(self.alive.sum()) > keep:
            costs = torch.zeros(self.channels // size, dtype=torch.float64)
            for weight, inverse in zip(self._weights, self._inverses, strict=True):
                pieces = weight.unfold(1, size, size).permute(1, 2, 0)  # (pieces, size, outputs)
                own = inverse.unflatten(0, (-1, size)).unflatten(2, (-1, size))
                blocks = own.diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # (pieces, size, size)
                solved = pieces / blocks if size == 1 else torch.linalg.solve(blocks, pieces)
                costs += (pieces * solved).sum(dim=(1, 2))
            gone = ~self.alive.view(-1, size)[:, 0]
            worst = int(costs.masked_fill(gone, torch.inf).argmin())
            place = torch.arange(worst * size, (worst + 1) * size)
            self.alive[place] = False
            for weight, inverse in zip(self._weights, self._inverses, strict=True):
                pivot = torch.linalg.solve(inverse[place][:, place], inverse[place])
                weight -= weight[:, place] @ pivot
                inverse -= inverse[:, place] @ pivot
                weight[:, place] = 0
                inverse[place] = inverse[:, place] = 0
                inverse[place, place] = 1

    def weights(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Name of a reader, its inputs that they are, and the weights on them, zero where gone."""
        for (name, place), weight, shape in zip(
            self.group.readers.items(), self._weights, self._shapes, strict=True
        ):
            yield name, place, weight.reshape(shape).movedim(-1, 1)
