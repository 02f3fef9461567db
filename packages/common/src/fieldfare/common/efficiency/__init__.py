# SPDX-License-Identifier: Apache-2.0
"""What a network costs: counted (parameters, operations, bytes) and measured (time, memory)."""

from .bench import Bench, BenchPair, bench, bench_pair
from .cost import Cost, cost

__all__ = ["Bench", "BenchPair", "Cost", "bench", "bench_pair", "cost"]
