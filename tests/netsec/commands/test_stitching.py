# SPDX-License-Identifier: Apache-2.0
"""fieldfare stitch of two NetMambas: on small captures made in code."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from labelled_captures import write_web_and_name

from fieldfare.common.cli import main
from fieldfare.common.commands.stitch import trained
from fieldfare.common.elastic.genes import Choice
from fieldfare.common.slim.stitch import StitchedNet
from fieldfare.common.weights import ModelCard, load_model_file, save_model_file
from fieldfare.netsec.cli import main as traffic
from fieldfare.netsec.commands.slimming import TrafficWorkshop
from fieldfare.netsec.commands.stitching import TrafficFamily
from fieldfare.netsec.inference.classifier import ClassifierConfig, load_classifier
from fieldfare.netsec.networks.architectures import TASK, architecture
from fieldfare.netsec.networks.netfound.config import NetFoundConfig
from fieldfare.netsec.networks.netmamba.config import NetMambaConfig

SMALL = NetMambaConfig(
    byte_length=96, packets=3, header_bytes=24, embed_dim=8, depth=2, embedding="table"
)
LARGE = dataclasses.replace(SMALL, embed_dim=12, mixers=("scan", "softmax"))
FOUND = NetFoundConfig(16, 1, 2, 16, vocabulary="bytes", max_bursts=4, packets_per_burst=4)
NAMES = [
    "small", "large", "small1-large2", "small1-large1", "small2-large2", "small2-large1",
]  # fmt: skip


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WEB and NAME, 15 flows each to train on and as many for validation."""
    return write_web_and_name(tmp_path_factory.mktemp("labelled"), train=15, val=15)


def write_model(path: Path, config: NetMambaConfig | NetFoundConfig, **changes: object) -> Path:
    kind = "netmamba" if isinstance(config, NetMambaConfig) else "netfound"
    torch.manual_seed(len(path.stem))
    network = architecture(kind).classifier(config, 2)
    described = ClassifierConfig(kind, config.to_dict(), ("NAME", "WEB"), ("ports",))
    described = dataclasses.replace(described, **changes)
    card = ModelCard(path.stem, TASK, "Small.", dataclasses.asdict(described))
    save_model_file(path, network.state_dict(), card)
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two untrained NetMambas."""
    folder = tmp_path_factory.mktemp("models")
    return (
        str(write_model(folder / "tiny.safetensors", SMALL)),
        str(write_model(folder / "larger.safetensors", LARGE)),
    )


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--json", "--quiet"])


def family(pair: tuple[str, str], labels: Path) -> TrafficFamily:
    return TrafficWorkshop().stitch(pair, [labels], steps=2, seed=0, device="cpu", quiet=True)  # type: ignore[return-value]


def draw(own: TrafficFamily) -> tuple[torch.Tensor, ...]:
    return torch.arange(4), torch.arange(4), torch.arange(4)


@pytest.fixture(scope="module")
def run(labels: Path, pair: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run."""
    output = tmp_path_factory.mktemp("run")
    done = invoke(
        *("stitch", *pair, "--data", labels, "-o", output),
        *("--steps", "3", "--repeats", "2", "--device", "cpu", "--frozen"),
    )
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["networks"]
    assert [row["network"] for row in rows] == NAMES
    assert any(row["beaten"] for row in rows)
    assert (output / "front.png").is_file()
    return output


def test_the_networks_given_are_those_in_the_folder(run: Path, pair: tuple[str, str]) -> None:
    for name, model in zip(("small", "large"), pair, strict=True):
        written = run / "networks" / f"{name}.safetensors"
        assert written.read_bytes() == Path(model).read_bytes()


def test_a_stitch_is_made_of_blocks_of_both(run: Path, pair: tuple[str, str]) -> None:
    (_, small), (_, large) = (load_model_file(Path(model)) for model in pair)
    card, made = load_model_file(run / "networks/small2-large1.safetensors")
    for name, tensor in made.items():
        if name.startswith(("patch_embed", "pos_embed", "cls_token", "blocks.0.", "blocks.1.")):
            assert torch.equal(tensor, small[name]), name
        elif name.startswith("blocks.2."):
            assert torch.equal(tensor, large[name.replace("blocks.2.", "blocks.1.")]), name
        elif not name.startswith("stitch."):
            assert torch.equal(tensor, large[name]), name
    network = card.config["network"]
    assert (network["depth"], network["front_depth"], network["front_dim"]) == (3, 2, 8)
    assert network["mixers"] == ["scan", "scan", "softmax"]
    assert "3 steps" in card.training


def test_infer_takes_a_stitch_by_name_and_by_file(run: Path, labels: Path, tmp_path: Path) -> None:
    capture, flows = labels.parent / "v.pcap", tmp_path / "flows.csv"
    verb = ["infer", str(capture), "-o", str(flows), "--json"]
    variants = str(run / f"{TASK}.variants.json")
    name = "small1-large1"
    chosen = CliRunner().invoke(traffic, [*verb, "--model", variants, "--variant", name])
    assert chosen.exit_code == 0, chosen.output
    assert json.loads(chosen.stdout)["variant"] == name
    classifier, card = load_classifier(str(run / "networks" / f"{name}.safetensors"))
    assert classifier.evidence is not None  # ports and familiarity, fitted to it
    assert card.name == name


def test_the_same_seed_gives_the_same_stitches(
    labels: Path, pair: tuple[str, str], tmp_path: Path
) -> None:
    runs = []
    for number in range(2):
        own = family(pair, labels)
        begun = own.network.projections.state_dict()
        before = {name: tensor.clone() for name, tensor in begun.items()}
        trained(own, own.settings, tmp_path / str(number), frozen=True, quiet=True)
        runs.append(own.network.projections.state_dict())
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in before)
    assert not any(torch.equal(runs[0][name], before[name]) for name in before)


def test_anchors_and_stitches_are_the_ordinary_networks_to_the_bit(
    labels: Path, pair: tuple[str, str]
) -> None:
    own = family(pair, labels)
    net: StitchedNet = own.network.eval()
    sample = own.sample()
    net.initialise(sample)
    assert net.choices().count() == len(NAMES)
    with torch.no_grad():
        for number in range(len(NAMES)):
            net.set({"network": number})
            if number < 2:
                alone = load_classifier(pair[number])[0].network
            else:
                alone = own.extract(number)
            assert torch.equal(net(sample), alone(sample)), number


def test_a_stitch_learns_and_the_blocks_stay(labels: Path, pair: tuple[str, str]) -> None:
    own = family(pair, labels)
    own.network.anchors.requires_grad_(False)
    own.network.initialise(own.sample())
    own.network.set(Choice({"network": 3}))
    loss = own.loss(own.network, draw(own))
    assert np.isfinite(loss.item())
    loss.backward()
    _, _, layer = own.network.join(3)
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().sum() > 0
    trained = {name for name, p in own.network.named_parameters() if p.grad is not None}
    assert {name.split(".")[0] for name in trained} == {"projections"}


def test_blocks_of_both_learn_unless_they_are_frozen(
    labels: Path, pair: tuple[str, str], tmp_path: Path
) -> None:
    own = family(pair, labels)
    trained(own, own.settings, tmp_path, frozen=False, quiet=True)
    changed = own.extract(3).state_dict()
    small, large = (load_classifier(model)[0].network.state_dict() for model in pair)
    for name, given in (("pos_embed", small["pos_embed"]), ("head.weight", large["head.weight"])):
        assert not torch.equal(changed[name], given)
        torch.testing.assert_close(changed[name], given, atol=1e-2, rtol=0)


def test_a_folder_of_another_run_is_refused(run: Path, labels: Path, pair: tuple[str, str]) -> None:
    for changed in ((), ("--frozen", "--seed", "1")):
        done = invoke("stitch", *pair, "--data", labels, "-o", run, "--steps", "3", *changed)
        assert done.exit_code == 2
        assert "other settings" in done.output


def test_a_dry_run_writes_nothing(labels: Path, pair: tuple[str, str], tmp_path: Path) -> None:
    done = invoke("stitch", *pair, "--data", labels, "-o", tmp_path / "run", "--dry-run")
    assert done.exit_code == 0, done.output
    costs = json.loads(done.stdout)["networks"]
    assert list(costs) == NAMES
    assert costs["small"] < costs["small1-large1"] < costs["small2-large2"]
    assert not (tmp_path / "run").exists()


def test_what_is_of_no_one_family_is_refused(
    labels: Path, pair: tuple[str, str], tmp_path: Path
) -> None:
    shorter = dataclasses.replace(LARGE, byte_length=64, packets=2)
    once = dataclasses.replace(SMALL, front_depth=1, front_dim=4)
    others = {
        "found": (write_model(tmp_path / "found.safetensors", FOUND), "only two NetMambas"),
        "short": (write_model(tmp_path / "short.safetensors", shorter), "byte_length is 96 and 64"),
        "once": (write_model(tmp_path / "once.safetensors", once), "stitched already"),
        "ports": (write_model(tmp_path / "p.safetensors", LARGE, hidden=()), "other fields hidden"),
        "names": (
            write_model(tmp_path / "n.safetensors", LARGE, classes=("NAME", "WEBS")),
            "know other classes",
        ),
    }
    verb = ("--data", labels, "-o", tmp_path / "run")
    for path, message in others.values():
        done = invoke("stitch", pair[0], path, *verb)
        assert done.exit_code == 2, done.output
        assert message in done.output
    done = invoke("stitch", pair[1], pair[0], *verb)
    assert done.exit_code == 2
    assert "name the smaller one first" in done.output
    done = invoke("stitch", *pair, "--data", tmp_path / "none.csv", "-o", tmp_path / "run")
    assert done.exit_code == 2
    assert "none.csv: no such file" in done.output
    assert not (tmp_path / "run").exists()
