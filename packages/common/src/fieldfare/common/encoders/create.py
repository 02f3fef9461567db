# SPDX-License-Identifier: Apache-2.0
"""Build an encoder by name, with random weights."""

import difflib
from typing import Any

from .base import Encoder, build_nd_encoder, registered_nd_encoders


def list_nd_encoders() -> list[str]:
    """Names of the encoders that exist in one and three dimensions too."""
    from .. import backbones  # noqa: F401 (importing registers)

    return registered_nd_encoders()


def create_encoder(
    name: str, in_channels: int, ndim: int = 2, *, features: int | None = None, **options: Any
) -> Encoder:
    """Build an encoder; nothing is ever downloaded, its weights are random.

    Args:
        name: in two dimensions any timm model that has feature maps (`timm.list_models()`, with
            the backbones of this package among them); in one or three a name of
            `list_nd_encoders()`.
        in_channels: channels of the input.
        ndim: 1 for sequences (B, C, L), 2 for images (B, C, H, W), 3 for volumes (B, C, D, H, W).
        features: how many of the features to give, finest first, in two dimensions; stages that
            only later ones need are not built. All when None.
        options: handed to the timm model, for instance img_size=256 for a transformer, most of
            which take one image size only.

    Returns:
        A module with `channels`, `strides` and forward(x) -> list of features, finest first.
        Convolutional networks mostly give ceil(size / stride) where a size is no multiple of the
        stride; networks that cut patches or pool without padding (VanillaNet) give
        floor(size / stride), Inception, NASNet and Xception up to three less. A network whose
        first feature is coarser than stride 4 (EfficientViT, EfficientViM, LeViT) gives the
        outputs of its convolutional stem before it; a patch embedding of one convolution (ViT)
        has none to give.

    Raises:
        ValueError: unknown name (the message lists close ones), a two-dimensional network with
            another ndim (it lists those that exist), or numbers out of range.
    """
    if ndim not in (1, 2, 3):
        raise ValueError(f"ndim {ndim}: must be 1, 2 or 3")
    if in_channels < 1:
        raise ValueError(f"in_channels {in_channels}: must be at least 1")
    nd_names = list_nd_encoders()  # registers our own backbones, in timm too

    import timm

    if ndim == 2 and timm.is_model(name):
        from .timm_encoder import TimmEncoder

        return TimmEncoder(name, in_channels, features, **options)
    if name in nd_names:
        if options or features is not None:
            raise ValueError(
                f"{', '.join(options) or 'features'}: {name} takes no options with ndim {ndim}"
            )
        return build_nd_encoder(name, in_channels, ndim)
    if timm.is_model(name):
        raise ValueError(
            f"{name}: exists in two dimensions only; with ndim {ndim} use {' or '.join(nd_names)}"
        )
    known = timm.list_models() if ndim == 2 else nd_names
    close = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    raise ValueError(f"{name}: no such encoder; close names: {', '.join(close or known[:4])}")
