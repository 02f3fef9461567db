# SPDX-License-Identifier: Apache-2.0
"""fieldfare slim of building networks: on towns made in code."""

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sample_scenes import row, street_grid, write_table, write_town

from fieldfare.common.cli import main
from fieldfare.common.slim import steps
from fieldfare.common.slim.narrow import Group
from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.remote_sensing.buildings.cli import main as buildings
from fieldfare.remote_sensing.buildings.commands import slimming
from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
)
from fieldfare.remote_sensing.buildings.networks.export import export_onnx
from fieldfare.remote_sensing.buildings.networks.fast import FastBuildingNetwork
from fieldfare.remote_sensing.buildings.networks.models import TASK, load_model

SIDES = (200, 240)
SMALL = ("--tile", "64", "--overlap", "16")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two towns 4 km apart."""
    folder = tmp_path_factory.mktemp("towns")
    towns = [
        write_town(
            folder / split,
            size=SIDES,
            houses=street_grid(SIDES, seed),
            centre=(32.6, 0.35 + seed * 0.04),
            name=split,
        )
        for seed, split in enumerate(("train", "val"))
    ]
    return write_table(folder / "scenes.csv", row(towns[0], "train"), row(towns[1], "val"))


def untrained(architecture: str) -> BuildingNetwork:
    """A network of narrow layers."""
    torch.manual_seed(0)
    config = NetworkConfig(architecture, decoder_channels=(32, 32, 32, 32, 16))
    return BuildingNetwork(config).eval()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained U-Net++."""
    network = untrained("unetplusplus")
    card = ModelCard(name="plain", task=TASK, summary="Plain.", config=network.config.to_dict())
    path = tmp_path_factory.mktemp("model") / "plain.safetensors"
    save_model_file(path, network.state_dict(), card)
    return path


def test_a_slimmed_network_is_one_that_infer_takes(
    table: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slimming, "CROP", 64)
    monkeypatch.setattr(slimming, "CROPS", 4)
    monkeypatch.setattr(slimming, "TILE", 64)
    monkeypatch.setattr(slimming, "in_encoder", lambda group: False)  # of many wide layers
    monkeypatch.setattr(steps, "SHARES", (0.5,))
    output = tmp_path / "slim.safetensors"
    arguments = ["slim", str(model), "--target", "1MMAC", "--max-loss", "1", "--repeats", "2"]
    arguments += ["--data", str(table), "-o", str(output), "--json", "--quiet"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert rows[-1]["macs"] < 0.8 * rows[0]["macs"]
    assert rows[-1]["bytes"] < 0.6 * rows[0]["bytes"]
    network, card = load_model(str(output))
    assert card.name == "slim"
    assert network.config.widths["decoder.blocks.x_0_0.conv1.0"][1] == 16
    roofs = tmp_path / "roofs.geojson"
    scene = str(table.parent / "val" / "val.tif")
    run = CliRunner().invoke(
        buildings, ["infer", scene, "-o", str(roofs), "--model", str(output), *SMALL]
    )
    assert run.exit_code == 0, run.output
    assert roofs.exists()


@pytest.mark.parametrize("architecture", ["unetplusplus", "unet"])
def test_a_narrowed_network_keeps_its_depths_and_its_fast_form(architecture: str) -> None:
    network = untrained(architecture)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    step = steps.Channels("", [images], images[:1], slimming._every_depth, slimming.in_decoder)
    drafts = [draft for _, draft in step.candidates(steps.Draft(network))]
    own = slimming._own(drafts[3])
    again = BuildingNetwork(NetworkConfig.from_dict(json.loads(json.dumps(own.config.to_dict()))))
    again.load_state_dict(own.state_dict())
    again.eval()
    with torch.no_grad():
        wanted = own.all_depths(images)
        assert torch.equal(again(images), wanted[-1])
        difference = FastBuildingNetwork(again)(images) - wanted[-1]
        assert float(difference.abs().max()) < 1e-4 * float(wanted[-1].abs().max())
        for depth, logits in enumerate(wanted[:-1], start=1):
            assert torch.equal(again.cut(depth)(images), logits)
    assert own.config == dataclasses.replace(network.config, widths=own.config.widths)


@pytest.mark.slow  # torch's export takes ten seconds
def test_a_narrowed_network_is_exported(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = untrained("lraspp")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def early(group: Group) -> bool:
        return slimming.in_encoder(group) and any(".blocks.1." in name for name in group.makers)

    step = steps.Channels("", [images], images[:1], wanted=early)
    draft = [draft for _, draft in step.candidates(steps.Draft(network))][-1]
    own, target = slimming._own(draft), tmp_path / "small.onnx"
    assert own.config.widths
    assert 0 <= export_onnx(own, target, tile=64) < 1e-4
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"image": images.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, own(images).numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["unetplusplus", "lraspp"])
def test_as_many_pixels_are_called_building_as_before(architecture: str) -> None:
    whole = untrained(architecture)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    small = copy.deepcopy(whole)
    with torch.no_grad():
        for head in slimming._heads(small):
            head.weight *= 0.7
            head.bias -= 0.5
        slimming.match_shares(small, whole, images.split(1))
        pairs = zip(small.all_depths(images), whole.all_depths(images), strict=True)
        for ours, theirs in pairs:
            counts = [(maps > 0).sum(dim=(0, 2, 3)) for maps in (ours, theirs)]
            assert (counts[0] - counts[1]).abs().max() <= 2


def test_activations_are_measured_on_what_is_trained_on(table: Path, model: Path) -> None:
    workshop = slimming.BuildingWorkshop()
    network, _ = workshop.load(str(model))
    data = workshop.read(network, [table], quiet=True)
    assert [scene.split for scene in data.scenes] == ["train", "val"]
    (seen, *_), *_ = data._seen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slimming, "CROP", min(seen.shape[:2]))
        crop = (data.batches()[0][0].numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0)
    side = min(seen.shape[:2])
    places = [
        (top, left)
        for top in range(seen.shape[0] - side + 1)
        for left in range(seen.shape[1] - side + 1)
        if np.array_equal(seen[top : top + side, left : left + side], crop)
    ]
    assert places


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (["{table}", "{table}", "{table}"], "give SCENES.csv"),
        (["{only}"], "has no scene in the split val"),
    ],
)
def test_other_data_are_refused(
    table: Path, model: Path, tmp_path: Path, data: list[str], said: str
) -> None:
    only = table.with_name("only.csv")
    only.write_text("\n".join(table.read_text().splitlines()[:2]) + "\n")
    arguments = ["slim", str(model), "--target", "1ms", "-o", str(tmp_path / "o.safetensors")]
    for one in data:
        arguments += ["--data", one.format(table=table, only=only)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert not list(tmp_path.iterdir())


def test_buildings_have_no_cascade(table: Path, model: Path, tmp_path: Path) -> None:
    arguments = ["cascade", str(model), str(model), "--data", str(table)]
    done = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path / "o.safetensors")])
    assert done.exit_code == 2
    assert "has no cascade" in done.output
