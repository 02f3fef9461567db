# SPDX-License-Identifier: Apache-2.0
"""Trained detectors by name or path."""

from typing import Any

from fieldfare.common.weights import ModelCard, from_pretrained

from .leyolo import DetectorConfig, LeYOLO

TASK = "object-detection"


def load_model(name_or_path: str) -> tuple[LeYOLO, ModelCard]:
    """A packaged model by name or a weight file by path."""

    def build(config: dict[str, Any]) -> LeYOLO:
        return LeYOLO(DetectorConfig.from_dict(config))

    return from_pretrained(name_or_path, TASK, build)
