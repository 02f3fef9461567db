# SPDX-License-Identifier: Apache-2.0
"""The building network for inference: the same function with less arithmetic.

Batch norms are folded into the convolutions before them. "Enlarge twice by nearest neighbour,
join the skip, convolve 3x3" becomes a transposed convolution of the small map plus a convolution
of the skip: an output pixel sees only 2x2 different pixels of the small map, so the nine taps on it
add up to four (for ratios see benchmarks/remote_sensing/buildings_speed.py).
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .building_network import BuildingNetwork
from .efficientnet_lite import EfficientNetLite, SameConv2d
from .unetplusplus import DecoderBlock, NestedDecoder


class FastBuildingNetwork(nn.Module):
    """A frozen copy of a network, channels last; same call, same logits up to rounding.

    Args:
        network: of any architecture and depth; left untouched.
        dtype: in which it computes, weights cast once; bfloat16 pays where the processor has it
            (`fieldfare.common.runtime.resolve_precision`).
    """

    def __init__(self, network: BuildingNetwork, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        fast: Any = copy.deepcopy(network).eval().requires_grad_(False)
        if not isinstance(fast.encoder, EfficientNetLite):
            from timm.utils import reparameterize_model  # it built the encoder

            fast.encoder = reparameterize_model(fast.encoder, inplace=True)
        fast.encoder = _Cast(fast.encoder, dtype)
        fold_batch_norms(fast.encoder)
        if fast.config.architecture in ("lraspp", "pem"):
            fold_batch_norms(fast.decoder)
        elif fast.config.architecture == "unet":
            head = network.encoder.channels[network.encoder.strides.index(32)]
            fast.decoder = _UnetDecoder(fast.decoder.blocks, head)
        else:
            _speed_up_nested(fast.decoder)
        self.network: nn.Module = fast.to(dtype=dtype, memory_format=torch.channels_last)
        self.eval()

    def train(self, mode: bool = True) -> "FastBuildingNetwork":
        """Refuse training mode: there are no batch norms left."""
        if mode:
            raise ValueError("the fast network is for inference; train the BuildingNetwork")
        return super().train(mode)

    def forward(self, image: Tensor) -> Tensor:
        """Images in [0, 1], (B, bands, H, W), float32 -> logits (B, outputs, H, W), float32."""
        logits: Tensor = self.network(image)
        return logits.float()


def fold_batch_norms(module: nn.Module) -> None:
    """Multiply batch norms, in evaluation mode, into the convolutions before them, in place.

    What torch.fx cannot trace is taken child by child. Left as they are: norms after anything but
    one plain convolution, and layers that hooks look at.
    """
    convolutions, norms = _plain_layers(module)
    try:
        nodes = list(_Tracer().trace(module).nodes)
    except Exception:  # what cannot be traced says so in many types
        for child in module.children():
            fold_batch_norms(child)
        return
    layers: dict[str, Any] = dict(module.named_modules())
    called = [node.target for node in nodes if node.op == "call_module"]
    for node in nodes:
        norm: Any = layers.get(node.target) if node.op == "call_module" else None
        if type(norm) not in norms or norm._forward_hooks:
            continue
        before = node.args[0]
        convolution: Any = layers.get(before.target) if before.op == "call_module" else None
        if type(convolution) not in convolutions or convolution._forward_hooks:
            continue
        if len(before.users) == 1 and called.count(before.target) == called.count(node.target) == 1:
            module.set_submodule(before.target, fuse_conv_bn_eval(convolution, norm))
            module.set_submodule(node.target, getattr(norm, "act", nn.Identity()))


def _plain_layers(module: nn.Module) -> tuple[set[type], set[type]]:
    """Kinds of convolutions and of norms that can be folded; timm's where there are any of its."""
    convolutions: set[type] = {nn.Conv2d, SameConv2d}
    norms: set[type] = {nn.BatchNorm2d}
    if any(type(layer).__module__.startswith("timm.") for layer in module.modules()):
        from timm.layers import BatchNormAct2d, Conv2dSame

        convolutions.add(Conv2dSame)
        norms.add(BatchNormAct2d)
    return convolutions, norms


class _Tracer(fx.Tracer):
    """Looks into blocks of layers, but not into convolutions and norms."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        leaf = isinstance(m, (nn.Conv2d, nn.BatchNorm2d))
        return leaf or super().is_leaf_module(m, module_qualified_name)


class _Cast(nn.Module):
    """An encoder that computes in another dtype, channels last."""

    def __init__(self, encoder: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.encoder, self.dtype = encoder, dtype

    def forward(self, image: Tensor) -> list[Tensor]:
        image = image.to(dtype=self.dtype, memory_format=torch.channels_last)
        features: list[Tensor] = self.encoder(image)
        return features


class _UpBlock(nn.Module):
    """A decoder block that enlarges by nearest neighbour, with the kernels of `enlarging_kernel`.

    Args:
        block: a `DecoderBlock`, or one of segmentation_models_pytorch's U-Net.
        small_channels: how many of its input's channels come from the map that it enlarges.
    """

    def __init__(self, block: Any, small_channels: int) -> None:
        super().__init__()
        first = fuse_conv_bn_eval(block.conv1[0], block.conv1[1])
        weight = first.weight.detach()
        self.bias = nn.Parameter(first.bias.detach(), requires_grad=False)
        self.small = nn.Parameter(enlarging_kernel(weight[:, :small_channels]), requires_grad=False)
        self.skip = nn.Parameter(weight[:, small_channels:].clone(), requires_grad=False)
        self.conv2 = fuse_conv_bn_eval(block.conv2[0], block.conv2[1])

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = F.conv_transpose2d(x, self.small, self.bias, stride=2, padding=1)
        if skip is not None and skip.shape[1]:
            x = x.add_(F.conv2d(skip, self.skip, padding=1))
        return F.relu_(self.conv2(F.relu_(x)))


def enlarging_kernel(weight: Tensor) -> Tensor:
    """The transposed convolution, stride 2, padding 1, that enlarges by nearest neighbour and then
    convolves with a 3x3 kernel, padding 1.

    Along one axis output 2m reads the enlarged pixels 2m - 1, 2m, 2m + 1, which are the pixels
    m - 1, m, m; output 2m + 1 reads m, m, m + 1. So pixel m sends to 2m - 1 .. 2m + 2 the sums
    of taps (2), (1, 2), (0, 1), (0).

    Args:
        weight: (out, in, 3, 3).

    Returns:
        (in, out, 4, 4).
    """
    spread = weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    return (spread @ weight @ spread.T).transpose(0, 1).contiguous()


class _UnetDecoder(nn.Module):
    """U-Net's decoder for inference, with the call of segmentation_models_pytorch's."""

    def __init__(self, blocks: Sequence[Any], head_channels: int) -> None:
        super().__init__()
        widths = [head_channels, *(block.conv2[0].out_channels for block in blocks)]
        self.blocks = nn.ModuleList(
            _UpBlock(block, small) for block, small in zip(blocks, widths, strict=False)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """The image and its features, finest first -> (B, C, H, W)."""
        x, *skips = features[:0:-1]
        for block, skip in zip(self.blocks, [*skips, None], strict=True):
            x = block(x, skip)
        return x


def _speed_up_nested(decoder: NestedDecoder) -> None:
    # Blocks are empty where the encoder has no features at stride 2.
    blocks: dict[str, Any] = {
        name: block
        for name, block in decoder.blocks.items()
        if isinstance(block, DecoderBlock) and not block.is_empty
    }
    for name, block in blocks.items():
        d, level = map(int, name.split("_")[1:])
        small = decoder.skip_channels[level - 1] if d else decoder.in_channels[level]
        if (below := f"x_{d}_{level - 1}") in blocks:  # a slimmed one has fewer channels
            small = blocks[below].conv2[0].out_channels
        decoder.blocks[name] = _UpBlock(block, small)
