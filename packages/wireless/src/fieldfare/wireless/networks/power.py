# SPDX-License-Identifier: Apache-2.0
"""ICGNN power allocation for cell-free networks of any size, with any APs serving any users.

The nodes of the virtual graph are the served pairs of an access point (AP) and a user; neighbours
are the pairs of the same AP, which share its power, and those of the same user, which add up at
it. After every layer the powers so far are put through the model of the network, and what users
and APs see of each other there is carried into the next layer.

The optimality conditions of every monotone objective give mu_kl = lambda_k g_kl / c_l: g_kl is the
coherent gain (less what it costs users of the same pilot), c_l the price of AP l's interference or
what keeps it within its power. Every layer takes a fixed-point step towards that form, and the
network corrects users, APs and pairs. How far to trust the form is learned from 0: untrained, the
network gives fractional power allocation.

Source: the idea, Sun et al. (arXiv 2408.17252, abstract); everything else is this package's own
design.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fieldfare.common.errors import InputError

from ..signals.cell_free import CellFree, coherent_gain, pilot_leakage, shared_pilots, sinr
from ..signals.power_baselines import fractional
from .layer import SetLayer, linear_of, zero_linear

STATIC_FEATURES = 10
FEEDBACK_FEATURES = 7
FEATURES = STATIC_FEATURES + FEEDBACK_FEATURES
OUTPUTS = 3
"""Of every node: to the logarithm of its pair's power, its user's and its AP's."""

TINY = 1e-12

Objective = Literal["max-min", "sum-rate", "proportional-fair"]
OBJECTIVES: tuple[Objective, ...] = ("max-min", "sum-rate", "proportional-fair")

EXPONENT = 0.5
"""Of the fractional allocation that the network starts from."""


class IcgnnPower(nn.Module):
    """The network: cell-free networks to powers.

    Args:
        width: of a node's state.
        layers: of message passing, each with its own look at the powers so far.
        objective: whose optimality conditions to use.

    Raises:
        InputError: no such objective.
    """

    def __init__(self, width: int = 24, layers: int = 6, objective: Objective = "max-min") -> None:
        super().__init__()
        if objective not in OBJECTIVES:
            raise InputError(f"objective {objective!r}: choose one of {', '.join(OBJECTIVES)}")
        self.config = {"width": width, "layers": layers, "objective": objective}
        self.objective: Objective = objective
        self.embedding = nn.Linear(FEATURES, width)
        self.layers = nn.ModuleList(SetLayer(width, FEATURES) for _ in range(layers))
        self.heads = nn.ModuleList(zero_linear(width + FEATURES, OUTPUTS) for _ in range(layers))
        self.gates = nn.Parameter(torch.zeros(layers))

    def forward(self, network: CellFree) -> Tensor:
        """Powers of a batch of networks of one size (the dense path).

        Args:
            network: with leading dimension B.

        Returns:
            mu (B, K, L), square roots of powers within the limits; 0 for pairs not served.
        """
        mask = network.serving.unsqueeze(-1).to(self.dtype)
        static = pair_features(network)
        mu, h = fractional(network, EXPONENT), None
        level = first_level(network, mu)
        for layer, head, gate in zip(self.layers, self.heads, self.gates, strict=True):
            form = next_form(network, mu, level, self.objective)
            x = torch.cat([static, feedback(network, mu, form)], -1).to(self.dtype)
            h = self.embedding(x) if h is None else h
            h = cast(SetLayer, layer).dense(h, x, mask)
            out = (linear_of(head, [h, x]) * mask).to(mu.dtype)
            mu = self.decode(network, form, out, gate)
            level = form.level * (0.5 * _user_mean(network, out)).exp()
        return mu

    def forward_ragged(self, networks: Sequence[CellFree]) -> list[Tensor]:
        """Powers of networks of any sizes: one message passing over their served pairs.

        Args:
            networks: each without leading dimension.

        Returns:
            mu (K, L) of each; the same numbers as `forward`.
        """
        served = [network.serving for network in networks]
        sizes = [int(pairs.sum()) for pairs in served]
        members, counts = _memberships(served)
        static = [pair_features(network) for network in networks]
        mus, h = [fractional(network, EXPONENT) for network in networks], None
        levels = [first_level(*pair) for pair in zip(networks, mus, strict=True)]
        for layer, head, gate in zip(self.layers, self.heads, self.gates, strict=True):
            forms = [
                next_form(*each, self.objective) for each in zip(networks, mus, levels, strict=True)
            ]
            seen = [feedback(*each) for each in zip(networks, mus, forms, strict=True)]
            x = torch.cat(
                [
                    torch.cat([still, moved], -1)[pairs]
                    for still, moved, pairs in zip(static, seen, served, strict=True)
                ]
            ).to(self.dtype)
            h = self.embedding(x) if h is None else h
            h = layer(h, x, members, counts)
            out = linear_of(head, [h, x])
            parts = out.to(mus[0].dtype).split(sizes)
            outs = [_on_grid(pairs, part) for pairs, part in zip(served, parts, strict=True)]
            mus = [
                self.decode(network, form, out, gate)
                for network, form, out in zip(networks, forms, outs, strict=True)
            ]
            levels = [
                form.level * (0.5 * _user_mean(network, out)).exp()
                for network, form, out in zip(networks, forms, outs, strict=True)
            ]
        return mus

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; gains and powers keep the network's own precision."""
        return self.embedding.weight.dtype

    def decode(self, network: CellFree, form: "Form", out: Tensor, gate: Tensor) -> Tensor:
        """Powers from a proposed form and the nodes' outputs.

        mu_kl^2 = P_l b_l softmax_k(q_kl + pair_kl + user_k); b_l, the part of its power that AP l
        spends, is the lesser of 1 and exp(gate s_l + ap_l). q goes with the gate from fractional
        allocation to the form, s_l is what the form asks of the AP.

        Args:
            network: (..., K, L).
            form: see `Form`.
            out: (..., K, L, 3), zeros for pairs not served.
            gate: scalar, 0 for fractional allocation.

        Returns:
            mu (..., K, L).
        """
        serving = network.serving
        pair, user, ap = out[..., 0], _user_mean(network, out), _ap_mean(network, out)
        gamma = torch.where(serving, network.gamma, 1.0)
        gain = torch.where(serving, form.gain, 1.0)
        proposed = 2 * (gain.log() + form.level.log())
        gate = gate.to(proposed.dtype)
        logit = torch.lerp(EXPONENT * gamma.log(), proposed, gate) + pair + user
        silent = ~serving.any(-2, keepdim=True)
        logit = torch.where(serving, logit, -torch.inf)
        share = torch.log_softmax(torch.where(silent, 0.0, logit), -2)
        # The clamp lets the gradient pass at 0, where training starts. Elsewhere it is hardtanh,
        # since a clamp behind a logarithm breaks the optimiser of torch's ONNX exporter.
        spent = (gate * F.hardtanh(form.asked, -20, 20) + ap).clamp(-20, 0)
        share = torch.where(serving, share + spent, -torch.inf)
        return network.power.sqrt().unsqueeze(-2) * (0.5 * share).exp()


class Form(NamedTuple):
    """Powers mu_kl = lambda_k g_kl / c_l that the optimality conditions propose.

    level: (..., K, 1), lambda, up to a common factor.
    gain: (..., K, L), g, positive where served.
    asked: (..., 1, L), log of AP l's power over its limit if only interference had a price.
    """

    level: Tensor
    gain: Tensor
    asked: Tensor


def first_level(network: CellFree, mu: Tensor) -> Tensor:
    """lambda (..., K, 1) of any powers: what a user's mu_kl / g_kl has in common over its APs."""
    gain = coherent_gain(network)
    return _ratio((gain * mu).sum(-1, keepdim=True), gain.square().sum(-1, keepdim=True))


def next_form(network: CellFree, mu: Tensor, level: Tensor, objective: Objective) -> Form:
    """One fixed-point step from powers mu with multipliers `level`.

    With A_k the wanted amplitude, B_k^2 interference and noise, q_k = (A_k / B_k)^2 and nu_k the
    price of interference at user k, c_l = sum_k nu_k beta_kl. Max-min: lambda_k rises by t /
    sqrt(q_k), t the geometric mean over users, and nu_k = lambda_k t / B_k; without shared pilots
    that alone converged to the optimum on every network tried, in 20 to 60 steps. Else, with u'_k
    the derivative of the objective by the rate, lambda_k = u'_k A_k / (B_k^2 (1 + q_k)) and nu_k =
    u'_k q_k / (B_k^2 (1 + q_k)).
    """
    gain = coherent_gain(network)
    wanted = (gain * mu).sum(-1, keepdim=True).clamp_min(TINY)
    ratio = sinr(network, mu).clamp_min(TINY).unsqueeze(-1)
    unwanted = wanted.square() / ratio
    if objective == "max-min":
        target = (0.5 * ratio.log().mean(-2, keepdim=True)).exp()
        level = level * target / ratio.sqrt()
        nu = level * target / unwanted.sqrt()
    else:
        slope = 1 / (unwanted * (1 + ratio))
        if objective == "proportional-fair":
            slope = slope / torch.log1p(ratio)
        level, nu = slope * wanted, slope * ratio
    level = level.clamp_min(TINY)
    price = (nu * network.beta).sum(-2, keepdim=True)
    if network.pilots is not None:
        leakage = pilot_leakage(network)
        coherent = network.beta @ (leakage * mu).mT  # [k, i], at user k of i's signal
        coherent = torch.where(shared_pilots(network.pilots), nu * coherent, 0.0)
        cost = leakage * (coherent.mT @ network.beta) / level
        gain = torch.maximum(gain - cost, 0.05 * gain)
    asked = _ratio((level * gain).square().sum(-2, keepdim=True), price.square())
    return Form(level, gain, (asked / network.power.unsqueeze(-2)).clamp_min(TINY).log())


def _user_mean(network: CellFree, out: Tensor) -> Tensor:
    served = network.serving.sum(-1, keepdim=True).clamp_min(1)
    return out[..., 1].sum(-1, keepdim=True) / served


def _ap_mean(network: CellFree, out: Tensor) -> Tensor:
    served = network.serving.sum(-2, keepdim=True).clamp_min(1)
    return out[..., 2].sum(-2, keepdim=True) / served


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return above / below.clamp_min(TINY)


def pair_features(network: CellFree) -> Tensor:
    """What is known of every pair before any power is spent, (..., K, L, 10), ratios only."""
    serving = network.serving
    power = network.power.unsqueeze(-2)
    gain = coherent_gain(network).square() * power
    gamma = torch.where(serving, network.gamma, 1.0)
    fraction = torch.where(serving, EXPONENT * gamma.log(), -torch.inf)
    fraction = fraction - torch.logsumexp(fraction, -2, keepdim=True)
    total = gain.sum(-1, keepdim=True)
    users = serving.sum(-2, keepdim=True).to(gain.dtype).clamp_min(1)
    aps = serving.sum(-1, keepdim=True).to(gain.dtype).clamp_min(1)
    heard = network.beta * power
    share = gain / total.clamp_min(1e-30)
    parts = [
        torch.log1p(gain) / 5,
        torch.log1p(heard) / 5,
        torch.where(serving, fraction, 0.0).clamp_min(-20) / 3,
        network.gamma / network.beta.clamp_min(torch.finfo(gain.dtype).tiny),
        users.log() / 3,
        aps.log() / 3,
        torch.log1p(total) / 5,
        share.clamp_min(1e-9).log() / 5,
        torch.log1p(heard.sum(-1, keepdim=True)) / 5,
        torch.full_like(gain, gain.shape[-2]).log() / 3,
    ]
    return torch.stack([part.expand_as(gain) for part in parts], -1)


def feedback(network: CellFree, mu: Tensor, form: Form) -> Tensor:
    """What users and APs see of each other under the powers mu, (..., K, L, 7)."""
    amplitude = coherent_gain(network) * mu
    wanted = amplitude.sum(-1, keepdim=True)
    ratio = sinr(network, mu).clamp_min(TINY).unsqueeze(-1)
    unwanted = wanted.square() / ratio  # interference and noise, noise 1
    radiated = mu.square().sum(-2, keepdim=True)
    log_rate = torch.log1p(ratio).log()
    parts = [
        log_rate - log_rate.mean(-2, keepdim=True),
        log_rate - log_rate.amin(-2, keepdim=True),
        ratio.log() / 5,
        torch.log1p(unwanted) / 5,
        _ratio(amplitude, wanted),
        network.beta * radiated / unwanted.clamp_min(TINY),
        F.hardtanh(form.asked, -10, 10) / 5,
    ]
    return torch.stack([part.expand_as(amplitude) for part in parts], -1)


def _memberships(served: Sequence[Tensor]) -> tuple[list[Tensor], list[int]]:
    """For all served pairs of all networks: the number of its AP and of its user."""
    aps, users = [], []
    ap_count = user_count = 0
    for pairs in served:
        user, ap = pairs.nonzero(as_tuple=True)
        aps.append(ap + ap_count)
        users.append(user + user_count)
        user_count += pairs.shape[0]
        ap_count += pairs.shape[1]
    return [torch.cat(aps), torch.cat(users)], [ap_count, user_count]


def _on_grid(serving: Tensor, nodes: Tensor) -> Tensor:
    """Outputs of the served pairs (n, 3) at their places in (K, L, 3), zeros elsewhere."""
    grid = nodes.new_zeros((*serving.shape, OUTPUTS))
    return grid.masked_scatter(_wide(serving), nodes)


def _wide(serving: Tensor) -> Tensor:
    return serving.unsqueeze(-1).expand(*serving.shape, OUTPUTS)


def allocate(model: IcgnnPower, network: CellFree) -> Tensor:
    """mu (..., K, L) of one network or of a batch of one size; see `IcgnnPower.forward`."""
    leading = network.beta.dim() - 2

    def flatten(part: Tensor) -> Tensor:
        return part.reshape(-1, *part.shape[leading:])

    with torch.no_grad():
        mu: Tensor = model(network.map(flatten))
    return mu.reshape(network.beta.shape)


def allocate_ragged(model: IcgnnPower, networks: Sequence[CellFree]) -> list[Tensor]:
    """mu (K, L) of each network, of any sizes; see `IcgnnPower.forward_ragged`."""
    with torch.no_grad():
        return model.forward_ragged(networks)
