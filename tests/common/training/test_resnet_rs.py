# SPDX-License-Identifier: Apache-2.0
"""The recipe of ResNet-RS (arXiv 2103.07579), and the descent that `fit` makes by it."""

import dataclasses

import pytest
import timm
import torch
from timm.layers import DropPath
from tiny_training import Points, SquaredError, network

from fieldfare.common.training import DrawSampler, TrainSettings, fit
from fieldfare.common.training.resnet_rs import RESNET_RS

IMAGENET = 1_281_167


def test_a_batch_of_4096_peaks_at_1_6_and_runs_350_epochs_after_5_of_warmup():
    settings = RESNET_RS["resnetrs50"].settings(IMAGENET, 4096)
    assert settings.learning_rate == pytest.approx(1.6)
    assert settings.steps == 350 * IMAGENET // 4096
    assert settings.warmup_steps == 5 * IMAGENET // 4096
    assert (settings.sgd_momentum, settings.weight_decay) == (0.9, 4e-5)
    assert settings.ema_decay == 0.9999


@pytest.mark.parametrize(
    ("name", "size", "dropout", "depth", "magnitude"),
    [
        ("resnetrs50", 160, 0.25, 0.0, 10),
        ("resnetrs152", 224, 0.25, 0.0, 15),
        ("resnetrs200", 256, 0.25, 0.1, 15),
        ("resnetrs420", 320, 0.4, 0.1, 15),
    ],
)
def test_regularisation_of_the_published_experiments(name, size, dropout, depth, magnitude):
    recipe = RESNET_RS[name]
    assert (recipe.size, recipe.magnitude) == (size, magnitude)
    with torch.device("meta"):
        model = timm.create_model(name, **recipe.network_options())
    rates = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    assert model.drop_rate == dropout
    assert max(rates, default=0.0) == pytest.approx(depth)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((100, 10, 5), "epochs 5"), ((100, 0), "batch_size 0"), ((100, 101), "batch_size 101")],
)
def test_numbers_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        RESNET_RS["resnetrs50"].settings(*arguments)


def test_fit_descends_as_torch_does_with_momentum(tmp_path):
    settings = TrainSettings(
        steps=3, batch_size=4, learning_rate=0.1, final_learning_rate=0.1, sgd_momentum=0.9,
        weight_decay=0.01, ema_decay=0.0,
    )  # fmt: skip
    trained = fit(network(), Points(), SquaredError(), settings, tmp_path, quiet=True)
    model, data = network(), Points()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for draws in DrawSampler(13, 4, seed=0, first=0, last=3, rank=0, world=1):
        inputs, targets = zip(*(data[draw] for draw in draws), strict=True)
        optimizer.zero_grad()
        SquaredError()(model, (torch.stack(inputs), torch.stack(targets))).backward()
        optimizer.step()
    for ours, theirs in zip(trained.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_runs_by_adamw_keep_the_fingerprint_they_had():
    settings = TrainSettings(steps=3)
    assert dataclasses.replace(settings, sgd_momentum=0.9).fingerprint() != settings.fingerprint()
    assert settings.fingerprint() == "b81dd0bd6e68734d"  # runs begun before go on
