# SPDX-License-Identifier: Apache-2.0
"""What is written down of how labels came about."""

from typing import Any

from fieldfare.common.weights import ModelCard

from .run import InferSettings, Job

NOTICE = "not a medical device; for research only"


def record(job: Job, settings: InferSettings, card: ModelCard, *, tta: str) -> dict[str, Any]:
    """For the JSON file beside the labels: the inputs, the model, and what was asked of it."""
    return {
        "case": job.case.name,
        "model": card.name,
        "files": {name: str(path) for name, path in job.case.files.items()},
        "missing": list(job.case.missing),
        "threshold": settings.threshold,
        "postprocess": settings.postprocess,
        "tta": tta,
        "resample_to": settings.resample_to,
        "warnings": job.notes,
        "notice": NOTICE,
    }
