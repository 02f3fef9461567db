# SPDX-License-Identifier: Apache-2.0
"""What PEM's queries cost: multiply-accumulates and time of its decoder by their number.

    python benchmarks/remote_sensing/pem_queries.py [--side 512] [--repeats 5]

Beside it the same with softmax attention of each query to all tokens (two products of tokens and
queries instead of one, with projections of keys and values), and the whole of U-Net++. Time in
seconds of one thread, medians.
"""

import argparse

import torch
from torch import Tensor, nn

from fieldfare.common import efficiency
from fieldfare.common.console import table
from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
)
from fieldfare.remote_sensing.buildings.networks.pem import PrototypeAttention, QueryDecoder, Sizes

QUERIES = (25, 50, 100, 200, 400, 800)


class Softmax(nn.Module):
    """Cross-attention as of Mask2Former, in the place of `PrototypeAttention`."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(hidden, heads, batch_first=True)

    def forward(self, x: Tensor, place: Tensor, level: Tensor, masked: Tensor) -> Tensor:
        tokens = level.flatten(2).transpose(1, 2)
        mask = masked.repeat_interleave(self.attention.num_heads, dim=0)
        found, _ = self.attention(x + place, tokens, tokens, attn_mask=mask)
        return x + found


class Masks(nn.Module):
    """The masks of the last layer, from a map at stride 4."""

    def __init__(self, sizes: Sizes, *, softmax: bool = False) -> None:
        super().__init__()
        self.queries = QueryDecoder(sizes.width, sizes)
        if softmax:
            layers = self.queries.transformer_cross_attention_layers
            for number in range(len(layers)):
                layers[number] = Softmax(sizes.hidden, sizes.heads)

    def forward(self, x: Tensor) -> Tensor:
        levels = [x[..., ::step, ::step] for step in (8, 4, 2)]
        found: Tensor = self.queries(levels, x)[-1].masks
        return found


def attention_only(queries: int, tokens: int) -> float:
    """Mega-multiply-accumulates of one prototype attention."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = PrototypeAttention(Sizes().hidden, Sizes().heads)

        def forward(self, x: Tensor, level: Tensor) -> Tensor:
            masked = torch.zeros(1, x.shape[1], tokens, dtype=torch.bool, device=x.device)
            found: Tensor = self.attention(x, x, level, masked)
            return found

    side = int(tokens**0.5)
    shape = ((1, queries, Sizes().hidden), (1, Sizes().hidden, side, side))
    return efficiency.cost(One(), *shape).macs / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    fine = options.side // 4
    image = torch.rand(1, Sizes().width, fine, fine)
    rows = []
    for queries in QUERIES:
        row: dict[str, object] = {"queries": queries}
        row["attention MMACs"] = attention_only(queries, (fine // 2) ** 2)
        for name, softmax in (("PEM", False), ("softmax", True)):
            network = Masks(Sizes(queries=queries), softmax=softmax).eval()
            row[f"{name} GMACs"] = efficiency.cost(network, image.shape).macs / 1e9
            timing = efficiency.bench(network, image, repeats=options.repeats)
            row[f"{name} s"] = timing.median_s
        rows.append(row)
    print(table(rows))
    shape = (1, 3, options.side, options.side)
    whole = []
    for architecture in ("pem", "unetplusplus"):
        network = BuildingNetwork(NetworkConfig(architecture=architecture)).eval()
        cost = efficiency.cost(network, shape)
        timing = efficiency.bench(network, torch.rand(shape), repeats=options.repeats)
        whole.append(
            {
                "network": architecture,
                "parameters": cost.parameters,
                "GMACs": cost.macs / 1e9,
                "s": timing.median_s,
            }
        )
    print(table(whole))


if __name__ == "__main__":
    main()
