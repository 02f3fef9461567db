# SPDX-License-Identifier: Apache-2.0
"""Max-min fairness by cone programs: what holds `max_min` to account, by another way.

The square root of user k's SINR is A_k / B_k, A_k linear in mu and B_k a norm. At a target t the
second-order cone program max s subject to A_k - t B_k >= s d_k asks how much better than t all
users can do; its optimum gives the next target t = min_k A_k / B_k (Dinkelbach). The target rises
to the optimum in a handful of programs. Unlike bisection over feasibility, nothing depends on a
solver's verdict about a program that is barely feasible (one such bisection ended 1.4e-4 low).
"""

import importlib
import operator
import warnings
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from fieldfare.common.errors import InputError, RunError

from .cell_free import (
    CellFree,
    coherent_gain,
    limit_power,
    pilot_leakage,
    shared_pilots,
    sinr,
)
from .max_min import MaxMinResult, flatten
from .power_baselines import fractional


def max_min_socp(
    network: CellFree, *, tolerance: float = 1e-6, max_programs: int = 30
) -> MaxMinResult:
    """The global optimum of the smallest SINR, one network after the other.

    Args:
        network: see `CellFree`; pilots are taken into account.
        tolerance: on the relative gain of sqrt(SINR) that is left, as the solver sees it.
        max_programs: limit of cone programs per network; 4 to 8 are usual.

    Returns:
        Powers within the limits, the smallest SINR evaluated at them, and the bound
        (t + s max_k d_k)^2, which follows from B_k >= 1 and is as exact as the solver (1e-8);
        float64.

    Raises:
        InputError: cvxpy or clarabel is not installed.
        RunError: the solver failed on the first program of a network.

    Source: cell-free max-min as cone programs: Ngo et al. 2017 (doi 10.1109/TWC.2017.2655515);
    ratios: Crouzeix, Ferland, Schaible 1985 (doi 10.1007/BF00941314).
    """
    cvxpy = import_cvxpy()
    leading = network.beta.shape[:-2]
    flat = flatten(network)
    results = []
    for index in range(len(flat.beta)):
        single = flat.map(operator.itemgetter(index))
        results.append(_solve_one(cvxpy, single, tolerance, max_programs))
    mu, lower, upper = (torch.stack(parts) for parts in zip(*results, strict=True))
    return MaxMinResult(
        mu.reshape(network.beta.shape), lower.reshape(leading), upper.reshape(leading)
    )


def import_cvxpy() -> ModuleType:
    """The packages of the cone programs; raises InputError unless they are installed."""
    try:
        importlib.import_module("clarabel")
        return importlib.import_module("cvxpy")
    except ModuleNotFoundError as error:
        raise InputError(
            f"max-min by cone programs needs {error.name}: "
            "install it with pip install 'fieldfare-wireless[socp]'"
        ) from None


def _solve_one(
    cvxpy: ModuleType, network: CellFree, tolerance: float, max_programs: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Dinkelbach's iterations for one network, (K, L)."""
    users, aps = network.beta.shape
    amplitude = network.power.sqrt()  # the unknown x = mu / sqrt(P_l) lies in 0 to 1
    gain = (coherent_gain(network) * amplitude).numpy()
    spread = (network.beta.sqrt() * amplitude).numpy()

    x = cvxpy.Variable((users, aps), nonneg=True)
    radiated = cvxpy.Variable(aps, nonneg=True)  # of every AP, at least the norm of its column
    slack = cvxpy.Variable()
    target = cvxpy.Parameter(nonneg=True)
    scale = cvxpy.Parameter(users, nonneg=True)
    parts = [spread @ cvxpy.diag(radiated), np.ones((users, 1))]
    parts += _contamination(cvxpy, network, x)
    wanted = cvxpy.sum(cvxpy.multiply(gain, x), axis=1)
    constraints = [
        cvxpy.SOC(wanted - slack * scale, target * cvxpy.hstack(parts), axis=1),
        cvxpy.SOC(radiated, x, axis=0),
        radiated <= 1,
    ]
    problem = cvxpy.Problem(cvxpy.Maximize(slack), constraints)

    mu = fractional(network)
    lowest = sinr(network, mu).amin()
    upper = torch.full_like(lowest, torch.inf)
    for program in range(max_programs):
        ratio = sinr(network, mu)
        unwanted = (coherent_gain(network) * mu).sum(-1) / ratio.sqrt()
        target.value, scale.value = float(lowest.sqrt()), unwanted.numpy()
        try:
            with warnings.catch_warnings():  # an inexact solution is still evaluated exactly
                warnings.simplefilter("ignore", UserWarning)
                problem.solve(solver=cvxpy.CLARABEL)
        except cvxpy.SolverError:
            if program == 0:
                raise RunError("max-min: Clarabel failed on the cone program") from None
            break
        if slack.value is None:
            break
        gain_left = max(float(slack.value), 0.0)
        if problem.status == cvxpy.OPTIMAL:
            upper = torch.minimum(upper, (lowest.sqrt() + gain_left * unwanted.max()).square())
        proposed = limit_power(network, torch.from_numpy(x.value) * amplitude)
        reached = sinr(network, proposed).amin()
        if reached > lowest:
            mu, lowest = proposed, reached
        if reached <= lowest * (1 - tolerance) or gain_left <= tolerance * target.value:
            break
    return mu, lowest, torch.maximum(upper, lowest)


def _contamination(cvxpy: ModuleType, network: CellFree, x: object) -> list[object]:
    """Row k: what user k receives of each user i that shares its pilot, (K, K); or nothing."""
    if network.pilots is None:
        return []
    leakage = (pilot_leakage(network) * network.power.sqrt()).numpy()
    shared = shared_pilots(network.pilots).numpy().astype(float)
    received = network.beta.numpy() @ cvxpy.multiply(leakage, x).T
    return [cvxpy.multiply(shared, received)]
