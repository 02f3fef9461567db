# SPDX-License-Identifier: Apache-2.0
"""The networks that find buildings: one encoder, and U-Net++, U-Net, LR-ASPP or PEM on it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fieldfare.common.encoders import Encoder
from fieldfare.common.slim.widths import resize

from .encoders import STRIDES, encoder_of
from .experts import Gate, check_sizes, install, nearest, tensors_of
from .lraspp import LRASPP
from .panoptic import building_logits
from .pem import PEM, Found, Sizes
from .unetplusplus import DEPTHS, FULL_DEPTH, NestedDecoder, initialise_decoder

ARCHITECTURES = ("unetplusplus", "unet", "lraspp", "pem")

_RARE = ("widths", "levels", "encoder_blocks", "encoder_kernels", "experts")
"""Fields that only networks of fewer layers or channels, or with experts, have in their files."""

PAD = 64
"""Images are continued to a multiple of this: MobileViT cuts stride 32 into patches of 2."""


@dataclass(frozen=True)
class NetworkConfig:
    """Everything but the weights.

    Attributes:
        architecture: one of `ARCHITECTURES`.
        encoder: a key of `encoders.ENCODERS` or a timm name.
        in_channels: bands.
        decoder_channels: U-Net and U-Net++, deepest first.
        deep_supervision: U-Net++ with a head at each depth.
        outputs: names of the maps of logits; `building`, and `edge` where roofs touching each
            other shall be told apart.
        gsd: ground sampling distance the model was trained for, metres.
        mean, std: of the input in [0, 1], for every band.
        queries: of PEM, each of which finds one building of a tile.
        widths: of layers that were slimmed, see `common.slim.widths`.
        levels: of U-Net++ with deep supervision, its largest depth.
        encoder_blocks, encoder_kernels: of each stage of an EfficientNet-Lite, where they are not
            its own.
        experts: pixel sizes of imagery, metres, fine to coarse, each of which has layers of its
            own, see `networks.experts`; of a whole U-Net++.
    """

    architecture: str = "unetplusplus"
    encoder: str = "lite0"
    in_channels: int = 3
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    deep_supervision: bool = True
    outputs: tuple[str, ...] = ("building", "edge")
    gsd: float = 0.15
    mean: float = 0.5
    std: float = 0.5
    queries: int = 100
    widths: dict[str, list[int]] = field(default_factory=dict)
    levels: int = FULL_DEPTH
    encoder_blocks: tuple[int, ...] = ()
    encoder_kernels: tuple[int, ...] = ()
    experts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"architecture must be one of {ARCHITECTURES}, got {self.architecture!r}"
            )
        if self.architecture == "pem" and self.outputs != ("building", "edge"):
            raise ValueError(f"pem gives building and edge, not {self.outputs}")
        nested = self.architecture == "unetplusplus" and self.deep_supervision
        if self.levels not in (DEPTHS if nested else (FULL_DEPTH,)):
            raise ValueError(f"levels {self.levels}: {self.architecture} cannot have so many")
        if self.experts and not (nested and self.levels == FULL_DEPTH):
            raise ValueError("only a whole U-Net++ takes experts")
        if self.experts:
            check_sizes(self.experts, self.gsd)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        values, plain = asdict(self), asdict(NetworkConfig())
        return {n: v for n, v in values.items() if n not in _RARE or v != plain[n]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "NetworkConfig":
        """Read what `to_dict` wrote."""
        names = {"decoder_channels", "outputs", "encoder_blocks", "encoder_kernels", "experts"}
        lists = {name: tuple(values[name]) for name in names & values.keys()}
        return cls(**{**values, **lists})


class BuildingNetwork(nn.Module):
    """Images in [0, 1], (B, bands, H, W), to logits (B, outputs, H, W), of any height and width.

    Tensors bear the names of segmentation_models_pytorch's Unet and UnetPlusPlus (with a `tu-`
    encoder); `deep_heads` comes on top.

    Args:
        config: see there.
        depth: of U-Net++, 1 to its levels, which is the default; the others have only the full one.

    Raises:
        ValueError: unknown encoder, or a depth that the architecture does not have.
    """

    def __init__(self, config: NetworkConfig, depth: int | None = None) -> None:
        super().__init__()
        depth = config.levels if depth is None else depth
        if depth not in depths_of(config):
            raise ValueError(f"depth {depth}: this model has {depths_of(config)}")
        self.config, self.depth = config, depth
        self._build(config, depth)
        if config.widths:
            own = dict(self.named_modules())
            whole = depth == FULL_DEPTH  # a lesser depth lacks some layers
            resize(self, {n: w for n, w in config.widths.items() if whole or n in own})
        self.gate = Gate()
        if config.experts:
            install(self, len(config.experts), self.gate)

    def _build(self, config: NetworkConfig, depth: int) -> None:
        self.encoder, self._taken = _encoder(config, depth)
        channels = [0 if index is None else self.encoder.channels[index] for index in self._taken]
        outputs = len(config.outputs)
        self.decoder: nn.Module
        self.segmentation_head: nn.Module
        self.deep_heads = nn.ModuleList()
        if config.architecture == "lraspp":
            self.decoder = LRASPP(channels[2], channels[4], outputs)
            self.segmentation_head = nn.Identity()
            return
        if config.architecture == "pem":
            self.decoder = PEM(channels[1:], Sizes(queries=config.queries))
            self.segmentation_head = nn.Identity()
            return
        width = config.decoder_channels[-1]
        if config.architecture == "unet":
            self.decoder = _unet_decoder(channels, config.decoder_channels)
        else:
            self.decoder = NestedDecoder(channels, config.decoder_channels, depth)
            if config.deep_supervision:
                widths = self.decoder.output_channels[: FULL_DEPTH - 1]
                if not all(widths):
                    raise ValueError(
                        f"{config.encoder}: has no features at stride 2, where deep supervision "
                        "has its heads; choose another encoder or deep_supervision=False"
                    )
                self.deep_heads.extend(nn.Conv2d(width, outputs, 1) for width in widths)
                _initialise_heads(self.deep_heads)
        if depth == FULL_DEPTH:
            self.segmentation_head = nn.Sequential(nn.Conv2d(width, outputs, 3, padding=1))
            _initialise_heads(self.segmentation_head)
        else:
            self.segmentation_head = nn.Identity()

    def forward(self, image: Tensor, expert: Tensor | None = None) -> Any:
        """The logits of the network's depth; in training mode those of `all_depths`, and of PEM
        what its queries say, layer by layer.

        Args:
            expert: (B,) int64, that of each image; of a network with experts.
        """
        if self.training and self.config.architecture == "pem":
            return self.said(image)
        if self.training:
            return self.all_depths(image, expert)
        return self._logits(image, expert, deepest_only=True)[-1]

    def all_depths(self, image: Tensor, expert: Tensor | None = None) -> list[Tensor]:
        """The logits of every depth that has a head, shallowest first."""
        return self._logits(image, expert, deepest_only=False)

    def said(self, image: Tensor) -> list[Found]:
        """What the queries of PEM say of an image whose sides are multiples of PAD."""
        found: list[Found] = self.decoder(self._features(image)[1:])
        return found

    def _logits(self, image: Tensor, expert: Tensor | None, *, deepest_only: bool) -> list[Tensor]:
        self.gate.chosen = expert
        height, width = image.shape[-2:]
        bottom, right = -height % PAD, -width % PAD
        if bottom or right:
            image = F.pad(image, (0, right, 0, bottom), mode="replicate")
        maps = self._decoded(image, self._features(image), deepest_only=deepest_only)
        return [logits[..., :height, :width] for logits in maps]

    def _features(self, image: Tensor) -> list[Tensor]:
        """Of all STRIDES, of no channels where the encoder has none."""
        found = self.encoder((image - self.config.mean) / self.config.std)
        return [
            image.new_zeros(image.shape[0], 0, *(side // stride for side in image.shape[-2:]))
            if index is None
            else found[index]
            for index, stride in zip(self._taken, STRIDES, strict=True)
        ]

    def _decoded(
        self, image: Tensor, features: list[Tensor], *, deepest_only: bool
    ) -> list[Tensor]:
        if self.config.architecture == "lraspp":
            logits = self.decoder(features[2], features[4])
            return [F.interpolate(logits, size=image.shape[-2:], mode="bilinear")]
        if self.config.architecture == "pem":
            height, width = image.shape[-2:]
            return [building_logits(self.decoder(features[1:])[-1], (height, width))]
        if self.config.architecture == "unet":
            return [self.segmentation_head(self.decoder([image, *features]))]
        nodes = self.decoder(features)
        maps = []
        for number, head in enumerate(self.deep_heads, start=1):
            if not deepest_only or number == self.depth:
                logits = head(nodes[number - 1])
                maps.append(F.interpolate(logits, scale_factor=2, mode="bilinear"))
        if self.depth == FULL_DEPTH:
            maps.append(self.segmentation_head(nodes[-1]))
        return maps

    def cut(self, depth: int) -> "BuildingNetwork":
        """A copy that holds and computes only what a depth needs; the weights are this one's."""
        smaller = BuildingNetwork(self.config, depth)
        own = self.state_dict()
        smaller.load_state_dict({name: own[name] for name in smaller.state_dict()})
        return smaller.train(self.training)

    def dense(self, expert: int) -> "BuildingNetwork":
        """The ordinary network that an expert stands for, a copy in evaluation mode."""
        plain = BuildingNetwork(replace(self.config, experts=()), self.depth)
        plain.load_state_dict(tensors_of(expert, self.state_dict()))
        return plain.eval()


def expert_of(config: NetworkConfig, size: float | None) -> int:
    """The expert for imagery of a pixel size in metres, see `networks.experts.nearest`."""
    return nearest(config.experts, size, config.gsd)


def depths_of(config: NetworkConfig) -> tuple[int, ...]:
    """The depths at which a model can be run."""
    nested = config.architecture == "unetplusplus" and config.deep_supervision
    return DEPTHS[: config.levels] if nested else (FULL_DEPTH,)


def _unet_decoder(channels: Sequence[int], widths: Sequence[int]) -> nn.Module:
    from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder  # takes seconds

    decoder: nn.Module = UnetDecoder((0, *channels), widths)
    initialise_decoder(decoder)
    return decoder


def _initialise_heads(heads: nn.Module) -> None:
    """First weights of convolutions that give logits (Glorot and Bengio 2010)."""
    for module in heads.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


def _encoder(config: NetworkConfig, depth: int) -> tuple[Encoder, list[int | None]]:
    """An encoder without the stages that a depth does not need, and where each stride's feature is.

    The feature of a stride that the encoder does not have is None.
    """
    encoder = encoder_of(
        config.encoder,
        config.in_channels,
        STRIDES[: depth + 1],
        blocks=config.encoder_blocks,
        kernels=config.encoder_kernels,
    )
    known = encoder.strides
    return encoder, [known.index(stride) if stride in known else None for stride in STRIDES]
