# SPDX-License-Identifier: Apache-2.0
"""fieldfare search traffic: on small captures made in code."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from labelled_captures import name, row, web, write_folder, write_labels
from make_captures import pcap

from fieldfare.common.cli import main
from fieldfare.common.errors import InputError
from fieldfare.common.search.tasks import Given, make_task
from fieldfare.netsec.capture import read_flows
from fieldfare.netsec.commands.search import SPACE, TrafficSearch
from fieldfare.netsec.inference.classifier import load_classifier

SMALL = {"packets": 1, "payload": 16, "width": 32, "depth": 1, "learning_rate": 4e-3}


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WEB and NAME, 12 flows each to train on and 4 for validation."""
    folder = tmp_path_factory.mktemp("labelled")
    rows = []
    for split, file, first, count in (("train", "a.pcap", 2000, 12), ("val", "v.pcap", 4000, 4)):
        webs = range(first, first + count)
        names = range(first + 100, first + 100 + count)
        packets = [*(p for port in webs for p in web(port)), *(p for n in names for p in name(n))]
        (folder / file).write_bytes(pcap(packets))
        rows += [row(split, file, "WEB", port) for port in webs]
        rows += [row(split, file, "NAME", port) for port in names]
    return write_labels(folder, rows)


def test_costs_rise_with_what_is_read_and_with_the_network(labels: Path) -> None:
    task = TrafficSearch(Given((labels,)))
    for gene in ("packets", "payload", "width", "depth"):
        least, most = (SPACE.canonical(SMALL | {gene: SPACE.genes[gene][n]}) for n in (0, -1))
        assert task.macs(least) < task.macs(most)
    other = SPACE.canonical(SMALL | {"learning_rate": 1e-3})
    assert task.macs(other) == task.macs(SPACE.canonical(SMALL))
    assert len(task.runner(other)()) == 16


def test_a_network_of_a_short_run_labels_captures(labels: Path, tmp_path: Path) -> None:
    task = TrafficSearch(Given((labels,), steps=30, folder=tmp_path))
    target = tmp_path / "found.safetensors"
    quality = task.evaluate(SPACE.canonical(SMALL), target, tmp_path / "work")
    assert quality == 1
    classifier, card = load_classifier(str(target))
    assert card.metrics[0].value == 1
    assert "ports" in classifier.hidden
    flows = next(iter(read_flows(labels.parent / "v.pcap", options=_options(task))))
    assert classifier(flows).shape == (len(flows), 2)


def _options(task: TrafficSearch):  # type: ignore[no-untyped-def]
    from fieldfare.netsec.data.dataset import training_options
    from fieldfare.netsec.networks.architectures import preset

    kind, config = preset("netmamba/small")
    return training_options(kind.kept(config))


def test_the_command_searches_a_labels_file(labels: Path, tmp_path: Path) -> None:
    arguments = ["search", "traffic", str(labels), "--evaluations", "4", "--steps", "2", "--quiet"]
    arguments += ["--limit", "5MMAC", "-o", str(tmp_path / "run"), "--json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert max(row["macs"] for row in told["front"]) <= 5e6
    load_classifier(str(tmp_path / "run/model.safetensors"))


def test_data_that_cannot_be_searched_are_refused(labels: Path, tmp_path: Path) -> None:
    assert isinstance(make_task("traffic", Given((labels,))), TrafficSearch)
    with pytest.raises(InputError, match="needs one LABELS"):
        TrafficSearch(Given((labels, labels)))
    with pytest.raises(InputError, match="no captures in the split val"):
        TrafficSearch(Given((write_folder(tmp_path),)))
