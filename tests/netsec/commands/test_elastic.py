# SPDX-License-Identifier: Apache-2.0
"""fieldfare elastic traffic: NetMambas of many sizes on one set of weights."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from labelled_captures import write_web_and_name

from fieldfare.common.cli import main
from fieldfare.common.errors import InputError
from fieldfare.common.search.tasks import Given
from fieldfare.common.training import Draw
from fieldfare.netsec.cli import main as net_traffic
from fieldfare.netsec.commands.elastic import SPACE, TrafficElastic
from fieldfare.netsec.inference.classifier import load_classifier
from fieldfare.netsec.networks.netmamba.config import CONFIGS

SMALL = SPACE.canonical({"depth": 2, "width": 96})


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WEB and NAME, 8 flows each to train on and 3 for validation."""
    return write_web_and_name(tmp_path_factory.mktemp("labelled"), train=8, val=3)


def draw(task: TrafficElastic, count: int) -> tuple[torch.Tensor, ...]:
    lessons = task.lessons()
    rows = [lessons[Draw(number, (0, number))] for number in range(count)]
    return tuple(torch.tensor(column) for column in zip(*rows, strict=True))


def test_a_size_cut_out_is_the_one_that_ran(labels: Path) -> None:
    task = TrafficElastic(Given((labels,), steps=1))
    network = task.elastic(None).eval()
    assert network.full.config == CONFIGS["small"]
    network.set(SMALL)
    own, batch = network.extract(SMALL), draw(task, 4)
    assert (own.config.depth, own.config.embed_dim) == (2, 96)
    assert torch.equal(task.loss(network, batch), task.loss(own, batch))
    whole, cut = (one.blocks[1].mixer for one in (network.full, own))
    # input and gate; numbers of the steps (8 of them at 128, 6 at 96), then 2 x 16 states
    assert torch.equal(cut.in_proj.weight[:192], whole.in_proj.weight[:192, :96])
    assert torch.equal(cut.in_proj.weight[192:], whole.in_proj.weight[256:448, :96])
    assert torch.equal(cut.x_proj.weight[:6], whole.x_proj.weight[:6, :192])
    assert torch.equal(cut.x_proj.weight[6:], whole.x_proj.weight[8:, :192])
    task.loss(network, batch).backward()
    assert network.full.blocks[0].mixer.in_proj.weight.grad[256:448, :96].abs().sum() > 0


def test_costs_rise_with_the_size(labels: Path) -> None:
    task = TrafficElastic(Given((labels,)))
    sizes = [task.macs(SPACE.canonical({"depth": d, "width": 96})) for d in (1, 2, 3)]
    assert sizes == sorted(sizes)
    assert task.macs(SPACE.smallest()) < sizes[0] < sizes[2] < task.macs(SPACE.largest())


def test_the_command_writes_sizes_that_infer_takes(labels: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["elastic", "traffic", str(labels), "-o", str(run), "--steps", "2"]
    arguments += ["--networks", "2", "--draws", "2", "--repeats", "2", "--quiet", "--json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    sizes = [row["size"] for row in json.loads(done.stdout)["sizes"]]
    assert set(sizes) == {"depth1-width64", "depth3-width128"}
    _, card = load_classifier(str(run / "networks/depth1-width64.safetensors"))
    assert "elastic traffic" in card.training
    capture, flows = labels.parent / "v.pcap", tmp_path / "flows.csv"
    infer = ["infer", str(capture), "-o", str(flows), "--variant", "depth1-width64", "--json"]
    model = str(run / "traffic-classification.variants.json")
    chosen = CliRunner().invoke(net_traffic, [*infer, "--model", model])
    assert chosen.exit_code == 0, chosen.output
    assert json.loads(chosen.stdout)["variant"] == "depth1-width64"
    with pytest.raises(InputError, match="is no netmamba/small"):
        TrafficElastic(Given((labels,))).elastic(str(run / "networks/depth1-width64.safetensors"))
