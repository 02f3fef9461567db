# SPDX-License-Identifier: Apache-2.0
"""A MobileNetV3 of any depth, width and kernels, in one to three dimensions, and its elastic form.

Cai et al. 2020, *Once-for-All* (arXiv 1908.09791): five stages of two to four inverted bottlenecks,
each with a kernel of 3, 5 or 7 and an expansion of 3, 4 or 6; 21758655492572485851 networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ..blocks.depthwise import DepthwiseConv
from ..blocks.mbconv import MBConv, make_divisible
from ..blocks.nd import adaptive_avg_pool, convolution, normalisation
from ..encoders.base import Encoder
from .genes import Choice, Space
from .mbconv import hidden_width, sort_hidden
from .network import ElasticNet


@dataclass(frozen=True)
class Stage:
    """Blocks of equal width; the first has the stride."""

    width: int
    stride: int
    activation: str
    attention: str = "none"


STAGES = (
    Stage(24, 2, "relu"),
    Stage(40, 2, "relu", "hard_se"),
    Stage(80, 2, "hard_swish"),
    Stage(112, 1, "hard_swish", "hard_se"),
    Stage(160, 2, "hard_swish", "hard_se"),
)
STEM, MIXED, PENULTIMATE = 16, 960, 1280


@dataclass(frozen=True)
class Layout:
    """All that does not vary.

    Attributes:
        in_channels: of the image, sequence or volume.
        ndim: 1, 2 or 3.
        width: factor of all widths, which are multiples of 8.
        stages: their widths are before the factor.
        norm: see `MBConv`; only with `batch` can the hidden channels be sorted.
    """

    in_channels: int = 3
    ndim: int = 2
    width: float = 1.0
    stages: tuple[Stage, ...] = STAGES
    norm: str = "batch"

    def channels(self, width: int) -> int:
        """A width after the factor."""
        return make_divisible(width * self.width)


def space(
    stages: int = 5,
    *,
    depths: Sequence[int] = (2, 3, 4),
    kernels: Sequence[int] = (3, 5, 7),
    expansions: Sequence[float] = (3, 4, 6),
) -> Space:
    """Genes `depth0`, `kernel0.0`, `expansion0.0` ... : stage, then block."""
    genes: dict[str, tuple[float, ...]] = {}
    needs: dict[str, tuple[str, tuple[int, ...]]] = {}
    for stage in range(stages):
        genes[f"depth{stage}"] = tuple(sorted(depths))
        for block in range(max(depths)):
            for gene, values in (("kernel", kernels), ("expansion", expansions)):
                genes[f"{gene}{stage}.{block}"] = tuple(sorted(values))
                if block >= min(depths):
                    deep = tuple(depth for depth in sorted(depths) if depth > block)
                    needs[f"{gene}{stage}.{block}"] = (f"depth{stage}", deep)
    return Space(genes, needs)


class MobileEncoder(Encoder):
    """(B, C, *size) -> features at strides 2, 4, 8, ..., finest first.

    Attributes:
        stem: stride 2 and a fixed block; after it the stages, each a list of blocks.

    Args:
        choice: of `space`, as many stages as the layout has.
    """

    def __init__(self, choice: Choice, layout: Layout) -> None:
        super().__init__()
        ndim, norm = layout.ndim, layout.norm
        channels = layout.channels(STEM)
        self.stem = nn.Sequential(
            convolution(ndim, layout.in_channels, channels, 3, stride=2, padding=1, bias=False),
            normalisation(norm, ndim, channels),
            nn.Hardswish(),
        )
        self.first = nn.Sequential(
            DepthwiseConv(channels, ndim=ndim),
            normalisation(norm, ndim, channels),
            nn.ReLU(),
            convolution(ndim, channels, channels, 1, bias=False),
            normalisation(norm, ndim, channels),
        )
        self.stages = nn.ModuleList()
        widths, strides, total = [channels], [2], 2
        for number, stage in enumerate(layout.stages):
            blocks = nn.ModuleList()
            wanted = layout.channels(stage.width)
            for index in range(choice.number(f"depth{number}")):
                expansion = choice[f"expansion{number}.{index}"]
                blocks.append(
                    MBConv(
                        channels,
                        wanted,
                        hidden=hidden_width(channels, float(expansion)),
                        ndim=ndim,
                        norm=norm,
                        attention=stage.attention,
                        kernel=choice.number(f"kernel{number}.{index}"),
                        stride=stage.stride if index == 0 else 1,
                        activation=stage.activation,
                    )
                )
                channels = wanted
            self.stages.append(blocks)
            total *= stage.stride
            if stage.stride == 1:
                widths[-1] = channels
            else:
                widths.append(channels)
                strides.append(total)
        self.channels, self.strides = tuple(widths), tuple(strides)
        self._strides = tuple(stage.stride for stage in layout.stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, *size) -> one (B, channels[i], *(size / strides[i])) a scale, finest first."""
        x = self.stem(x)
        x = x + self.first(x)
        features = [x]
        for stride, stage in zip(self._strides, self.stages, strict=True):
            for index, block in enumerate(stage.children()):
                y = block(x)
                same = (stride == 1 or index > 0) and y.shape == x.shape
                x = x + y if same else y
            if stride == 1:
                features[-1] = x
            else:
                features.append(x)
        return features


class MobileClassifier(nn.Module):
    """(B, C, *size) -> logits (B, classes); the published head, with no norm behind the pooling."""

    def __init__(self, choice: Choice, layout: Layout, classes: int) -> None:
        super().__init__()
        ndim = layout.ndim
        self.encoder = MobileEncoder(choice, layout)
        mixed, last = layout.channels(MIXED), layout.channels(PENULTIMATE)
        self.head = nn.Sequential(
            convolution(ndim, self.encoder.channels[-1], mixed, 1, bias=False),
            normalisation(layout.norm, ndim, mixed),
            nn.Hardswish(),
            adaptive_avg_pool(ndim),
            convolution(ndim, mixed, last, 1, bias=False),
            nn.Hardswish(),
            nn.Flatten(),
            nn.Linear(last, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *size) -> (B, classes)."""
        found: Tensor = self.head(self.encoder(x)[-1])
        return found


def elastic_classifier(genes: Space, layout: Layout, classes: int) -> ElasticNet:
    """`MobileClassifier` of any choice."""
    return ElasticNet(
        genes,
        lambda choice: MobileClassifier(choice, layout, classes),
        kernels=_kernels(genes, "encoder."),
    )


def elastic_encoder(genes: Space, layout: Layout) -> ElasticNet:
    """`MobileEncoder` of any choice."""
    return ElasticNet(
        genes, lambda choice: MobileEncoder(choice, layout), kernels=_kernels(genes, "")
    )


def _kernels(genes: Space, prefix: str) -> dict[str, tuple[int, ...]]:
    """Weights whose kernel may shrink; the filter is the MBConv's fourth layer."""
    return {
        f"{prefix}stages.{place}.layers.3.weight": values
        for gene, values in genes.genes.items()
        if gene.startswith("kernel") and (place := gene.removeprefix("kernel"))
    }


def sort_channels(net: ElasticNet, trained: Sequence[float] = ()) -> None:
    """Sort the hidden channels of every block; the largest network computes the same.

    Args:
        net: with MBConvs, changed in place.
        trained: expansions that are trained already besides the largest; no channel crosses the
            widths they make.
    """
    for block in net.full.modules():
        if isinstance(block, MBConv):
            channels = block.layers[0].in_channels
            sort_hidden(block, [hidden_width(int(channels), float(e)) for e in trained])  # type: ignore[arg-type]
