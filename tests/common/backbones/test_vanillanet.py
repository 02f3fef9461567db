# SPDX-License-Identifier: Apache-2.0
"""VanillaNet (arXiv 2305.12972): published counts, and folding that keeps the outputs."""

import copy

import pytest
import timm
import torch
from published_networks import assert_near, load, outputs, published
from timm.utils import reparameterize_model
from torch import nn

from fieldfare.common.backbones import VanillaNet, set_linearity
from fieldfare.common.backbones.vanillanet import from_published
from fieldfare.common.efficiency import cost


def on_meta(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, **options)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def small(**options: object) -> VanillaNet:
    torch.manual_seed(0)
    return VanillaNet((8, 16, 16, 32), (2, 1, 2), num_classes=5, **options)


def scrambled(model: nn.Module) -> nn.Module:
    """In eval mode, with batch norms as after some training."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.Conv2d):  # outputs of order one, so that 1e-5 says something
            nn.init.kaiming_normal_(module.weight)
    return model.eval()


def check_deploy(name: str, count: int, macs: int) -> None:
    counted = cost(on_meta(name, deploy=True), (1, 3, 224, 224))
    assert counted.parameters == count
    assert round(counted.macs / 1e6) == macs


# Parameters and GMACs at 224 x 224 as the authors publish them (the "FLOPs" there are MACs).
def test_vanillanet5_deploy_has_15_523_304_parameters_and_5161_mmacs():
    check_deploy("vanillanet_5", 15_523_304, 5161)


def test_vanillanet6_deploy_has_32_509_416_parameters_and_5993_mmacs():
    check_deploy("vanillanet_6", 32_509_416, 5993)


def test_vanillanet7_deploy_has_32_797_672_parameters_and_6894_mmacs():
    check_deploy("vanillanet_7", 32_797_672, 6894)


def test_vanillanet8_deploy_has_37_096_424_parameters_and_7736_mmacs():
    check_deploy("vanillanet_8", 37_096_424, 7736)


def test_vanillanet9_deploy_has_41_395_176_parameters_and_8577_mmacs():
    check_deploy("vanillanet_9", 41_395_176, 8577)


def test_vanillanet10_deploy_has_45_693_928_parameters_and_9419_mmacs():
    check_deploy("vanillanet_10", 45_693_928, 9419)


def test_vanillanet11_deploy_has_49_992_680_parameters_and_10261_mmacs():
    check_deploy("vanillanet_11", 49_992_680, 10261)


def test_vanillanet12_deploy_has_54_291_432_parameters_and_11103_mmacs():
    check_deploy("vanillanet_12", 54_291_432, 11103)


def test_vanillanet13_deploy_has_58_590_184_parameters_and_11944_mmacs():
    check_deploy("vanillanet_13", 58_590_184, 11944)


# Computed here; the authors print no number for this one where we could read it.
def test_vanillanet13_x1_5_deploy_has_127_796_200_parameters_and_26548_mmacs():
    check_deploy("vanillanet_13_x1_5", 127_796_200, 26548)


def test_vanillanet5_train_form_has_22_328_800_parameters():
    assert parameters(on_meta("vanillanet_5")) == 22_328_800


def test_vanillanet5_folds_into_15_523_304_parameters_with_equal_outputs():
    model = scrambled(timm.create_model("vanillanet_5"))
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = model(x)
        fused = reparameterize_model(model, inplace=True)
        result = fused(x)
    assert parameters(fused) == 15_523_304
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5 * expected.abs().max())


def test_folded_state_is_that_of_the_deploy_form_and_folding_again_changes_nothing():
    model = scrambled(small(drop_rate=0.5))
    fused = reparameterize_model(model)
    twice = reparameterize_model(fused)
    assert not any(module.training for module in fused.modules())
    deployed = small(deploy=True).eval()
    deployed.load_state_dict(twice.state_dict())
    x = torch.randn(2, 3, 45, 70)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(deployed(x), fused(x))
    assert all(value.is_contiguous() for value in fused.state_dict().values())
    assert parameters(model) > parameters(fused)  # the original is left as it was


@pytest.mark.parametrize("name", ["features_only", "whole"])
def test_folding_a_half_trained_network_is_refused(name):
    model = small()
    model = nn.ModuleList([model.stem, model.stages]) if name == "features_only" else model
    set_linearity(model, 0.5)
    with pytest.raises(ValueError, match=r"linearity 0\.5"):
        reparameterize_model(model)


def test_linearity_moves_the_activation_from_relu_to_identity():
    model = scrambled(small())
    x = torch.randn(1, 3, 32, 32)
    outputs = []
    with torch.no_grad():
        for linearity in (0.0, 0.5, 1.0):
            set_linearity(model, linearity)
            outputs.append(model(x))
        layer = model.stem
        relu = copy.deepcopy(layer)
        relu.linearity = 0.0
        inner = torch.relu(relu.norm1(relu.conv1(x)))
        inner = relu.norm3(relu.series(torch.relu(relu.norm2(relu.conv2(inner)))))
        torch.testing.assert_close(relu(x), inner)
    assert not torch.allclose(outputs[0], outputs[1])
    assert not torch.allclose(outputs[1], outputs[2])
    with pytest.raises(ValueError, match="linearity 2"):
        set_linearity(model, 2)


@pytest.mark.parametrize(
    ("options", "shape", "output"),
    [
        ({}, (2, 3, 32, 32), (2, 5)),
        ({"in_chans": 13}, (1, 13, 33, 50), (1, 5)),
        ({"in_chans": 1, "deploy": True, "drop_rate": 0.1}, (2, 1, 32, 32), (2, 5)),
    ],
)
def test_output_shapes(options, shape, output):
    model = small(**options).eval()
    assert model(torch.randn(shape)).shape == output
    model.reset_classifier(0)
    assert model(torch.randn(shape)).shape == (shape[0], 32)
    model.reset_classifier(7)
    assert model(torch.randn(shape)).shape == (shape[0], 7)
    with pytest.raises(ValueError, match="max"):
        model.reset_classifier(7, "max")


def tiny() -> VanillaNet:
    return VanillaNet((8, 8, 16, 24, 32), (1, 2, 2, 1), num_classes=6)


@pytest.mark.parametrize("linearity", [0.0, 0.3, 1.0])
def test_outputs_are_the_published_ones_at_every_slope(linearity):
    given = published("vanillanet/tiny_a")
    model = load(tiny(), given, from_published)
    set_linearity(model, linearity)
    stages = [f"stages.{index}" for index in range(4)]
    with torch.no_grad():
        seen = outputs(model, given["in.x"], ["stem", *stages])
    assert_near(seen[""], given[f"out.linearity_{linearity}"])
    if linearity == 0.3:
        assert_near(seen["stem"], given["act.stem2"])
        for stage in stages:
            assert_near(seen[stage], given[f"act.{stage}"])


def test_outputs_in_training_are_the_published_ones():
    given = published("vanillanet/tiny_a")
    model = load(tiny(), given, from_published).train()
    set_linearity(model, 0.3)
    with torch.no_grad():
        assert_near(model(given["in.x"]), given["out.train_mode_0.3"])


def test_the_folded_network_is_the_published_folded_one():
    given = published("vanillanet/tiny_a")
    folded = reparameterize_model(load(tiny(), given, from_published))
    deployed = VanillaNet((8, 8, 16, 24, 32), (1, 2, 2, 1), num_classes=6, deploy=True)
    load(deployed, given, from_published, prefix="deploy.sd.")
    with torch.no_grad():
        assert_near(folded(given["in.x"]), given["out.deploy"])
        assert_near(deployed(given["in.x"]), given["out.deploy"])
    theirs = deployed.state_dict()
    for name, tensor in folded.state_dict().items():
        assert_near(tensor, theirs[name])
