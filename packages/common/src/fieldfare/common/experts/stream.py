# SPDX-License-Identifier: Apache-2.0
"""A whole network larger than memory: each part's weights are in memory while it runs.

Parts run in the same order in every pass, so after the first pass all is foreseen, and what is
needed farthest ahead makes room (`cache.Cache`).
"""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fieldfare.common.errors import InputError

from .bank import Bank
from .cache import Cache
from .offload import TensorFile, load_matrices, replace_banks

SMALL = 2**18
"""Bytes of a module up to which its tensors stay."""


def stream(
    model: nn.Module, path: Path, limit: int, *, resident: Sequence[str] = ()
) -> "Cache[Any]":
    """Let a network read its weights from a file while it runs; for inference.

    Banks of experts read only the matrices that are wanted; every other module reads its own
    tensors when it is called. Small ones (up to a hundredth of the limit, and SMALL) are read at
    once and stay. A larger module whose tensors are used without calling it must be named as
    resident, or torch complains of an empty tensor.

    Args:
        model: on the meta device, or with weights that are let go; changed in place.
        path: safetensors file of its state.
        limit: most bytes of weights held at once, residents included. Activations come on top.
        resident: names of modules that stay whatever their size.

    Returns:
        The cache: `loads`, `peak` and `bytes`.

    Raises:
        InputError: the file lacks a tensor or has it in another shape, or the limit is too small.
    """
    file = TensorFile(path)
    streamed: dict[str, dict[str, str]] = {}

    def load(key: Hashable) -> Any:
        if isinstance(key, tuple):
            return load_matrices(file, banks[key[0]], key)
        assert isinstance(key, str)
        return {own: file.read(full) for own, full in streamed[key].items()}

    cache: Cache[Any] = Cache(load, limit)
    banks = replace_banks(model, file, cache)
    model.register_forward_pre_hook(lambda _, __: cache.begin())
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False)) | dict(
            module.named_buffers(recurse=False)
        )
        if isinstance(module, Bank) or not own:
            continue
        kept = {field: f"{name}.{field}" if name else field for field in own}
        kept = {f: full for f, full in kept.items() if f not in module._non_persistent_buffers_set}
        for field, full in kept.items():
            if file.shape(full) != tuple(own[field].shape):
                raise InputError(f"{path}: {full} has another shape than the model's")
        streamed[name] = kept
        size = sum(map(file.bytes, kept.values()))
        if name in resident or size <= min(SMALL, limit // 100):
            _put(module, cache.keep(name, size))
        else:
            _hook(module, name, size, cache)
    return cache


def _hook(module: nn.Module, name: str, size: int, cache: "Cache[Any]") -> None:
    def before(module: nn.Module, _: Any) -> None:
        _put(module, cache.keep(name, size))

    def after(module: nn.Module, _: Any, __: Any) -> None:
        _drop(module)
        cache.release(name)

    _drop(module)
    module.register_forward_pre_hook(before)
    module.register_forward_hook(after, always_call=True)


def _put(module: nn.Module, values: dict[str, Tensor]) -> None:
    for field, value in values.items():
        if field in module._parameters:
            module._parameters[field] = nn.Parameter(value, requires_grad=False)
        else:
            module._buffers[field] = value


def _drop(module: nn.Module) -> None:
    for field, parameter in module._parameters.items():
        if parameter is not None:
            gone = torch.empty(0, dtype=parameter.dtype)
            module._parameters[field] = nn.Parameter(gone, requires_grad=False)
    for field, buffer in module._buffers.items():
        if buffer is not None and field not in module._non_persistent_buffers_set:
            module._buffers[field] = torch.empty(0, dtype=buffer.dtype)
