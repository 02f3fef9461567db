# SPDX-License-Identifier: Apache-2.0
"""Sizes of NetMamba: the published one, and a reduced one that is ours."""

from dataclasses import asdict, dataclass
from typing import Any

EMBEDDINGS = ("linear", "table")
MIXERS = ("linear", "softmax", "scan")
"""Of tokens, the cheapest first."""


@dataclass(frozen=True)
class NetMambaConfig:
    """What a network looks like and what it reads.

    Attributes:
        byte_length: bytes read of each flow; a multiple of stride.
        packets, header_bytes: packets and header bytes of each among them; the rest is payload.
        mark_direction: see `packet_bytes.packet_bytes`.
        stride: bytes of a token.
        embedding: of a token: `linear` in the values of its bytes (published), or `table`, the sum
            of a learned vector for each byte's value and place (ours; learns from far fewer flows).
        embed_dim: width of the encoder.
        depth: blocks of the encoder.
        decoder_embed_dim: width of the decoder (pre-training only).
        decoder_depth: blocks of the decoder.
        state_dim: states of each channel of the scan.
        conv_kernel: width of the causal convolution before it.
        expand: channels of the scan for each of the block.
        mixers: of each block of the encoder, names of `MIXERS`; empty: all scan, as published.
        front_depth, front_dim: first blocks of a stitched network (`stitching`) and their width; a
            linear layer takes what they make to embed_dim. 0: all blocks have one width.
        cells: JSON of a `search.cell_network.CellPlan`, whose network reads the tokens instead of
            blocks; empty: blocks. Such a network has no CLS and cannot be pre-trained.
        drop_path: rate of stochastic depth behind the last block, rising to it from 0; training
            only.

    Raises:
        ValueError: a value out of range.
    """

    byte_length: int = 1600
    packets: int = 5
    header_bytes: int = 80
    mark_direction: bool = False
    stride: int = 4
    embedding: str = "linear"
    embed_dim: int = 256
    depth: int = 4
    decoder_embed_dim: int = 128
    decoder_depth: int = 2
    state_dim: int = 16
    conv_kernel: int = 4
    expand: int = 2
    drop_path: float = 0.1
    mixers: tuple[str, ...] = ()
    front_depth: int = 0
    front_dim: int = 0
    cells: str = ""

    def __post_init__(self) -> None:
        for name, value in self.to_dict().items():
            if type(value) is int and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if bool(self.front_depth) != bool(self.front_dim) or self.front_depth >= self.depth:
            raise ValueError(
                f"{self.front_depth} of {self.depth} blocks of width {self.front_dim} in front: "
                "some must be left behind them"
            )
        if self.front_depth and self.cells:
            raise ValueError("a network of cells cannot be stitched")
        object.__setattr__(self, "mixers", tuple(self.mixers))  # a card's are a list
        if self.mixers and len(self.mixers) != self.depth:
            raise ValueError(f"{len(self.mixers)} mixers for {self.depth} blocks")
        if unknown := set(self.mixers) - set(MIXERS):
            raise ValueError(f"mixers {min(unknown)!r}: choose {', '.join(MIXERS)}")
        if self.embedding not in EMBEDDINGS:
            raise ValueError(f"embedding {self.embedding!r}: choose {' or '.join(EMBEDDINGS)}")
        if self.byte_length % self.stride:
            raise ValueError(f"byte_length {self.byte_length} is no multiple of {self.stride}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path is {self.drop_path}; it must lie in [0, 1)")

    @property
    def widths(self) -> tuple[int, ...]:
        """Of each block of the encoder."""
        return (self.front_dim,) * self.front_depth + (self.embed_dim,) * (
            self.depth - self.front_depth
        )

    @property
    def tokens(self) -> int:
        """Tokens of a flow, without CLS: 400 as published."""
        return self.byte_length // self.stride

    @property
    def payload_bytes(self) -> int:
        """Payload bytes read of each packet: 240 as published.

        Raises:
            ValueError: byte_length is not so many packets of more than header_bytes.
        """
        payload, rest = divmod(self.byte_length, self.packets)
        if rest or payload < self.header_bytes:
            raise ValueError(
                f"{self.byte_length} bytes are not {self.packets} packets of {self.header_bytes} "
                "header bytes and payload"
            )
        return payload - self.header_bytes

    def to_dict(self) -> dict[str, Any]:
        """What a model card holds; `NetMambaConfig(**values)` reads it."""
        values = asdict(self)
        if not self.mixers:
            del values["mixers"]  # as cards before there was a choice
        for name in ("front_depth", "front_dim", "cells"):
            if not values[name]:
                del values[name]
        return values


CONFIGS = {
    "base": NetMambaConfig(),
    "small": NetMambaConfig(
        byte_length=640, header_bytes=48, mark_direction=True, embedding="table", embed_dim=128,
        depth=3, decoder_embed_dim=64, decoder_depth=1,
    ),
}  # fmt: skip
"""`base`, the published network, 1,861,652 parameters with 20 classes; `small`, ours, reads 48
header and 80 payload bytes of a packet."""
