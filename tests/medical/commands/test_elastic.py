# SPDX-License-Identifier: Apache-2.0
"""fieldfare elastic tumours: on balls in heads made in code."""

import json
from pathlib import Path

import pytest
import torch
from ball_cases import write_ball_case, write_table
from click.testing import CliRunner
from sample_networks import write_model

from fieldfare.common.cli import main
from fieldfare.common.errors import InputError
from fieldfare.common.search.tasks import Given
from fieldfare.common.training import Draw
from fieldfare.medical.cli import main as med_seg
from fieldfare.medical.commands import elastic as module
from fieldfare.medical.commands.elastic import TumoursElastic, imitation
from fieldfare.medical.data.regions import write_sidecar
from fieldfare.medical.networks.models import load_model
from fieldfare.medical.training.synthetic import SyntheticPatches

CHANGES = {
    "spacing": 4.0,
    "channels": (8, 16),
    "blocks": (1, 2),
    "patch": (16, 16, 16),
    "deep_supervision": True,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases to learn from, one held out; a table without the first ones; a model."""
    folder = tmp_path_factory.mktemp("balls")
    for number in range(3):
        case = write_ball_case(folder / f"C{number}", number)
        write_sidecar(case / f"C{number}-seg.nii.gz", "brats2023")
    rows = [(f"C{number}", "train" if number < 2 else "val", f"p{number}") for number in range(3)]
    write_table(folder / "cases.csv", *rows)
    write_table(folder / "val.csv", rows[2])
    write_model(folder / "start.safetensors", **CHANGES)
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SIDE", 16)


def batch_of(task: TumoursElastic) -> dict[str, torch.Tensor]:
    lessons = task.lessons()
    drawn = [lessons[Draw(number, (0, number))] for number in range(2)]
    return {name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}


def test_a_model_teaches_the_sizes_cut_out_of_it(folder: Path) -> None:
    start = str(folder / "start.safetensors")
    task = TumoursElastic(Given((folder / "cases.csv",)))
    net = task.elastic(start).eval()
    batch = batch_of(task)
    plain, _ = load_model(start)
    image = batch["image"]
    with torch.no_grad():
        torch.testing.assert_close(net(image), plain(image), rtol=1e-4, atol=1e-5)
        net.set(task.space.smallest())
        own = net.extract(task.space.smallest())
        assert torch.equal(task.loss(net, batch), task.loss(own, batch))
        said = task.teacher(batch)  # type: ignore[misc]
    assert torch.equal(said, torch.sigmoid(plain(image)))
    assert task.space.count() == 32
    assert task.macs(task.space.smallest()) < task.macs(task.space.largest())
    assert task.runner(task.space.smallest())().shape == (1, 3, 16, 16, 16)  # type: ignore[attr-defined]


def test_of_cases_half_of_the_loss_is_labels_and_without_a_teacher_all(folder: Path) -> None:
    task = TumoursElastic(Given((folder / "cases.csv",)))
    net = task.elastic(str(folder / "start.safetensors")).train()
    batch = batch_of(task)
    with torch.no_grad():
        both, taught = task.loss(net, batch), imitation(net(batch["image"]), task.teacher(batch))  # type: ignore[misc]
        task.teacher = None
        labels = task.loss(net, batch)
    torch.testing.assert_close(both, (labels + taught) / 2)


def test_imitation_is_least_where_both_agree() -> None:
    said = torch.rand(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    logits = torch.logit(said).requires_grad_()
    (gradient,) = torch.autograd.grad(imitation(logits, said), logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-6, rtol=0)
    for change in (-0.1, 0.1):
        assert imitation(logits + change, said) > imitation(logits, said)
    coarse = torch.nn.functional.avg_pool3d(said, 2)
    off = imitation([logits, torch.logit(coarse) + 1], said)
    assert off > imitation([logits, torch.logit(coarse)], said)


def test_without_cases_to_train_on_phantoms_are_drawn_and_only_the_teacher_tells(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[None] = []
    monkeypatch.setattr(module, "load_atlas", lambda: asked.append(None))
    task = TumoursElastic(Given((folder / "val.csv",)))
    assert asked == [None]
    net = task.elastic(str(folder / "start.safetensors")).eval()
    drawn = task.lessons()
    assert isinstance(drawn, SyntheticPatches)
    assert (drawn.share, drawn.settings.size) == (1.0, (16, 16, 16))
    batch = batch_of(TumoursElastic(Given((folder / "cases.csv",))))
    with torch.no_grad():
        loss = task.loss(net, batch)
        assert torch.equal(loss, imitation(net(batch["image"]), task.teacher(batch)))  # type: ignore[misc]
        task.teacher = None
        assert task.loss(net, batch) > loss


def test_the_command_writes_sizes_that_infer_takes(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["elastic", "tumours", str(folder / "cases.csv"), "-o", str(run)]
    arguments += ["--init", str(folder / "start.safetensors"), "--steps", "2", "--networks", "2"]
    done = CliRunner().invoke(main, [*arguments, "--draws", "2", "--repeats", "2", "--json"])
    assert done.exit_code == 0, done.output
    sizes = [row["size"] for row in json.loads(done.stdout)["sizes"]]
    least, most = sizes
    assert least == "expansion00.5-blocks11-expansion10.5"
    network, card = load_model(str(run / f"networks/{least}.safetensors"))
    assert (network.config.blocks, network.config.widths["encoder.1.first.0.layers.0"]) == (
        (1, 1),
        [8, 4],
    )
    assert [metric.name for metric in card.metrics] == ["dice_wt", "dice_tc", "dice_et", "dice"]
    largest, _ = load_model(str(run / f"networks/{most}.safetensors"))
    assert largest.config == load_model(str(folder / "start.safetensors"))[0].config
    labels, model = tmp_path / "seg.nii.gz", str(run / "brain-tumour-segmentation.variants.json")
    infer = ["infer", str(folder / "C2"), "-o", str(labels), "--model", model]
    for options in ([], ["--max-memory", "64GiB"]):
        refused = CliRunner().invoke(med_seg, [*infer, *options])
        assert refused.exit_code == 2
        assert "holds several models" in refused.output
        assert not labels.exists()
    chosen = CliRunner().invoke(med_seg, [*infer, "--variant", least, "--json"])
    assert chosen.exit_code == 0, chosen.output
    assert json.loads(chosen.stdout)["variant"] == least
    assert labels.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"norm": "instance"}, "with group norms"),
        ({"channels": (6, 16)}, "hidden channels"),
        ({"ndim": 2}, "is a network of slices"),
    ],
)
def test_models_that_cannot_be_cut_are_refused(
    folder: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    model = write_model(tmp_path / "other.safetensors", **CHANGES | changes)
    run = tmp_path / "run"
    arguments = ["elastic", "tumours", str(folder / "cases.csv"), "--init", str(model)]
    done = CliRunner().invoke(main, [*arguments, "-o", str(run)])
    assert done.exit_code == 2, done.output
    assert f"--init {model}: " in done.output
    assert said in done.output
    assert not run.exists()


def test_data_that_cannot_be_used_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="needs one table of cases"):
        TumoursElastic(Given())
    only = write_table(folder / "only.csv", ("C0", "train", "p0"))
    with pytest.raises(InputError, match="no case in the split val"):
        TumoursElastic(Given((only,)))
