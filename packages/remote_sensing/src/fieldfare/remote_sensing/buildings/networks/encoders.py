# SPDX-License-Identifier: Apache-2.0
"""Encoders of building networks by name: short names, families, and those of one image size."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fieldfare.common.encoders import Encoder, create_encoder

from .efficientnet_lite import VARIANTS, EfficientNetLite

ENCODERS = {
    **{f"b{n}": f"efficientnet_b{n}" for n in range(5)},
    **{f"lite{n}": f"tf_efficientnet_lite{n}" for n in range(3)},
    "resnest14": "resnest14d",
    "resnest50": "resnest50d",
    "mobilevit": "mobilevit_s",
    "mobilevitv2": "mobilevitv2_100",
    "mobilenetv3": "mobilenetv3_large_100",
    "vanillanet": "vanillanet_5",
    "simplenet": "simplenet_5m_m1",
}
"""Short names; any timm name that `create_encoder` takes will do as well."""

FAMILIES = {
    "EfficientNet-Lite": "lite0",
    "EfficientNet": "b0",
    "ResNeSt": "resnest14",
    "MobileViT": "mobilevit",
    "MobileNetV3": "mobilenetv3",
    "EfficientMod": "efficientmod_xxs",
    "VanillaNet": "vanillanet",
    "EEEA-Net": "eeea_net_c2",
    "SLAB": "slab_swin_tiny",
}
"""The smallest, or the usual one, of each family."""

STRIDES = (2, 4, 8, 16, 32)

FIXED = ("slab_",)
"""How the names of networks begin that are built for one image size."""

SIDE = 256
"""That they are built for here."""


class SquareEncoder(Encoder):
    """An encoder of one image size, run on the squares of an image; features are put together.

    A square knows nothing of its neighbours; the decoder joins them.

    Args:
        inner: for images of `side`.
        side: a multiple of the coarsest stride.
    """

    def __init__(self, inner: Encoder, side: int = SIDE) -> None:
        super().__init__()
        self.inner, self.side = inner, side
        self.channels, self.strides = inner.channels, inner.strides

    @property
    def model(self) -> torch.nn.Module:
        """That whose weights a file may hold."""
        return self.inner.get_submodule("model")

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, H, W), a multiple of the coarsest stride -> features, finest first."""
        height, width = image.shape[-2:]
        bottom, right = -height % self.side, -width % self.side
        padded = F.pad(image, (0, right, 0, bottom), mode="replicate")
        rows, columns = (length // self.side for length in padded.shape[-2:])
        cut = padded.unflatten(3, (columns, self.side)).unflatten(2, (rows, self.side))
        squares = cut.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        found = []
        for stride, feature in zip(self.strides, self.inner(squares), strict=True):
            parts = feature.unflatten(0, (len(image), rows, columns)).permute(0, 3, 1, 4, 2, 5)
            joined = parts.flatten(4, 5).flatten(2, 3)
            found.append(joined[..., : height // stride, : width // stride].contiguous())
        return found


def encoder_of(
    name: str,
    in_channels: int,
    strides: Sequence[int] = STRIDES,
    *,
    blocks: Sequence[int] = (),
    kernels: Sequence[int] = (),
) -> Encoder:
    """An encoder by short or timm name, without what only strides beyond the last one need.

    Args:
        blocks, kernels: of each stage of an EfficientNet-Lite; empty for its own.

    Raises:
        ValueError: no such encoder, it lacks features of a stride from 4 on, or its stages cannot
            be so.
    """
    full = ENCODERS.get(name, name)
    if full in VARIANTS:
        return EfficientNetLite(full, in_channels, len(strides), blocks=blocks, kernels=kernels)
    if blocks or kernels:
        raise ValueError(f"{name}: only the stages of an EfficientNet-Lite can be made smaller")
    fixed = full.startswith(FIXED)
    options = {"img_size": SIDE} if fixed else {}
    encoder = create_encoder(full, in_channels, **options)
    if missing := [str(s) for s in STRIDES[1:] if s not in encoder.strides]:
        raise ValueError(
            f"{name} has no features at stride {', '.join(missing)}; decoders need 4, 8, 16 and 32"
        )
    if len(strides) < len(STRIDES):
        count = sum(stride <= strides[-1] for stride in encoder.strides)
        encoder = create_encoder(full, in_channels, features=count, **options)
    return SquareEncoder(encoder) if fixed else encoder
