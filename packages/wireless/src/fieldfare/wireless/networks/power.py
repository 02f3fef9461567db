# SPDX-License-Identifier: Apache-2.0
"""ICGNN power allocation for cell-free networks of any size, with any APs serving any users.

The nodes of the virtual graph are the users, each with a level and a price that say its powers at
all access points (APs), see `multipliers`. A layer takes a fixed-point step, puts the powers so far
through the model of the network, shows every user what came of it, and corrects level and price.
What users do to each other is carried by the model, and by the states of those who interfere,
weighted with their share of the interference; no node stands for a pair of AP and user, so that
beside the model's two products the work grows with the users alone. Untrained, the network is the
fixed-point steps themselves.

Source: the idea, Sun et al. (arXiv 2408.17252, abstract); everything else is this package's own
design.
"""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fieldfare.common.errors import InputError

from ..signals.cell_free import CellFree
from ..signals.power_baselines import fractional
from ..signals.satisfaction import Profile
from .layer import UserLayer, pool_all, pool_of
from .multipliers import (
    FEATURES,
    OBJECTIVES,
    PROFILE_FEATURES,
    Heard,
    Known,
    Objective,
    State,
    Step,
    features,
    follow,
    interference,
    know,
    listen,
    propose,
    start,
    value,
)

POOLS = 3
"""Mean and maximum over the users, and the mean over those who interfere."""

PACE: dict[Objective, float] = {
    "max-min": 1.0,
    "sum-rate": 0.3,
    "proportional-fair": 0.3,
    "satisfaction": 0.7,
}
"""Of the steps before training: those of some objectives swing."""

PART = 0.7
"""Of the way that powers go in a plain step for max-min: with 100 users whole steps swing more and
more, and 8 of them end at 0.984 of the optimum in place of 0.989 (validation networks)."""


class IcgnnPower(nn.Module):
    """The network: cell-free networks to powers.

    Args:
        width: of a user's state.
        layers: corrected fixed-point steps.
        objective: whose optimality conditions to use.

    Raises:
        InputError: no such objective.
    """

    def __init__(self, width: int = 12, layers: int = 8, objective: Objective = "max-min") -> None:
        super().__init__()
        if objective not in OBJECTIVES:
            raise InputError(f"objective {objective!r}: choose one of {', '.join(OBJECTIVES)}")
        self.config = {"width": width, "layers": layers, "objective": objective}
        self.objective: Objective = objective
        seen = FEATURES + (PROFILE_FEATURES if objective == "satisfaction" else 0)
        self.layers = nn.ModuleList(
            UserLayer(width, seen, first=number == 0, pools=POOLS) for number in range(layers)
        )
        self.pace = nn.Parameter(torch.full((layers,), PACE[objective]))

    def forward(
        self, network: CellFree, profile: Profile | None = None, refinement: int = 0
    ) -> Tensor:
        """Powers of a batch of networks of one size: the best of start, layers and steps.

        Args:
            network: with leading dimension B.
            profile: what users ask for, (K,) or (B, K) each; with the objective "satisfaction".
            refinement: plain steps behind the layers.

        Returns:
            mu (B, K, L), square roots of powers within the limits; 0 for pairs not served. By what
            is maximised no worse than fractional allocation.
        """
        known = know(network, profile)
        (first, heard), *others = self.run(known)
        best, reached = first.mu, value(known, heard, first.mu, self.objective)
        for state, heard in self._and_more(known, others, refinement):
            found = value(known, heard, state.mu, self.objective)
            better = (found > reached)[..., None, None]
            best, reached = torch.where(better, state.mu, best), torch.maximum(found, reached)
        return best

    def _and_more(
        self, known: Known, found: list[tuple[State, Heard]], count: int
    ) -> Iterator[tuple[State, Heard]]:
        """What was found, and plain steps from the last of it."""
        yield from found
        state, heard = found[-1]
        pace = state.level.new_tensor(PACE[self.objective])
        part = PART if self.objective == "max-min" else 1.0
        for _ in range(count):
            step = propose(known, state, heard, self.objective)
            level = torch.lerp(state.level, step.level, pace)
            new = follow(known, heard, Step(level, step.price, step.power))
            state = new._replace(mu=torch.lerp(state.mu, new.mu, part))
            heard = listen(known, state.mu)
            yield state, heard

    def run(self, known: Known) -> list[tuple[State, Heard]]:
        """Fractional allocation and what every layer makes of it, with what users receive.

        Raises:
            ValueError: no profile, which satisfaction needs.
        """
        if self.objective == "satisfaction" and known.profile is None:
            raise ValueError("the objective satisfaction needs a profile")
        states, h = [start(known, fractional(known.network))], None
        heard = [listen(known, states[0].mu)]
        for number, layer in enumerate(self.layers):
            state = states[-1]
            x, proposed = self._look(known, state, heard[-1])
            served = x.new_ones((*x.shape[:-1], 1))

            def pool(new: Tensor, served: Tensor, state: State = state) -> tuple[Tensor, ...]:
                return *pool_all(new, served), _near(known, state, new)

            h, out = layer(x, h, served, pool)
            states.append(self._move(number, known, state, heard[-1], proposed, out))
            heard.append(listen(known, states[-1].mu))
        return list(zip(states, heard, strict=True))

    def forward_ragged(self, networks: Sequence[CellFree]) -> list[Tensor]:
        """Powers after the last layer, of networks of any sizes: one graph of all their users.

        Args:
            networks: each without leading dimension.

        Returns:
            mu (K, L) of each; the same numbers as the last of `run`.
        """
        known = [know(network) for network in networks]
        states = [start(one, fractional(one.network)) for one in known]
        sizes, h = [len(network.beta) for network in networks], None
        pool = pool_of(sizes)

        def pool_users(new: Tensor, served: Tensor) -> tuple[Tensor, ...]:
            near = [
                _near(one, state, part)
                for one, state, part in zip(known, states, new.split(sizes), strict=True)
            ]
            return *pool(new, served), torch.cat(near)

        for number, layer in enumerate(self.layers):
            heard = [
                listen(*each) for each in zip(known, (state.mu for state in states), strict=True)
            ]
            seen = [self._look(*each) for each in zip(known, states, heard, strict=True)]
            x = torch.cat([features for features, _ in seen])
            h, out = layer(x, h, x.new_ones((len(x), 1)), pool_users)
            states = [
                self._move(number, one, state, got, proposed, part)
                for one, state, got, (_, proposed), part in zip(
                    known, states, heard, seen, out.split(sizes), strict=True
                )
            ]
        return [state.mu for state in states]

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; gains and powers keep the network's own precision."""
        return cast(UserLayer, self.layers[0]).head.bias.dtype

    def _look(self, known: Known, state: State, heard: Heard) -> tuple[Tensor, Step]:
        """The users' features, and the step that is proposed."""
        step = propose(known, state, heard, self.objective)
        return features(known, state, heard, step).to(self.dtype), step

    def _move(
        self,
        number: int,
        known: Known,
        state: State,
        heard: Heard,
        proposed: Step,
        out: Tensor,
    ) -> State:
        """The proposed step at the layer's pace, corrected."""
        out, pace = out.to(state.mu.dtype), self.pace[number].to(state.mu.dtype)
        level = torch.lerp(state.level, proposed.level, pace) + out[..., 0]
        price = proposed.price
        if state.price is not None:
            price = torch.lerp(state.price, price, pace)
        return follow(known, heard, Step(level, price + out.sum(-1), proposed.power))


def _near(known: Known, state: State, new: Tensor) -> Tensor:
    """Mean of the states of those who interfere."""
    return interference(known, state.mu).to(new) @ new


def allocate(
    model: IcgnnPower, network: CellFree, profile: Profile | None = None, refinement: int = 0
) -> Tensor:
    """mu (..., K, L) of one network or of a batch of one size; see `IcgnnPower.forward`."""
    leading = network.beta.dim() - 2

    def flatten(part: Tensor) -> Tensor:
        return part.reshape(-1, *part.shape[leading:])

    with torch.no_grad():
        mu: Tensor = model(network.map(flatten), profile, refinement)
    return mu.reshape(network.beta.shape)


def allocate_ragged(model: IcgnnPower, networks: Sequence[CellFree]) -> list[Tensor]:
    """mu (K, L) of each network, of any sizes; see `IcgnnPower.forward_ragged`."""
    with torch.no_grad():
        return model.forward_ragged(networks)
