# SPDX-License-Identifier: Apache-2.0
"""A case made ready for a network: what is asked, what was read, what a user should know of it."""

import contextlib
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fieldfare.common.errors import InputError

from ..data.cases import Case
from ..data.doubts import doubts
from ..data.loading import load, look
from ..data.preparation import Prepared, outline, prepare
from ..volumes.formats import read_shape
from ..volumes.images import Volume
from . import memory, planning
from .postprocessing import check_steps
from .predict import Predictor


@dataclass(frozen=True)
class InferSettings:
    """What the result depends on, besides case and model.

    Attributes:
        labels: scheme of the labels written.
        threshold: probability from which a voxel belongs to a region.
        postprocess: names of `postprocessing.STEPS`, with commas between.
        resample_to: modality on whose grid differing images are put.
        allow_missing: do without missing modalities.
        force: take heads that are not stripped of their skull.
        max_memory: bytes to plan for, None for no limit.
        tile, overlap, batch: as for `planning.plan_case`.
        precision: auto, fp32 or bf16; auto may go down to bf16 where memory asks for it.
    """

    labels: str = "brats2023"
    threshold: float = 0.5
    postprocess: str = "none"
    resample_to: str | None = None
    allow_missing: bool = False
    force: bool = False
    max_memory: int | None = None
    tile: int | None = None
    overlap: int | None = None
    batch: int | None = None
    precision: str = "auto"

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise InputError(f"--threshold {self.threshold}: must lie between 0 and 1")
        check_steps(self.postprocess)
        if self.overlap is not None and self.tile is not None and self.overlap >= self.tile:
            raise InputError(f"--overlap {self.overlap}: must be below --tile {self.tile}")


@dataclass(frozen=True, eq=False)
class Job:
    """A case made ready.

    Attributes:
        case: its files.
        prepared: the brain as the network sees it.
        others: the same as each further network of an ensemble sees it.
        reference: the input grid; its data are a stand-in without memory.
        images: (4, X, Y, Z) on the input grid in the files' units, where they were to be kept.
        notes: what a user should know, a sentence each.
    """

    case: Case
    prepared: Prepared
    others: tuple[Prepared, ...]
    reference: Volume
    images: NDArray[np.float32] | None
    notes: list[str]


def open_case(
    case: Case, settings: InferSettings, predictor: Predictor, *, keep_images: bool = False
) -> Job:
    """Read, check and prepare a case.

    Args:
        keep_images: for a report; costs 16 bytes a voxel.

    Raises:
        InputError: whatever is wrong with the case, a modality missing that the model cannot do
            without, or a case that `settings.max_memory` cannot hold.
    """
    _check_missing(case, settings, predictor)
    if settings.max_memory is not None:
        memory.return_freed_at_once()
        needed = memory.resident() + planning.loading_bytes(voxels_of(case))
        if needed > settings.max_memory:
            raise planning.refusal(settings.max_memory, needed)
    loaded = load(
        case,
        resample_to=settings.resample_to,
        allow_missing=settings.allow_missing,
        force=settings.force,
    )
    reference = loaded.reference
    views: dict[tuple[float, int], Prepared] = {}
    for one in (predictor, *predictor.others):
        key = (one.config.spacing, one.ndim)
        if key not in views:
            views[key] = prepare(loaded.images, reference.affine, key[0], ndim=key[1])
    prepared, *others = (views[p.config.spacing, p.ndim] for p in (predictor, *predictor.others))
    stand_in = np.broadcast_to(np.uint8(0), reference.data.shape)
    return Job(
        case,
        prepared,
        tuple(others),
        replace(reference, data=stand_in),
        loaded.images if keep_images else None,
        [*loaded.notes, *doubts(prepared, case.missing)],
    )


def outline_case(case: Case, settings: InferSettings, predictor: Predictor) -> Job:
    """As `open_case`, by the headers alone: a brain that fills the images, which is the most.

    Raises:
        InputError: whatever the headers tell is wrong with the case.
    """
    _check_missing(case, settings, predictor)
    reference, notes = look(
        case, resample_to=settings.resample_to, allow_missing=settings.allow_missing
    )
    x, y, z = reference.data.shape
    prepared, *others = (
        outline((x, y, z), reference.affine, one.config.spacing, ndim=one.ndim)
        for one in (predictor, *predictor.others)
    )
    return Job(case, prepared, tuple(others), reference, None, notes)


def _check_missing(case: Case, settings: InferSettings, predictor: Predictor) -> None:
    if case.missing and settings.allow_missing and not predictor.config.modality_dropout:
        raise InputError(
            f"--allow-missing: {case.name} lacks {', '.join(case.missing)} and the model was not "
            "trained with modalities left out; give them or choose another model"
        )


def voxels_of(case: Case) -> int:
    """Of the largest image, by the headers; 0 where they cannot be read: `load` says why."""
    most = 0
    for path in set(case.files.values()):
        with contextlib.suppress(InputError):
            most = max(most, math.prod(read_shape(path)[:3]))
    return most
