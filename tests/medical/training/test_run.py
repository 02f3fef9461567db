# SPDX-License-Identifier: Apache-2.0
"""Training: a tiny network learns a ball; resuming, workers, memory modes, the command."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ball_cases import write_ball_case, write_table
from click.testing import CliRunner

from fieldfare.common.errors import InputError
from fieldfare.common.training import TrainSettings
from fieldfare.common.weights import read_card
from fieldfare.medical.cli import main
from fieldfare.medical.commands import train as command
from fieldfare.medical.data.patches import DataSettings, cache_cases
from fieldfare.medical.data.table import read_table
from fieldfare.medical.networks import config as presets
from fieldfare.medical.networks.config import NetworkConfig
from fieldfare.medical.networks.models import load_model
from fieldfare.medical.options import TrainOptions
from fieldfare.medical.training import run as training
from fieldfare.medical.training.run import Validation, predict_logits, train

TINY = NetworkConfig(
    spacing=8.0,
    channels=(8, 16),
    blocks=(1, 1),
    decoder_blocks=(1,),
    expansion=2,
    deep_supervision=True,
)
DATA = DataSettings(size=(8, 8, 8))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Three cases to learn from, one held out."""
    folder = tmp_path_factory.mktemp("balls")
    for number in range(4):
        write_ball_case(folder / f"C{number}", number)
    rows = [(f"C{number}", "train" if number < 3 else "val", f"p{number}") for number in range(4)]
    return write_table(folder / "cases.csv", *rows)


@pytest.fixture(scope="module")
def cases(table):
    return read_table(table, scheme="brats2023")


def settings(steps, **more):
    return TrainSettings(steps=steps, **({"batch_size": 2, "learning_rate": 1e-2} | more))


def log_of(folder: Path):
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def assert_equal_weights(one, other):
    theirs = other.state_dict()
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


def test_a_tiny_network_learns_a_ball(cases, tmp_path):
    """On the case that was held out, at the coarsest of grids."""
    config = NetworkConfig(
        spacing=4.0, channels=(8, 16), blocks=(1, 1), decoder_blocks=(1,), expansion=2
    )
    plan = settings(60, ema_decay=0.9)
    data = DataSettings(size=(16, 16, 16), foreground=1.0)
    network = train(config, cases, plan, data, tmp_path, quiet=True)
    (last,) = log_of(tmp_path)[-1:]
    assert float(last["dice_wt"]) > 0.8
    assert float(last["dice"]) > 0.6
    assert not network.training
    assert (tmp_path / "learning_curve.png").exists()


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(cases, tmp_path, monkeypatch):
    """And finds its cases ready."""
    plan = settings(4, checkpoint_every=2)
    whole = train(TINY, cases, plan, DATA, tmp_path / "whole", quiet=True)
    calls, loss = [], training.Objective.__call__

    def stop_in_the_fourth_step(self, model, batch):
        calls.append(1)
        if len(calls) == 4:
            raise MemoryError
        return loss(self, model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(training.Objective, "__call__", stop_in_the_fourth_step)
        with pytest.raises(MemoryError):
            train(TINY, cases, plan, DATA, tmp_path / "parts", quiet=True)
    monkeypatch.setattr("fieldfare.medical.data.patches.load_sample", None)
    resumed = train(TINY, cases, plan, DATA, tmp_path / "parts", quiet=True)
    assert_equal_weights(whole, resumed)
    assert log_of(tmp_path / "whole")[-1]["dice_wt"] == log_of(tmp_path / "parts")[-1]["dice_wt"]


def test_loading_processes_change_nothing(cases, tmp_path):
    data = DataSettings(size=(8, 8, 8), modality_dropout=0.5)
    runs = [
        train(
            TINY,
            cases,
            settings(2, workers=workers),
            data,
            tmp_path / str(workers),
            prepared=tmp_path / "prepared",
            quiet=True,
        )
        for workers in (0, 2)
    ]
    assert_equal_weights(*runs)
    assert not (tmp_path / "0" / "prepared").exists()


def test_memory_modes_train_alike_and_resume_each_other(cases, tmp_path):
    networks = {
        memory: train(
            TINY,
            cases,
            settings(2),
            DATA,
            tmp_path / memory,
            memory=memory,
            prepared=tmp_path / "prepared",
            quiet=True,
        )
        for memory in ("none", "reversible")
    }
    # Not their weights: biases that a norm takes away again follow the rounding of their gradients.
    images = torch.randn(2, 4, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain, reversible = (network(images) for network in networks.values())
    assert plain.std() > 0.1
    torch.testing.assert_close(reversible, plain, atol=1e-4, rtol=0)
    again = train(
        TINY, cases, settings(2), DATA, tmp_path / "none", memory="checkpoint", quiet=True
    )
    assert_equal_weights(again, networks["none"])


@pytest.mark.parametrize(
    ("config", "data"),
    [
        (TINY, DataSettings(size=(8, 8, 8), foreground=0.5)),
        (TINY, DataSettings(size=(8, 8, 8), region_weights=(1, 1, 2))),
        (NetworkConfig.from_dict({**TINY.to_dict(), "spacing": 6.0}), DATA),
    ],
)
def test_a_folder_of_another_run_is_refused(cases, tmp_path, config, data):
    train(TINY, cases, settings(1), DATA, tmp_path, quiet=True)
    with pytest.raises(InputError, match="other settings"):
        train(config, cases, settings(1), data, tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": DataSettings(size=(8, 8))}, "--patch-size: 2 sides for a network of 3"),
        ({"data": DataSettings(size=(8, 8, 9))}, "multiples of 2"),
        ({"data": DataSettings((8, 8, 8), region_weights=(1, 1))}, "--region-weights"),
        ({"memory": "some"}, "--memory some"),
    ],
)
def test_settings_that_do_not_fit_are_refused(cases, tmp_path, options, said):
    options = {"data": DATA} | options
    with pytest.raises(InputError, match=said):
        train(TINY, cases, settings(1), folder=tmp_path / "run", quiet=True, **options)


def test_validation_counts_whole_cases(cases, tmp_path):
    """A network that knows the truth has a Dice of 1, also in tiles and slices."""
    cached = cache_cases(cases[3:], TINY, tmp_path, quiet=True)
    depth = np.asarray(cached[0].open().depth)
    config = NetworkConfig(spacing=8.0)

    class Oracle(torch.nn.Module):
        """Sees the depth in its first channel."""

        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, image):
            return torch.cat([image[:, :1] - level for level in (0.5, 1.5, 2.5)], dim=1)

    image = np.zeros((4, *depth.shape), np.float16)
    image[0] = depth
    np.save(cached[0].image, image)
    for ndim in (2, 3):
        scores = Validation(cached, NetworkConfig(spacing=8.0, ndim=ndim))(Oracle())
        assert scores == {"dice_wt": 1, "dice_tc": 1, "dice_et": 1, "dice": 1}
        logits = predict_logits(Oracle(), image.astype(np.float32), config)
        assert logits.shape == (3, *depth.shape)


def run(*arguments):
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


def test_the_command_writes_a_model_with_its_card(table, tmp_path, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "reversible_small", TINY)
    folder = tmp_path / "run"
    options = [
        "-o",
        folder,
        "--preset",
        "reversible_small",
        "--patch-size",
        "8",
        "--labels",
        "brats2023",
    ]
    options += ["--steps", "2", "--quiet", "--json", "--modality-dropout", "0.3", "--fold", "1/2"]
    done = run(table, *options)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["model"] == str(folder / "model.safetensors")
    card = read_card(folder / "model.safetensors")
    assert card.config["modality_dropout"] is True
    assert "2 cases" in card.data
    assert "fold 1/2" in card.split
    assert "Not a medical device" in (folder / "model.md").read_text()
    more = ["-o", tmp_path / "more", "--init", folder / "model.safetensors", "--patch-size", "8"]
    done = run(table, *more, "--labels", "brats2023", "--steps", "1", "--quiet")
    assert done.exit_code == 0, done.output
    assert read_card(tmp_path / "more" / "model.safetensors").config == card.config


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "options", "said"),
    [
        (
            "reversible_small",
            {"norm": "evonorm", "attention": "eca", "groups": "e2gc"},
            "3D reversible MBConv U-Net with evonorm, eca, groups of 8 at 8 mm",
        ),
        (
            "resunet_aspp_small",
            {"encoder": "mobilenetv3_small_050", "attention": "eca"},
            "2D ResUNet-ASPP on mobilenetv3_small_050 with eca at 8 mm",
        ),
    ],
)
def test_chosen_blocks_are_in_the_card_and_back_after_loading(
    table, tmp_path, preset, options, said
):
    folder = tmp_path / "run"
    chosen = [part for name, value in options.items() for part in (f"--{name}", value)]
    basic = ["--labels", "brats2023", "--spacing", "8", "--patch-size", "16", "--steps", "1"]
    done = run(table, "-o", folder, "--preset", preset, *chosen, *basic, "--quiet")
    assert done.exit_code == 0, done.output
    file = folder / "model.safetensors"
    assert said in read_card(file).summary
    network, _ = load_model(str(file))
    assert (network.config.norm, network.config.attention) == (
        options.get("norm", "group"),
        "eca",
    )
    assert network.config.group_size == (8 if "groups" in options else 1)
    again = run(table, "-o", tmp_path / "more", "--init", file, *chosen[:2], *basic, "--quiet")
    assert again.exit_code == 2
    assert f"{chosen[0]}: of a fresh network" in again.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--encoder", "resnet18"], "reversible_small: encoder 'resnet18': timm's are 2D"),
        (["--preset", "resunet_aspp_small", "--groups", "e2gc"], "of reversible_unet only"),
        (["--preset", "resunet_aspp_small", "--encoder", "resnet19"], "no such encoder"),
    ],
)
def test_blocks_that_do_not_go_together_are_refused_before_work(table, tmp_path, options, said):
    done = run(
        table, "-o", tmp_path / "run", "--labels", "brats2023", "--patch-size", "16", *options
    )
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_steps_between_validations_can_be_chosen(tmp_path):
    chosen = TrainOptions(output=tmp_path, steps=1000, validate_every=7)
    assert command._settings(chosen).validate_every == 7
    assert command._settings(TrainOptions(output=tmp_path, steps=1000)).validate_every == 200


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--labels", "brats2020"], "holds 3, not in brats2020"),
        ([], "give --labels"),
        (["--labels", "brats2023", "--fold", "3/2"], "--fold 3/2"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(table, tmp_path, options, said):
    done = run(table, "-o", tmp_path / "run", "--steps", "1", "--quiet", *options)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run" / "model.safetensors").exists()
