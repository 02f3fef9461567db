# SPDX-License-Identifier: Apache-2.0
"""Published checkpoints: safe reading, renaming, and a strict report of what did not fit."""

import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import InputError

WRAPPERS = ("state_dict", "params_ema", "params", "model", "net")
"""Keys under which training code commonly nests the weights."""


def load_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a published .pth (or .safetensors) as name -> tensor, on the CPU.

    Only tensors are unpickled (`weights_only=True`): a file that carries code is refused. One level
    of nesting is removed, and the prefix `module.` (data-parallel training) if all names have it.

    Raises:
        InputError: no such file, not a checkpoint, or one that holds more than tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        loaded: Any = _load(path)
    except Exception as error:  # torch raises many kinds for a broken archive
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise InputError(
                f"{path}: holds Python objects besides tensors, which could run code when loaded; "
                "save its state dict alone and convert that"
            ) from error
        raise InputError(f"{path}: not a readable checkpoint; is it damaged?") from error
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()
    ):
        raise InputError(f"{path}: is not a state dict of tensors")
    prefix = "module." if all(name.startswith("module.") for name in loaded) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in loaded.items()}


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


@dataclass(frozen=True)
class Fit:
    """How a checkpoint's tensors fit a network's.

    Attributes:
        tensors: those that fit, under the network's names.
        missing: names the network has and the checkpoint lacks.
        unexpected: names the checkpoint has and the network lacks.
        misshapen: name -> (shape in the checkpoint, shape in the network).
    """

    tensors: dict[str, Tensor]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    @property
    def complete(self) -> bool:
        """Whether every tensor fits and none is left over."""
        return not (self.missing or self.unexpected or self.misshapen)

    def report(self) -> str:
        """What did not fit, in one line, at most three names of each kind."""
        shapes = [f"{n} {list(a)} for {list(b)}" for n, (a, b) in self.misshapen.items()]
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("shape", shapes))
        parts = []
        for kind, names in kinds:
            if names:
                more = f", and {len(names) - 3} more" if len(names) > 3 else ""
                parts.append(f"{len(names)} {kind}: {', '.join(names[:3])}{more}")
        return "; ".join(parts) or "everything fits"

    def require_complete(self, path: Path) -> None:
        """Raise InputError naming the file unless everything fits."""
        if not self.complete:
            raise InputError(f"{path}: does not fit the network: {self.report()}")


def fit_state_dict(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    renames: Sequence[tuple[str, str]] = (),
) -> Fit:
    """Match a checkpoint's tensors to a network's state dict by name and shape.

    Args:
        renames: (pattern, replacement) pairs for `re.sub`, applied in turn to each name.

    Raises:
        ValueError: the renames give two tensors one name.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = name
        for pattern, replacement in renames:
            new = re.sub(pattern, replacement, new)
        if new in renamed:
            raise ValueError(f"the renames give two tensors the name {new}")
        renamed[new] = tensor
    shared = renamed.keys() & expected.keys()
    misshapen = {
        name: (tuple(renamed[name].shape), tuple(expected[name].shape))
        for name in sorted(shared)
        if renamed[name].shape != expected[name].shape
    }
    return Fit(
        tensors={name: renamed[name] for name in expected if name in shared - misshapen.keys()},
        missing=tuple(name for name in expected if name not in renamed),
        unexpected=tuple(name for name in renamed if name not in expected),
        misshapen=misshapen,
    )
