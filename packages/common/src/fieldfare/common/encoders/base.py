# SPDX-License-Identifier: Apache-2.0
"""What every encoder offers, and the registry of the N-dimensional ones."""

from collections.abc import Callable

from torch import Tensor, nn


class Encoder(nn.Module):
    """A network that turns an image, sequence or volume into features at several scales.

    Attributes:
        channels: width of each feature, in the order that forward gives them.
        strides: by how much each feature is coarser than the input, along every axis, ascending.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, *size) -> one (B, channels[i], *(size / strides[i])) a scale, finest first."""
        raise NotImplementedError


NdBuilder = Callable[[int, int], Encoder]
_nd_builders: dict[str, NdBuilder] = {}


def register_nd_encoder(build: NdBuilder) -> NdBuilder:
    """Decorator: offer build(in_channels, ndim) under its own name to `create_encoder`."""
    _nd_builders[build.__name__] = build
    return build


def registered_nd_encoders() -> list[str]:
    """Names of what has been registered so far."""
    return sorted(_nd_builders)


def build_nd_encoder(name: str, in_channels: int, ndim: int) -> Encoder:
    """Build a registered encoder by name, which must be registered."""
    return _nd_builders[name](in_channels, ndim)
