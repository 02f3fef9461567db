# SPDX-License-Identifier: Apache-2.0
"""What `infer` takes with a variant: the first case is read, and one tile predicted on trial."""

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fieldfare.common.budget.process import held_bytes
from fieldfare.common.budget.variants import SUFFIX
from fieldfare.common.commands import budget
from fieldfare.common.commands.infer import seconds_of
from fieldfare.common.errors import InputError

from ..data.cases import Case
from ..inference import run as inference
from ..inference.job import voxels_of
from ..inference.planning import InferencePlan
from ..inference.predict import Predictor, load_predictor
from ..networks.models import TASK
from ..options import InferOptions

WRITING = 1.0
"""Times that bringing back to the input grid and writing take what reading and preparing do."""


@dataclass(frozen=True)
class Share:
    """A case that is read, and how many like it there are."""

    case: Case
    count: float


def within(
    cases: Sequence[Case],
    options: InferOptions,
    settings_of: Callable[[InferOptions], inference.InferSettings],
    *,
    workers: int | None,
) -> tuple[InferOptions, budget.Plan | None]:
    """The options of the best variant that fits.

    Only the first case is looked at; others count by their voxels. `--max-memory` chooses no
    variant: tiles and precision are planned for it whichever is taken.
    """
    limited = replace(options, max_memory=None)
    if not budget.asked(limited):
        if options.model.endswith(SUFFIX):
            raise InputError(
                f"--model {options.model}: holds several models; say which by --variant NAME, or "
                "by --within or --budget"
            )
        return options, None
    voxels = [voxels_of(case) for case in cases]
    count = sum(voxels) / max(1, voxels[0])
    each = count / (workers or 1)
    refusals: list[InputError] = []
    done: list[InferencePlan] = []
    jobs: dict[object, tuple[inference.Job, float]] = {}

    def opened(
        case: Case, settings: inference.InferSettings, predictor: Predictor
    ) -> tuple[inference.Job, float]:
        """The case as networks see it, and what reading took; once for all that see alike."""
        members = (predictor, *predictor.others)
        key = tuple((one.config.spacing, one.ndim) for one in members)
        if key not in jobs:
            began = time.perf_counter()
            job = inference.open_case(case, settings, predictor)
            jobs[key] = job, time.perf_counter() - began
        return jobs[key]

    def needs(chosen: InferOptions) -> budget.Needs[Share]:
        settings = replace(settings_of(chosen), max_memory=options.max_memory)
        predictor, _ = load_predictor(
            chosen.model,
            device=chosen.device,
            precision=chosen.precision,
            tta=chosen.tta,
            guarded=chosen.guard,
        )

        def memory(share: Share) -> int:
            plan = _outline(share.case, replace(settings, max_memory=None), predictor, chosen)
            return max(0, plan.predicted_bytes - held_bytes())

        def seconds(share: Share) -> float:
            job, reading = opened(share.case, settings, predictor)
            try:
                plan = inference.plan(job, settings, predictor, probabilities=_kept(chosen))
            except InputError as error:
                refusals.append(error)
                return math.inf
            done.append(plan)
            return share.count * ((1 + WRITING) * reading + predicting(predictor, plan))

        return budget.Needs(memory, seconds)

    try:
        found, planned = budget.within(
            TASK, limited, [Share(cases[0], max(1.0, each))], needs, workers=workers and 1
        )
    except InputError:
        if refusals and not done:
            raise refusals[-1] from None
        raise
    return replace(found, max_memory=options.max_memory), planned


def predicting(predictor: Predictor, plan: InferencePlan) -> float:
    """Seconds of all tiles of all networks, from one tile of each."""
    total = 0.0
    for one, its in zip((predictor, *predictor.others), (plan, *plan.others), strict=True):
        tile = np.zeros((its.batch, len(one.config.modalities), *its.tile), np.float32)
        calls = math.ceil(its.tiles / its.batch) * its.passes
        total += seconds_of(functools.partial(one, tile), count=calls)
    return total


def _outline(
    case: Case, settings: inference.InferSettings, predictor: Predictor, options: InferOptions
) -> InferencePlan:
    job = inference.outline_case(case, settings, predictor)
    return inference.plan(job, settings, predictor, probabilities=_kept(options))


def _kept(options: InferOptions) -> bool:
    return bool(options.prob or options.report)
