# SPDX-License-Identifier: Apache-2.0
"""LeYOLO: what the published one computes, its sizes and costs, its folded form."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from fieldfare.common.blocks.fuse import fuse
from fieldfare.remote_sensing.detection.networks.head import BINS, SIDES, decode
from fieldfare.remote_sensing.detection.networks.leyolo import STRIDES, DetectorConfig, LeYOLO
from fieldfare.remote_sensing.detection.networks.tables import TABLES

REFERENCE = Path(__file__).parents[3] / "reference" / "leyolo" / "nano_quarter.safetensors"
COCO = tuple(str(number) for number in range(80))
FIXED = BINS
"""Numbers 0 to 15 that the published counts of parameters include."""


@pytest.fixture(scope="module")
def published():
    return load_file(REFERENCE)


@pytest.fixture(scope="module")
def quarter(published):
    network = LeYOLO(DetectorConfig(classes=("a", "b", "c"), width=0.25)).eval()
    tensors = {name[3:]: value for name, value in published.items() if name.startswith("sd.")}
    missing = network.load_state_dict(tensors, strict=False)
    assert not missing.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in missing.missing_keys)
    return network


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 + 1e-4 * expected.abs().max())


@torch.no_grad()
def test_every_level_gives_what_the_published_network_gives(published, quarter):
    maps = quarter(published["in.x"])
    for level, found in enumerate(maps):
        close(found, published[f"out.raw.{level}"])
    close(decode(maps, STRIDES), published["out.decoded"])


@torch.no_grad()
@pytest.mark.parametrize("layer", [4, 14, 24])
def test_layers_in_between_agree_too(published, quarter, layer):
    seen = []
    handle = quarter.get_submodule(f"layer{layer}").register_forward_hook(
        lambda module, given, result: seen.append(result)
    )
    quarter(published["in.x"])
    handle.remove()
    close(seen[0], published[f"act.layer{layer}"])


@torch.no_grad()
def test_folded_for_inference_it_gives_the_same_without_batch_norms(published, quarter):
    folded = fuse(quarter)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules())
    pairs = zip(folded(published["in.x"]), quarter(published["in.x"]), strict=True)
    assert max(float((one - other).abs().max()) for one, other in pairs) < 1e-4


def parameters(name):
    with torch.device("meta"):
        network = LeYOLO(DetectorConfig(network=name, classes=COCO))
    return sum(parameter.numel() for parameter in network.parameters()) + FIXED


def test_nano_has_1_120_480_parameters():
    assert parameters("leyolo_nano") == 1_120_480


def test_small_has_1_917_440_parameters():
    assert parameters("leyolo_small") == 1_917_440


@pytest.mark.parametrize("name", ["leyolo_medium", "leyolo_large"])
def test_medium_and_large_have_2_402_744_parameters(name):
    assert parameters(name) == 2_402_744


@pytest.mark.parametrize(
    ("name", "side", "gflop"),
    [
        ("leyolo_nano", 320, 0.616224),
        ("leyolo_nano", 480, 1.386504),
        ("leyolo_small", 480, 2.3970672),
        ("leyolo_small", 640, 4.2614528),
        ("leyolo_medium", 640, 5.509952),
        ("leyolo_large", 768, 7.93433088),
    ],
)
def test_operations_are_those_of_the_published_networks(name, side, gflop):
    with torch.device("meta"):
        network = LeYOLO(DetectorConfig(network=name, classes=COCO)).eval()
        image = torch.zeros(1, 3, side, side)
    with FlopCounterMode(display=False) as counter:
        network(image)
    cells = sum((side // stride) ** 2 for stride in STRIDES)
    expectation = 2 * BINS * SIDES * cells  # a convolution in the published network
    assert counter.get_total_flops() + expectation == round(gflop * 1e9)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("bands", [1, 4])
def test_every_size_takes_any_number_of_bands_and_gives_three_levels(name, bands):
    network = LeYOLO(
        DetectorConfig(network=name, classes=("a", "b"), width=0.125, in_channels=bands)
    ).eval()
    with torch.no_grad():
        maps = network(torch.rand(1, bands, 64, 96))
    assert [tuple(level.shape) for level in maps] == [
        (1, 66, 64 // stride, 96 // stride) for stride in STRIDES
    ]


def test_in_the_whole_one_every_layer_matters():
    network = LeYOLO(DetectorConfig(network="leyolo_whole", width=0.125)).train()
    sum(level.sum() for level in network(torch.rand(2, 3, 64, 64))).backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None]


def test_in_the_published_medium_some_layers_do_nothing():
    network = LeYOLO(DetectorConfig(network="leyolo_medium", width=0.125)).train()
    sum(level.sum() for level in network(torch.rand(2, 3, 64, 64))).backward()
    idle = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is None}
    assert idle == {"layer38", "layer39", "layer40", "layer41"}


def test_sides_that_32_does_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiples of 32"):
        LeYOLO(DetectorConfig(width=0.125))(torch.zeros(1, 3, 64, 72))


@pytest.mark.parametrize("wrong", [{"network": "leyolo_huge"}, {"classes": ("a", "a")}])
def test_a_wrong_configuration_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        DetectorConfig(**wrong)


def test_the_configuration_survives_the_way_through_json():
    config = DetectorConfig(classes=("tree", "car"), width=0.5, point_size=6.0)
    assert DetectorConfig.from_dict(config.to_dict()) == config
