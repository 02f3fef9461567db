# SPDX-License-Identifier: Apache-2.0
"""Expert layers on a CPU: what dispatch costs and saves, and weights larger than the memory given.

    python benchmarks/common/experts.py speed --rounds 10
    python benchmarks/common/experts.py memory --limit 64

`speed`: a gated layer cut into experts, k of them per token, beside the dense layer; both in turn,
one thread, processor time, the shortest of the rounds; MACs counted with the router. `memory`: a
network of random weights, written to a temporary file, run in a process of its own with all weights
in memory and within the limit; peak resident memory of both above that of the imports, and the
largest difference of their results. Random weights: neither number depends on them.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fieldfare.common.efficiency import cost
from fieldfare.common.experts import Bank, ExpertLayer, LinearRouter, TopK
from fieldfare.common.experts.recycle import split
from fieldfare.common.experts.stream import stream

MIB = 2**20


def speed(width: int, hidden: int, tokens: int, rounds: int) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    dense = Bank(1, width, hidden, activation="gelu_tanh", gated=True)
    x = torch.randn(1, tokens, width)
    print(
        f"{tokens} tokens, {width} -> {hidden}, gated; time and MACs over those of the dense layer"
    )
    print("experts  k  time  MACs")
    for experts in (4, 8, 16):
        for k in sorted({1, experts // 4, experts // 2, experts}):
            layer = ExpertLayer(
                LinearRouter(width, experts), TopK(k, "one"), [split(dense, experts)]
            ).eval()
            best = _shortest([lambda: dense.always(x[0]), partial(layer, x)], rounds)
            share = cost(layer, x).macs / (3 * width * hidden * tokens)
            print(f"{experts:7} {k:2}  {best[1] / best[0]:.2f}  {share:.3f}")


def _shortest(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Seconds of each call, in turn, after one round to warm up."""
    best = [float("inf")] * len(calls)
    with torch.inference_mode():
        for number in range(rounds + 1):
            for place, call in enumerate(calls):
                start = time.process_time()
                call()
                if number:
                    best[place] = min(best[place], time.process_time() - start)
    return best


class Tower(nn.Module):
    """Layers of experts with norms."""

    def __init__(self, layers: int, width: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.mix = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.layers = nn.ModuleList(
            ExpertLayer(
                LinearRouter(width, experts),
                TopK(2),
                [Bank(experts, width, hidden // experts, gated=True)],
            )
            for _ in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> the same shape."""
        for norm, mix, layer in zip(self.norms, self.mix, self.layers, strict=True):
            x = x + mix(norm(x))
            x = x + layer(norm(x)).output
        return x


def status(name: str) -> int:
    """A line of this process's status, in KiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


SIZES = (12, 768, 3072, 8)


def member(path: Path, limit: int, output: Path) -> None:
    """One process of `memory`."""
    torch.set_num_threads(1)
    torch.zeros(1) @ torch.zeros(1)
    with torch.device("meta"):
        model = Tower(*SIZES).eval()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    if limit:
        cache = stream(model, path, limit * MIB)
    else:
        model.load_state_dict(load_file(path), assign=True)
    x = torch.randn(4, 64, SIZES[1], generator=torch.Generator().manual_seed(0))
    start = time.process_time()
    with torch.inference_mode():
        for _ in range(3):
            y = model(x)
    seconds = time.process_time() - start
    save_file({"y": y}, output)
    peak = (status("VmHWM") - before) / 1024
    loads = f", {cache.loads} loads, {cache.peak / MIB:.0f} MiB of weights at most" if limit else ""
    print(f"{'limit ' + str(limit) + ' MiB' if limit else 'in memory'}: ", end="")
    print(f"{peak:.0f} MiB above the imports, {seconds:.1f} s for three passes{loads}")


def memory(limit: int) -> None:
    """Print both peaks."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tower.safetensors"
        torch.manual_seed(0)
        model = Tower(*SIZES)
        save_file(model.state_dict(), path)
        del model
        print(f"file of {path.stat().st_size / MIB:.0f} MiB")
        outputs = []
        for own in (0, limit):
            output = Path(folder) / f"{own}.safetensors"
            command = [sys.executable, __file__, "member", str(path), str(own), str(output)]
            subprocess.run(command, check=True)
            outputs.append(load_file(output)["y"])
        print(f"largest difference {float((outputs[0] - outputs[1]).abs().max())}")


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    fast = verbs.add_parser("speed")
    fast.add_argument("--rounds", type=int, default=10)
    fast.add_argument("--tokens", type=int, default=1728)
    fast.add_argument("--width", type=int, default=768)
    fast.add_argument("--hidden", type=int, default=1152)
    verbs.add_parser("memory").add_argument("--limit", type=int, default=64)
    one = verbs.add_parser("member")
    one.add_argument("path", type=Path)
    one.add_argument("limit", type=int)
    one.add_argument("output", type=Path)
    options = parser.parse_args()
    if options.verb == "speed":
        speed(options.width, options.hidden, options.tokens, options.rounds)
    elif options.verb == "memory":
        memory(options.limit)
    else:
        member(options.path, options.limit, options.output)


if __name__ == "__main__":
    main()
