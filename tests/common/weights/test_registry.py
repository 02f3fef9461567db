# SPDX-License-Identifier: Apache-2.0
"""`from_pretrained` by name through an installed package's entry point, and by path."""

import importlib.metadata
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fieldfare.common.errors import InputError
from fieldfare.common.weights import (
    ModelCard,
    available,
    from_pretrained,
    locate,
    registry,
    save_model_file,
)


def build(config: dict[str, Any]) -> nn.Linear:
    return nn.Linear(config["width"], 1)


def save(path: Path, task: str = "doubling", **config: Any) -> nn.Linear:
    network = nn.Linear(3, 1)
    card = ModelCard(path.stem, task, "Doubles numbers.", config or {"width": 3})
    save_model_file(path, network.state_dict(), card)
    return network


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, nn.Linear]:
    """An installed package with two models of one task and one of another; no network."""
    folder = tmp_path / "site" / "some_models"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    networks = {name: save(folder / f"{name}.safetensors") for name in ("double_s", "double_m")}
    save(folder / "halve_s.safetensors", task="halving")
    (folder / "README.md").touch()
    points = importlib.metadata.EntryPoints(
        [importlib.metadata.EntryPoint("some", "some_models", registry.GROUP)]
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))
    monkeypatch.syspath_prepend(tmp_path / "site")

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("something was to be downloaded")

    monkeypatch.setattr(socket, "socket", refuse)
    return networks


def test_packaged_models_of_a_task_are_found_without_importing_the_package(
    packaged: dict[str, nn.Linear],
) -> None:
    assert list(available("doubling")) == ["double_m", "double_s"]
    assert list(available("halving")) == ["halve_s"]
    assert available("tripling") == {}
    assert "some_models" not in sys.modules


def test_by_name(packaged: dict[str, nn.Linear]) -> None:
    network, card = from_pretrained("double_m", "doubling", build)
    assert torch.equal(network.weight, packaged["double_m"].weight)
    assert card.name == "double_m"
    assert not network.training


def test_by_path(packaged: dict[str, nn.Linear], tmp_path: Path) -> None:
    own = save(tmp_path / "own.safetensors")
    network, _ = from_pretrained(str(tmp_path / "own.safetensors"), "doubling", build)
    assert torch.equal(network.weight, own.weight)


@pytest.mark.usefixtures("packaged")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("double_l", "no model is named 'double_l'; did you mean double_"),
        ("x", "no model is named 'x'; there are: double_m, double_s"),
        ("halve_s", "no model is named 'halve_s'"),
        ("", "no model is named ''"),
        ("missing.safetensors", "missing.safetensors: no such file"),
        ("folder/double_m", "folder/double_m: no such file"),
    ],
)
def test_unknown_name_or_path_is_told_what_there_is(name: str, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        locate(name, "doubling")
    assert str(refusal.value).startswith(message)


def test_without_any_model_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    with pytest.raises(InputError, match="there are: none"):
        locate("x", "doubling")


def test_model_of_another_task_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save(path, task="halving")
    with pytest.raises(InputError, match=r"is a halving model; this needs one of doubling"):
        from_pretrained(str(path), "doubling", build)


def test_tensors_that_do_not_fit_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save(path, width=5)
    with pytest.raises(InputError, match=r"1 shape: weight \[1, 3\] for \[1, 5\]"):
        from_pretrained(str(path), "doubling", build)


@pytest.mark.parametrize("config", [{"height": 3}, {"width": "wide"}, {"width": -1}])
def test_card_that_describes_no_network_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    path = tmp_path / "own.safetensors"
    save(path, **config)
    with pytest.raises(InputError, match=r"own\.safetensors: its card describes no usable network"):
        from_pretrained(str(path), "doubling", build)


def test_a_card_that_describes_a_large_network_costs_no_memory(tmp_path: Path) -> None:
    """As large_precoding and large_sr do: a few hundred bytes that describe gigabytes."""
    path = tmp_path / "large.safetensors"
    card = ModelCard("large", "doubling", "Small file.", {"width": 10**12})
    save_model_file(path, nn.Linear(3, 1).state_dict(), card)  # 4 TB, were it built
    with pytest.raises(InputError, match="a far larger network than it holds"):
        from_pretrained(str(path), "doubling", build)
    built = []

    def build_many(config: dict[str, Any]) -> nn.Module:
        network = nn.Sequential()
        for _ in range(config["width"]):
            network.append(nn.Linear(3, 1))
            built.append(1)
        return network

    with pytest.raises(InputError, match="far more than its 2 tensors"):
        from_pretrained(str(path), "doubling", build_many)
    assert len(built) < 1000


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "broken.safetensors"
    network = nn.Linear(3, 1)
    with torch.no_grad():
        network.weight[0, 1] = value
    save_model_file(path, network.state_dict(), ModelCard("b", "doubling", "One.", {"width": 3}))
    with pytest.raises(InputError, match=r"broken.safetensors: its weights hold NaN .* weight"):
        from_pretrained(str(path), "doubling", build)


def test_a_card_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.safetensors"
    text = '{"config": ' + "[" * 20_000 + "]" * 20_000 + "}"
    save_file({"w": torch.ones(1)}, path, metadata={"fieldfare.card": text})
    with pytest.raises(InputError, match="model card is unreadable"):
        from_pretrained(str(path), "doubling", build)
