# SPDX-License-Identifier: Apache-2.0
"""From a case to labels: load, prepare, plan, predict, bring back to the input grid, write."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldfare.common import windows
from fieldfare.common.errors import InputError, RunError

from .. import __version__
from ..data.cases import Case
from ..data.doubts import doubts
from ..data.loading import load
from ..data.preparation import Prepared, nest, prepare, slabs, to_input_grid
from ..data.regions import (
    POSTPROCESSING,
    REGIONS,
    region_labels,
    replace_small_et,
    to_labels,
    write_labels,
)
from ..volumes.formats import read_shape
from ..volumes.images import Volume, write_like
from . import memory, planning
from .planning import InferencePlan
from .predict import Predictor

SMALL_ET_MM3 = 200.0
"""Of `replace-small-et`: 200 voxels of the BraTS grid, on any grid."""


@dataclass(frozen=True)
class InferSettings:
    """What the result depends on, besides case and model.

    Attributes:
        labels: scheme of the labels written.
        threshold: probability from which a voxel belongs to a region.
        postprocess: a name of `regions.POSTPROCESSING`.
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
        if self.overlap is not None and self.tile is not None and self.overlap >= self.tile:
            raise InputError(f"--overlap {self.overlap}: must be below --tile {self.tile}")


@dataclass(frozen=True, eq=False)
class Job:
    """A case made ready.

    Attributes:
        case: its files.
        prepared: the brain as the network sees it.
        reference: the input grid; its data are a stand-in without memory.
        images: (4, X, Y, Z) on the input grid in the files' units, where they were to be kept.
        notes: what a user should know, a sentence each.
    """

    case: Case
    prepared: Prepared
    reference: Volume
    images: NDArray[np.float32] | None
    notes: list[str]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labels of a case on its input grid.

    Attributes:
        labels: (X, Y, Z) uint8 in `scheme`.
        probabilities: (3, X, Y, Z) float32 of WT, TC, ET, where they were asked for.
        reference: the grid.
        seconds: that prediction took, without reading and writing.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None
    reference: Volume
    scheme: str
    plan: InferencePlan
    seconds: float


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
    if case.missing and settings.allow_missing and not predictor.config.modality_dropout:
        raise InputError(
            f"--allow-missing: {case.name} lacks {', '.join(case.missing)} and the model was not "
            "trained with modalities left out; give them or choose another model"
        )
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
    config, reference = predictor.config, loaded.reference
    prepared = prepare(loaded.images, reference.affine, config.spacing, ndim=predictor.ndim)
    stand_in = np.broadcast_to(np.uint8(0), reference.data.shape)
    return Job(
        case,
        prepared,
        replace(reference, data=stand_in),
        loaded.images if keep_images else None,
        [*loaded.notes, *doubts(prepared, case.missing)],
    )


def voxels_of(case: Case) -> int:
    """Of the largest image, by the headers; 0 where they cannot be read: `load` says why."""
    most = 0
    for path in set(case.files.values()):
        with contextlib.suppress(InputError):
            most = max(most, math.prod(read_shape(path)[:3]))
    return most


def plan(
    job: Job, settings: InferSettings, predictor: Predictor, *, probabilities: bool = False
) -> InferencePlan:
    """Choose tiles, accumulator and precision for a case, see `planning.plan_case`.

    Raises:
        InputError: nothing fits into `settings.max_memory`.
    """
    preferred = "fp32" if predictor.dtype == planning.DTYPES["fp32"] else "bf16"
    trained = predictor.config.patch if predictor.ndim == 3 else ()
    lower = preferred == "fp32" and settings.precision == "auto"
    return planning.plan_case(
        job.prepared.images.shape[1:],
        predictor,
        limit=settings.max_memory,
        tile=settings.tile or max(trained, default=None),
        overlap=settings.overlap,
        batch=settings.batch,
        precisions=(preferred, "bf16") if lower else (preferred,),
        later_bytes=planning.writing_bytes(
            math.prod(job.reference.data.shape), probabilities=probabilities
        ),
    )


def predict(
    prepared: Prepared,
    predictor: Predictor,
    plan: InferencePlan,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.floating]:
    """Predict a prepared brain tile by tile, blended with Gaussian weights.

    What lies beyond the brain's box counts as 0, as it does in the images, and tiles without any
    of the brain are not predicted.

    Returns:
        Nested probabilities of WT, TC, ET, (3, x, y, z) in the accumulator of the plan.

    Raises:
        RunError: the network gives NaN.
    """
    images = prepared.images
    size = images.shape[1:]
    tiles, _ = planning.lay(size, plan.tile, max(plan.overlap), predictor.ndim)
    predictor.dtype = planning.DTYPES[plan.precision]
    result = np.empty((len(REGIONS), *size), plan.accumulator)

    def read(start: tuple[int, ...]) -> NDArray[np.float32] | None:
        inside = tuple(
            slice(first, first + side) for first, side in zip(start, plan.tile, strict=True)
        )
        part = images[(slice(None), *inside)]
        if not part.any():
            return None
        tile = np.zeros((len(images), *plan.tile), np.float32)
        tile[(slice(None), *(slice(0, length) for length in part.shape[1:]))] = part
        return tile

    def write(row: int, block: NDArray[np.float32]) -> None:
        if not np.isfinite(block).all():
            raise RunError("the network gave NaN for finite images; its weights are damaged")
        result[:, row : row + block.shape[1]] = block

    windows.stream(
        read,
        predictor,
        write,
        tiles,
        channels=len(REGIONS),
        batch=plan.batch,
        progress=progress,
    )
    nest(result)
    return result


def segment(
    job: Job,
    settings: InferSettings,
    predictor: Predictor,
    plan: InferencePlan,
    *,
    probabilities: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Segmentation:
    """Segment a case.

    Probabilities are interpolated onto the input grid some rows at a time and thresholded there.

    Args:
        plan: of the function `plan`.
        probabilities: whether to keep them, which costs 12 bytes a voxel.
        progress: (tiles done, in all).
    """
    began = time.perf_counter()
    prepared = job.prepared
    predicted = predict(prepared, predictor, plan, progress=progress)
    labels = np.zeros(prepared.mask.shape, np.uint8)
    kept = np.zeros((len(REGIONS), *labels.shape), np.float32) if probabilities else None
    for rows, part in slabs(prepared, predicted):
        labels[rows] = to_labels(part >= settings.threshold, settings.labels)
        if kept is not None:
            kept[:, rows] = part
    del predicted
    labels = postprocess(labels, settings, math.prod(job.reference.spacing))
    return Segmentation(
        labels=to_input_grid(prepared, labels),
        probabilities=None if kept is None else to_input_grid(prepared, kept),
        reference=job.reference,
        scheme=settings.labels,
        plan=plan,
        seconds=time.perf_counter() - began,
    )


def postprocess(
    labels: NDArray[np.uint8], settings: InferSettings, voxel_mm3: float
) -> NDArray[np.uint8]:
    """Apply a step of `regions.POSTPROCESSING` by name, thresholds in mm^3 on any grid."""
    if settings.postprocess == "replace-small-et":
        least = math.ceil(SMALL_ET_MM3 / voxel_mm3)
        return replace_small_et(labels, settings.labels, voxels=least)
    return POSTPROCESSING[settings.postprocess](labels, settings.labels)


def segment_case(
    case: Case,
    predictor: Predictor,
    settings: InferSettings = InferSettings(),
    *,
    probabilities: bool = False,
) -> Segmentation:
    """Everything from files to labels in one call.

    Raises:
        InputError: what `open_case` and `plan` refuse.
    """
    job = open_case(case, settings, predictor)
    chosen = plan(job, settings, predictor, probabilities=probabilities)
    return segment(job, settings, predictor, chosen, probabilities=probabilities)


def write(
    path: Path,
    result: Segmentation,
    *,
    probability: Path | None = None,
    sidecar: Path | None = None,
    **details: Any,
) -> list[Path]:
    """Write labels on the input grid, the JSON file that says what they mean, and probabilities.

    Args:
        path: .nii.gz, .nii or .nrrd.
        probability: .nii.gz or .nii, 4D: WT, TC, ET.
        details: what else the JSON file shall record.

    Returns:
        The files written.
    """
    about = {"software": f"fieldfare-medical {__version__}", "medical_device": False, **details}
    written = write_labels(path, result.labels, result.reference, result.scheme, **about)
    if probability is not None and result.probabilities is not None:
        write_like(probability, result.probabilities, result.reference, dtype=np.float32)
        written.append(probability)
    return written


def volumes_ml(result: Segmentation) -> dict[str, float]:
    """Volume of each region, ml."""
    voxel = math.prod(result.reference.spacing) / 1000
    counts = np.bincount(result.labels.ravel(), minlength=8)
    return {
        name: float(sum(counts[label] for label in labels) * voxel)
        for name, labels in region_labels(result.scheme).items()
    }
