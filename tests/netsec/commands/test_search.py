# SPDX-License-Identifier: Apache-2.0
"""fieldfare search traffic: on small captures made in code."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from labelled_captures import write_folder, write_web_and_name
from torch import nn

from fieldfare.common.cli import main
from fieldfare.common.errors import InputError
from fieldfare.common.search import evaluations
from fieldfare.common.search.tasks import Given, make_task
from fieldfare.netsec.capture import read_flows
from fieldfare.netsec.commands.search import SPACE, TrafficSearch
from fieldfare.netsec.commands.search_cells import HAND_MADE as CELLS_HAND_MADE
from fieldfare.netsec.commands.search_cells import SPACE as CELLS_SPACE
from fieldfare.netsec.commands.search_cells import CellsSearch
from fieldfare.netsec.commands.search_experts import SPACE as EXPERTS_SPACE
from fieldfare.netsec.commands.search_experts import ExpertsSearch
from fieldfare.netsec.commands.search_mixers import SPACE as MIXERS_SPACE
from fieldfare.netsec.commands.search_mixers import MixersSearch
from fieldfare.netsec.inference.classifier import load_classifier
from fieldfare.netsec.networks.experts import ExpertsConfig
from fieldfare.netsec.networks.netmamba.config import CONFIGS
from fieldfare.netsec.networks.netmamba.experts import install_experts, used
from fieldfare.netsec.networks.netmamba.mixers import SoftmaxAttention
from fieldfare.netsec.networks.netmamba.network import NetMambaClassifier
from fieldfare.netsec.networks.netmamba.pretraining import NetMambaPretraining

SMALL = {"packets": 1, "payload": 16, "width": 32, "depth": 1, "learning_rate": 4e-3}


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WEB and NAME, 12 flows each to train on and 4 for validation."""
    return write_web_and_name(tmp_path_factory.mktemp("labelled"), train=12, val=4)


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


def test_a_dry_run_tells_the_time_of_a_whole_run_from_a_few_steps(
    labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, clock = [], [0.0]

    def evaluate(self: TrafficSearch, *given: object) -> float:
        runs.append(self.steps)
        clock[0] += 3 + self.steps / 2 + 5 * (len(runs) in (1, 3))  # the data are read
        return 1.0

    monkeypatch.setattr(TrafficSearch, "evaluate", evaluate)
    monkeypatch.setattr(evaluations, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    arguments = ["search", "traffic", str(labels), "--dry-run", "--steps", "40", "--json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert runs == [2, 2, 10, 10]
    assert json.loads(done.stdout)["seconds_each"] == 23


def test_data_that_cannot_be_searched_are_refused(labels: Path, tmp_path: Path) -> None:
    assert isinstance(make_task("traffic", Given((labels,))), TrafficSearch)
    with pytest.raises(InputError, match="needs one LABELS"):
        TrafficSearch(Given((labels, labels)))
    with pytest.raises(InputError, match="no captures in the split val"):
        TrafficSearch(Given((write_folder(tmp_path),)))


def test_mixers_are_counted_without_those_of_blocks_that_are_not_there() -> None:
    assert MIXERS_SPACE.count() == 4 * 2 * 3 * (3 + 9 + 27) * 3 == 2808
    genes = {"packets": 1, "payload": 16, "width": 64, "depth": 2, "learning_rate": 4e-3}
    some = {f"mixer{number}": kind for number, kind in enumerate(("linear", "softmax", "scan"), 1)}
    one = MIXERS_SPACE.canonical(genes | some)
    assert one == MIXERS_SPACE.canonical(genes | some | {"mixer3": "linear"})
    assert one != MIXERS_SPACE.canonical(genes | some | {"mixer2": "linear"})


def test_networks_of_mixers_have_them_and_cost_by_them(labels: Path, tmp_path: Path) -> None:
    task = MixersSearch(Given((labels,), steps=2, folder=tmp_path))
    genes = {"packets": 1, "payload": 16, "width": 64, "depth": 3, "learning_rate": 4e-3}
    mixed = {f"mixer{n}": kind for n, kind in enumerate(("softmax", "linear", "scan"), 1)}
    choice = MIXERS_SPACE.canonical(genes | mixed)
    network = task._network(choice)
    kinds = [type(block.mixer).__name__ for block in network.blocks]
    assert kinds == ["SoftmaxAttention", "LinearAttention", "Mamba"]
    # 17 tokens: all-scan, less a block's scan, plus its attention
    scans = MIXERS_SPACE.canonical(genes | dict.fromkeys(mixed, "scan"))
    scan, (soft, line, _) = network.blocks[2].mixer, (block.mixer for block in network.blocks)
    weights = [_weights(mixer) for mixer in (scan, soft, line)]
    products = [2 * scan.A_log.numel(), 2 * 17 * 64, 2 * 64 * 17]
    each = [weight + more for weight, more in zip(weights, products, strict=True)]
    assert task.macs(scans) - task.macs(choice) == 16 * 17 * (2 * each[0] - each[1] - each[2])
    target = tmp_path / "found.safetensors"
    task.evaluate(choice, target, tmp_path / "work")
    classifier, card = load_classifier(str(target))
    assert card.config["network"]["mixers"] == ["softmax", "linear", "scan"]
    assert "traffic-mixers" in card.training
    rows = torch.randint(0, 256, (3, 64)).to(torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(classifier.network(rows)[:1], classifier.network(rows[:1]))


def _weights(mixer: nn.Module) -> int:
    layers = [m for m in mixer.modules() if isinstance(m, nn.Linear | nn.Conv1d)]
    return sum(layer.weight.numel() for layer in layers)


@pytest.mark.parametrize(
    ("mixers", "said"),
    [(("scan",), "1 mixers for 3 blocks"), (("scan", "scan", "sum"), "mixers 'sum'")],
)
def test_mixers_that_there_are_not_are_refused(mixers: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(CONFIGS["small"], mixers=mixers)
    assert "mixers" not in CONFIGS["small"].to_dict()


def test_attention_has_whole_heads() -> None:
    torch.manual_seed(0)
    attention, x = SoftmaxAttention(64), torch.randn(2, 5, 64)
    q, k, v = attention.qkv(x).chunk(3, dim=-1)
    by_hand = []
    for head in (slice(0, 32), slice(32, 64)):
        weights = (q[..., head] @ k[..., head].mT / 32**0.5).softmax(dim=-1)
        by_hand.append(weights @ v[..., head])
    torch.testing.assert_close(attention(x), attention.out_proj(torch.cat(by_hand, -1)))
    with pytest.raises(ValueError, match="width 40"):
        SoftmaxAttention(40)


CELLS = {"packets": 1, "payload": 16, "width": 8, "repeats": 1, "learning_rate": 4e-3}


def cells_choice(**genes: object):  # type: ignore[no-untyped-def]
    drawn = CELLS_SPACE.sample(np.random.default_rng(0))
    return CELLS_SPACE.canonical({**drawn, **CELLS, **genes})


def test_cells_are_counted_exactly() -> None:
    assert CELLS_SPACE.count() == 4 * 2 * 3 * 2 * 3 * 2_034_422**2
    task_genes = CELLS_SPACE.canonical(CELLS_HAND_MADE)
    assert CELLS_SPACE.cell(task_genes, "normal") == CELLS_SPACE.cell(task_genes, "reduction")


def test_networks_of_cells_label_captures_alone_as_in_a_batch(labels: Path, tmp_path: Path) -> None:
    task = CellsSearch(Given((labels,), steps=3, folder=tmp_path))
    assert list(task.presets) == ["chain of residual convolutions"]
    choice, target = cells_choice(), tmp_path / "found.safetensors"
    assert task.macs(cells_choice(width=16)) > task.macs(choice) > 0
    assert task.macs(cells_choice(packets=3)) > task.macs(choice)
    task.evaluate(choice, target, tmp_path / "work")
    classifier, card = load_classifier(str(target))
    assert "traffic-cells" in card.training
    assert "cells" in card.config["network"]
    rows = torch.randint(0, 256, (3, 64)).to(torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(classifier.network(rows)[:1], classifier.network(rows[:1]))


def test_what_needs_blocks_is_refused_of_cells(labels: Path) -> None:
    config = CellsSearch(Given((labels,))).config(cells_choice())
    with pytest.raises(ValueError, match="cannot be pre-trained"):
        NetMambaPretraining(config)
    network = NetMambaClassifier(config, 2)
    with pytest.raises(ValueError, match="no blocks to add experts to"):
        install_experts(network, config, ExpertsConfig(kind="learned", start="split"))
    for broken in ("[1]", "{", '{"normal": [], "reduction": []}'):
        with pytest.raises(ValueError):  # noqa: PT011
            NetMambaClassifier(dataclasses.replace(config, cells=broken), 2)


EXPERTS = {"packets": 1, "payload": 16, "width": 32, "depth": 2, "router": "learned"}
RUN = {"experts1": 1, "experts2": 4, "experts3": 8, "learning_rate": 4e-3}


def test_experts_are_counted_without_those_of_blocks_that_are_not_there() -> None:
    assert EXPERTS_SPACE.count() == 4 * 2 * 3 * 2 * (4 + 16 + 64) * 3
    one = EXPERTS_SPACE.canonical(EXPERTS | RUN)
    assert one == EXPERTS_SPACE.canonical(EXPERTS | RUN | {"experts3": 1})
    assert one != EXPERTS_SPACE.canonical(EXPERTS | RUN | {"experts2": 1})


@pytest.mark.parametrize("router", ["learned", "random"])
def test_each_block_runs_its_number_of_experts(labels: Path, tmp_path: Path, router: str) -> None:
    task = ExpertsSearch(Given((labels,), steps=3, folder=tmp_path))
    choice = EXPERTS_SPACE.canonical(EXPERTS | RUN | {"router": router})
    more = EXPERTS_SPACE.canonical(EXPERTS | RUN | {"router": router, "experts1": 2})
    eighth = 2 * 2 * 32 * 32 / 8  # of a layer with 64 hidden units: 17 tokens of 16 flows run it
    assert task.macs(more) - task.macs(choice) == 16 * 17 * eighth
    target = tmp_path / "found.safetensors"
    task.evaluate(choice, target, tmp_path / "work")
    classifier, card = load_classifier(str(target))
    assert card.config["experts"]["by_layer"] == [1, 4]
    assert "1, 4 per token, layer by layer" in card.training
    rows = torch.randint(0, 256, (3, 64)).to(torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(classifier.network(rows)[:1], classifier.network(rows[:1]))
    assert used(classifier.network)[0][0].sum(dim=-1).tolist() == [17, 4 * 17]
    same, _ = load_classifier(str(target), experts_per_token=2)
    with torch.no_grad():
        same.network(rows)
    assert used(same.network)[0][0].sum(dim=-1).tolist() == [2 * 17, 2 * 17]


def test_numbers_of_experts_by_layer_must_fit() -> None:
    with pytest.raises(ValueError, match="layer, of 8"):
        ExpertsConfig(kind="learned", by_layer=(9,))
    with pytest.raises(ValueError, match="no number of experts per token"):
        ExpertsConfig(kind="switch", by_layer=(1,))
    config = dataclasses.replace(CONFIGS["small"], depth=2)
    with pytest.raises(ValueError, match="1 numbers of experts per token for 2 layers"):
        install_experts(
            NetMambaClassifier(config, 2), config, ExpertsConfig(kind="learned", by_layer=(1,))
        )
    assert "by_layer" not in ExpertsConfig(kind="learned").to_dict()
