# SPDX-License-Identifier: Apache-2.0
"""One training loop for every network of the suite: one process or many, resumable exactly."""

from .ema import ExponentialMovingAverage
from .loop import Preempted, TrainSettings, fit
from .sampler import Draw, DrawSampler
from .schedule import cosine_with_warmup

__all__ = [
    "Draw",
    "DrawSampler",
    "ExponentialMovingAverage",
    "Preempted",
    "TrainSettings",
    "cosine_with_warmup",
    "fit",
]
