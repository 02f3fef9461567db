# SPDX-License-Identifier: Apache-2.0
"""Two numbers of every user that say all powers of a cell-free network, and one step of them.

The optimality conditions of every monotone objective give mu_kl = lambda_k g_kl / c_l: g_kl is the
coherent gain (less what it costs users of the same pilot), lambda_k the level of a user, and c_l =
max(sum_k nu_k beta_kl, |lambda g_l| / sqrt(P_l)) what its interference costs, at prices nu_k of
interference at the users, or what keeps access point (AP) l within its power. So K levels and K
prices stand for K L powers. Both are logarithms here, (..., K).
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..signals.cell_free import CellFree, coherent_gain, pilot_leakage, shared_pilots
from ..signals.satisfaction import Profile, satisfaction, slope_of, spent

TINY = 1e-24
LOG2 = math.log(2)
LEAST_PUSH = 0.05
"""Least share of a power that the cost to users of its pilot leaves."""

MOST = 8.0
"""Of a feature."""

WIDEST = 30.0
"""Of the logarithm of a level over their mean."""

POWER_PRICE = 0.05
"""Of all power there is, in mean satisfaction."""

FEATURES = 12
PROFILE_FEATURES = 3

Objective = Literal["max-min", "sum-rate", "proportional-fair", "satisfaction"]
OBJECTIVES: tuple[Objective, ...] = ("max-min", "sum-rate", "proportional-fair", "satisfaction")


class Known(NamedTuple):
    """What does not change with the powers.

    gain, leak: (..., K, L) of `coherent_gain` and `pilot_leakage`. shared: (..., K, K), whether
    two users share a pilot, or None.
    """

    network: CellFree
    gain: Tensor
    leak: Tensor
    shared: Tensor | None
    profile: Profile | None


class State(NamedTuple):
    """Powers and where they came from.

    mu: (..., K, L). level, price: (..., K), no price before the first step. power: (..., 1), of
    power itself, for satisfaction. All three are logarithms, less the mean of the levels'.
    tight: (..., 1, L), logarithm of what keeps an AP within its power over what it is to pay.
    """

    mu: Tensor
    level: Tensor
    price: Tensor | None
    power: Tensor | None
    tight: Tensor


class Step(NamedTuple):
    """Level, price and price of power that come next, as in `State`."""

    level: Tensor
    price: Tensor
    power: Tensor | None


class Heard(NamedTuple):
    """What users receive: amplitudes and powers over the noise.

    wanted: (..., K), amplitude. unwanted: (..., K), noise, interference and contamination, power.
    parts: (..., K, L), power of every AP at a user. cross: (..., K, K) amplitude of a pilot's other
    users, or None. ratio: (..., K), logarithm of the root of the SINR.
    """

    wanted: Tensor
    unwanted: Tensor
    parts: Tensor
    cross: Tensor | None
    ratio: Tensor


def know(network: CellFree, profile: Profile | None = None) -> Known:
    """Gains and pilots of a network (..., K, L), and what its users ask for."""
    shared = None if network.pilots is None else shared_pilots(network.pilots)
    return Known(network, coherent_gain(network), pilot_leakage(network), shared, profile)


def start(known: Known, mu: Tensor) -> State:
    """Of any powers: the level is what a user's mu_kl / g_kl has in common over its APs."""
    level = (known.gain * mu).sum(-1) / known.gain.square().sum(-1).clamp_min(TINY)
    level = level.clamp_min(TINY).log()
    level = level - level.mean(-1, keepdim=True)
    power = None
    if known.profile is not None:  # what APs at their limits would pay in the mean
        push = (level.exp().unsqueeze(-1) * known.gain).square().sum(-2) / known.network.power
        power = push.mean(-1, keepdim=True).clamp_min(TINY).log() / 2
    tight = torch.zeros_like(known.network.power).unsqueeze(-2)
    return State(mu, level, None, power, tight)


def listen(known: Known, mu: Tensor) -> Heard:
    """What the users receive of powers mu (..., K, L)."""
    beta = known.network.beta
    wanted = (known.gain * mu).sum(-1).clamp_min(TINY)
    parts = beta * mu.square().sum(-2, keepdim=True)
    unwanted, cross = parts.sum(-1) + 1, None
    if known.shared is not None:
        cross = torch.where(known.shared, beta @ (known.leak * mu).mT, 0.0)
        unwanted = unwanted + cross.square().sum(-1)
    return Heard(wanted, unwanted, parts, cross, wanted.log() - 0.5 * unwanted.log())


def propose(known: Known, state: State, heard: Heard, objective: Objective) -> Step:
    """One fixed-point step.

    Max-min: levels rise by t / ratio, t the geometric mean, and nu_k = lambda_k t / B_k.
    Satisfaction: the same with the ratio of the desired rate for t. Levels of satisfied users then
    fall against the price of power, which is spared; where not all can be satisfied, the steps end
    at equal shares of what is desired. Else, with u'_k the derivative of the objective by the rate,
    q_k the SINR, A_k and B_k^2 wanted amplitude and unwanted power, lambda_k = u'_k A_k / (B_k^2 (1
    + q_k)) and nu_k = u'_k q_k / (B_k^2 (1 + q_k)).
    """
    log_b = 0.5 * heard.unwanted.log()
    if objective in ("max-min", "satisfaction"):
        target = heard.ratio.mean(-1, keepdim=True)
        if known.profile is not None:
            target = 0.5 * torch.expm1(known.profile.desired * LOG2).clamp_min(TINY).log()
        level = state.level + target - heard.ratio
        return _centred(Step(level, level + target - log_b, state.power))
    rate = F.softplus(2 * heard.ratio)  # nats
    slope = -2 * log_b - rate
    if objective == "proportional-fair":
        slope = slope - rate.clamp_min(TINY).log()
    return _centred(Step(slope + heard.wanted.log(), slope + 2 * heard.ratio, None))


def _centred(step: Step) -> Step:
    common = step.level.mean(-1, keepdim=True)
    power = None if step.power is None else step.power - common
    return Step(step.level - common, step.price - common, power)


def follow(known: Known, heard: Heard, step: Step) -> State:
    """The powers of levels and prices."""
    network = known.network
    level, price, power = _centred(step)
    level = F.hardtanh(level, -WIDEST, WIDEST)
    price = F.hardtanh(price, -2 * WIDEST, 2 * WIDEST)
    push = level.exp().unsqueeze(-1) * known.gain
    if heard.cross is not None:
        cost = known.leak * ((price.exp().unsqueeze(-1) * heard.cross).mT @ network.beta)
        push = torch.maximum(push - cost, LEAST_PUSH * push)
    asked = (price.exp().unsqueeze(-2) @ network.beta).clamp_min(TINY)
    if power is not None:
        power = F.hardtanh(power, -2 * WIDEST, 2 * WIDEST)
        asked = asked + power.exp().unsqueeze(-2)
    square = push.square().sum(-2, keepdim=True) / network.power.unsqueeze(-2)
    most = square.clamp_min(1e-36).sqrt()
    tight = F.hardtanh((most / asked).clamp_min(TINY).log(), -4, 4)
    return State(push / torch.maximum(asked, most), level, price, power, tight)


def features(known: Known, state: State, heard: Heard, step: Step) -> Tensor:
    """What is known of every user, (..., K, FEATURES or with a profile more), ratios only."""
    level, price, _ = step
    amplitude = known.gain * state.mu
    nothing = torch.zeros_like(level)
    change = level - state.level
    moved = nothing if state.price is None else price - state.price
    shared = nothing if heard.cross is None else heard.cross.square().sum(-1) / heard.unwanted
    spread = amplitude.square().sum(-1).clamp_min(TINY).log() - 2 * heard.wanted.log()
    parts = [
        change - change.mean(-1, keepdim=True),
        heard.ratio - heard.ratio.amin(-1, keepdim=True),
        heard.ratio / 3,
        heard.unwanted.log() / 6,
        state.level / 2,
        moved - moved.mean(-1, keepdim=True),
        (amplitude * state.tight).sum(-1) / heard.wanted,
        (heard.parts * state.tight).sum(-1) / heard.unwanted,
        spread,
        shared,
        known.network.serving.sum(-1).clamp_min(1).to(level.dtype).log() / 3,
        (price - level) / 3,
    ]
    if known.profile is not None:
        rate = F.softplus(2 * heard.ratio)
        steep = slope_of(known.profile)
        place = steep * (rate / LOG2 - (known.profile.adequate + known.profile.desired) / 2)
        parts += [place / 2, steep.log() / 2, known.profile.weight.clamp_min(1e-6).log() / 2]
    return F.hardtanh(torch.stack([part.expand_as(level) for part in parts], -1), -MOST, MOST)


def interference(known: Known, mu: Tensor) -> Tensor:
    """Share of every user's interference that is sent to user j, (..., K, K)."""
    power = known.network.beta @ mu.square().mT
    return power / power.sum(-1, keepdim=True).clamp_min(TINY)


def value(known: Known, heard: Heard, mu: Tensor, objective: Objective) -> Tensor:
    """What is maximised, (...); of two powers of a network the higher is the better."""
    if objective == "max-min":
        return heard.ratio.amin(-1)
    rate = F.softplus(2 * heard.ratio)
    if objective == "sum-rate":
        return rate.sum(-1)
    if objective == "proportional-fair" or known.profile is None:
        return rate.clamp_min(TINY).log().sum(-1)
    weight = known.profile.weight
    mean = (satisfaction(rate / LOG2, known.profile) * weight).sum(-1) / weight.sum(-1)
    return mean - POWER_PRICE * spent(known.network, mu)
