# SPDX-License-Identifier: Apache-2.0
"""A network in the form that is cheapest in inference, and computes the same."""

import copy
from itertools import pairwise
from typing import cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .prepbn import ChannelAffine, fold

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@torch.no_grad()
def fuse(model: nn.Module) -> nn.Module:
    """A copy of the model for inference in which everything that folds is folded.

    Follows the protocol of `timm.utils.reparameterize_model`: a module with `fuse()` is replaced
    by what that gives, one with `reparameterize()` or `switch_to_deploy()` changes itself. The
    model as a whole may be such a module too, which timm leaves out. Besides, in an `nn.Sequential`
    a batch norm folds into the convolution before it, and a PRepBN into the linear layer behind it.

    Args:
        model: any, in either mode; unchanged.

    Returns:
        A model in evaluation mode. It gives what the given one gives in evaluation up to float32's
        rounding, 1e-4 (1 + the largest output) in the registered backbones. Fusing again changes
        nothing.

    Raises:
        ValueError: a part is not ready (a VanillaNet whose activations are not linear yet, a PRepBN
            in its schedule); the message names what to do.
    """
    fused = _fused(copy.deepcopy(model).eval(), {})
    places = _places(fused)
    for module in list(fused.modules()):
        # a subclass may run its children in another way
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _fold_neighbours(module, places)
    return fused.eval()


def _fused(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """What takes the module's place; one module in several places stays one."""
    if module in done:
        return done[module]
    found = module
    if callable(getattr(module, "fuse", None)):
        found = cast(nn.Module, module.fuse())  # type: ignore[operator]
    else:
        for name in ("reparameterize", "switch_to_deploy"):
            if callable(getattr(module, name, None)):
                getattr(module, name)()
                break
    done[module] = done[found] = found
    for name, child in list(found._modules.items()):
        if child is not None:
            setattr(found, name, _fused(child, done))
    return found


def _places(model: nn.Module) -> dict[nn.Module, int]:
    """In how many places each module stands."""
    found: dict[nn.Module, int] = {}
    for parent in model.modules():
        for child in parent._modules.values():
            if child is not None:
                found[child] = found.get(child, 0) + 1
    return found


def _fold_neighbours(sequence: nn.Sequential, places: dict[nn.Module, int]) -> None:
    """Fold pairs of a sequence; the place of what vanishes holds an identity."""
    for first, second in pairwise(list(sequence._modules)):
        a, b = sequence._modules[first], sequence._modules[second]
        if a is None or b is None or places.get(a, 1) > 1 or places.get(b, 1) > 1:
            continue  # a shared layer would be folded for its other places as well
        # exact types: timm's batch norms are subclasses with an activation inside
        if isinstance(a, _ConvNd) and isinstance(b, _BatchNorm):
            plain = type(b) in _BATCH_NORMS and not isinstance(a, _ConvTransposeNd)
            if plain and b.running_mean is not None:
                sequence._modules[first] = fuse_conv_bn_eval(a, b)
                sequence._modules[second] = nn.Identity()
        elif isinstance(a, ChannelAffine) and isinstance(b, nn.Linear):
            sequence._modules[first] = fold(a, b)
