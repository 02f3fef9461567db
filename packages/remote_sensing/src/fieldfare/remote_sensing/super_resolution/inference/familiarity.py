# SPDX-License-Identifier: Apache-2.0
"""Before the first tile: is the raster like what the model knows, and what gain may be expected?

The raster is looked at in up to 49 windows, spread evenly, by features of the input alone
(`rasters.looks`); so the answer is there before any work, and `--strict` costs none.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common.trust.knowledge import Judgement, Knowledge, read_knowledge

from ...rasters.looks import windows_features
from ...rasters.reading import Scene, ValueRange
from .looks import SIGNS, Looks, looks_of
from .softening import excess

LAYERS = ("input",)
"""Of the model's `Knowledge`: the features that `rasters.looks.features_of` gives."""

QUALITY = "gain over bicubic in dB"


@dataclass(frozen=True)
class Assessment:
    """What is known of a raster before work.

    Attributes:
        judgement: None where the model does not say what it knows, or no window holds data.
        signs: `looks.SIGNS`, each the median over windows.
        looks: what of them lies outside what the model knows, in words.
        processed: whether they are those of a sharpened, noisy or compressed image: what is to be
            restored then is not what the input shows.
        sharpening: dB near the Nyquist frequency that `softening.softened` is to undo.
    """

    judgement: Judgement | None = None
    signs: dict[str, float] | None = None
    looks: str | None = None
    processed: bool = False
    sharpening: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """For `--json` and the result's tags."""
        judged = self.judgement.to_json() if self.judgement else None
        return {
            "trust": judged,
            "signs": self.signs,
            "looks": self.looks,
            "processed": self.processed,
        }


@dataclass(frozen=True)
class Familiarity:
    """What a model's file says that it knows."""

    knowledge: Knowledge | None
    looks: Looks | None
    channels: int

    @classmethod
    def of(cls, path: Path | None, channels: int) -> "Familiarity":
        """Read from a model file; the bicubic baseline (None) knows nothing."""
        if path is None:
            return cls(None, None, channels)
        return cls(read_knowledge(path), looks_of(path), channels)

    def assess(self, scene: Scene, values: ValueRange) -> Assessment:
        """Look at the whole raster, whatever part is wanted; reads at most `ACROSS`^2 windows."""
        if self.looks is None:
            return Assessment()
        features = windows_features(scene, values, self.channels)
        if not len(features):
            return Assessment()
        estimates = self.looks.estimate(features)
        middle = np.median(estimates, axis=0)
        judgement = None
        if self.knowledge:
            judgement = self.knowledge.judge(*self.knowledge.rows([features], signs_of(estimates)))
        signs = {name: round(float(v), 2) for name, v in zip(SIGNS, middle, strict=True)}
        said, processed = self.looks.sentence(middle), self.looks.processed(middle)
        sharpening = round(excess(float(middle[0]), float(self.looks.clean[0])), 2)
        return Assessment(judgement, signs, said, processed, sharpening)


def signs_of(estimates: np.ndarray) -> np.ndarray:
    """What an expected gain depends on: sharpness above and below, noise, compression; (N, 4)."""
    sharpness = estimates[:, 0]
    signs = (sharpness.clip(min=0), sharpness.clip(max=0), estimates[:, 1], estimates[:, 2])
    return np.stack(signs, axis=1)
