# SPDX-License-Identifier: Apache-2.0
"""What a network's layers look like on one input: a few numbers a channel, taken as it runs."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Array = npt.NDArray[np.float64]

_LEAST_SPREAD = 1e-6
_CANCELLED = 1e-2
"""Least share of the variance in the mean square that sums in single precision tell well."""


def pooled(output: Tensor) -> Array:
    """Mean, and logarithm of the standard deviation, of each channel over space.

    Args:
        output: (N, C, *space) of any real dtype; (N, C) has no space, and no deviation.

    Returns:
        (N, 2 C), or (N, C) without space.
    """
    with torch.inference_mode():
        if output.ndim == 2:
            return _array(output)
        mean, spread = _mean_and_deviation(output.float())
        return _array(torch.cat((mean, spread.clamp(min=_LEAST_SPREAD).log()), dim=1))


def _mean_and_deviation(output: Tensor) -> tuple[Tensor, Tensor]:
    """Of each channel over space, (N, C) in double precision, without a copy of the output.

    From the sums of the values and of their squares, in a tenth of the time that `torch.std_mean`
    takes on a CPU; where that cancels, it is asked after all.
    """
    flat = output.flatten(2) if output.is_contiguous() else output.movedim(1, -1).flatten(1, -2)
    if output.is_contiguous():
        mean, norm = flat.mean(dim=2), torch.linalg.vector_norm(flat, dim=2)
        square = norm.double().square() / flat.shape[2]
    else:
        mean = flat.mean(dim=1)
        products = torch.bmm(flat.transpose(1, 2), flat)
        square = products.diagonal(dim1=1, dim2=2).double() / flat.shape[1]
    variance = square - mean.double().square()
    spread = variance.clamp(min=0).sqrt()
    for case, channel in (variance < _CANCELLED * square).nonzero().tolist():
        spread[case, channel] = output[case, channel].double().std(correction=0)
    return mean.double(), spread


def _array(tensor: Tensor) -> Array:
    found: Array = tensor.double().cpu().numpy()
    return found


class Tap:
    """Within it, the pooled outputs of named layers are kept at every forward.

    Args:
        network: whose `named_modules` has the layers.
        layers: dotted names; a layer's output is a tensor (N, C, *space).

    Raises:
        KeyError: no such layer.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        modules = dict(network.named_modules())
        self._modules = [modules[name] for name in layers]
        self._kept: list[Array | None] = [None] * len(layers)

    def __enter__(self) -> Self:
        self._handles = [
            module.register_forward_hook(self._hook(place))
            for place, module in enumerate(self._modules)
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, place: int) -> Any:
        def keep(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if self._kept[place] is None:
                self._kept[place] = pooled(output)

        return keep

    def take(self) -> list[Array]:
        """Each layer's features (N, F) at the first forward since the last call.

        Raises:
            RuntimeError: a layer has not run since.
        """
        kept, self._kept = self._kept, [None] * len(self._modules)
        found = [features for features in kept if features is not None]
        if len(found) < len(kept):
            raise RuntimeError("a layer has not run since its features were last taken")
        return found
