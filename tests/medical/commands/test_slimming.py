# SPDX-License-Identifier: Apache-2.0
"""fieldfare slim of tumour networks: on balls in heads made in code."""

import json
from pathlib import Path

import pytest
import torch
from ball_cases import write_ball_case, write_table
from click.testing import CliRunner

from fieldfare.common.cli import main
from fieldfare.common.slim import steps
from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.medical.cli import main as med_seg
from fieldfare.medical.commands import slimming
from fieldfare.medical.data.regions import write_sidecar
from fieldfare.medical.networks.config import NetworkConfig
from fieldfare.medical.networks.create import create_network
from fieldfare.medical.networks.models import TASK, load_model

VOLUMES = NetworkConfig(
    spacing=4.0, channels=(16, 16), blocks=(1, 1), decoder_blocks=(1,), patch=(16, 16, 16)
)
SLICES = NetworkConfig(
    "resunet_aspp", 2, spacing=4.0, channels=(16, 16), encoder="tf_efficientnet_lite0", patch=(32,)
)
CONFIGS = {"volumes": VOLUMES, "slices": SLICES}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One case to learn from, one held out."""
    folder = tmp_path_factory.mktemp("balls")
    for number in range(2):
        case = write_ball_case(folder / f"C{number}", number)
        write_sidecar(case / f"C{number}-seg.nii.gz", "brats2023")
    return write_table(folder / "cases.csv", ("C0", "train", "p0"), ("C1", "val", "p1"))


def untrained(kind: str, folder: Path) -> Path:
    """A model file."""
    torch.manual_seed(0)
    config = CONFIGS[kind]
    card = ModelCard(kind, TASK, "Untrained.", config.to_dict())
    path = folder / f"{kind}.safetensors"
    save_model_file(path, create_network(config).state_dict(), card)
    return path


def slim(*arguments: object) -> object:
    return CliRunner().invoke(main, ["slim", *map(str, arguments), "--repeats", "2"])


@pytest.mark.parametrize(
    ("kind", "narrowed", "width"),
    [
        ("volumes", "encoder.0.first.0.layers.1", 16),
        ("slices", "decoder.0.second.0", 8),
    ],
)
def test_a_slimmed_network_is_one_that_infer_takes(
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    narrowed: str,
    width: int,
) -> None:
    monkeypatch.setattr(steps, "SHARES", (0.5,))
    monkeypatch.setattr(slimming, "CROPS", 4)
    monkeypatch.setattr(slimming, "SHAPES", {3: (1, 4, 16, 16, 16), 2: (1, 4, 32, 32, 2)})
    monkeypatch.setattr(slimming, "in_encoder", lambda group: False)  # of many wide layers
    model, output = untrained(kind, tmp_path), tmp_path / "slim.safetensors"
    done = slim(model, "--target", "1kB", "--max-loss", 1, "--data", table, "-o", output, "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert [row["step"] for row in rows[1:]][-1] == "half precision"
    assert rows[1]["macs"] < 0.9 * rows[0]["macs"]
    assert rows[-1]["bytes"] < 0.55 * rows[0]["bytes"]
    assert "will not warn" in done.stderr
    network, card = load_model(str(output))
    assert card.name == "slim"
    assert network.config.widths[narrowed][0] == width
    labels = tmp_path / "seg.nii.gz"
    run = CliRunner().invoke(
        med_seg, ["infer", str(table.parent / "C1"), "-o", str(labels), "--model", str(output)]
    )
    assert run.exit_code == 0, run.output
    assert labels.exists()


def test_fewer_groups_norm_what_is_left_as_before(table: Path) -> None:
    torch.manual_seed(0)
    network = create_network(VOLUMES).eval()
    images = torch.rand(2, 4, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    step = steps.Channels("", [images], images[:1])
    draft = [draft for _, draft in step.candidates(steps.Draft(network))][-1]
    config = NetworkConfig.from_dict(json.loads(json.dumps(slimming._own(draft).to_dict())))
    again = create_network(config).eval()
    again.load_state_dict(draft.network.state_dict())
    branch, whole = again.encoder[0].first[0].layers, network.encoder[0].first[0].layers
    assert branch[1].num_groups == 2  # of 8, at 1/4
    assert branch[0].out_channels // branch[1].num_groups == 4
    with torch.no_grad():
        assert torch.equal(again(images), draft.network(images))
        x = torch.rand(1, 8, 8, 8, 8, generator=torch.Generator().manual_seed(1))
        kept = [
            int((whole[0].weight.flatten(1) == row).all(dim=1).nonzero())
            for row in branch[0].weight.flatten(1)
        ]
        torch.testing.assert_close(branch[:6](x), whole[:6](x)[:, kept])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("C0", "train", "p0")], "has no case in the split val"),
        (None, "give one CASES.csv"),
    ],
)
def test_other_data_are_refused(
    table: Path, tmp_path: Path, rows: list[tuple[str, ...]] | None, said: str
) -> None:
    model, output = untrained("volumes", tmp_path), tmp_path / "out" / "slim.safetensors"
    output.parent.mkdir()
    one = write_table(table.with_name("one.csv"), *rows) if rows else table
    data = ["--data", one] if rows else ["--data", table, "--data", table]
    done = slim(model, "--target", "1ms", "-o", output, *data)
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert not list(output.parent.iterdir())


def test_tumours_have_no_cascade(table: Path, tmp_path: Path) -> None:
    model = str(untrained("volumes", tmp_path))
    arguments = ["cascade", model, model, "--data", str(table)]
    done = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path / "o.safetensors")])
    assert done.exit_code == 2
    assert "has no cascade" in done.output
