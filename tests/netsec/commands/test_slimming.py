# SPDX-License-Identifier: Apache-2.0
"""fieldfare slim and cascade of traffic classifiers: on small captures made in code."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from labelled_captures import name, row, web, write_labels
from make_captures import pcap

from fieldfare.common.cli import main
from fieldfare.common.slim.workshop import Draft
from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.netsec.cli import main as traffic
from fieldfare.netsec.commands.slimming import FewerPackets, ReadLess
from fieldfare.netsec.inference.classifier import ClassifierConfig, load_classifier
from fieldfare.netsec.networks.architectures import TASK, architecture
from fieldfare.netsec.networks.netfound.config import NetFoundConfig
from fieldfare.netsec.networks.netmamba.config import NetMambaConfig

MAMBA = NetMambaConfig(
    byte_length=96, packets=3, header_bytes=24, embed_dim=16, depth=1, embedding="table"
)
FOUND = NetFoundConfig(16, 1, 2, 16, vocabulary="bytes", max_bursts=4, packets_per_burst=4)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WEB and NAME, 15 flows each to train on and as many for validation."""
    folder = tmp_path_factory.mktemp("labelled")
    rows = []
    for split, file, first in (("train", "a.pcap", 2000), ("val", "v.pcap", 4000)):
        webs, names = range(first, first + 15), range(first + 100, first + 115)
        packets = [*(p for port in webs for p in web(port)), *(p for n in names for p in name(n))]
        (folder / file).write_bytes(pcap(packets))
        rows += [row(split, file, "WEB", port) for port in webs]
        rows += [row(split, file, "NAME", port) for port in names]
    return write_labels(folder, rows)


def write_model(path: Path, kind: str, config: NetMambaConfig | NetFoundConfig) -> Path:
    torch.manual_seed(0)
    network = architecture(kind).classifier(config, 2)
    described = ClassifierConfig(kind, config.to_dict(), ("NAME", "WEB"), ("ports",))
    card = ModelCard(
        name=path.stem, task=TASK, summary="Small.", config=dataclasses.asdict(described)
    )
    save_model_file(path, network.state_dict(), card)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An untrained NetMamba and an untrained netFound."""
    folder = tmp_path_factory.mktemp("models")
    return (
        write_model(folder / "mamba.safetensors", "netmamba", MAMBA),
        write_model(folder / "found.safetensors", "netfound", FOUND),
    )


def run(*arguments: str | Path) -> dict:
    done = CliRunner().invoke(main, [*map(str, arguments), "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize("place", [0, 1])
def test_a_slimmed_network_is_one_that_infer_takes(
    labels: Path, models: tuple[Path, Path], tmp_path: Path, place: int
) -> None:
    output = tmp_path / "slim.safetensors"
    told = run(
        *("slim", models[place], "--target", "1MAC", "--max-loss", "1", "--repeats", "2"),
        *("--data", labels, "-o", output),
    )
    rows = told["rows"]
    assert rows[-1]["macs"] < 0.6 * rows[0]["macs"]
    assert rows[-1]["bytes"] < 0.7 * rows[0]["bytes"]
    classifier, card = load_classifier(str(output))
    assert classifier.evidence is not None
    assert "slimmed from" in card.summary
    flows = tmp_path / "flows.csv"
    done = CliRunner().invoke(
        traffic, ["infer", str(labels.parent / "v.pcap"), "-o", str(flows), "--model", str(output)]
    )
    assert done.exit_code == 0, done.output
    assert flows.exists()


def test_fewer_packets_are_the_first_ones() -> None:
    torch.manual_seed(0)
    network = architecture("netmamba").classifier(MAMBA, 2).eval()
    with torch.no_grad():
        network.pos_embed.normal_()
    [two, one] = [d.network for _, d in FewerPackets(2).candidates(Draft(network))]
    data = torch.randint(0, 256, (3, 96)).to(torch.uint8)
    tokens = network.embed_tokens(data)
    for small, packets in ((two, 2), (one, 1)):
        wanted = network.classify(network.encode(tokens[:, : packets * 8])[:, -1])
        torch.testing.assert_close(small(data[:, : packets * 32]), wanted)


def test_a_netfound_that_reads_less_is_what_its_configuration_says() -> None:
    torch.manual_seed(0)
    network = architecture("netfound").classifier(FOUND, 2).eval()
    step = ReadLess("max_bursts", (8, 2, 1), 2)
    drafts = list(step.candidates(Draft(network)))
    assert [what for what, _ in drafts] == ["2 of 4", "1 of 4"]
    kind = architecture("netfound")
    given = kind.example(drafts[0][1].network.config)
    assert drafts[0][1].network(kind.join(list(given.values()))).shape == (3, 2)


def test_two_models_become_one(labels: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "pair.safetensors"
    rows = run("cascade", *models, "--data", labels, "-o", output)["rows"]
    assert list(rows)[2:] == ["both", "cascade"]
    small, large = list(rows.values())[:2]
    passed = rows["cascade"]["passed_on"]
    assert rows["cascade"]["macs"] == pytest.approx(small["macs"] + passed * large["macs"])
    classifier, card = load_classifier(str(output))
    assert classifier.second is not None
    assert card.metrics[0].value == pytest.approx(rows["cascade"]["quality"])
    verb = ["slim", str(output), "--target", "1ms", "--data", str(labels)]
    again = CliRunner().invoke(main, [*verb, "-o", str(tmp_path / "o.safetensors")])
    assert again.exit_code == 2
    assert "holds two networks" in again.output


def test_labels_without_validation_are_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "a.pcap").write_bytes(pcap(web(2000)))
    only = write_labels(tmp_path, [row("train", "a.pcap", "WEB", 2000)])
    for verb in (["slim", models[0], "--target", "1ms"], ["cascade", *models]):
        done = CliRunner().invoke(
            main, [*map(str, verb), "--data", str(only), "-o", str(tmp_path / "o.safetensors")]
        )
        assert done.exit_code == 2, done.output
        assert "no captures in the split val" in done.output
