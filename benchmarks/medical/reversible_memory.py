# SPDX-License-Identifier: Apache-2.0
"""Memory of a stage of reversible blocks by its depth, in each of the three memory modes.

    python benchmarks/medical/reversible_memory.py [--csv reversible_memory.csv]

Forward and backward of one stage, each in a process of its own, on one thread (about 3 minutes):
bytes kept for the backward pass (parameters left out), peak of the resident memory above what was
held before the forward pass, and how far the input computed back from the output is from the input
(relative, L2). Freed tensors are handed back to the system at once (see `step_memory.prepare`), as
the peak would else show what the allocator holds. The seconds are the processor's.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from step_memory import MIB, bytes_kept, in_a_process, peak_above, prepare, write_csv

from fieldfare.common.blocks import MEMORY_MODES, MBConv, ReversibleStage
from fieldfare.medical.inference import memory

BLOCKS = (2, 4, 8, 16)
SAVED_SPREAD = 0.01
PEAK_RATIO = {8: 4, 16: 10}


def measure(
    mode: str, blocks: int, channels: int, side: int, expansion: int, default_allocator: bool
) -> dict[str, Any]:
    """One row of the table."""
    prepare(default_allocator=default_allocator)

    def branch(width: int) -> MBConv:
        return MBConv(width, expansion=expansion)

    stage = ReversibleStage(branch, channels, blocks, mode)
    stage(torch.randn(1, channels, 8, 8, 8, requires_grad=True)).sum().backward()
    image = torch.randn(1, channels, side, side, side, requires_grad=True)
    memory.release()
    with peak_above(memory.resident()) as found:
        with bytes_kept(stage) as kept:
            output = stage(image)
        output.sum().backward()
    row: dict[str, Any] = {"blocks": blocks, "mode": mode, "kept_mib": sum(kept) / MIB, **found}
    if mode == "reversible":
        image, again = image.detach(), stage.inverse(output.detach())
        row["reconstruction_error"] = float((again - image).norm() / image.norm())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, nargs="+", default=BLOCKS)
    parser.add_argument("--channels", type=int, default=24)
    parser.add_argument("--side", type=int, default=40, help="Of the volume, voxels.")
    parser.add_argument("--expansion", type=int, default=4)
    parser.add_argument("--default-allocator", action="store_true", help="See step_memory.py.")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    rows = []
    print(f"{options.channels} channels, {options.side}^3, expansion {options.expansion}")
    print("blocks  mode         kept MiB  peak MiB  plain / it   CPU s  reconstruction")
    for blocks in options.blocks:
        plain = 0.0
        for mode in MEMORY_MODES:
            row = in_a_process(
                measure,
                mode,
                blocks,
                options.channels,
                options.side,
                options.expansion,
                options.default_allocator,
            )
            if row is None:
                print(f"{blocks:6d}  {mode:11s}  did not fit into this machine's memory")
                continue
            plain = row["peak_mib"] if mode == "none" else plain
            row["plain_to_it"] = plain / row["peak_mib"]
            error = row.get("reconstruction_error")
            print(
                f"{blocks:6d}  {mode:11s} {row['kept_mib']:9.1f} {row['peak_mib']:9.1f} "
                f"{row['plain_to_it']:10.2f}x {row['cpu_s']:8.1f}"
                + (f"  {error:.1e}" if error is not None else ""),
                flush=True,
            )
            rows.append(row)
    report(rows)
    write_csv(options.csv, rows)


def report(rows: list[dict[str, Any]]) -> None:
    """What the figures shall show, and whether they do."""
    reversible = {row["blocks"]: row for row in rows if row["mode"] == "reversible"}
    kept = [row["kept_mib"] for row in reversible.values()]
    if kept:
        spread = max(kept) / min(kept) - 1
        print(
            f"kept in mode reversible, from {min(reversible)} to {max(reversible)} blocks: the "
            f"same within {spread:.2%} (wanted: {SAVED_SPREAD:.0%}): "
            + _said(spread <= SAVED_SPREAD)
        )
    for blocks, wanted in PEAK_RATIO.items():
        if blocks in reversible:
            ratio = reversible[blocks]["plain_to_it"]
            print(
                f"peak none / reversible at {blocks} blocks: {ratio:.1f} (wanted: {wanted} or "
                f"more): {_said(ratio >= wanted)}"
            )


def _said(holds: bool) -> str:
    return "holds" if holds else "DOES NOT HOLD"


if __name__ == "__main__":
    main()
