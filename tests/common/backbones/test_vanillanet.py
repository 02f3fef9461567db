# SPDX-License-Identifier: Apache-2.0
"""VanillaNet (arXiv 2305.12972): published counts, and folding that keeps the outputs."""

import copy

import pytest
import timm
import torch
from timm.utils import reparameterize_model
from torch import nn

from fieldfare.common.backbones import VanillaNet, set_linearity
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


def test_vanillanet8_deploy_has_37_096_424_parameters_and_7736_mmacs():
    check_deploy("vanillanet_8", 37_096_424, 7736)


def test_vanillanet10_deploy_has_45_693_928_parameters_and_9419_mmacs():
    check_deploy("vanillanet_10", 45_693_928, 9419)


def test_vanillanet13_deploy_has_58_590_184_parameters_and_11944_mmacs():
    check_deploy("vanillanet_13", 58_590_184, 11944)


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


@pytest.mark.parametrize("name", ["vanillanet_5", "simplenet_small_05_m2"])
def test_own_backbones_are_encoders_of_segmentation_models(name):
    smp = pytest.importorskip("segmentation_models_pytorch")
    with torch.device("meta"):
        network = smp.UnetPlusPlus(f"tu-{name}", encoder_weights=None, in_channels=13, classes=2)
        assert network(torch.zeros(2, 13, 64, 64)).shape == (2, 2, 64, 64)
