# SPDX-License-Identifier: Apache-2.0
"""Whether searching was worth it, in sentences."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .report import SHARE
from .run import History


def verdict(
    strategy: str,
    against: Mapping[str, Any],
    searched: Mapping[str, History],
    presets: Mapping[str, tuple[float, float]],
    shown: Callable[[float], str],
) -> list[str]:
    """Lines for people: the strategy against random search, the networks against hand-made ones.

    Args:
        against: of `write_report`, the strategy's comparison with random search.
        searched: name to history, of shortfall (1 - quality) and cost.
        presets: name to shortfall and cost.
        shown: a cost as people read it.
    """
    low, high = (100 * limit for limit in against["gain_interval"])
    gain = (
        f"p {against['p_value']:.4f}, gain of the front {low:+.0f} to {high:+.0f} % ({SHARE:.0%})"
    )
    better = bool(against["better"])
    lines = [
        f"{strategy} proposed better networks than random search: {gain}"
        if better
        else f"{strategy} was no better than random search: {gain}; drawing at random does as well"
    ]
    values = np.concatenate([history.values for history in searched.values()])
    best = values[np.lexsort((values[:, 1], values[:, 0]))[0]]
    lines.append(f"best network: {1 - best[0]:.4f} at {shown(best[1])}")
    for name, preset in presets.items():
        beats = (values <= preset).all(1) & (values < preset).any(1)
        found = values[beats]
        told = f"{name}, made by hand: {1 - preset[0]:.4f} at {shown(preset[1])}; "
        if len(found):
            first = found[found[:, 0].argmin()]
            told += f"beaten by {1 - first[0]:.4f} at {shown(first[1])}"
        else:
            told += "no network found is better at its cost"
        lines.append(told)
    lines.append("one short run of each network: small differences may be chance")
    return lines
