# SPDX-License-Identifier: Apache-2.0
"""Expert layers in the place of a network's feed-forward layers, which know nothing of routers.

chain = install(network, names, make)
chain.given = State(keys=keys)          # what routers may need, before each pass
network(x)
chain.choices                            # what each layer chose in this pass
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from .choice import Choice, joined
from .layer import ExpertLayer, Routed
from .routing import State


class Chain:
    """The layers of one network through which a router's memory runs, in their order.

    A pass runs each layer once; or, where a network computes its sequences in several parts, layer
    by layer, once for each part, always in the same order of parts. Then `given` is a state for
    each part, set before every pass.
    """

    def __init__(self) -> None:
        self._given: State | Sequence[State] = State()
        self._begin()

    @property
    def given(self) -> State | Sequence[State]:
        """What the next passes carry besides the tokens; set by the caller."""
        return self._given

    @given.setter
    def given(self, value: State | Sequence[State]) -> None:
        self._given = value
        self._begin()

    @property
    def choices(self) -> dict[str, Choice]:
        """Of the last pass, by the name of the layer; of several parts all tokens in one row.

        They hold on to its graph, for losses.
        """
        return {name: joined(found) for name, found in self.parts.items()}

    def _begin(self) -> None:
        given = self._given
        self._states = [given] if isinstance(given, State) else list(given)
        self.parts: dict[str, list[Choice]] = {}

    def run(self, layer: ExpertLayer, name: str, x: Tensor, *, first: bool) -> Tensor:
        """One layer of a pass, on one of its parts."""
        if first and len(self.parts.get(name, ())) in (0, len(self._states)):
            self._begin()
        found = self.parts.setdefault(name, [])
        if len(found) == len(self._states):
            raise ValueError(f"{name} ran more often than the chain was given states")
        routed: Routed = layer(x, self._states[len(found)])
        self._states[len(found)] = routed.state
        found.append(routed.choice)
        return routed.output

    def __getstate__(self) -> dict[str, Any]:
        """Copies of a network hold nothing of a pass."""
        states = [self._given] if isinstance(self._given, State) else list(self._given)
        return {"_given": self._given, "_states": states, "parts": {}}


class Hosted(nn.Module):
    """An expert layer that is called like the layer it replaces.

    Args:
        layer: called with the chain's state.
        chain: of its network.
        name: by which the chain keeps what it chose.
        first: a pass begins here.
    """

    def __init__(self, layer: ExpertLayer, chain: Chain, name: str, *, first: bool) -> None:
        super().__init__()
        self.layer = layer
        self.chain, self.name, self.first = chain, name, first

    def forward(self, x: Tensor) -> Tensor:
        """(..., T, D) -> (..., T, O)."""
        found: Tensor = self.chain.run(self.layer, self.name, x, first=self.first)
        return found


def install(
    model: nn.Module, names: Sequence[str], make: Callable[[int, nn.Module], ExpertLayer]
) -> Chain:
    """Replace layers of a model by expert layers, as one chain.

    Args:
        model: changed in place.
        names: of the layers, in the order in which a pass runs them, each once.
        make: from a layer's place in the chain and the layer itself to its experts.

    Raises:
        AttributeError: no layer of such a name.
    """
    chain = Chain()
    for number, name in enumerate(names):
        parent, _, last = name.rpartition(".")
        layer = make(number, model.get_submodule(name))
        hosted = Hosted(layer, chain, name, first=number == 0).train(model.training)
        setattr(model.get_submodule(parent), last, hosted)
    return chain


def layers(model: nn.Module) -> dict[str, ExpertLayer]:
    """The hosted layers of a model, by the names under which they were installed."""
    return {m.name: m.layer for m in model.modules() if isinstance(m, Hosted)}


def chains(model: nn.Module) -> list[Chain]:
    """The chains of a model, in the order of their first layers; also of a copy of it."""
    found: dict[int, Chain] = {}
    for module in model.modules():
        if isinstance(module, Hosted):
            found.setdefault(id(module.chain), module.chain)
    return list(found.values())
