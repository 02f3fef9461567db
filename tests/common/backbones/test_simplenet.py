# SPDX-License-Identifier: Apache-2.0
"""SimpleNet (arXiv 1608.06037): the published counts of its small ImageNet models."""

import pytest
import timm
import torch

import fieldfare.common.backbones  # noqa: F401 (registers)
from fieldfare.common.efficiency import Cost, cost


def counted(name: str) -> Cost:
    with torch.device("meta"):
        return cost(timm.create_model(name), (1, 3, 224, 224))


def test_simplenet_small_05_has_1_506_792_parameters():
    assert counted("simplenet_small_05_m1").parameters == 1_506_792


def test_simplenet_small_075_has_3_287_272_parameters():
    assert counted("simplenet_small_075_m1").parameters == 3_287_272


def test_simplenet_5m_has_5_752_808_parameters():
    assert counted("simplenet_5m_m1").parameters == 5_752_808


def test_simplenet_9m_has_9_508_968_parameters():
    assert counted("simplenet_9m_m1").parameters == 9_508_968


def test_simplenet_small_05_takes_340_9_mmacs_in_mode_m1_and_427_6_in_m2():
    assert round(counted("simplenet_small_05_m1").macs / 1e6, 1) == 340.9
    assert round(counted("simplenet_small_05_m2").macs / 1e6, 1) == 427.6


@pytest.mark.parametrize("mode", ["m1", "m2"])
@pytest.mark.parametrize("name", ["small_05", "small_075", "5m", "9m"])
def test_modes_share_parameters(name, mode):
    with torch.device("meta"):
        model = timm.create_model(f"simplenet_{name}_{mode}")
        other = timm.create_model(f"simplenet_{name}_m1")
        assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 1000)
    shapes = {key: value.shape for key, value in other.state_dict().items()}
    assert {key: value.shape for key, value in model.state_dict().items()} == shapes


@pytest.mark.parametrize(
    ("options", "shape", "output"),
    [
        ({"num_classes": 5}, (2, 3, 33, 47), (2, 5)),
        ({"num_classes": 0, "global_pool": "avg"}, (1, 3, 32, 32), (1, 128)),
        ({"in_chans": 8, "drop_rate": 0.2}, (1, 8, 64, 32), (1, 1000)),
    ],
)
def test_output_shapes(options, shape, output):
    model = timm.create_model("simplenet_small_05_m2", **options).eval()
    with torch.no_grad():
        assert model(torch.randn(shape)).shape == output
