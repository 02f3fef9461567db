# SPDX-License-Identifier: Apache-2.0
"""Precoders side by side: rates, their ratio to WMMSE and to the capacity bound, per channel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from fieldfare.common.errors import InputError

from ..signals.capacity import sum_capacity
from .methods import Precoder, exact_rate

REFERENCE = "wmmse"
LEAST_RATE = 1e-3
"""Of a user that counts as served, bits/s/Hz."""

DEFINITIONS = {
    "sum_rate": "mean over channels of the sum of the users' rates, bits/s/Hz (weighted, if the "
    "users have weights)",
    "sum_rate_p5": "5th percentile of that sum over the channels",
    "ratio_wmmse": "sum over the channels of the sum rates, divided by the same of WMMSE from one "
    "start (RZF), run to a relative change of 1e-6",
    "ratio_bound": "the same divided by the certified upper bound of the sum capacity, which no "
    "precoder, linear or not, can exceed",
    "above_wmmse": "share of the channels whose sum rate exceeds that of WMMSE by more than 1e-6",
    "users_at_0": "share of the users whose rate is below 0.001 bits/s/Hz: not served",
    "bytes": "of the model's file",
    "guarded": "share of the channels for which the guard returned RZF instead of the network",
}


@dataclass(frozen=True)
class Outcome:
    """One method on B channels.

    Attributes:
        rates: (B, K) bits/s/Hz, with the true channels.
        guarded: (B,) bool, or None for methods without a guard.
    """

    rates: Tensor
    guarded: Tensor | None


def evaluate(
    H: Tensor,
    power: Tensor,
    noise_power: Tensor,
    precoders: Mapping[str, Precoder],
    *,
    weights: Tensor | None = None,
    estimate: Tensor | None = None,
) -> dict[str, Outcome]:
    """Rates of every precoder that can serve these channels.

    Args:
        H: (B, K, N) complex, the true channels, with which the rates are computed.
        power, noise_power: (B,).
        precoders: by name.
        weights: (B, K) or None.
        estimate: (B, K, N), what the precoders see instead of H.
    """
    outcomes = {}
    for name, precoder in precoders.items():
        try:
            found = precoder(H if estimate is None else estimate, power, noise_power, weights)
        except InputError:  # zero forcing of users that cannot be told apart
            continue
        exact = exact_rate(H, found.W, noise_power)
        outcomes[name] = Outcome(exact, found.guarded)
    return outcomes


def capacity_bound(H: Tensor, power: Tensor, noise_power: Tensor) -> Tensor:
    """(B,) certified upper bounds of the sum capacity, bits/s/Hz, float64."""
    return sum_capacity(H, power, noise_power, tolerance=1e-4, max_iterations=3000).upper_bound


def summarise(
    outcomes: Mapping[str, Outcome], bound: Tensor | None, weights: Tensor | None = None
) -> list[dict[str, Any]]:
    """A row for each method with the columns of `DEFINITIONS`; None where something is missing.

    Args:
        outcomes: of `evaluate`.
        bound: (B,) of `capacity_bound`, or None (with weights it is no bound).
        weights: (B, K) or None.
    """
    sums = {name: _sums(outcome.rates, weights) for name, outcome in outcomes.items()}
    reference = sums.get(REFERENCE)
    rows = []
    for name, outcome in outcomes.items():
        value = sums[name]
        rows.append(
            {
                "method": name,
                "sum_rate": float(value.mean()),
                "sum_rate_p5": float(np.percentile(value, 5)),
                "ratio_wmmse": None if reference is None else float(value.sum() / reference.sum()),
                "ratio_bound": None if bound is None else float(value.sum() / bound.sum()),
                "above_wmmse": None
                if reference is None or name == REFERENCE
                else float((value > reference * (1 + 1e-6)).mean()),
                "users_at_0": float((outcome.rates < LEAST_RATE).double().mean()),
                "guarded": None
                if outcome.guarded is None
                else float(outcome.guarded.double().mean()),
            }
        )
    return rows


def per_channel(
    outcomes: Mapping[str, Outcome], bound: Tensor | None, weights: Tensor | None = None
) -> list[dict[str, Any]]:
    """A row for each channel: the sum rate of every method, the bound, and the gap to it.

    The gap of a method is bound - sum rate: nothing could gain more than that on this channel.
    """
    sums = {name: _sums(outcome.rates, weights) for name, outcome in outcomes.items()}
    rows = []
    for index in range(len(next(iter(sums.values())))):
        row: dict[str, Any] = {"channel": index}
        row |= {name: float(value[index]) for name, value in sums.items()}
        if bound is not None:
            row["bound"] = float(bound[index])
            row |= {
                f"gap_{name}": float(bound[index]) - float(value[index])
                for name, value in sums.items()
            }
        rows.append(row)
    return rows


def _sums(rates: Tensor, weights: Tensor | None) -> np.ndarray:
    return np.asarray((rates if weights is None else rates * weights).sum(-1).double())


def user_rates(outcomes: Mapping[str, Outcome]) -> dict[str, np.ndarray]:
    """Rates of all users of all channels, for their distribution."""
    return {name: np.asarray(outcome.rates.double()).ravel() for name, outcome in outcomes.items()}
