# SPDX-License-Identifier: Apache-2.0
"""The cell networks that the early-exit evolutionary search finds on CIFAR.

Source: EEEA-Net: An Early Exit Evolutionary Neural Architecture Search, Termritthikun et al. 2021
(arXiv 2108.06156): cells A, B and C, from growing limits on the parameters. C1 and C2, the networks
of its ImageNet results, are something else (`eeea_net`).
"""

import re
from typing import Any, NamedTuple

import torch
from timm.layers import DropPath
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from .eeea_operations import ConvNorm, FactorizedReduce, NonLocal, SqueezeExcite, conv, operation


class Genotype(NamedTuple):
    """Two operations for each node of a cell, and the nodes whose maps the cell gives.

    An operation is written kind.input. Inputs 0 and 1 are the outputs of the two cells before, 2
    the first node. Kinds: max, avg (pooling), skip, and with their kernel sep, dil, inv.
    """

    normal: str
    normal_out: tuple[int, ...]
    reduction: str
    reduction_out: tuple[int, ...]


GENOTYPES = {
    "a": Genotype(
        "max.0 inv3.0  dil3.1 max.0  skip.2 inv3.0  avg.2 skip.3  avg.4 skip.3",
        (5, 6),
        "skip.0 dil3.0  max.1 avg.0  dil3.0 avg.0  skip.2 skip.3  dil3.3 dil5.0",
        (4, 5, 6),
    ),
    "b": Genotype(
        "skip.0 max.0  max.1 skip.1  skip.1 skip.2  dil3.3 sep3.1  max.4 sep3.4",
        (5, 6),
        "skip.0 inv5.0  avg.0 dil3.1  inv3.1 skip.1  max.1 avg.1  avg.2 dil3.3",
        (4, 5, 6),
    ),
    "c": Genotype(
        "dil5.0 max.0  inv5.0 inv3.0  dil5.2 inv3.2  sep5.1 skip.2  sep3.1 avg.4",
        (3, 5, 6),
        "inv3.0 dil3.0  avg.0 inv3.0  dil5.1 max.1  skip.3 max.3  inv5.4 inv3.2",
        (5, 6),
    ),
}


class Cell(nn.Module):
    """Five nodes, each the sum of two operations; the maps of some are concatenated.

    Args:
        before: channels of the outputs of the cell before the last one and of the last one.
        channels: of each node.
        genes, out: see Genotype.
        reduction: operations on the inputs have stride 2.
        halved: the last cell reduced, so the one before it is twice as large.
        attention: weigh the channels and the positions of the result.
        drop_path: of every operation but the identity.
    """

    def __init__(
        self,
        before: tuple[int, int],
        channels: int,
        genes: str,
        out: tuple[int, ...],
        *,
        reduction: bool,
        halved: bool,
        attention: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        first = FactorizedReduce if halved else ConvNorm
        self.first = first(before[0], channels)
        self.second = ConvNorm(before[1], channels)
        self.out, self.channels = out, channels * len(out)
        self.inputs, self.ops, self.drops = [], nn.ModuleList(), nn.ModuleList()
        for gene in genes.split():
            kind, place = gene.split(".")
            self.inputs.append(int(place))
            op = operation(kind, channels, 2 if reduction and int(place) < 2 else 1)
            self.ops.append(op)
            kept = isinstance(op, nn.Identity)
            self.drops.append(nn.Identity() if kept else DropPath(drop_path))
        width = self.channels
        self.attention = (
            nn.Sequential(SqueezeExcite(width), NonLocal(width)) if attention else nn.Identity()
        )

    def forward(self, older: Tensor, newer: Tensor) -> Tensor:
        """The outputs of the two cells before, (B, C, H, W) -> (B, channels, h, w)."""
        states = [self.first(older), self.second(newer)]
        results: list[Tensor] = []
        for place, op, drop in zip(self.inputs, self.ops, self.drops, strict=True):
            results.append(drop(op(states[place])))
            if len(results) % 2 == 0:
                states.append(results[-2] + results[-1])
        found: Tensor = self.attention(torch.cat([states[place] for place in self.out], dim=1))
        return found


class CellNet(nn.Module):
    """A stem, cells of which two reduce, mean pooling, a linear classifier.

    Args:
        genotype: of the cells.
        cells: how many; those at a third and two thirds reduce and double the channels.
        channels: of each node of the first cells.
        attention: weigh the channels and positions of each cell's result.
        in_chans: input channels.
        num_classes: 0 for pooled features.
        drop_rate: dropout before the classifier.
        drop_path_rate: of every operation but the identity.
    """

    def __init__(
        self,
        genotype: Genotype,
        cells: int = 20,
        channels: int = 36,
        attention: bool = False,
        in_chans: int = 3,
        num_classes: int = 10,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_chans, self.drop_rate = in_chans, drop_rate
        width = 3 * channels
        self.stem = nn.Sequential(conv(in_chans, width, 3), nn.BatchNorm2d(width))
        self.cells = nn.ModuleList()
        before, halved, scale = (width, width), False, 1
        ends: dict[int, dict[str, int | str]] = {}
        for index in range(cells):
            reduction = index in (cells // 3, 2 * cells // 3)
            if reduction:
                channels, scale = 2 * channels, 2 * scale
            genes, out = genotype[2:] if reduction else genotype[:2]
            cell = Cell(
                before,
                channels,
                genes,
                out,
                reduction=reduction,
                halved=halved,
                attention=attention,
                drop_path=drop_path_rate,
            )
            self.cells.append(cell)
            before, halved = (before[1], cell.channels), reduction
            module = f"cells.{index}"
            ends[scale] = {"num_chs": cell.channels, "reduction": scale, "module": module}
        self.feature_info = list(ends.values())
        self.num_features = self.head_hidden_size = before[1]
        self.drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """The linear classifier."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier (none: 0) in; only mean pooling is offered."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool {global_pool!r}: the cell networks pool by 'avg' only")
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, num_features, ceil(H / 4), ceil(W / 4))."""
        older = newer = self.stem(x)
        for cell in self.cells:
            older, newer = newer, cell(older, newer)
        found: Tensor = newer
        return found

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, num_features, h, w) -> (B, classes), or the mean over space with pre_logits."""
        x = self.drop(x.mean((2, 3)))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, classes) logits."""
        return self.forward_head(self.forward_features(x))


PUBLISHED = (
    (r"_ops\.(\d+)\.(op\.)?", r"ops.\1."),
    (r"preprocess0\.", "first."),
    (r"preprocess1\.", "second."),
    (r"\.conv_(\d)\.", r".conv\1."),
    (r"se_layer\.fc\.", "attention.0."),
    (r"nl_layer\.depthwise_conv\.", "attention.1.conv."),
    (r"nl_layer\.bn\.", "attention.1.norm."),
    (r"\.bn\.", ".norm."),
    (r"^classifier\.", "head."),
)


def from_published(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Tensors of a published checkpoint by the names of this module.

    What the published network holds and never runs is left out: the non-local layers of cells
    without attention, and the auxiliary head.
    """
    expected, found = model.state_dict().keys(), {}
    for name, tensor in state.items():
        for pattern, ours in PUBLISHED:
            name = re.sub(pattern, ours, name)
        if name in expected or not re.search(r"attention|auxiliary", name):
            found[name] = tensor
    return found


def _cfg() -> dict[str, object]:
    return {
        "input_size": (3, 32, 32),
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2470, 0.2435, 0.2616),
        "num_classes": 10,
        "first_conv": "stem.0",
        "classifier": "head",
    }


default_cfgs = generate_default_cfgs({f"eeea_net_cifar_{kind}": _cfg() for kind in GENOTYPES})


def _create(kind: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    return build_model_with_cfg(
        CellNet,
        f"eeea_net_cifar_{kind}",
        pretrained,
        pretrained_filter_fn=from_published,
        feature_cfg={"out_indices": (0, 1, 2), "feature_cls": "hook"},
        genotype=GENOTYPES[kind],
        **options,
    )


@register_model
def eeea_net_cifar_a(pretrained: bool = False, **options: Any) -> nn.Module:
    """Cells A, the smallest: 1.77 M parameters, 271 M multiply-accumulates at 32."""
    return _create("a", pretrained, options)


@register_model
def eeea_net_cifar_b(pretrained: bool = False, **options: Any) -> nn.Module:
    """Cells B: 1.87 M parameters, 302 M multiply-accumulates at 32."""
    return _create("b", pretrained, options)


@register_model
def eeea_net_cifar_c(pretrained: bool = False, **options: Any) -> nn.Module:
    """Cells C: 3.51 M parameters, 563 M multiply-accumulates at 32."""
    return _create("c", pretrained, options)
