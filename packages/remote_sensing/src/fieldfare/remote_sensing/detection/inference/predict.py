# SPDX-License-Identifier: Apache-2.0
"""A trained detector made ready: tiles in, boxes and scores out."""

from dataclasses import dataclass

import numpy as np
import torch

from fieldfare.common.blocks.fuse import fuse
from fieldfare.common.errors import RunError
from fieldfare.common.runtime import resolve_device, resolve_precision
from fieldfare.common.trust.knowledge import Knowledge, read_knowledge
from fieldfare.common.weights import locate

from ...scenes.colours import Colours, read_colours
from ..networks.head import decode
from ..networks.leyolo import STRIDES, LeYOLO
from ..networks.models import TASK, load_model


@dataclass(frozen=True)
class Detections:
    """What was found, in no order.

    Attributes:
        boxes: (N, 4) float64 left, top, right, bottom in pixels.
        scores: (N,) confidence from 0 to 1.
        classes: (N,) int64.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, chosen: np.ndarray) -> "Detections":
        """Some of them, by number or by a mask."""
        return Detections(self.boxes[chosen], self.scores[chosen], self.classes[chosen])

    @property
    def centres(self) -> np.ndarray:
        """(N, 2) x and y."""
        middle: np.ndarray = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2
        return middle

    def to_table(self) -> np.ndarray:
        """(N, 6) float64: boxes, scores, classes."""
        return np.column_stack((self.boxes, self.scores, self.classes)).astype(np.float64)

    @classmethod
    def from_table(cls, table: np.ndarray) -> "Detections":
        """Read what `to_table` gave."""
        return cls(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


class Predictor:
    """Calls a network on batches of tiles, in evaluation mode, its batch norms folded.

    Args:
        network: trained.
        knowledge, colours: what the model's file says that it knows.
        precision: `auto` computes in bfloat16 where the processor does so natively.
    """

    def __init__(
        self,
        network: LeYOLO,
        knowledge: Knowledge | None = None,
        colours: Colours | None = None,
        *,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self.knowledge, self.colours = knowledge, colours
        self.config = network.config
        self.device = resolve_device(device)
        self.dtype = resolve_precision(precision, self.device)
        fused = fuse(network).to(self.device, self.dtype)
        self.network = fused.to(memory_format=torch.channels_last)
        self.batch = 16 if self.device.type == "cuda" else 2

    @torch.inference_mode()
    def __call__(self, tiles: np.ndarray, least: float) -> list[Detections]:
        """Find the objects of tiles; boxes of one object are not yet thinned out.

        Args:
            tiles: (N, bands, h, w) float32 in [0, 1]; sides are multiples of 32.
            least: confidence below which nothing counts.
        """
        image = torch.from_numpy(tiles).to(self.device, self.dtype)
        maps = self.network(image.contiguous(memory_format=torch.channels_last))
        decoded = decode(maps, STRIDES).cpu().numpy()
        if not np.isfinite(decoded).all():
            raise RunError("the network gives values that are no numbers; its weights are damaged")
        return [detections_of(each, least) for each in decoded]


def detections_of(decoded: np.ndarray, least: float) -> Detections:
    """(4 + classes, A) as `head.decode` gives them: the best class of each cell, if sure enough."""
    scores, classes = decoded[4:].max(0), decoded[4:].argmax(0)
    sure = scores >= least
    middle, half = decoded[:2, sure].astype(np.float64), decoded[2:4, sure].astype(np.float64) / 2
    boxes = np.concatenate((middle - half, middle + half)).T
    return Detections(boxes, scores[sure].astype(np.float64), classes[sure].astype(np.int64))


def load_predictor(
    name_or_path: str, *, device: str = "auto", precision: str = "auto"
) -> Predictor:
    """A predictor by model name or path; raises InputError where there is none."""
    network, _ = load_model(name_or_path)
    path = locate(name_or_path, TASK)
    known = read_knowledge(path), read_colours(path)
    return Predictor(network, *known, device=device, precision=precision)
