# SPDX-License-Identifier: Apache-2.0
"""The models that installed packages carry, and the one door to any model's weights.

A package announces the module whose folder holds its weight files under the entry-point group
`fieldfare.models`. Nothing is ever downloaded.
"""

import difflib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from ..errors import InputError
from .card import ModelCard
from .convert import fit_state_dict
from .store import load_model_file, read_card

GROUP = "fieldfare.models"

Network = TypeVar("Network", bound=nn.Module)


def available(task: str) -> dict[str, Path]:
    """Packaged models of a task: name -> weight file."""
    found = {}
    for point in entry_points(group=GROUP):
        spec = importlib.util.find_spec(point.module)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(folder).glob("*.safetensors")):
                if read_card(path).task == task:
                    found[path.stem] = path
    return found


def locate(name_or_path: str, task: str) -> Path:
    """The weight file of a packaged model's name or of a path.

    Raises:
        InputError: neither; the message names the models there are.
    """
    path = Path(name_or_path)
    if path.suffix or len(path.parts) > 1:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        return path
    models = available(task)
    if name_or_path not in models:
        close = difflib.get_close_matches(name_or_path, models, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(models) or 'none'}"
        raise InputError(f"no model is named {name_or_path!r}; {hint}")
    return models[name_or_path]


def from_pretrained(
    name_or_path: str, task: str, build: Callable[[dict[str, Any]], Network]
) -> tuple[Network, ModelCard]:
    """Build a network and load its weights, in evaluation mode.

    Args:
        build: the card's config -> network with fresh weights.

    Raises:
        InputError: unknown name, unreadable file, a model of another task, or tensors that do not
            fit the network.
    """
    path = locate(name_or_path, task)
    card, tensors = load_model_file(path)
    if card.task != task:
        raise InputError(f"{path}: is a {card.task} model; this needs one of {task}")
    # First without memory: a card of a few bytes may describe a network of many gigabytes.
    with torch.device("meta"), _NoDraws(), _at_most(len(tensors), path):
        shape = _built(build, card, path)
    fit = fit_state_dict(tensors, shape.state_dict())
    fit.require_complete(path)
    check_finite(fit.tensors, path)
    network = _built(build, card, path)
    network.load_state_dict(fit.tensors)
    return network.eval(), card


class _NoDraws(TorchFunctionMode):
    """Inside, first weights are not drawn: without memory there is nothing to draw, and torch would
    import its compiler to find that out."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "erfinv_"):
            return args[0] if args else named["tensor"]
        return func(*args, **named)


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise InputError naming the file where a weight is NaN or infinite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(f"{path}: its weights hold NaN or infinity (in {name}); retrain it")


def _built(build: Callable[[dict[str, Any]], Network], card: ModelCard, path: Path) -> Network:
    try:
        return build(card.config)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: its card describes no usable network: {error!r}") from error


@contextmanager
def _at_most(tensors: int, path: Path) -> Iterator[None]:
    """Inside, a network of far more parameters than the file has tensors is refused."""
    left = 4 * tensors + 100

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise InputError(
                f"{path}: its card describes a network of far more than its {tensors} tensors"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
