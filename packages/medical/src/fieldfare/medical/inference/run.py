# SPDX-License-Identifier: Apache-2.0
"""From a case to labels: load, prepare, plan, predict, bring back to the input grid, write."""

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldfare.common import windows
from fieldfare.common.errors import RunError
from fieldfare.common.trust.features import Array
from fieldfare.common.trust.knowledge import Judgement

from .. import __version__
from ..data.cases import Case
from ..data.preparation import Prepared, nest, slabs, to_input_grid
from ..data.regions import REGIONS, region_labels, to_labels, write_labels
from ..volumes.images import Volume, write_like
from ..volumes.resampling import resample_axes
from . import guard, planning
from .job import InferSettings, Job, open_case, outline_case
from .planning import InferencePlan
from .postprocessing import check_steps, keep_certain, mend, threshold_of
from .predict import Predictor
from .trust import Observer, judge, layers_of, signs_of

__all__ = [
    "InferSettings",
    "Job",
    "Segmentation",
    "open_case",
    "outline_case",
    "plan",
    "plan_one",
    "predict",
    "predict_together",
    "segment",
    "segment_case",
    "volumes_ml",
    "write",
]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labels of a case on its input grid.

    Attributes:
        labels: (X, Y, Z) uint8 in `scheme`.
        probabilities: (3, X, Y, Z) float32 of WT, TC, ET, where they were asked for.
        reference: the grid.
        seconds: that prediction took, without reading and writing.
        judgement: how the case stands to what the network knows, where it says that.
        agreement: whether the answer holds for slightly changed images, where that was asked for.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None
    reference: Volume
    scheme: str
    plan: InferencePlan
    seconds: float
    judgement: Judgement | None = None
    agreement: guard.Agreement | None = None


def plan(
    job: Job, settings: InferSettings, predictor: Predictor, *, probabilities: bool = False
) -> InferencePlan:
    """Choose tiles, accumulator and precision for a case, see `planning.plan_case`.

    Of an ensemble every network has its plan; the memory predicted is the most of any.

    Raises:
        InputError: nothing fits into `settings.max_memory`.
    """
    views = zip((predictor, *predictor.others), (job.prepared, *job.others), strict=True)
    later = planning.writing_bytes(math.prod(job.reference.data.shape), probabilities=probabilities)
    first, *others = (plan_one(one, view, settings, later) for one, view in views)
    most = max(one.predicted_bytes for one in (first, *others))
    passes = 1 + (predictor.guard.neighbours if predictor.guard else 0)
    return replace(first, others=tuple(others), passes=passes, predicted_bytes=most)


def plan_one(
    predictor: Predictor, prepared: Prepared, settings: InferSettings, later_bytes: int
) -> InferencePlan:
    preferred = "fp32" if predictor.dtype == planning.DTYPES["fp32"] else "bf16"
    trained = predictor.config.patch if predictor.ndim == 3 else ()
    size = prepared.images.shape[1:]
    lower = preferred == "fp32" and settings.precision == "auto"
    return planning.plan_case(
        size,
        predictor,
        limit=settings.max_memory,
        tile=settings.tile or max(trained, default=None),
        overlap=settings.overlap,
        batch=settings.batch,
        precisions=(preferred, "bf16") if lower else (preferred,),
        later_bytes=later_bytes,
        beside_bytes=guard.ANSWER_BYTES * math.prod(size) if predictor.guard else 0,
    )


def predict_together(
    job: Job,
    predictor: Predictor,
    plan: InferencePlan,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[NDArray[np.floating], Judgement | None, guard.Agreement | None]:
    """The mean of the probabilities of all networks of an ensemble, as `predict` gives them.

    All are brought onto the grid of the first; they cover the same box.

    Returns:
        The mean; how the case stands to what the first network knows, None where it does not say;
        whether that network's answer holds for slightly changed images, None without a guard.
    """
    known, judgement, agreement = predictor.knowledge, None, None
    layers = known.layers if known else layers_of(predictor.config) if predictor.guard else ()
    done = 0

    def ask(prepared: Prepared) -> tuple[list[Array] | None, NDArray[np.floating]]:
        nonlocal done
        told, done = functools.partial(_after, progress, done), done + plan.tiles
        if not layers:
            return None, predict(prepared, predictor, plan, progress=told)
        with Observer(predictor, layers) as observer:
            found = predict(prepared, predictor, plan, progress=told, call=observer)
        return observer.features(), found

    features, result = ask(job.prepared)
    if known is not None:
        judgement = judge(known, features, signs_of(result, job.prepared.spacing))
    if predictor.guard is not None and features is not None:
        answers = guard.neighbours(job.prepared, (features, result), ask)
        agreement = guard.judge(predictor.guard, answers)
    others = zip(job.others, predictor.others, plan.others, strict=True)
    for number, (prepared, other, its) in enumerate(others, 2):
        part = predict(prepared, other, its, progress=functools.partial(_after, progress, done))
        done += its.tiles
        result += (resample_axes(part, result.shape[1:]) - result) / np.float32(number)
    nest(result)
    return result, judgement, agreement


def _after(progress: Callable[[int, int], None], before: int, done: int, total: int) -> None:
    """Progress after others that have done `before` tiles."""
    progress(before + done, total)


def predict(
    prepared: Prepared,
    predictor: Predictor,
    plan: InferencePlan,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    call: Callable[..., NDArray[np.float32]] | None = None,
) -> NDArray[np.floating]:
    """Predict a prepared brain tile by tile, blended with Gaussian weights.

    What lies beyond the brain's box counts as 0, as it does in the images, and tiles without any
    of the brain are not predicted.

    Args:
        call: instead of the predictor, of tiles as it, where more than its answer is wanted.

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
        call or predictor,
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
    steps = check_steps(settings.postprocess)
    threshold = threshold_of(steps, settings.threshold)
    predicted, judgement, agreement = predict_together(job, predictor, plan, progress=progress)
    keep_certain(predicted, steps, settings.threshold)
    labels = np.zeros(prepared.mask.shape, np.uint8)
    kept = np.zeros((len(REGIONS), *labels.shape), np.float32) if probabilities else None
    for rows, part in slabs(prepared, predicted):
        labels[rows] = to_labels(part >= threshold, settings.labels)
        if kept is not None:
            kept[:, rows] = part
    del predicted
    labels = mend(labels, steps, settings.labels, math.prod(job.reference.spacing))
    return Segmentation(
        labels=to_input_grid(prepared, labels),
        probabilities=None if kept is None else to_input_grid(prepared, kept),
        reference=job.reference,
        scheme=settings.labels,
        plan=plan,
        seconds=time.perf_counter() - began,
        judgement=judgement,
        agreement=agreement,
    )


def segment_case(
    case: Case,
    predictor: Predictor,
    settings: InferSettings | None = None,
    *,
    probabilities: bool = False,
) -> Segmentation:
    """Everything from files to labels in one call.

    Raises:
        InputError: what `open_case` and `plan` refuse.
    """
    settings = settings or InferSettings()
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
