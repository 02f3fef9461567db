# SPDX-License-Identifier: Apache-2.0
"""A timm backbone as an Encoder, with the outputs of its stem where the first feature is coarse."""

from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import timm
import torch
from timm.layers import to_2tuple
from torch import Tensor, nn

from .base import Encoder

# Decoders start from stride 2 or 4; a network that begins coarser gets its stem tapped.
FINEST_STRIDE = 4
STEM_STRIDES = (2, 4, 8)


class TimmEncoder(Encoder):
    """Feature maps of a timm model, channels first. One call at a time (not for several threads).

    Args:
        name: timm model name.
        in_channels: channels of the input.
        features: how many features to give, finest first; what only later ones need is not built.
        options: handed to timm.create_model.
    """

    def __init__(
        self, name: str, in_channels: int, features: int | None = None, **options: Any
    ) -> None:
        super().__init__()
        self._tapped = 0
        build = partial(
            timm.create_model, name, pretrained=False, features_only=True, in_chans=in_channels
        )
        if features is not None:
            whole = TimmEncoder(name, in_channels, **options)
            if not 1 <= features <= len(whole.strides):
                raise ValueError(f"features {features}: {name} has 1 to {len(whole.strides)}")
            own = max(1, features - whole._tapped)
            options["out_indices"] = tuple(range(own))
        net: Any = build(**options)
        if features is not None and hasattr(net, "_stage_out_idx"):
            net.blocks = net.blocks[: max(net._stage_out_idx)]  # timm itself would run them all
        self.model: nn.Module = net
        self.channels = tuple(net.feature_info.channels())
        self.strides = tuple(net.feature_info.reduction())
        self._channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"
        self._taps: list[Tensor] = []
        if self.strides[0] > FINEST_STRIDE:
            size = to_2tuple(options.get("img_size") or net.pretrained_cfg["input_size"][1:])
            self._tap_stem((1, in_channels, *size))
        self.channels, self.strides = self.channels[:features], self.strides[:features]

    def _tap_stem(self, shape: tuple[int, ...]) -> None:
        outputs = stem_outputs(self.model, shape, self.strides[0])
        for path, _ in outputs.values():
            # A bound method, not a closure: it follows the encoder through copy.deepcopy.
            self.model.get_submodule(path).register_forward_hook(self._keep_tap)
        self.channels = (*(width for _, width in outputs.values()), *self.channels)
        self.strides = (*outputs, *self.strides)
        self._tapped = len(outputs)

    def _keep_tap(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._taps.append(output)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> one (B, channels[i], H / strides[i], W / strides[i]) a scale."""
        self._taps = []
        features = self.model(x)
        if self._channels_last:
            features = [feature.permute(0, 3, 1, 2).contiguous() for feature in features]
        taps, self._taps = self._taps, []
        if len(taps) != self._tapped:
            raise RuntimeError(
                f"{len(taps)} of {self._tapped} stem outputs seen: a stem module was replaced "
                "after the encoder was built"
            )
        found: list[Tensor] = (taps + features)[: len(self.strides)]
        return found


def stem_outputs(net: nn.Module, shape: tuple[int, ...], stride: int) -> dict[int, tuple[str, int]]:
    """Where a network's stem ends at each stride finer than its first feature's.

    Runs the network on zeros up to its first output at that stride, in inference mode of its
    layers, and notes the last module that gave each finer one.

    Args:
        net: any network of images.
        shape: (1, C, H, W), of an input it takes.
        stride: of its first feature.

    Returns:
        {stride: (module path, channels)}, ascending, of strides 2, 4, 8; empty where the network
        goes to its first feature in one step.
    """
    found: dict[int, tuple[str, int]] = {}

    def note(path: str, module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        if not isinstance(output, Tensor) or output.ndim != 4:
            return
        if output.shape[-1] * stride <= shape[-1]:
            raise _StemLeft
        for scale in STEM_STRIDES:
            if output.shape[-2:] == (shape[-2] // scale, shape[-1] // scale):
                found[scale] = (path, output.shape[1])

    training = net.training
    with ExitStack() as stack, torch.no_grad():
        stack.callback(net.train, training)
        net.eval()
        for path, module in net.named_modules():
            if path:
                handle = module.register_forward_hook(partial(note, path))
                stack.callback(handle.remove)
        with suppress(_StemLeft):
            net(next(net.parameters()).new_zeros(shape))
    return dict(sorted(found.items()))


class _StemLeft(Exception):
    """Raised by a hook to end the run once the stem is behind it."""
