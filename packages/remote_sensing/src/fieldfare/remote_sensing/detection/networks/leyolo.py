# SPDX-License-Identifier: Apache-2.0
"""LeYOLO: inverted bottlenecks, a neck that goes up and down, a head of depthwise convolutions.

Source: LeYOLO, Hollard et al. 2024 (arXiv 2406.14239). Written from a description of the network;
tensors bear the published names, with the layers numbered `layer<i>`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import SPPF, InvertedBottleneck, cbs
from .head import Head
from .tables import TABLES, Row, Table

STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class DetectorConfig:
    """Everything but the weights.

    Attributes:
        network: a key of `TABLES`.
        classes: names, in the order of the scores.
        width: factor on all channels in place of the table's own.
        in_channels: bands.
        gsd: ground sampling distance the model was trained for, metres.
        point_size: side in metres of the boxes that points were made into; None where boxes were
            given.
        threshold: least confidence of a detection, as chosen on validation.
        nms: IoU above which the less confident of two boxes is dropped, likewise.
    """

    network: str = "leyolo_nano"
    classes: tuple[str, ...] = ("object",)
    width: float | None = None
    in_channels: int = 3
    gsd: float = 0.3
    point_size: float | None = None
    threshold: float = 0.25
    nms: float = 0.5

    def __post_init__(self) -> None:
        if self.network not in TABLES:
            raise ValueError(f"network must be one of {', '.join(TABLES)}, got {self.network!r}")
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must be different names, got {self.classes}")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DetectorConfig":
        """Read what `to_dict` wrote."""
        return cls(**{**values, "classes": tuple(values["classes"])})

    @property
    def table(self) -> Table:
        """The layers, at this width."""
        found = TABLES[self.network]
        return found if self.width is None else replace(found, width=self.width)


class LeYOLO(nn.Module):
    """Images in [0, 1], (B, bands, H, W), to raw maps of three levels, (B, 64 + classes, h, w).

    Height and width are multiples of 32; `head.decode` makes boxes and scores of the maps.

    Args:
        config: see there.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        table = config.table
        widths: list[int] = []
        for number, row in enumerate(table.rows):
            before = widths[-1] if widths else config.in_channels
            module, channels = _layer(row, before, widths, table)
            self.add_module(f"layer{number}", module)
            widths.append(channels)
        self._head = f"layer{len(table.rows)}"
        read = [widths[number] for number in table.read]
        self.add_module(self._head, Head(read, len(config.classes), STRIDES))
        self._kept = {row.skip for row in table.rows if row.kind == "cat"} | set(table.read)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Raw maps at strides 8, 16 and 32."""
        if image.shape[-2] % STRIDES[-1] or image.shape[-1] % STRIDES[-1]:
            raise ValueError(
                f"height and width must be multiples of {STRIDES[-1]}, got {image.shape[-2:]}"
            )
        table, x = self.config.table, image
        kept: dict[int, Tensor] = {}
        for number, row in enumerate(table.rows):
            if row.kind == "up":
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            elif row.kind == "cat":
                x = torch.cat((x, kept[row.skip]), 1)
            else:
                x = self.get_submodule(f"layer{number}")(x)
            if number in self._kept:
                kept[number] = x
        maps: list[Tensor] = self.get_submodule(self._head)([kept[n] for n in table.read])
        return maps


def _layer(row: Row, before: int, widths: list[int], table: Table) -> tuple[nn.Module, int]:
    """A layer and its channels, after one of `before` channels."""
    channels = table.channels(row.channels)
    if row.kind == "conv":
        return cbs(before, channels, row.kernel, row.stride), channels
    if row.kind == "bottleneck":
        middle = None if row.middle is None else table.channels(row.middle)
        return InvertedBottleneck(before, channels, row.kernel, middle, row.stride), channels
    if row.kind == "sppf":
        return SPPF(channels), channels
    if row.kind == "cat":
        return nn.Identity(), before + widths[row.skip]
    return nn.Identity(), before
