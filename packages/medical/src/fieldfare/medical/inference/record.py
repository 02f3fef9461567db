# SPDX-License-Identifier: Apache-2.0
"""What is written down of how labels came about."""

from collections.abc import Sequence
from typing import Any

from fieldfare.common.trust.knowledge import Judgement
from fieldfare.common.weights import ModelCard

from .run import InferSettings, Job

NOTICE = "not a medical device; for research only"


def record(
    job: Job,
    settings: InferSettings,
    card: ModelCard,
    *,
    tta: str,
    judgement: Judgement | None = None,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """For the JSON file beside the labels: the inputs, the model, and what was asked of it.

    Args:
        judgement: how the case stands to what the model knows.
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
        "warnings": [*job.notes, *warnings],
        "notice": NOTICE,
    }
