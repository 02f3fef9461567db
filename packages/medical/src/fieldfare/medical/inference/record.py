# SPDX-License-Identifier: Apache-2.0
"""What is written down of how labels came about."""

from collections.abc import Sequence
from typing import Any

from fieldfare.common.commands.trust import warning
from fieldfare.common.console.shared import GuardOptions
from fieldfare.common.errors import InputError
from fieldfare.common.trust.knowledge import Judgement
from fieldfare.common.weights import ModelCard

from .guard import Agreement
from .run import InferSettings, Job, Segmentation

NOTICE = "not a medical device; for research only"


def record(
    job: Job,
    settings: InferSettings,
    card: ModelCard,
    *,
    tta: str,
    judgement: Judgement | None = None,
    agreement: Agreement | None = None,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """For the JSON file beside the labels: the inputs, the model, and what was asked of it.

    Args:
        judgement: how the case stands to what the model knows.
        agreement: whether the answer holds for slightly changed images, where that was asked.
        warnings: besides those of the job.
    """
    return {
        "case": job.case.name,
        "model": card.name,
        "files": {name: str(path) for name, path in job.case.files.items()},
        "missing": list(job.case.missing),
        "threshold": settings.threshold,
        "postprocess": settings.postprocess,
        "tta": tta,
        "resample_to": settings.resample_to,
        "trust": judgement.to_json() if judgement else None,
        "familiar": judgement.sentence() if judgement else "not known by this model",
        "guard": agreement.to_json() if agreement else None,
        "agreement": agreement.sentence() if agreement else "not asked for",
        "warnings": [*job.notes, *warnings],
        "notice": NOTICE,
    }


def doubts_of(result: Segmentation, name: str, options: GuardOptions) -> list[str]:
    """Lines to say of a case that is unlike what the model knows, or whose answer does not hold.

    Raises:
        InputError: with `--strict`, instead of the lines.
    """
    told = warning(result.judgement, name, options)
    lines = [told] if told else []
    if result.agreement and result.agreement.alarm:
        line = f"{name}: {result.agreement.sentence()}"
        if options.strict:
            raise InputError(f"{line}; nothing was written, as --strict was given")
        lines.append(line)
    return lines
