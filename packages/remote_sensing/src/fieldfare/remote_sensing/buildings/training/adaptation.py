# SPDX-License-Identifier: Apache-2.0
"""From large noisy labels to small clean ones: fine-tuning, its rivals, and what it changed.

Neupane, Aryal and Rajabifard (arXiv 2311.03867; Remote Sens. 2025, 17(7) 1251, doi
10.3390/rs17071251): a network trained on many misaligned labels goes on with few aligned ones. The
rivals: knowledge distillation and deep mutual learning. The noisy stage is `training.train`.
"""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from affine import Affine
from scipy import ndimage

from fieldfare.common.errors import InputError
from fieldfare.common.training import TrainSettings, fit

from ...weights.digest import digest
from ..data.table import LabelledScene
from ..evaluation.label_shift import outlines, predicted_mask
from ..evaluation.metrics import ratio
from ..evaluation.objects import SIZE_EDGES, object_scores
from ..networks.building_network import BuildingNetwork, NetworkConfig
from .imitation import Distillation, MutualLearning, Pair
from .run import DataSettings, initial_weights, train, validation

METHODS = ("finetune", "distillation", "mutual")


@dataclasses.dataclass(frozen=True)
class AdaptSettings:
    """How the clean stage goes.

    Attributes:
        method: one of `METHODS`.
        student: of distillation: the network to be trained; like the noisy one when None.
        encoder_weights: start of the fresh network, see `initial_weights`; distillation and mutual.
        temperature: of distillation, above 0; the higher, the softer the predictions.
        teacher_weight: share of the teacher in the loss of distillation, 0 to 1; the labels have
            the rest.
    """

    method: str = "finetune"
    student: NetworkConfig | None = None
    encoder_weights: str = "none"
    temperature: float = 2.0
    teacher_weight: float = 0.5

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method {self.method!r} must be one of {', '.join(METHODS)}")
        if self.student is not None and self.method != "distillation":
            raise InputError("only distillation takes a student of another kind")
        if self.temperature <= 0:
            raise InputError(f"temperature {self.temperature}: must be above 0")
        if not 0 <= self.teacher_weight <= 1:
            raise InputError(f"teacher weight {self.teacher_weight}: must lie between 0 and 1")


def adapt_clean(
    noisy: BuildingNetwork,
    scenes: Sequence[LabelledScene],
    adaptation: AdaptSettings,
    settings: TrainSettings,
    data: DataSettings,
    folder: Path,
    *,
    quiet: bool = False,
) -> BuildingNetwork:
    """The clean stage: from a network trained on noisy labels to one that has seen clean ones.

    - `finetune` goes on with the noisy network's weights.
    - `distillation` trains a fresh student on the labels and on the noisy network's predictions.
    - `mutual` goes on with the noisy network's weights beside a fresh network of the same kind;
      each learns from the labels and from the other, and the former is the result.

    Args:
        noisy: trained on noisy labels; not changed.
        scenes: with clean labels; those of the split val are only measured.
        folder: as of `train`; an interrupted run goes on from there.

    Returns:
        The network with averaged weights.

    Raises:
        InputError: a student that does not see or give what the noisy network does.
    """
    method = adaptation.method
    if method == "finetune":
        return train(
            noisy.config, scenes, settings, data, folder, start=noisy.state_dict(), quiet=quiet
        )
    config = adaptation.student or noisy.config
    _check_student(config, noisy.config)
    dataset = data.patches(scenes, config)
    kept = [dataclasses.asdict(adaptation), dataclasses.asdict(data), config.to_dict()]
    seen = [scene.identity for scene in scenes]
    identity = json.dumps([*kept, seen, noisy.config.to_dict(), digest(noisy.state_dict())])
    settings = dataclasses.replace(settings, identity=identity)
    torch.manual_seed(settings.seed)
    fresh = BuildingNetwork(config)
    initial_weights(fresh, adaptation.encoder_weights)
    fresh.to(memory_format=torch.channels_last)
    supervision = data.supervision(config)
    measure = validation(scenes, config.gsd)
    if method == "distillation":
        teacher = _copy(noisy)
        objective = Distillation(
            teacher,
            supervision,
            config.outputs,
            temperature=adaptation.temperature,
            teacher_weight=adaptation.teacher_weight,
            precision=settings.precision,
        )
        return fit(fresh, dataset, objective, settings, folder, validate=measure, quiet=quiet)
    pair = fit(
        Pair(_copy(noisy), fresh),
        dataset,
        MutualLearning(supervision),
        settings,
        folder,
        validate=(lambda pair: measure(pair.first)) if measure else None,
        quiet=quiet,
    )
    return pair.first


def _copy(network: BuildingNetwork) -> BuildingNetwork:
    same = BuildingNetwork(network.config)
    same.load_state_dict(network.state_dict())
    return same.to(memory_format=torch.channels_last)


def _check_student(student: NetworkConfig, teacher: NetworkConfig) -> None:
    for name in ("in_channels", "gsd"):
        wanted, given = getattr(teacher, name), getattr(student, name)
        if wanted != given:
            raise InputError(f"student: {name} is {given}, that of the noisy model {wanted}")
    if "pem" in (student.architecture, teacher.architecture):
        raise InputError("pem learns no other network's maps; --method finetune goes on with it")
    missing = set(student.outputs) - set(teacher.outputs)
    if missing:
        raise InputError(f"student: the noisy model gives no {', '.join(sorted(missing))}")


def size_report(
    before: BuildingNetwork,
    after: BuildingNetwork,
    scenes: Sequence[LabelledScene],
    *,
    min_area: float = 5.0,
) -> list[dict[str, Any]]:
    """What adaptation changed, by building size, at each network's pixel size.

    Objects are connected regions of pixels with a probability above 0.5, matched with buildings as
    in `objects`. In `iou`, of pixels, those wrongly seen as building count in the bin of the
    nearest building, so that the counts of all bins add up to those of the whole.

    Args:
        min_area: smaller buildings and objects do not count, except in `iou`, m2.

    Returns:
        One row a bin of `objects.SIZE_EDGES` and one for all: size_m2, buildings (number), and
        recall, f1 and iou, each with `_before` and `_after`; nan where there is nothing to count.
    """
    names = [f"{low:g}-{high:g}" for low, high in itertools.pairwise(SIZE_EDGES)]
    rows: list[dict[str, Any]] = [
        {"size_m2": name.replace("-inf", "+"), "buildings": 0} for name in (*names, "all")
    ]
    found = [scene_scores(network, scenes, min_area) for network in (before, after)]
    for row, *both in zip(rows, *found, strict=True):
        row["buildings"] = both[1]["truths"]
        for name in ("recall", "f1", "iou"):
            row[f"{name}_before"], row[f"{name}_after"] = (scores[name] for scores in both)
    return rows


def scene_scores(
    network: BuildingNetwork, scenes: Sequence[LabelledScene], min_area: float
) -> list[dict[str, float]]:
    """Number of buildings, recall, f1 and iou of each bin of `objects.SIZE_EDGES`, then of all.

    Args:
        min_area: smaller buildings are no objects, m2.
    """
    pixels = np.zeros((len(SIZE_EDGES) - 1, 3), np.int64)
    none = np.empty(0, object)
    objects = object_scores(none, none)
    for scene in scenes:
        window = scene.window
        seen, valid = predicted_mask(network, scene)
        place = (window.row_off, window.col_off, window.height, window.width)
        seen, numbers = seen & valid, scene.labels.instances(*place, seen.shape) * valid
        down = window.height * scene.gsd[1] / seen.shape[0]
        across = window.width * scene.gsd[0] / seen.shape[1]
        pixels += pixel_counts(seen, numbers, down * across)
        ground = Affine(across, 0, 0, 0, -down, 0)
        objects += object_scores(
            outlines(seen, ground), outlines(numbers, ground), min_area=min_area
        )
    total = objects.numbers()
    everything = (len(objects.true_areas), total["object_recall"], total["object_f1"])
    bins = [(one.truths, one.recall, one.f1) for one in objects.by_size()]
    return [
        {
            "truths": truths,
            "recall": recall,
            "f1": f1,
            "iou": ratio(int(count[0]), int(count.sum())),
        }
        for (truths, recall, f1), count in zip(
            [*bins, everything], [*pixels, pixels.sum(axis=0)], strict=True
        )
    ]


def pixel_counts(seen: np.ndarray, instances: np.ndarray, cell: float) -> np.ndarray:
    """Pixels by the size of their building, or of the nearest one where there is none.

    Without any building, by the size of the predicted region.

    Args:
        seen: (h, w) bool, predicted buildings.
        instances: (h, w) int, number of the true building, 0 for none.
        cell: m2 of a pixel.

    Returns:
        (bins of `objects.SIZE_EDGES`, 3) int64: rightly seen, missed, wrongly seen as building.
    """
    built = instances > 0
    regions = instances if built.any() else ndimage.label(seen)[0]
    bin_of = np.digitize(np.bincount(regions.ravel()) * cell, SIZE_EDGES[1:-1])
    nearest = ndimage.distance_transform_edt(
        regions == 0, return_distances=False, return_indices=True
    )
    bins = bin_of[regions[tuple(nearest)]]
    kinds = (built & seen, built & ~seen, ~built & seen)
    last = len(SIZE_EDGES) - 1
    return np.stack([np.bincount(bins[kind], minlength=last) for kind in kinds], axis=1)
