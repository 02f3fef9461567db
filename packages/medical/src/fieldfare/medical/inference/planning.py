# SPDX-License-Identifier: Apache-2.0
"""Choose tile, accumulator and precision so that a case fits into a given amount of memory.

What a tile takes is counted, not guessed: the network runs once on a small tile while every tensor
that it makes is followed, and the bytes alive at the worst moment grow with the voxels. What the
process holds before is read from the system.
"""

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fieldfare.common import windows
from fieldfare.common.errors import InputError

from ..data.regions import REGIONS
from .memory import mebibytes, peak, release, resident
from .predict import Predictor

LONGEST, SHORTEST = {3: 128, 2: 256}, {3: 32, 2: 64}
"""Voxels of the model: the tile's longest side that is tried first and last, by the network's
dimensions."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ACCUMULATORS = ("float32", "float16")

PROBE = {3: (32, 32, 32), 2: (64, 64, 1)}
"""Tile on which a network is counted."""

RESERVE = 64 * 2**20
"""Bytes for what no tensor shows: code that the processor's libraries make for each shape, and
gaps between freed blocks."""

COPIES = 16
"""Bytes for each voxel of a tile that `windows.stream` holds while the network runs."""

LOADING = 45
"""Bytes for each voxel of the input grid while four images are read and prepared."""

WRITING = {"labels": 6, "probabilities": 40}
"""Bytes for each voxel of the input grid while a result is turned, packed and compressed."""


@dataclass(frozen=True)
class InferencePlan:
    """How a case goes through a network.

    Attributes:
        tile, overlap: voxels of the model along each canonical axis.
        batch: tiles at a time; a 2D network's slices at a time are the tile's last side.
        tiles: how many.
        precision: fp32 or bf16.
        accumulator: in which the blended probabilities are kept, float32 or float16.
        predicted_bytes: the most memory it will take: of the process, on CUDA of the GPU.
        limit_bytes: that it was to fit into; None without.
        others: of the further networks of an ensemble.
        passes: how often the network goes over the tiles: for each neighbour of a guard once more.
    """

    tile: tuple[int, int, int]
    overlap: tuple[int, int, int]
    batch: int
    tiles: int
    precision: str
    accumulator: str
    predicted_bytes: int
    limit_bytes: int | None
    others: "tuple[InferencePlan, ...]" = ()
    passes: int = 1

    @property
    def tiles_in_all(self) -> int:
        """Of all networks and passes."""
        return self.tiles * self.passes + sum(other.tiles for other in self.others)

    def describe(self) -> str:
        """One line."""
        tile, overlap = ("x".join(map(str, side)) for side in (self.tile, self.overlap))
        within = "" if self.limit_bytes is None else f" of {mebibytes(self.limit_bytes)}"
        many = f"{self.tiles} tile{'s' if self.tiles > 1 else ''} of {tile}"
        often = f", {self.passes} times" if self.passes > 1 else ""
        more = "".join(
            f"; then {other.tiles} of {'x'.join(map(str, other.tile))}" for other in self.others
        )
        return (
            f"{many} voxels{often}, overlap {overlap}, {self.precision}, "
            f"accumulator {self.accumulator}{more}; "
            f"peak predicted {mebibytes(self.predicted_bytes)}{within}"
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return asdict(self)


def plan_case(
    size: Sequence[int],
    predictor: Predictor,
    *,
    limit: int | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    batch: int | None = None,
    precisions: Sequence[str] = ("fp32",),
    later_bytes: int = 0,
    beside_bytes: int = 0,
) -> InferencePlan:
    """Lay out how a case is predicted, in as large tiles as memory allows.

    The first that fits is taken: the precisions as given, for each the tiles from the longest side
    to the shortest, for each the accumulator in float32 and in float16.

    Args:
        size: (x, y, z) of the prepared images.
        limit: bytes that must not be exceeded; None takes the first choice.
        tile: the longest side there may be, voxels of the model.
        overlap: of neighbouring tiles; half of the tile when None.
        batch: tiles (slices of a 2D network) at a time.
        precisions: fp32, bf16, the preferred one first.
        later_bytes: what comes on top of the accumulator when results are written.
        beside_bytes: what is held beside it while the network runs.

    Raises:
        InputError: nothing fits; the message says what the least would take.
    """
    smallest: int | None = None
    for precision in precisions:
        each = tile_bytes(predictor, precision)
        release()
        on_cpu = predictor.device.type == "cpu"
        held = resident() if on_cpu else torch.cuda.memory_allocated(predictor.device)
        for sides, together in _tiles(size, predictor.ndim, predictor.multiple, tile, batch):
            laid, shared = lay(size, sides, overlap, predictor.ndim)
            working = held + RESERVE + beside_bytes + math.ceil(together * math.prod(sides) * each)
            for accumulator in ACCUMULATORS:
                needed = working
                if on_cpu:
                    kept = len(REGIONS) * math.prod(size) * np.dtype(accumulator).itemsize
                    # The band and the rows that leave it, for a moment as much again.
                    blending = kept + 2 * windows.band_bytes(laid, len(REGIONS))
                    needed = max(working + blending, held + kept + later_bytes, peak())
                smallest = min(needed, smallest or needed)
                if limit is None or needed <= limit:
                    return InferencePlan(
                        tile=sides,
                        overlap=shared,
                        batch=together,
                        tiles=len(laid),
                        precision=precision,
                        accumulator=accumulator,
                        predicted_bytes=needed,
                        limit_bytes=limit,
                    )
    assert smallest is not None
    assert limit is not None
    raise refusal(limit, smallest)


def refusal(limit: int, least: int) -> InputError:
    """That nothing fits."""
    return InputError(
        f"--max-memory {mebibytes(limit)}: this case takes {mebibytes(least)} at the least; allow "
        "more or give a smaller image"
    )


def loading_bytes(voxels: int) -> int:
    """An estimate of what reading and preparing four images takes.

    Args:
        voxels: of one image.
    """
    return LOADING * voxels


def writing_bytes(voxels: int, *, probabilities: bool) -> int:
    """An estimate of what bringing results to the input grid and writing them takes.

    Args:
        voxels: of the input grid.
        probabilities: whether those are written too.
    """
    return voxels * sum(WRITING.values()) if probabilities else voxels * WRITING["labels"]


def lay(
    size: Sequence[int], tile: Sequence[int], overlap: int | None, ndim: int
) -> tuple[windows.Plan, tuple[int, int, int]]:
    """Tiles over a volume, and what neighbours share along each axis (0 along one of one tile)."""
    shared = []
    for axis, (length, side) in enumerate(zip(size, tile, strict=True)):
        alone = length <= side or (ndim == 2 and axis == 2)
        shared.append(0 if alone else min(side // 2 if overlap is None else overlap, side - 1))
    x, y, z = shared
    return windows.plan(size, tuple(tile), shared, placement="even"), (x, y, z)


def _tiles(
    size: Sequence[int], ndim: int, multiple: int, longest: int | None, batch: int | None
) -> Iterator[tuple[tuple[int, int, int], int]]:
    """Shapes of tiles and how many together, the preferred first.

    A 2D network's tile holds several slices, of which it makes its batch.
    """
    first = longest or LONGEST[ndim]
    step = max(multiple, 16)
    sides = [first, *range((first - 1) // step * step, SHORTEST[ndim] - 1, -step)]
    seen = set()
    for longest_side in sides:
        x, y, z = (min(longest_side, math.ceil(s / multiple) * multiple) for s in size)
        many = batch or (8 if ndim == 2 else 1)
        while many:
            tile = (x, y, z) if ndim == 3 else (x, y, min(many, size[2]))
            together = many if ndim == 3 else 1
            if (tile, together) not in seen:
                seen.add((tile, together))
                yield tile, together
            many //= 2


def tile_bytes(predictor: Predictor, precision: str) -> float:
    """Bytes for each voxel of a tile while a network predicts it.

    On the CPU the tensors alive are counted, and those that convolutions make inside: they bring
    images into an order of their own and back. On CUDA the allocator tells.
    """
    shape = (1, len(predictor.config.modalities), *PROBE[predictor.ndim])
    before, flips = predictor.dtype, predictor.flips
    predictor.dtype = DTYPES[precision]
    predictor.flips = flips[:2]  # those after take the same
    tiles = torch.zeros(shape, device=predictor.device)
    try:
        with torch.no_grad(), predictor.autocast():
            if predictor.device.type == "cuda":
                taken = _allocated(lambda: predictor.probabilities(tiles), predictor.device)
            else:
                with _Working(tiles) as working:
                    predictor.probabilities(tiles)
                taken = working.peak
    finally:
        predictor.dtype, predictor.flips = before, flips
    return taken / math.prod(PROBE[predictor.ndim]) + COPIES


def _allocated(call: Callable[[], object], device: torch.device) -> int:
    call()  # libraries choose their algorithms, and take their space, in the first
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    return torch.cuda.max_memory_allocated(device) - before


class _Working(TorchDispatchMode):
    """Adds up storages alive, and at convolutions what they hold besides."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._alive: dict[int, int] = {}
        self._now = self.peak = 0
        self._add(images)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True, the default, imports the compiler at the first operation: 195 MiB

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        if func.overloadpacket is torch.ops.aten.convolution:
            image, weight = args[0], args[1]
            # Measured: 1x1x1 in float32 is a plain product; a depthwise 3x3x3 of 32 channels held
            # 96 channels more than its input and output, a full one of 16 held 32.
            if image.dtype != torch.float32 or math.prod(weight.shape[2:]) > 1:
                inside = _bytes(image) + 2 * _bytes(output)
                self.peak = max(self.peak, self._now + inside)
        return output

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._alive:
            self._alive[key] = storage.nbytes()
            self._now += self._alive[key]
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self._now -= self._alive.pop(key)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
