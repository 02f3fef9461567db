# SPDX-License-Identifier: Apache-2.0
"""The models that installed packages carry, and the one door to any model's weights.

A package announces the module whose folder holds its weight files under the entry-point group
`fieldfare.models`. Nothing is ever downloaded.
"""

import difflib
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

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
    return build_network(build, card.config, tensors, path), card


def build_network(
    build: Callable[[dict[str, Any]], Network],
    config: dict[str, Any],
    tensors: Mapping[str, Tensor],
    path: Path,
) -> Network:
    """A network with given weights, in evaluation mode, as of one that a file's part holds.

    Args:
        build: config -> network with fresh weights.
        path: of the file, for messages.

    Raises:
        InputError: tensors that do not fit the network.
    """
    # A card of a few bytes may describe a network of many gigabytes.
    with _Bounded(tensors, path), _at_most(len(tensors), path):
        network = _built(build, config, path)
    fit = fit_state_dict(tensors, network.state_dict())
    fit.require_complete(path)
    check_finite(fit.tensors, path)
    network.load_state_dict(fit.tensors)
    return network.eval()


class _Bounded(TorchFunctionMode):
    """Inside, tensors of far more numbers than a file holds are refused before they are made.

    (Torch's meta device would tell the sizes too, but imports torch's compiler to do so.)
    """

    def __init__(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        super().__init__()
        self._left = 8 * sum(tensor.numel() for tensor in tensors.values()) + 2**26
        self._path = path

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        self._left -= _numbers_asked_for(getattr(func, "__name__", ""), args, named)
        if self._left < 0:
            raise InputError(f"{self._path}: its card describes a far larger network than it holds")
        return func(*args, **named)


def _numbers_asked_for(name: str, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    """How many numbers the result of a function of torch has that makes new ones."""
    if name == "arange" and args:
        first, end, step = (0, *args, 1) if len(args) == 1 else (*args, 1)[:3]
        count: int = math.ceil((end - first) / step)
        return max(0, count)
    if name == "repeat":
        return int(args[0].numel()) * _product(args[1:])
    if name in ("empty", "zeros", "ones", "full", "rand", "randn"):
        return _product(args or (named.get("size", ()),))
    return 0


def _product(sizes: Sequence[Any]) -> int:
    """Of sizes given one by one or as one sequence; what follows the sequence is no size."""
    listed = sizes[0] if sizes and isinstance(sizes[0], Sequence) else sizes
    return math.prod(int(size) for size in listed)


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise InputError naming the file where a weight is NaN or infinite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(f"{path}: its weights hold NaN or infinity (in {name}); retrain it")


def _built(
    build: Callable[[dict[str, Any]], Network], config: dict[str, Any], path: Path
) -> Network:
    try:
        return build(config)
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
