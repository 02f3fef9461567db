# SPDX-License-Identifier: Apache-2.0
"""What `fieldfare search buildings-sizes` searches: the sizes of an elastic U-Net++."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fieldfare.common.commands.elastic import WHOLE
from fieldfare.common.elastic.genes import Choice
from fieldfare.common.elastic.network import ElasticNet
from fieldfare.common.errors import InputError
from fieldfare.common.search.sizes_file import load_elastic
from fieldfare.common.search.tasks import Given, require_files
from fieldfare.common.weights import locate

from ...weights.digest import digest
from ..networks.building_network import BuildingNetwork, NetworkConfig
from ..networks.elastic import SPACE, elastic_network, sort_channels
from ..networks.models import TASK, load_model
from ..options import DEFAULT_MODEL
from .sized import Sized

GIVEN = "a table of scenes, and the folder of fieldfare elastic buildings or a model"


class BuildingsSizes(Sized):
    """A `search.tasks.Task`: networks are cut out, not trained.

    DATA is a table of scenes and the folder of `fieldfare elastic buildings`, or a model whose
    channels are cut as they are; the packaged one where nothing is named.

    Raises:
        InputError: not such paths, or a model of another kind.
    """

    recipe = ()

    def __init__(self, given: Given) -> None:
        if given.steps is not None:
            raise InputError("--steps: what is cut out of trained weights is not trained again")
        require_files("buildings-sizes", given.data, min(2, max(1, len(given.data))), GIVEN)
        source = given.data[1] if len(given.data) == 2 else locate(DEFAULT_MODEL, TASK)
        self.network, config = elastic_of(source)
        self.network.eval()
        super().__init__("search buildings-sizes", given.data[0], config, given.seed)
        self.source = source.name
        if not source.is_dir():
            self.untrained = self.network.full  # type: ignore[assignment]
        self.identity: Mapping[str, Any] = {
            "scenes": [scene.identity for scene in self.scenes],
            "weights": digest(self.network.state_dict()),
        }
        whole = SPACE.largest()
        self.presets = {"L4": whole, "L3": self.depth_alone(Choice({**whole, "output": 3}))}

    def evaluate(self, choice: Choice, target: Path, work: Path) -> float:
        """Cut it out, measure its statistics and its quality."""
        network = self.network.extract(choice)
        assert isinstance(network, BuildingNetwork)
        return self.keep(network, choice, target, f"cut out of {self.source}")


def elastic_of(source: Path) -> tuple[ElasticNet, NetworkConfig]:
    """The networks of all sizes: those of a folder of `fieldfare elastic`, or of a model's weights.

    Raises:
        InputError: neither, or a model that cannot be made elastic.
    """
    if source.is_dir():
        values, tensors = load_elastic(source / WHOLE, TASK)
        config = NetworkConfig.from_dict(values)
        network = elastic_network(config)
        network.load_state_dict(tensors)
        return network, config
    model, _ = load_model(str(source))
    try:
        network = elastic_network(model.config)
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None
    network.full.load_state_dict(model.state_dict())
    sort_channels(network.full)  # type: ignore[arg-type]
    return network, model.config
