# SPDX-License-Identifier: Apache-2.0
"""VanillaNet: a plain network without shortcuts, whose training form folds into half the layers.

Source: VanillaNet: the Power of Minimalism in Deep Learning, Chen et al. 2023 (arXiv 2305.12972).

In training each layer is two 1x1 convolutions with a leaky ReLU between them; `set_linearity`
moves that activation from a ReLU (0) to the identity (1) over the epochs, as the paper's deep
training strategy does. At 1 the pair is linear and `timm.utils.reparameterize_model` folds it,
with its batch norms, into one convolution (the deploy form).
"""

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# The series activation sums (2 N + 1)^2 neighbours (the paper's n = 3).
SERIES_EXTENT = 3
NORM_EPS = 1e-6


class DeployLayer(nn.Module):
    """One layer as deployed: convolution, max pooling, ReLU, weighted sum over neighbours."""

    def __init__(self, conv: nn.Conv2d, pool: nn.Module, series: nn.Conv2d) -> None:
        super().__init__()
        self.conv, self.pool, self.series = conv, pool, series

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / s, W / s), rounded down, s the convolution's and pool's."""
        found: Tensor = self.series(F.relu(self.pool(self.conv(x))))
        return found


class TrainLayer(nn.Module):
    """One layer as trained: the convolution split in two, each with a batch norm.

    Args:
        width: channels after the first convolution.
        patch: kernel and stride of the first convolution (4 in the stem, else 1).
        pool: kernel and stride of the max pooling.
    """

    def __init__(
        self, in_channels: int, width: int, out_channels: int, patch: int, pool: int
    ) -> None:
        super().__init__()
        self.linearity = 1.0
        self.conv1 = nn.Conv2d(in_channels, width, patch, patch)
        self.norm1 = nn.BatchNorm2d(width, eps=NORM_EPS)
        self.conv2 = nn.Conv2d(width, out_channels, 1)
        self.norm2 = nn.BatchNorm2d(out_channels, eps=NORM_EPS)
        self.pool = _pool(pool)
        self.series = _series(out_channels, bias=False)
        self.norm3 = nn.BatchNorm2d(out_channels, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / s, W / s), rounded down, s = patch * pool."""
        x = F.leaky_relu(self.norm1(self.conv1(x)), self.linearity)
        found: Tensor = self.norm3(self.series(F.relu(self.pool(self.norm2(self.conv2(x))))))
        return found

    def fuse(self) -> DeployLayer:
        """The same function in inference with one convolution; called by reparameterize_model.

        Raises:
            ValueError: linearity is not 1, so the two convolutions cannot be folded.
        """
        _check_linear(self.linearity)
        conv = _fold_pointwise(
            _fold_norm(self.conv1, self.norm1), _fold_norm(self.conv2, self.norm2)
        )
        series = _fold_norm(self.series, self.norm3)
        return DeployLayer(conv, self.pool, series).train(self.training)


class DeployHead(nn.Module):
    """Classifier as deployed: mean over space, dropout, one linear map."""

    def __init__(self, conv: nn.Module, drop_rate: float) -> None:
        super().__init__()
        self.drop, self.conv = nn.Dropout(drop_rate), conv

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, classes) logits, or (B, C) where the model has no classes."""
        found: Tensor = self.conv(self.drop(x.mean((2, 3), keepdim=True))).flatten(1)
        return found


class TrainHead(nn.Module):
    """Classifier as trained: two linear maps with a leaky ReLU between them."""

    def __init__(self, channels: int, classes: int, drop_rate: float) -> None:
        super().__init__()
        self.linearity = 1.0
        self.drop = nn.Dropout(drop_rate)
        self.conv1 = nn.Conv2d(channels, classes, 1)
        self.norm1 = nn.BatchNorm2d(classes, eps=NORM_EPS)
        self.conv2 = nn.Conv2d(classes, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, classes) logits."""
        x = self.norm1(self.conv1(self.drop(x.mean((2, 3), keepdim=True))))
        found: Tensor = self.conv2(F.leaky_relu(x, self.linearity)).flatten(1)
        return found

    def fuse(self) -> DeployHead:
        """The same function in inference with one linear map.

        Raises:
            ValueError: linearity is not 1.
        """
        _check_linear(self.linearity)
        conv = _fold_pointwise(_fold_norm(self.conv1, self.norm1), self.conv2)
        return DeployHead(conv, self.drop.p).train(self.training)


class VanillaNet(nn.Module):
    """A stem of stride 4, a chain of 1x1 layers with max pooling, a linear classifier.

    Args:
        widths: channels after the stem and after each layer, one more than pools.
        pools: max pooling of each layer, 1 or 2.
        in_chans: input channels.
        num_classes: 0 for pooled features.
        drop_rate: dropout before the classifier.
        deploy: build the folded form (half the layers, not for training from scratch).
    """

    def __init__(
        self,
        widths: Sequence[int],
        pools: Sequence[int],
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_rate: float = 0.0,
        deploy: bool = False,
    ) -> None:
        super().__init__()
        self.in_chans, self.drop_rate, self.deploy = in_chans, drop_rate, deploy
        self.num_features = self.head_hidden_size = widths[-1]
        layer = _deploy_layer if deploy else TrainLayer
        self.stem = layer(in_chans, widths[0], widths[0], 4, 1)
        self.stages = nn.Sequential()
        last = {4: _feature(widths[0], 4, "stem")}
        stride = 4
        for index, pool in enumerate(pools):
            self.stages.append(layer(widths[index], widths[index], widths[index + 1], 1, pool))
            stride *= pool
            last[stride] = _feature(widths[index + 1], stride, f"stages.{index}")
        self.feature_info = list(last.values())
        self.apply(_initialise)
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """The classifier, in either form."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier (none: 0) in; only mean pooling is offered."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool {global_pool!r}: VanillaNet pools by 'avg' only")
        self.num_classes = num_classes
        if num_classes == 0:
            self.head: nn.Module = DeployHead(nn.Identity(), self.drop_rate)
        elif self.deploy:
            self.head = DeployHead(nn.Conv2d(self.num_features, num_classes, 1), self.drop_rate)
        else:
            self.head = TrainHead(self.num_features, num_classes, self.drop_rate)
        self.head.apply(_initialise).train(self.training)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, num_features, H / 32, W / 32), rounded down."""
        found: Tensor = self.stages(self.stem(x))
        return found

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, num_features, h, w) -> (B, classes), or the mean over space with pre_logits."""
        return x.mean((2, 3)) if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), H and W at least 32 -> (B, classes) logits."""
        return self.forward_head(self.forward_features(x))


def set_linearity(model: nn.Module, linearity: float) -> None:
    """Set how linear the activations inside the layer pairs of a VanillaNet are.

    Args:
        model: a VanillaNet or anything that holds its layers.
        linearity: in [0, 1]; 0 is a ReLU, 1 the identity (needed to fold, and the default).
            Trained from 0 to 1 over the decay epochs D: by equal steps in the paper, by half a
            cosine, (1 - cos(pi epoch / D)) / 2, unless told otherwise in the published trainer. Set
            it in the averaged copy of the weights too.
    """
    if not 0 <= linearity <= 1:
        raise ValueError(f"linearity {linearity}: must be in [0, 1]")
    for module in model.modules():
        if isinstance(module, TrainLayer | TrainHead):
            module.linearity = linearity


def _feature(channels: int, stride: int, module: str) -> dict[str, int | str]:
    return {"num_chs": channels, "reduction": stride, "module": module}


def _pool(size: int) -> nn.Module:
    return nn.Identity() if size == 1 else nn.MaxPool2d(size)


def _series(channels: int, bias: bool) -> nn.Conv2d:
    size = 2 * SERIES_EXTENT + 1
    return nn.Conv2d(channels, channels, size, padding=SERIES_EXTENT, groups=channels, bias=bias)


def _deploy_layer(
    in_channels: int, width: int, out_channels: int, patch: int, pool: int
) -> DeployLayer:
    conv = nn.Conv2d(in_channels, out_channels, patch, patch)
    return DeployLayer(conv, _pool(pool), _series(out_channels, bias=True))


def _check_linear(linearity: float) -> None:
    if linearity != 1:
        raise ValueError(
            f"linearity {linearity}: a VanillaNet folds only at 1; call set_linearity(model, 1) "
            "after the training that brought it there"
        )


def _fold_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """The convolution followed by its batch norm (running statistics), as one convolution."""
    return fuse_conv_bn_eval(copy.deepcopy(conv).eval(), copy.deepcopy(norm).eval())


def _fold_pointwise(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """first (stride as wide as its kernel), then the 1x1 convolution second, as one convolution."""
    assert first.bias is not None
    assert second.bias is not None
    mix = second.weight.detach()[:, :, 0, 0]
    weight = torch.einsum("om,mihw->oihw", mix, first.weight.detach())
    bias = mix @ first.bias.detach() + second.bias.detach()
    patch = first.kernel_size[0]
    folded = nn.Conv2d(first.in_channels, second.out_channels, patch, patch, device="meta")
    folded.weight, folded.bias = nn.Parameter(weight.contiguous()), nn.Parameter(bias)
    return folded


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _cfg() -> dict[str, object]:
    return {
        "input_size": (3, 224, 224),
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "num_classes": 1000,
        "first_conv": "stem.conv1",
        "classifier": "head.conv2",
    }


PUBLISHED = (
    (r"^stem([12])\.0\.", r"stem.conv\1."),
    (r"^stem([12])\.1\.", r"stem.norm\1."),
    (r"^stem2\.2\.bn\.", "stem.norm3."),
    (r"^stem2\.2\.", "stem.series."),
    (r"^stem\.0\.", "stem.conv."),
    (r"^stem\.1\.", "stem.series."),
    (r"\.conv([12])\.0\.", r".conv\1."),
    (r"\.conv([12])\.1\.", r".norm\1."),
    (r"\.act\.bn\.", ".norm3."),
    (r"\.act\.", ".series."),
    (r"^cls1\.2\.", "head.conv1."),
    (r"^cls1\.3\.", "head.norm1."),
    (r"^cls2\.0\.", "head.conv2."),
    (r"^cls\.2\.", "head.conv."),
)


def from_published(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Tensors of a published checkpoint, in either form, by the names of this module."""
    found = {}
    for name, tensor in state.items():
        for pattern, ours in PUBLISHED:
            name = re.sub(pattern, ours, name)
        found[name] = tensor
    return found


# Channels after the stem and each layer, and the pooling of each layer.
WIDTHS_13 = (512, 512, 1024, *[2048] * 7, 4096, 4096)
POOLS_13 = (1, 2, 2, *[1] * 6, 2, 1)
VARIANTS = {
    "vanillanet_5": ((512, 1024, 2048, 4096), (2, 2, 2)),
    "vanillanet_6": ((512, 1024, 2048, 4096, 4096), (2, 2, 2, 1)),
    "vanillanet_7": ((512, 512, 1024, 2048, 4096, 4096), (1, 2, 2, 2, 1)),
    "vanillanet_8": ((512, 512, 1024, 2048, 2048, 4096, 4096), (1, 2, 2, 1, 2, 1)),
    "vanillanet_9": ((512, 512, 1024, *[2048] * 3, 4096, 4096), (1, 2, 2, 1, 1, 2, 1)),
    "vanillanet_10": ((512, 512, 1024, *[2048] * 4, 4096, 4096), (1, 2, 2, 1, 1, 1, 2, 1)),
    "vanillanet_11": ((512, 512, 1024, *[2048] * 5, 4096, 4096), (1, 2, 2, *[1] * 4, 2, 1)),
    "vanillanet_12": ((512, 512, 1024, *[2048] * 6, 4096, 4096), (1, 2, 2, *[1] * 5, 2, 1)),
    "vanillanet_13": (WIDTHS_13, POOLS_13),
    "vanillanet_13_x1_5": (tuple(width * 3 // 2 for width in WIDTHS_13), POOLS_13),
}
default_cfgs = generate_default_cfgs({name: _cfg() for name in VARIANTS})


def _create(name: str, pretrained: bool, **options: Any) -> nn.Module:
    widths, pools = VARIANTS[name]
    return build_model_with_cfg(
        VanillaNet,
        name,
        pretrained,
        pretrained_filter_fn=from_published,
        feature_cfg={"out_indices": (0, 1, 2, 3), "flatten_sequential": True},
        widths=widths,
        pools=pools,
        **options,
    )


@register_model
def vanillanet_5(pretrained: bool = False, **options: Any) -> nn.Module:
    """VanillaNet-5: 15.5 M parameters deployed."""
    return _create("vanillanet_5", pretrained, **options)


@register_model
def vanillanet_6(pretrained: bool = False, **options: Any) -> nn.Module:
    """VanillaNet-6: 32.5 M parameters deployed."""
    return _create("vanillanet_6", pretrained, **options)


@register_model
def vanillanet_7(pretrained: bool = False, **options: Any) -> nn.Module:
    """VanillaNet-7: 32.8 M parameters deployed."""
    return _create("vanillanet_7", pretrained, **options)


@register_model
def vanillanet_8(pretrained: bool = False, **options: Any) -> nn.Module:
    """VanillaNet-8: 37.1 M parameters deployed."""
    return _create("vanillanet_8", pretrained, **options)


@register_model
def vanillanet_9(pretrained: bool = False, **options: Any) -> nn.Module:
    """VanillaNet-9: 41.4 M parameters deployed."""
    return _create("vanillanet_9", pretrained, **options)


@register_model
def vanillanet_10(pretrained: bool = False, **options: Any) -> nn.Module:
    """VanillaNet-10: 45.7 M parameters deployed."""
    return _create("vanillanet_10", pretrained, **options)


@register_model
def vanillanet_11(pretrained: bool = False, **options: Any) -> nn.Module:
    """VanillaNet-11: 50.0 M parameters deployed."""
    return _create("vanillanet_11", pretrained, **options)


@register_model
def vanillanet_12(pretrained: bool = False, **options: Any) -> nn.Module:
    """VanillaNet-12: 54.3 M parameters deployed."""
    return _create("vanillanet_12", pretrained, **options)


@register_model
def vanillanet_13(pretrained: bool = False, **options: Any) -> nn.Module:
    """VanillaNet-13: 58.6 M parameters deployed."""
    return _create("vanillanet_13", pretrained, **options)


@register_model
def vanillanet_13_x1_5(pretrained: bool = False, **options: Any) -> nn.Module:
    """VanillaNet-13 at one and a half times the width: 127.8 M parameters deployed."""
    return _create("vanillanet_13_x1_5", pretrained, **options)
