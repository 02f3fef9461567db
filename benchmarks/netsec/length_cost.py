# SPDX-License-Identifier: Apache-2.0
"""Time and memory over the number of tokens: NetMamba against a Transformer of equal size.

    python benchmarks/netsec/length_cost.py [--repeats 3]

One flow, one thread, CPU time of the forward pass, the best of the repeats. The Transformer has
pre-norm blocks with PyTorch's fused attention, which does not keep the matrix of weights, and as
many parameters in its blocks as NetMamba's four. `peak_mb` is what the call adds to the process.
"""

import argparse
import time

import torch
from torch import Tensor, nn

from fieldfare.common.console import table
from fieldfare.common.efficiency import bench
from fieldfare.netsec.networks.netmamba import NetMambaClassifier, NetMambaConfig

TOKENS = (400, 1600, 6400)
HEADS = 4


class Transformer(NetMambaClassifier):
    """NetMamba's embedding and head around blocks of attention."""

    def __init__(self, config: NetMambaConfig, classes: int, layers: int, inner: int) -> None:
        super().__init__(config, classes)
        self.blocks = nn.ModuleList()
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.embed_dim, HEADS, inner, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )

    def encode(self, tokens: Tensor) -> Tensor:
        cls = (self.cls_token + self.pos_embed[:, -1:]).expand(len(tokens), -1, -1)
        x = torch.cat([tokens, cls], dim=1)
        for layer in self.layers:
            x = layer(x)
        return self.norm_f(x)


def parameters(blocks: nn.Module) -> int:
    return sum(parameter.numel() for parameter in blocks.parameters())


def best(network: nn.Module, data: Tensor, repeats: int) -> float:
    """CPU seconds."""
    found = []
    with torch.inference_mode():
        network(data)
        for _ in range(repeats):
            began = time.process_time()
            network(data)
            found.append(time.process_time() - began)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for tokens in TOKENS:
        config = NetMambaConfig(byte_length=4 * tokens)
        networks = {
            "NetMamba": NetMambaClassifier(config, 20).eval(),
            "Transformer": Transformer(config, 20, 2, 1120).eval(),
        }
        data = torch.randint(0, 256, (1, config.byte_length), dtype=torch.uint8)
        row: dict[str, float | str] = {"tokens": tokens}
        for name, network in networks.items():
            blocks = network.layers if isinstance(network, Transformer) else network.blocks
            seconds = best(network, data, options.repeats)
            peak = bench(network, data, repeats=2, warmup=1).peak_bytes
            row |= {
                f"{name}_block_parameters": parameters(blocks),
                f"{name}_ms": round(1e3 * seconds, 1),
                f"{name}_peak_mb": round((peak or 0) / 2**20, 1),
            }
        row["time_ratio"] = float(row["Transformer_ms"]) / float(row["NetMamba_ms"])
        rows.append(row)
        print(table([row]), flush=True)


if __name__ == "__main__":
    main()
