# SPDX-License-Identifier: Apache-2.0
"""What makes a network, but for its weights; the presets by name."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..data.naming import MODALITIES
from ..data.regions import REGIONS

ARCHITECTURES = ("reversible_unet", "resunet_aspp")
NORMS = ("group", "instance", "evonorm")
ATTENTIONS = ("none", "se", "eca")
GROUPS = {"depthwise": 1, "e2gc": 8}
"""Channels that a branch's filter mixes: e2gc is a constant group size, arXiv 2006.15100."""


@dataclass(frozen=True)
class NetworkConfig:
    """Everything but the weights.

    Attributes:
        architecture: one of `ARCHITECTURES`.
        ndim: 3 for volumes, 2 for axial slices.
        modalities: of the input, in this order.
        regions: of the output, in this order.
        spacing: of the grid the network works on, mm along every axis; images are resampled to it.
        channels: of each level, finest first.
        blocks: of each level on the way down (reversible_unet).
        decoder_blocks: of each level on the way up, finest first, one fewer than levels
            (reversible_unet).
        expansion: hidden channels of a mobile inverted bottleneck for each of its input.
        norm: one of `NORMS`; `evonorm` is its own activation, inside the branches and in the heads.
        attention: one of `ATTENTIONS`, inside the branches or on the skips.
        group_size: channels that the branches' filter mixes; 1 is depthwise (reversible_unet).
        dropout: inside the branches (reversible_unet), after the pyramid (resunet_aspp).
        deep_supervision: with a head at each level of the decoder.
        modality_dropout: trained to do without some of the modalities.
        patch: sides of the patches it was trained on, in its voxels; tiles of inference are no
            larger in 3D, for the group norms' statistics go with the size. Unknown when empty.
        encoder: timm's name of the encoder (resunet_aspp in 2D); own blocks when empty.
        widths: of layers that were slimmed, see `common.slim.widths`.
    """

    architecture: str = "reversible_unet"
    ndim: int = 3
    modalities: tuple[str, ...] = MODALITIES
    regions: tuple[str, ...] = REGIONS
    spacing: float = 1.0
    channels: tuple[int, ...] = (32, 64, 128, 256)
    blocks: tuple[int, ...] = (1, 2, 2, 4)
    decoder_blocks: tuple[int, ...] = (1, 1, 1)
    expansion: int = 4
    norm: str = "group"
    attention: str = "none"
    group_size: int = 1
    dropout: float = 0.0
    deep_supervision: bool = False
    modality_dropout: bool = False
    encoder: str = ""
    patch: tuple[int, ...] = ()
    widths: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"architecture must be one of {ARCHITECTURES}, got {self.architecture!r}"
            )
        if self.ndim not in (2, 3):
            raise ValueError(f"ndim must be 2 or 3, got {self.ndim}")
        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {NORMS}, got {self.norm!r}")
        if self.attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {ATTENTIONS}, got {self.attention!r}")
        reversible = self.architecture == "reversible_unet"
        if not reversible and (self.norm == "evonorm" or self.group_size > 1):
            raise ValueError("norm evonorm and group_size are choices of reversible_unet only")
        if self.encoder and self.ndim != 2:
            raise ValueError(f"encoder {self.encoder!r}: timm's are 2D, this network is 3D")
        if self.encoder and reversible:
            raise ValueError(f"encoder {self.encoder!r}: reversible_unet has its own")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        values = asdict(self)
        if self.group_size == 1:
            del values["group_size"]  # so that runs begun before there was a choice go on
        if not self.widths:
            del values["widths"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "NetworkConfig":
        """Read what `to_dict` wrote."""
        listed: dict[str, Any] = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
        return cls(**{**values, **listed})


_PAPER = NetworkConfig()
_SLICES = NetworkConfig(
    "resunet_aspp",
    ndim=2,
    channels=(16, 32, 64, 128, 256),
    encoder="efficientnet_b0",
    attention="se",
)

PRESETS = {
    "reversible": _PAPER,
    "reversible_deep": replace(_PAPER, blocks=(2, 3, 3, 4), decoder_blocks=(1, 1, 1)),
    "reversible_wide": replace(_PAPER, channels=(64, 128, 256, 512)),
    "reversible_small": replace(
        _PAPER,
        spacing=2.0,
        channels=(16, 32, 96, 192),
        blocks=(1, 2, 3, 3),
        expansion=2,
        deep_supervision=True,
    ),
    "resunet_aspp": _SLICES,
    "resunet_aspp_small": replace(
        _SLICES, spacing=2.0, encoder="tf_efficientnet_lite0", channels=(16, 32, 64, 128)
    ),
    "resunet_aspp_3d": replace(_SLICES, ndim=3, encoder="", channels=(24, 48, 96, 160)),
}
"""`reversible` is what Pendse et al. 2021 (arXiv 2104.09648) describe as far as their abstract
tells; `reversible_deep` has 25 % more blocks, `reversible_wide` twice the channels. The `small`
ones are those of the packaged weights."""
