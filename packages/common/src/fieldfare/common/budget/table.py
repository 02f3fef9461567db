# SPDX-License-Identifier: Apache-2.0
"""How long layers take on this machine, measured once; networks are the sum times one factor.

What lies between the layers (sums, concatenations, calls) is in that factor, which is fitted for
each runtime to whole networks. Times are taken as `latency.measure` takes them.

The idea of a table of blocks: Cai et al. 2019, *ProxylessNAS* (arXiv 1812.00332), section 3.3.
"""

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..files import write_text
from . import latency

NAME = "latency.json"
REPEATS = 12


@dataclass(frozen=True)
class Call:
    """A layer as a network calls it.

    Attributes:
        name: of the layer in its network.
        key: of the table: how the layer prints, and its inputs' shapes and types.
        layer: itself.
        shapes: of its inputs.
        dtypes: of its inputs.
        formats: of the inputs in memory.
    """

    name: str
    key: str
    layer: nn.Module
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    formats: tuple[torch.memory_format, ...]

    def runner(self) -> Callable[[], object]:
        """What runs the layer on zeros."""
        inputs = [
            torch.zeros(shape, dtype=dtype).contiguous(memory_format=form)
            for shape, dtype, form in zip(self.shapes, self.dtypes, self.formats, strict=True)
        ]

        @torch.inference_mode()
        def run() -> object:
            return self.layer(*inputs)

        return run


@torch.inference_mode()
def calls_of(
    model: nn.Module, unit: Callable[[], object], kinds: Sequence[type[nn.Module]] = ()
) -> list[Call]:
    """The layers that run in a unit, in order.

    A layer is what has no layers inside or has weights of its own; it is taken as a whole.

    Args:
        unit: runs the model.
        kinds: of blocks that are taken as a whole, too.
    """
    found: list[Call] = []
    inside = 0

    names = {layer: name for name, layer in model.named_modules()}

    def enter(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal inside
        inside += 1
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        if inside == 1 and tensors and len(tensors) == len(inputs):
            shapes = tuple(tuple(tensor.shape) for tensor in tensors)
            dtypes = tuple(tensor.dtype for tensor in tensors)
            described = " ".join(repr(layer).split())
            formats = tuple(_format_of(tensor) for tensor in tensors)
            types = [str(value).removeprefix("torch.") for value in (*dtypes, *formats)]
            key = f"{described} of {', '.join(map(str, shapes))} {', '.join(types)}"
            found.append(Call(names[layer], key, layer, shapes, dtypes, formats))

    def leave(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal inside
        inside -= 1

    hooks = []
    for layer in list(model.modules())[1:]:
        own = next(layer.parameters(recurse=False), None) is not None
        if own or isinstance(layer, tuple(kinds)) or next(layer.children(), None) is None:
            hooks.append(layer.register_forward_pre_hook(enter))
            hooks.append(layer.register_forward_hook(leave))
    try:
        unit()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _format_of(tensor: Tensor) -> torch.memory_format:
    last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last and not tensor.is_contiguous() else torch.contiguous_format


@dataclass
class LatencyTable:
    """Seconds of layers on one machine.

    Attributes:
        machine: as `latency.machine` names it, its threads included.
        seconds: key of a call -> processor seconds.
        wholes: runtime -> pairs of the layers' sum and the whole network's seconds.
    """

    machine: str
    seconds: dict[str, float] = field(default_factory=dict)
    wholes: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def factor(self, runtime: str = "torch") -> float:
        """Of whole networks, fitted to all that were measured; 1 where none was."""
        pairs = self.wholes.get(runtime, [])
        return sum(whole for _, whole in pairs) / sum(own for own, _ in pairs) if pairs else 1.0

    def missing(self, calls: Sequence[Call]) -> list[Call]:
        """Those that are not in the table, each once."""
        return list({call.key: call for call in calls if call.key not in self.seconds}.values())

    def sum_of(self, calls: Sequence[Call]) -> float:
        """Seconds of all calls.

        Raises:
            InputError: one is not in the table.
        """
        if missing := self.missing(calls):
            raise InputError(
                f"the latency table has no {missing[0].key}, nor {len(missing) - 1} others; "
                "measure the model with fieldfare latency"
            )
        return sum(self.seconds[call.key] for call in calls)

    def predict(self, calls: Sequence[Call], runtime: str = "torch") -> float:
        """Seconds of a network that makes these calls; raises InputError as `sum_of`."""
        return self.factor(runtime) * self.sum_of(calls)

    def measure(
        self,
        calls: Sequence[Call],
        *,
        repeats: int = REPEATS,
        told: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Take up what is missing of some calls."""
        units = {call.key: call.runner() for call in self.missing(calls)}
        self.seconds |= latency.measure(units, repeats=repeats, told=told)

    def fit(self, calls: Sequence[Call], whole: float, runtime: str = "torch") -> None:
        """Let a network that was measured whole count in the factor."""
        self.wholes.setdefault(runtime, []).append((self.sum_of(calls), whole))

    def write(self, path: Path) -> None:
        """Keep the table; its folder is made where it is missing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")


def read_table(path: Path, machine: str) -> LatencyTable:
    """The table of a machine; an empty one where there is none of it, or it is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = LatencyTable(
            values["machine"],
            {str(key): float(value) for key, value in values["seconds"].items()},
            {name: [(float(a), float(b)) for a, b in v] for name, v in values["wholes"].items()},
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return LatencyTable(machine)
    return found if found.machine == machine else LatencyTable(machine)


def cache_folder() -> Path:
    """Where this user's programs keep what can be made again."""
    if platform.system() == "Windows":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif platform.system() == "Darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "fieldfare"
