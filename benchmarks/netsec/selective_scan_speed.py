# SPDX-License-Identifier: Apache-2.0
"""The selective scan, and NetMamba with it, against the plain recurrence; one thread, CPU time.

    python benchmarks/netsec/selective_scan_speed.py [--repeats 5] [--csv FILE]

The plain recurrence is the usual reference formulation: decays and inputs of all steps as (B, D, L,
N) tensors, then a loop over the steps; its gradient is autograd's. Both sides are warmed, measured
in turn, and the best of the repeats is taken. About 2 minutes.
"""

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from fieldfare.common.blocks import selective_scan
from fieldfare.netsec.networks.netmamba import NetMambaClassifier, NetMambaConfig

SCAN_SHAPE = (2, 512, 401, 16)
"""Sequences, channels, steps, states."""

FLOWS = 4
CLASSES = 20


def plain_scan(
    u: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    *,
    z: Tensor,
    delta_bias: Tensor,
    delta_softplus: bool,
) -> Tensor:
    """The recurrence step by step; arguments as of `selective_scan`."""
    step = delta + delta_bias[:, None]
    if delta_softplus:
        step = F.softplus(step)
    decay = torch.exp(torch.einsum("bdl,dn->bdln", step, a))
    driven = torch.einsum("bdl,bnl,bdl->bdln", step, b, u)
    state = u.new_zeros(u.shape[0], *a.shape)
    outputs = []
    for time_step in range(u.shape[2]):
        state = decay[:, :, time_step] * state + driven[:, :, time_step]
        outputs.append(torch.einsum("bdn,bn->bd", state, c[:, :, time_step]))
    return (torch.stack(outputs, dim=2) + u * d[:, None]) * F.silu(z)


def best_of(repeats: int, *calls: Callable[[], Any]) -> list[float]:
    """CPU seconds of each, the least of the repeats, measured in turn after one call to warm up."""
    for call in calls:
        call()
    best = [float("inf")] * len(calls)
    for _ in range(repeats):
        for number, call in enumerate(calls):
            began = time.process_time()
            call()
            best[number] = min(best[number], time.process_time() - began)
    return best


def scan_inputs() -> dict[str, Tensor]:
    """As NetMamba's first block has them: A from -1 to -16, steps of about 0.01."""
    batch, channels, length, states = SCAN_SHAPE
    return {
        "u": torch.randn(batch, channels, length),
        "delta": torch.randn(batch, channels, length),
        "a": -torch.arange(1.0, states + 1).repeat(channels, 1),
        "b": torch.randn(batch, states, length),
        "c": torch.randn(batch, states, length),
        "d": torch.ones(channels),
        "z": torch.randn(batch, channels, length),
        "delta_bias": torch.full((channels,), -4.6),
    }


def measure_scan(repeats: int) -> list[dict[str, Any]]:
    """Forward, and forward with backward."""
    inputs = scan_inputs()
    *positional, z, bias = inputs.values()

    def run(scan: Callable[..., Tensor]) -> Tensor:
        return scan(*positional, z=z, delta_bias=bias, delta_softplus=True)

    def train(scan: Callable[..., Tensor]) -> None:
        torch.autograd.grad(run(scan).sum(), list(inputs.values()))

    with torch.no_grad():
        difference = float((run(plain_scan) - run(selective_scan)).abs().max())
        forward = best_of(repeats, lambda: run(plain_scan), lambda: run(selective_scan))
    for tensor in inputs.values():
        tensor.requires_grad_()
    both = best_of(max(repeats // 2, 1), lambda: train(plain_scan), lambda: train(selective_scan))
    print(f"scan {SCAN_SHAPE}: largest difference {difference:.1e}")
    return [row("scan, forward", *forward), row("scan, forward and backward", *both)]


def measure_classifier(repeats: int) -> dict[str, Any]:
    """The published classifier, the same weights on both sides; seconds of one flow."""
    network = NetMambaClassifier(NetMambaConfig(), CLASSES).eval()
    data = torch.randint(0, 256, (FLOWS, 1600), dtype=torch.uint8)

    def plain() -> Tensor:
        with patch("fieldfare.netsec.networks.netmamba.mamba.selective_scan", plain_scan):
            return network(data)

    with torch.inference_mode():
        difference = float((plain() - network(data)).abs().max())
        reference, ours = best_of(repeats, plain, lambda: network(data))
    print(f"classifier: {FLOWS / reference:.2f} flows/s plain, {FLOWS / ours:.2f} ours; "
          f"largest difference of logits {difference:.1e}")  # fmt: skip
    return row("classifier, a flow", reference / FLOWS, ours / FLOWS)


def row(name: str, reference: float, ours: float) -> dict[str, Any]:
    return {
        "what": name,
        "plain_ms": round(1e3 * reference, 2),
        "ours_ms": round(1e3 * ours, 2),
        "ratio": round(reference / ours, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [*measure_scan(options.repeats), measure_classifier(options.repeats)]
    for entry in rows:
        print(", ".join(f"{name} {value}" for name, value in entry.items()))
    if options.csv:
        with options.csv.open("w", newline="") as target:
            writer = csv.DictWriter(target, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
