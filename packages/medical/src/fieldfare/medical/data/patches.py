# SPDX-License-Identifier: Apache-2.0
"""Training data: cases made ready once, and random patches of them, augmented."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fieldfare.common.errors import InputError
from fieldfare.common.files import atomic_path
from fieldfare.common.progress import Progress
from fieldfare.common.training import Draw

from ..volumes.images import geometry_differences, read_labels, to_canonical, turn_like
from ..volumes.resampling import resample_axes
from .augmentation import (
    MARGIN,
    Augmentation,
    change_looks,
    draw_flips,
    draw_plane,
    modality_dropout,
    warp_plane,
)
from .loading import load
from .naming import MODALITIES
from .preparation import Prepared, prepare
from .regions import to_regions
from .table import LabelledCase

VERSION = 2
"""Of what `cache_cases` writes: files of another one are made anew."""

SHIFT = 0.25
"""A voxel that a patch is laid around lies up to this share of its side off the middle."""


class Sample(NamedTuple):
    """A case at the network's spacing, cut to the brain.

    Attributes:
        image: (M, X, Y, Z) float16, z-scored, 0 outside the brain and for a missing modality.
        depth: (X, Y, Z) uint8, 0 outside the tumour, 1 in WT only, 2 in TC too, 3 in ET too.
    """

    image: NDArray[np.float16]
    depth: NDArray[np.uint8]


class InputConfig(Protocol):
    """What a network's configuration says of its input.

    Attributes:
        ndim: 3 for volumes, 2 for axial slices.
        modalities: in this order.
        spacing: of the grid the network works on, mm along every axis.
    """

    @property
    def ndim(self) -> int: ...
    @property
    def modalities(self) -> tuple[str, ...]: ...
    @property
    def spacing(self) -> float: ...


@dataclass(frozen=True)
class CachedCase:
    """Where a case lies ready: two .npy files that are read as far as a patch needs.

    Attributes:
        name: of the case.
        image, depth: files of what `Sample` holds.
    """

    name: str
    image: Path
    depth: Path

    def open(self) -> Sample:
        """Both arrays, mapped from disk."""
        return Sample(np.load(self.image, mmap_mode="r"), np.load(self.depth, mmap_mode="r"))


def load_sample(case: LabelledCase, config: InputConfig, *, force: bool = False) -> Sample:
    """Read a case and make it ready as inference does.

    Args:
        force: take heads that are not stripped of their skull.

    Raises:
        InputError: images that `loading.load` refuses; labels that are no whole numbers, outside
            the scheme, or on another grid than the images.
    """
    loaded = load(case.images, allow_missing=True, force=force)
    labels = turn_like(read_labels(case.labels), loaded.reference)
    affine = loaded.reference.affine
    if differences := geometry_differences(labels, loaded.reference):
        raise InputError(
            f"{case.labels}: is not on the grid of the images ({'; '.join(differences)}); "
            "resample the labels to the images first"
        )
    regions = to_regions(labels.data, case.scheme, case.labels)
    prepared = prepare(loaded.images, affine, config.spacing, ndim=config.ndim)
    return sample_of(prepared, regions, config)


def sample_of(prepared: Prepared, regions: NDArray[np.bool_], config: InputConfig) -> Sample:
    """A sample of a prepared case and its regions (3, X, Y, Z) on the grid as it was given."""
    channels = [MODALITIES.index(name) for name in config.modalities]
    inside = to_canonical(regions, prepared.affine)[:, *prepared.box].astype(np.float32)
    depth = (resample_axes(inside, prepared.images.shape[1:]) >= 0.5).sum(axis=0, dtype=np.uint8)
    return Sample(prepared.images[channels].astype(np.float16), depth)


def cache_cases(
    cases: Sequence[LabelledCase],
    config: InputConfig,
    folder: Path,
    *,
    force: bool = False,
    quiet: bool = False,
) -> list[CachedCase]:
    """Make cases ready in a folder; what lies there already of the very same files is kept.

    Raises:
        InputError: see `load_sample`.
    """
    found = []
    with Progress("prepare", len(cases), unit="case", quiet=quiet) as progress:
        for number, case in enumerate(cases, 1):
            stem = f"{case.images.name}-{_digest(case, config, force)}"
            cached = CachedCase(
                case.images.name, folder / f"{stem}.image.npy", folder / f"{stem}.depth.npy"
            )
            if not (cached.image.exists() and cached.depth.exists()):
                sample = load_sample(case, config, force=force)
                folder.mkdir(parents=True, exist_ok=True)
                _save(cached.image, sample.image)
                _save(cached.depth, sample.depth)
            found.append(cached)
            progress.update(number)
    return found


def _save(path: Path, array: NDArray[Any]) -> None:
    with atomic_path(path) as temporary:
        np.save(temporary, array)


def _digest(case: LabelledCase, config: InputConfig, force: bool) -> str:
    """Of all that the cached case depends on; a changed file is known by size and time."""
    files = [*sorted(case.images.files.items()), ("seg", case.labels)]
    states = [(path.stat().st_size, path.stat().st_mtime_ns) for _, path in files]
    paths = [(name, str(path.resolve())) for name, path in files]
    # What was refused once must not be found ready because it was forced in another run.
    network = [config.spacing, config.ndim, list(config.modalities), *["forced"] * force]
    text = json.dumps([VERSION, paths, states, case.scheme, network])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class DataSettings:
    """What is drawn, and how its error is counted.

    Attributes:
        size: voxels along X, Y, Z, or along X, Y for a network of axial slices.
        foreground: share of the patches that are laid around a voxel of the tumour: of oedema,
            core or enhancing tumour, each as often as the others where the case has it.
        modality_dropout: share of the patches that lack some of their modalities.
        augmentation: how patches are changed.
        region_weights: of the regions in the loss, in the order of the network's maps.
    """

    size: tuple[int, ...] = (64, 64, 64)
    foreground: float = 0.67
    modality_dropout: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    region_weights: tuple[float, ...] = (1.0, 1.0, 1.0)


class PatchDataset(Dataset[dict[str, Tensor]]):
    """Random patches, augmented: one of each case in an epoch.

    Indexed with a `Draw`; everything random comes from it. A sample holds `image`, (M, *size)
    float32, and `depth`, (*size) uint8, as `Sample` has them. Where a case is smaller than the
    patch it is continued with zeros.
    """

    def __init__(self, cases: Sequence[CachedCase], settings: DataSettings) -> None:
        if not cases:
            raise InputError("the table has no case in the split train")
        self.cases, self.settings = list(cases), settings

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        return cut_patch(self.cases[draw.index].open(), self.settings, draw.rng())


def cut_patch(
    sample: Sample, settings: DataSettings, rng: np.random.Generator
) -> dict[str, Tensor]:
    """A random patch, augmented, as `PatchDataset` gives it."""
    flat = len(settings.size) == 2
    size = (*settings.size, 1) if flat else settings.size
    start = _place(sample.depth, size, settings.foreground, rng)
    plane = draw_plane(rng, settings.augmentation, len(settings.size))
    image, depth = _cut(sample, start, size, plane)
    if plane:
        inner = (size[plane[0]], size[plane[1]])
        image, depth = warp_plane(image, depth, plane, inner, rng, settings.augmentation)
    if flips := draw_flips(rng, len(settings.size), settings.augmentation.flip):
        if flat:
            flips = tuple(axis - 1 for axis in flips)
        image, depth = image.flip(flips), depth.flip(flips)
    if flat:
        image, depth = image[..., 0], depth[..., 0]
    image = change_looks(image.contiguous(), rng, settings.augmentation)
    modality_dropout(image, rng, settings.modality_dropout)
    return {"image": image, "depth": depth.contiguous()}


def _place(
    depth: NDArray[np.uint8], size: Sequence[int], foreground: float, rng: np.random.Generator
) -> list[int]:
    """First voxel of a patch along each axis, inside the case as far as it is large enough."""
    ranges = [
        (min(0, length - side), max(0, length - side))
        for length, side in zip(depth.shape, size, strict=True)
    ]
    if rng.random() < foreground:
        depth = np.asarray(depth)
        present = np.flatnonzero(np.bincount(depth.ravel(), minlength=4)[1:]) + 1
        if present.size:
            voxels = np.flatnonzero(depth == rng.choice(present))
            voxel = np.unravel_index(int(rng.choice(voxels)), depth.shape)
            start = []
            for index, side, (low, high) in zip(voxel, size, ranges, strict=True):
                shift = int(rng.integers(-int(SHIFT * side), int(SHIFT * side) + 1))
                start.append(min(max(int(index) - side // 2 + shift, low), high))
            return start
    return [int(rng.integers(low, high + 1)) for low, high in ranges]


def _cut(
    sample: Sample, start: Sequence[int], size: Sequence[int], plane: tuple[int, int] | None
) -> tuple[Tensor, Tensor]:
    """The patch with zeros beyond the case; with room around it in the plane of a warp."""
    margins = [int(MARGIN * size[axis]) if plane and axis in plane else 0 for axis in range(3)]
    outer = [side + 2 * margin for side, margin in zip(size, margins, strict=True)]
    image = torch.zeros((len(sample.image), *outer))
    depth = torch.zeros(tuple(outer), dtype=torch.uint8)
    source, target = [], []
    for first, margin, side, length in zip(start, margins, outer, sample.depth.shape, strict=True):
        low, high = max(0, first - margin), min(length, first - margin + side)
        source.append(slice(low, high))
        target.append(slice(low - first + margin, high - first + margin))
    image.numpy()[:, *target] = sample.image[:, *source]
    depth.numpy()[*target] = sample.depth[*source]
    return image, depth
