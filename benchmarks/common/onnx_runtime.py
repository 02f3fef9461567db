# SPDX-License-Identifier: Apache-2.0
"""Whether ONNX Runtime would be the faster runtime of what `infer` runs: exported graph by torch.

    rs-buildings export -o roofs.onnx; rs-sr export -o sr.onnx
    python benchmarks/common/onnx_runtime.py building-footprints roofs.onnx
    python benchmarks/common/onnx_runtime.py super-resolution sr.onnx

Processor seconds on one thread of one call of the graph on random inputs of its own shapes (free
axes are 1), and of one unit of each packaged variant, in turn, the smallest of several. A graph of
one step of a sampler is to be compared with variants of one step.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from fieldfare.common.budget import latency
from fieldfare.common.budget.variants import variants_of
from fieldfare.common.console import table

TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int64)": np.int64}


def graph(path: Path) -> partial[Any]:
    """A call of the graph."""
    how = onnxruntime.SessionOptions()
    how.intra_op_num_threads = how.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, how, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feed = {}
    for given in session.get_inputs():
        shape = [side if isinstance(side, int) else 1 for side in given.shape]
        feed[given.name] = rng.random(shape).astype(TYPES[given.type])
    print({name: array.shape for name, array in feed.items()})
    return partial(session.run, None, feed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task")
    parser.add_argument("graph", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    prepare = latency.units_of(options.task)
    units: dict[str, Any] = {"ONNX Runtime": graph(options.graph)}
    units |= {row.name: prepare(row.settings) for row in variants_of(options.task).variants}
    seconds = latency.measure(units, repeats=options.repeats)
    print(table([{"runs": name, "seconds": round(value, 4)} for name, value in seconds.items()]))


if __name__ == "__main__":
    main()
