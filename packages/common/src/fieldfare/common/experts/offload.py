# SPDX-License-Identifier: Apache-2.0
"""Experts that stay in their file until they run, within a limit of memory; see `cache`."""

import json
import math
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fieldfare.common.errors import InputError

from .bank import Bank, Weights
from .cache import Cache

_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class TensorFile:
    """Tensors of a safetensors file, whole or a part of the first axis, read when asked for.

    Nothing of the file stays in memory, nor is it mapped there.

    Args:
        path: of the file.

    Raises:
        InputError: it is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if length > path.stat().st_size:
                    raise ValueError("its header is longer than the file")
                header = json.loads(file.read(length))
            self._start = 8 + length
            self._entries = {name: e for name, e in header.items() if name != "__metadata__"}
            for name, entry in self._entries.items():
                size = math.prod(entry["shape"]) * _TYPES[entry["dtype"]].itemsize
                if entry["data_offsets"][1] - entry["data_offsets"][0] != size:
                    raise ValueError(f"{name} has another size than its shape says")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not a safetensors file ({error})") from error

    def __contains__(self, name: str) -> bool:
        """Whether a tensor of this name is there."""
        return name in self._entries

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor."""
        return tuple(self._entry(name)["shape"])

    def bytes(self, name: str) -> int:
        """Of a tensor."""
        begin, end = self._entry(name)["data_offsets"]
        return int(end - begin)

    def read(self, name: str, part: int | None = None) -> Tensor:
        """A tensor, or one part of its first axis."""
        entry = self._entry(name)
        shape, (begin, end) = entry["shape"], entry["data_offsets"]
        if part is not None:
            size = (end - begin) // shape[0]
            begin, end, shape = begin + part * size, begin + (part + 1) * size, shape[1:]
        if begin == end:
            return torch.empty(shape, dtype=_TYPES[entry["dtype"]])
        buffer = bytearray(end - begin)
        with self.path.open("rb") as file:
            file.seek(self._start + begin)
            if file.readinto(buffer) != len(buffer):
                raise InputError(f"{self.path}: ends within {name}; copy the file again")
        return torch.frombuffer(buffer, dtype=_TYPES[entry["dtype"]]).view(shape)

    def _entry(self, name: str) -> dict[str, Any]:
        if name not in self._entries:
            raise InputError(f"{self.path}: holds no tensor {name}")
        found: dict[str, Any] = self._entries[name]
        return found


class OffloadedBank(Bank):
    """A bank whose matrices stay in a file; the same results, for inference.

    Args:
        bank: whose kind and sizes it has; on the meta device it takes no memory.
        file: with the tensors `<prefix>.inner`, `<prefix>.outer` and so on.
        prefix: of their names, the bank's name in its network.
        cache: shared by all banks of a network; keys are (prefix, matrix).
    """

    def __init__(self, bank: Bank, file: TensorFile, prefix: str, cache: "Cache[Weights]") -> None:
        nn.Module.__init__(self)
        self.activation, self.gated = bank.activation, bank.gated
        self.count, self.matrices = bank.count, bank.matrices
        self.width, self.hidden, self.out = bank.width, bank.hidden, bank.out
        self.names = [name for name, value in bank.weights._asdict().items() if value is not None]
        self.register_buffer("index", file.read(f"{prefix}.index"))
        self.prefix, self._cache = prefix, cache
        self._size = sum(file.bytes(f"{prefix}.{name}") for name in self.names) // self.matrices

    def fetch(self, matrix: int) -> Weights:
        """From the cache, or the file."""
        return self._cache.get((self.prefix, matrix), self._size)

    def _fetcher(self) -> Callable[[int], Weights]:
        return self.fetch

    def forward(self, x: Tensor, weights: Tensor, chosen: Tensor | None) -> Tensor:
        """See `Bank.forward`; the experts run one by one even where all are chosen."""
        if chosen is None:
            chosen = torch.ones_like(weights, dtype=torch.bool)
        return super().forward(x, weights, chosen)

    def __deepcopy__(self, memo: dict[int, object]) -> "OffloadedBank":
        """Itself: a copy would need the same file and the same limit."""
        return self


def offload(model: nn.Module, path: Path, limit: int) -> "Cache[Weights]":
    """Replace all banks of a model by ones that read their matrices from a file.

    Args:
        model: changed in place; may be on the meta device. Its other tensors are left as they are;
            `stream.stream` serves those as well.
        path: safetensors file of the model's state.
        limit: most bytes of matrices held at once.

    Returns:
        The cache, with `loads` and `peak`. What is known to be needed goes to its `plan`, in the
        order of the pass, by (name of the bank, matrix).

    Raises:
        InputError: a bank's tensors are not in the file or have other shapes, or one expert is
            larger than the limit.
    """
    file = TensorFile(path)

    def load(key: Hashable) -> Weights:
        assert isinstance(key, tuple)
        return load_matrices(file, banks[key[0]], key)

    cache: Cache[Weights] = Cache(load, limit)
    banks = replace_banks(model, file, cache)
    return cache


def load_matrices(file: TensorFile, bank: OffloadedBank, key: tuple[str, int]) -> Weights:
    """Of one expert, from the file."""
    inner, outer, inner_bias, outer_bias = (
        file.read(f"{key[0]}.{name}", key[1]) if name in bank.names else None
        for name in Weights._fields
    )
    assert inner is not None
    assert outer is not None
    return Weights(inner, outer, inner_bias, outer_bias)


def replace_banks(
    model: nn.Module, file: TensorFile, cache: "Cache[Weights]"
) -> dict[str, OffloadedBank]:
    """All banks of a model become offloaded ones, by name.

    Raises:
        InputError: tensors are not in the file or have other shapes.
    """
    replaced: dict[str, OffloadedBank] = {}
    banks = {name: module for name, module in model.named_modules() if isinstance(module, Bank)}
    for name, bank in banks.items():
        for field, value in bank.weights._asdict().items():
            if value is not None and file.shape(f"{name}.{field}") != tuple(value.shape):
                found = file.shape(f"{name}.{field}")
                raise InputError(
                    f"{file.path}: {name}.{field} is {found}, not {tuple(value.shape)}"
                )
        replaced[name] = OffloadedBank(bank, file, name, cache).train(bank.training)
        parent, _, last = name.rpartition(".")
        owner = model.get_submodule(parent)
        if isinstance(owner, nn.ModuleList):
            owner[int(last)] = replaced[name]
        else:
            setattr(owner, last, replaced[name])
    return replaced
