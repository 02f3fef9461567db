# SPDX-License-Identifier: Apache-2.0
"""What a search gave, with random search of as many evaluations always beside it.

Yang et al. 2020 (arXiv 1912.12522) found that strategies were often no better than random draws
from their own space; so no report of ours leaves that row out, and a strategy is called better only
where a test says so.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..elastic.genes import Choice
from ..files import atomic_path, write_text
from .pareto import hypervolume, ranks
from .run import History

PERMUTATIONS = 2000
SURE = 0.01
"""p-value from which on a strategy is called better than random search."""

RESAMPLES = 400
SHARE = 0.95
"""Of the resamples that the interval of the bootstrap holds."""

Told = Callable[[Choice], Mapping[str, Any]]
"""What a row says of a choice besides its genes and values."""


@dataclass(frozen=True)
class Comparison:
    """A strategy against random search on the same problem with as many evaluations.

    Attributes:
        volume, random_volume: hypervolumes up to the worst value of either in each objective.
        p_value: how often evaluations that are dealt to both at random differ as much in how good
            they are on average, one-sided.
    """

    volume: float
    random_volume: float
    p_value: float

    @property
    def better(self) -> bool:
        """Whether the strategy may be called better than random search."""
        return self.p_value < SURE and self.volume > self.random_volume


def compare(found: History, random: History, seed: int = 0) -> Comparison:
    """Whether a strategy proposed better networks than random search did.

    Networks are ranked by how many of all evaluated ones dominate them. Were the strategy no
    better, its evaluations and those of random search could be exchanged: a permutation test of the
    mean rank (exact under that hypothesis, whatever the values' distribution).
    """
    values = np.concatenate([found.values, random.values])
    reference = values.max(0) + 1e-9 * np.ptp(values, axis=0)
    beaten = _beaten(values)
    own = np.arange(len(values)) < len(found.values)
    observed = float(beaten[own].mean() - beaten[~own].mean())
    rng = np.random.default_rng(seed)
    as_low = sum(_difference(beaten, rng.permutation(own)) <= observed for _ in range(PERMUTATIONS))
    return Comparison(
        hypervolume(found.values, reference),
        hypervolume(random.values, reference),
        (as_low + 1) / (PERMUTATIONS + 1),
    )


def _beaten(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how many of all points each is dominated."""
    no_worse = (values[:, None] <= values[None]).all(-1)
    better = (values[:, None] < values[None]).any(-1)
    return np.asarray((no_worse & better).sum(0), np.float64)


def _difference(beaten: NDArray[np.float64], own: NDArray[np.bool_]) -> float:
    return float(beaten[own].mean() - beaten[~own].mean())


def paired_bootstrap(found: History, random: History, seed: int = 0) -> tuple[float, float]:
    """Limits between which the gain in hypervolume over random search lies.

    Evaluations are paired by their number, and pairs are drawn with replacement: a gain that hangs
    on one lucky evaluation gives limits on both sides of 0. The interval holds `SHARE` of the
    resamples; gains are shares of the hypervolume of all evaluations together.
    """
    count = min(len(found.values), len(random.values))
    values = np.concatenate([found.values, random.values])
    reference = values.max(0) + 1e-9 * np.ptp(values, axis=0)
    whole = hypervolume(values, reference)
    rng = np.random.default_rng(seed)
    gains = []
    for _ in range(RESAMPLES):
        pairs = rng.integers(count, size=count)
        own, drawn = (hypervolume(one.values[pairs], reference) for one in (found, random))
        gains.append((own - drawn) / whole if whole else 0.0)
    low, high = np.quantile(gains, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return float(low), float(high)


def front_rows(name: str, history: History, told: Told = lambda choice: {}) -> list[dict[str, Any]]:
    """The networks that none dominates, by the first objective: genes and values.

    Args:
        name: of the strategy.
        told: what a row holds besides.
    """
    values = history.values
    rows = [
        {"strategy": name}
        | {objective: float(v) for objective, v in zip(history.objectives, values[i], strict=True)}
        | dict(told(history.choices[i]))
        | {"choice": dict(history.choices[i])}
        for i in np.flatnonzero(ranks(values) == 0)
    ]
    return sorted(rows, key=lambda row: float(row[history.objectives[0]]))


def write_report(
    folder: Path,
    found: Mapping[str, History],
    random: History,
    beside: Mapping[str, History] | None = None,
    *,
    told: Told = lambda choice: {},
    **more: Any,
) -> dict[str, Any]:
    """Write front.json, front.csv and, of two objectives, front.png into a folder.

    Args:
        found: strategy -> its history.
        random: of as many evaluations.
        beside: name -> what was not searched but chosen by hand; drawn and listed, never compared.
        told: what a row says of a choice besides its genes and values.
        more: what front.json holds besides.

    Returns:
        What JSON holds.
    """
    searched = {**found, "random": random}
    histories = searched | dict(beside or {})
    comparisons = {name: compare(history, random) for name, history in found.items()}
    front = [row for n, h in histories.items() for row in front_rows(n, h, told)]
    result: dict[str, Any] = {
        "objectives": list(random.objectives),
        "evaluations": {n: len(h.choices) for n, h in searched.items()},
        "rejected": {n: h.rejected for n, h in searched.items()},
        "against_random": {
            name: {
                "hypervolume": c.volume,
                "hypervolume_of_random": c.random_volume,
                "gain_interval": list(paired_bootstrap(found[name], random)),
                "p_value": c.p_value,
                "better": c.better,
            }
            for name, c in comparisons.items()
        },
        **more,
        "front": front,
    }
    write_text(folder / "front.json", json.dumps(result, indent=2) + "\n")
    write_text(folder / "front.csv", _csv(front))
    if len(random.objectives) == 2:
        _draw(histories, folder / "front.png")
    return result


def _csv(rows: list[dict[str, Any]]) -> str:
    """One line a network; each gene is a column."""
    text = io.StringIO()
    flat = [{k: v for k, v in row.items() if k != "choice"} | row["choice"] for row in rows]
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _draw(histories: Mapping[str, History], target: Path) -> None:
    from matplotlib.figure import Figure  # without pyplot, which would open a display

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for name, history in histories.items():
        values = history.values
        (line,) = axes.plot(*values.T, ".", alpha=0.35)
        front = values[ranks(values) == 0]
        front = front[np.argsort(front[:, 0])]
        label = f"{name}, {len(values)}"
        axes.step(*front.T, where="post", color=line.get_color(), label=label)
    first, second = next(iter(histories.values())).objectives
    axes.set_xlabel(first)
    axes.set_ylabel(second)
    axes.grid(alpha=0.3)
    axes.legend(title="evaluations")
    with atomic_path(target) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
