# SPDX-License-Identifier: Apache-2.0
"""Sizes of netFound: the three published ones, and a reduced one that is ours."""

from dataclasses import asdict, dataclass
from typing import Any

PAD, CLS, MASK = 0, 65537, 65538
"""Token numbers; a 16-bit field of value v is token v + 1."""

VOCABULARY = 65600
PROTOCOLS = 18
"""Rows of the protocol embedding: IP protocol numbers 0 to 17."""

HEADER_TOKENS = 12
"""Most header tokens of a packet: five of IP and seven of TCP."""

VOCABULARIES = ("words", "bytes")
METADATA = ("linear", "log")


@dataclass(frozen=True)
class NetFoundConfig:
    """What a network looks like and what it reads.

    Attributes:
        hidden_size: H, width of the network; a multiple of heads, each head of even width.
        layers: hierarchical layers, each a burst encoder and a flow encoder.
        heads: attention heads.
        intermediate_size: width of the gated feed-forward layer.
        vocabulary: `words`, one embedding of each of the 65,600 tokens (published); or `bytes`, the
            sum of an embedding of the high and one of the low byte (ours, 126 times smaller).
        payload_tokens: 16-bit tokens of each packet's payload, after those of its headers; 0 as in
            the published checkpoints, 6 as in the first version of the paper.
        metadata: how bytes, packets and interval of a burst are read and, in pre-training, told:
            `linear`, in kilobytes, packets and milliseconds (published; an interval of some seconds
            then drowns the tokens); or `log`, the logarithm of 1 + bytes, packets, milliseconds.
        max_bursts: bursts read of each flow.
        packets_per_burst: packets read of each burst.
        dropout: everywhere, in training.
        compat: compute exactly as the published code does, see `network`; needed for published
            weights.

    Raises:
        ValueError: a value out of range.
    """

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    vocabulary: str = "words"
    payload_tokens: int = 0
    metadata: str = "linear"
    max_bursts: int = 12
    packets_per_burst: int = 6
    dropout: float = 0.1
    compat: bool = False

    def __post_init__(self) -> None:
        for name in (
            "hidden_size", "layers", "heads", "intermediate_size", "max_bursts",
            "packets_per_burst",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of 2 * {self.heads}")
        if self.vocabulary not in VOCABULARIES:
            raise ValueError(f"vocabulary {self.vocabulary!r}: choose {' or '.join(VOCABULARIES)}")
        if self.metadata not in METADATA:
            raise ValueError(f"metadata {self.metadata!r}: choose {' or '.join(METADATA)}")
        if self.payload_tokens < 0:
            raise ValueError(f"payload_tokens is {self.payload_tokens}; it must be at least 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must lie in [0, 1)")

    @property
    def burst_length(self) -> int:
        """Most tokens of a burst, its CLS included: 73 for the published checkpoints."""
        return self.packets_per_burst * (HEADER_TOKENS + self.payload_tokens) + 1

    def to_dict(self) -> dict[str, Any]:
        """What a model card holds; `NetFoundConfig(**values)` reads it."""
        return asdict(self)


CONFIGS = {
    "small": NetFoundConfig(512, 4, 4, 768),
    "base": NetFoundConfig(768, 12, 12, 1152),
    "large": NetFoundConfig(1024, 24, 16, 2624),
    "tiny": NetFoundConfig(128, 2, 4, 256, vocabulary="bytes", payload_tokens=6, metadata="log"),
}
"""The published small, base and large; `tiny` is ours, reduced to fit into 10 MB."""
