# SPDX-License-Identifier: Apache-2.0
"""`--adapters DIR`: a classifier as the adapter of the site has it, where it knows the site.

Flows are looked at in groups of 1,024. What a group is like as a whole (`data.site`) is compared
with the sites in DIR: where none is near enough, the network is the one without adapters, to the
bit; else each token gets the nearest and most fitting ones (Glider).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fieldfare.common.errors import InputError
from fieldfare.common.experts.glider import likeness
from fieldfare.common.weights import load_model_file
from fieldfare.common.weights.registry import check_finite

from ..capture import FlowBatch
from ..data.site import FEATURES, site_vector
from ..networks.adapters import digest, mixed, tell
from ..networks.architectures import TASK
from .classifier import FlowClassifier

ADAPTER_TASK = f"{TASK}-adapter"
FILE = "adapter.safetensors"

LEAST = 0.5
"""Cosine of a group of flows and a site below which they are not of that site."""

SCALE = 3.0
"""How much the site counts beside a token's own gate (Glider's for sets of tasks)."""


@dataclass(frozen=True)
class Adapter:
    """Of one site.

    Attributes:
        name: of the site.
        base: `digest` of the network that it belongs to.
        site: (F,) what its training flows are like.
        tensors: see `networks.adapters.adapter_of`.
    """

    name: str
    base: str
    site: Tensor
    tensors: Mapping[str, Tensor]


def load_adapters(folder: Path) -> list[Adapter]:
    """All adapters in a folder and the folders in it, by the names of their sites.

    Raises:
        InputError: no such folder, none in it, two of one name, or a file that is none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --adapters wants one that holds {FILE} files")
    found: dict[str, Adapter] = {}
    for path in sorted(folder.rglob(FILE)):
        own = _load(path)
        if own.name in found:
            raise InputError(f"{path}: another adapter in {folder} is named {own.name!r} too")
        found[own.name] = own
    if not found:
        raise InputError(f"{folder}: holds no {FILE}; net-traffic train --adapter-rank makes them")
    return [found[name] for name in sorted(found)]


def _load(path: Path) -> Adapter:
    card, tensors = load_model_file(path)
    if card.task != ADAPTER_TASK:
        raise InputError(f"{path}: is a {card.task} model, no adapter of a site")
    site, base = tensors.pop("site", None), card.config.get("base")
    if site is None or site.shape != (len(FEATURES),) or not isinstance(base, str):
        raise InputError(f"{path}: its site is damaged, or of another version; train it again")
    check_finite({"site": site, **tensors}, path)
    return Adapter(card.name, base, site.float(), tensors)


class KnownSites:
    """A classifier's network as the sites' adapters have it.

    Args:
        classifier: its first network gets the adapters.
        adapters: at least one.
        scale, least: see `SCALE` and `LEAST`.

    Attributes:
        names: of the sites.
        looked: flows that each of the sites, and at last none, was near to.

    Raises:
        InputError: an adapter of another network.
    """

    def __init__(
        self,
        classifier: FlowClassifier,
        adapters: Sequence[Adapter],
        scale: float = SCALE,
        least: float = LEAST,
    ) -> None:
        own = digest(classifier.network.state_dict())
        for adapter in adapters:
            if adapter.base != own:
                raise InputError(
                    f"--adapters: {adapter.name} was trained for another network than "
                    f"{classifier.name}'s; take the model that it was trained with"
                )
        self.names = tuple(adapter.name for adapter in adapters)
        self.least, self.base = least, classifier.network
        self.sites = torch.stack([adapter.site for adapter in adapters]).to(classifier.device)
        self.looked = [0] * (len(adapters) + 1)
        several = [
            {name: t.to(classifier.device) for name, t in adapter.tensors.items()}
            for adapter in adapters
        ]
        try:
            self.adapted = mixed(self.base, several, self.sites, scale, least)
        except ValueError as error:
            raise InputError(f"--adapters: {classifier.name}: {error}") from None

    def likeness(self, flows: FlowBatch) -> Tensor:
        """(E,) cosines of what the flows are like as a whole and the sites."""
        return likeness(self._task(flows), self.sites)

    def network_for(self, flows: FlowBatch) -> nn.Module:
        """The network that is to see these flows."""
        near = (self.likeness(flows) >= self.least).tolist()
        for place, there in enumerate([*near, not any(near)]):
            self.looked[place] += len(flows) * there
        if not any(near):
            return self.base
        tell(self.adapted, self._task(flows))
        return self.adapted

    def _task(self, flows: FlowBatch) -> Tensor:
        return torch.from_numpy(site_vector(flows)).float().to(self.sites.device)

    def to_json(self) -> dict[str, int]:
        """Flows looked at by the sites that they were near to; `none`: by the network alone."""
        return dict(zip((*self.names, "none"), self.looked, strict=True))


def adapt(classifier: FlowClassifier, folder: Path) -> None:
    """Give a classifier the adapters in a folder; errors as of `load_adapters` and `KnownSites`."""
    classifier.sites = KnownSites(classifier, load_adapters(folder))
