# SPDX-License-Identifier: Apache-2.0
"""What a network's embeddings know by themselves: classifiers without training or settings."""

from collections.abc import Callable

import numpy as np
import torch

from fieldfare.common.trust.singular import singular_kernel

from ..capture import FlowBatch
from ..data.spool import joined, pieces

Embed = Callable[[FlowBatch], np.ndarray]
"""N flows in, (N, E) embeddings out."""

_TOGETHER = 256


class SingularKernel:
    """Shares of the classes by weights |x - x_i|^-(E - 1) of all training flows on the unit sphere.

    The optimal one of the classifiers that infinitely wide and deep networks can be; `nearest` is
    another of them. See `fieldfare.common.trust.singular`.

    Args:
        embed: of a network.
        classes: C, numbers 0 to C - 1.
        nearest: only the nearest training flow counts.
    """

    def __init__(self, embed: Embed, classes: int, *, nearest: bool = False) -> None:
        self.embed, self.classes, self.nearest = embed, classes, nearest
        self._known = np.zeros((0, 0), np.float32)
        self._label = np.zeros(0, np.int64)

    def fit(self, flows: FlowBatch, label: np.ndarray) -> "SingularKernel":
        """Keep the embeddings of N training flows; label: (N,) class numbers."""
        self._known, self._label = self._unit(flows), np.asarray(label, np.int64)
        return self

    def predict(self, flows: FlowBatch) -> np.ndarray:
        """(N, C) shares."""
        found = [np.zeros((0, self.classes))]
        known, label = torch.from_numpy(self._known), torch.from_numpy(self._label)
        for some in torch.from_numpy(self._unit(flows)).split(_TOGETHER):
            if self.nearest:
                best = label[torch.cdist(some.double(), known.double()).argmin(dim=1)]
                found.append(np.eye(self.classes)[best.numpy()])
            else:
                order = max(1, known.shape[1] - 1)
                found.append(singular_kernel(known, label, some, order, self.classes).numpy())
        return np.concatenate(found)

    __call__ = predict

    def _unit(self, flows: FlowBatch) -> np.ndarray:
        embedded = joined([self.embed(part) for part in pieces(flows)])
        size = np.linalg.norm(embedded, axis=1, keepdims=True)
        unit: np.ndarray = (embedded / np.maximum(size, 1e-12)).astype(np.float32)
        return unit
