# SPDX-License-Identifier: Apache-2.0
"""The networks against segmentation_models_pytorch and torchvision, and their smaller depths."""

import pytest
import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.decoders.unetplusplus.decoder import UnetPlusPlusDecoder
from torch import Tensor, nn
from torchvision.models.segmentation.lraspp import LRASPPHead

from fieldfare.common.efficiency import cost
from fieldfare.remote_sensing.buildings.networks.building_network import (
    ARCHITECTURES,
    BuildingNetwork,
    NetworkConfig,
    depths_of,
)
from fieldfare.remote_sensing.buildings.networks.encoders import ENCODERS
from fieldfare.remote_sensing.buildings.networks.lraspp import LRASPP
from fieldfare.remote_sensing.buildings.networks.unetplusplus import DEPTHS, NestedDecoder

IMAGE = (1, 3, 128, 128)


def build(depth: int = 4, **options) -> BuildingNetwork:
    torch.manual_seed(0)
    return BuildingNetwork(NetworkConfig(**options), depth).eval()


def gradients(network: nn.Module, value: Tensor) -> dict[str, Tensor]:
    """Of the parameters that take part."""
    named = dict(network.named_parameters())
    found = torch.autograd.grad(value, list(named.values()), retain_graph=True, allow_unused=True)
    return {name: g for name, g in zip(named, found, strict=True) if g is not None}


@pytest.mark.parametrize(
    ("options", "shape", "outputs"),
    [
        ({}, (2, 3, 64, 128), 2),
        ({"outputs": ("building",)}, (1, 3, 64, 64), 1),
        ({"in_channels": 8}, (1, 8, 100, 70), 2),
        ({"deep_supervision": False, "encoder": "mobilenetv3"}, (1, 3, 65, 1), 2),
        ({"deep_supervision": False, "encoder": "convnext_atto"}, (1, 3, 64, 96), 2),
        ({"decoder_channels": (64, 32, 24, 16, 8)}, (1, 3, 33, 64), 2),
        ({"architecture": "unet"}, (1, 3, 100, 70), 2),
        ({"architecture": "unet", "encoder": "convnext_atto"}, (1, 3, 64, 64), 2),
        ({"architecture": "lraspp", "encoder": "mobilenetv3"}, (2, 3, 100, 70), 2),
        ({"architecture": "lraspp", "in_channels": 1}, (1, 1, 64, 64), 2),
    ],
)
def test_output_has_the_size_of_the_image(options, shape, outputs):
    with torch.device("meta"):
        network = build(**options)
        assert network(torch.zeros(shape)).shape == (shape[0], outputs, *shape[2:])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_preset_builds_and_runs(architecture, encoder):
    late = encoder == "vanillanet"  # begins at stride 4
    with torch.device("meta"):
        network = build(architecture=architecture, encoder=encoder, deep_supervision=not late)
        if architecture == "pem":  # what its queries find is sorted out by their values
            masks = network.said(torch.zeros(IMAGE))[-1].masks
            assert masks.shape == (1, 100, 32, 32)
            return
        maps = network.all_depths(torch.zeros(IMAGE))
    assert [tuple(m.shape) for m in maps] == [(1, 2, 128, 128)] * len(depths_of(network.config))


@pytest.mark.parametrize("encoder", ["vanillanet", "convnext_atto"])
def test_deep_supervision_needs_features_at_stride_2(encoder):
    with torch.device("meta"), pytest.raises(ValueError, match=f"{encoder}: has no features at"):
        build(encoder=encoder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "fpn"}, "architecture must be one of .* got 'fpn'"),
        ({"depth": 5}, r"depth 5: this model has \(1, 2, 3, 4\)"),
        ({"depth": 2, "deep_supervision": False}, r"depth 2: this model has \(4,\)"),
        ({"depth": 1, "architecture": "unet"}, r"depth 1: this model has \(4,\)"),
        ({"encoder": "efficientnet_x9"}, "efficientnet_x9: no such encoder"),
    ],
)
def test_bad_configurations_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_configuration_survives_its_dictionary():
    config = NetworkConfig(architecture="unet", outputs=("building",), gsd=0.3)
    assert NetworkConfig.from_dict(config.to_dict()) == config


PEERS = {"unetplusplus": smp.UnetPlusPlus, "unet": smp.Unet}


@pytest.mark.parametrize("architecture", PEERS)
@pytest.mark.parametrize("encoder", ["lite0", "mobilenetv3"])
def test_output_and_gradients_are_those_of_segmentation_models_pytorch(architecture, encoder):
    network = build(
        architecture=architecture, encoder=encoder, outputs=("building",), mean=0.0, std=1.0
    )
    peer = PEERS[architecture](f"tu-{ENCODERS[encoder]}", encoder_weights=None, classes=1).eval()
    own = network.state_dict()
    extra = {name for name in own if name.startswith("deep_heads.")}
    assert bool(extra) == (architecture == "unetplusplus")
    peer.load_state_dict({name: own[name] for name in own if name not in extra})  # strict

    image = torch.rand(1, 3, 64, 128)
    found, expected = network(image), peer(image)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    ours = gradients(network, found.square().mean())
    theirs = gradients(peer, expected.square().mean())
    assert ours.keys() == theirs.keys()
    assert max(g.abs().max() for g in theirs.values()) > 0
    for name, gradient in theirs.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5 * scale + 1e-9)


@pytest.mark.parametrize("channels", [(16, 24, 40, 112, 320), (0, 24, 40, 112, 320)], ids=str)
def test_a_seed_gives_the_decoder_of_segmentation_models_pytorch(channels):
    widths = (256, 128, 64, 32, 16)
    torch.manual_seed(0)
    peer = UnetPlusPlusDecoder((0, *channels), widths)
    initialize_decoder(peer)
    after = torch.rand(1)
    torch.manual_seed(0)
    own = NestedDecoder(channels, widths).state_dict()
    assert torch.equal(torch.rand(1), after)
    assert list(own) == list(peer.state_dict())
    assert all(torch.equal(own[name], tensor) for name, tensor in peer.state_dict().items())


def test_lraspp_head_is_that_of_torchvision():
    torch.manual_seed(0)
    head, peer = LRASPP(40, 960, 2).eval(), LRASPPHead(40, 960, 2, 128).eval()
    with torch.no_grad():
        for buffer in peer.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 2)
    head.load_state_dict(peer.state_dict())
    low = torch.rand(2, 40, 16, 24, requires_grad=True)
    high = torch.rand(2, 960, 4, 6, requires_grad=True)
    found, expected = head(low, high), peer({"low": low, "high": high})
    assert torch.equal(found, expected)
    ours, theirs = (torch.autograd.grad(y.square().sum(), (low, high)) for y in (found, expected))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_lraspp_of_21_outputs_has_the_3_221_538_parameters_of_torchvision():
    with torch.device("meta"):
        outputs = tuple(f"class{n}" for n in range(21))
        network = build(architecture="lraspp", encoder="mobilenetv3", outputs=outputs)
    assert sum(p.numel() for p in network.parameters()) == 3_221_538


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("encoder", ["lite0", "mobilenetv3", "mobilevitv2"])
def test_a_cut_network_gives_exactly_the_full_ones_map(encoder, depth):
    network = build(encoder=encoder)
    image = torch.rand(1, 3, 100, 70)
    with torch.inference_mode():
        expected = network.all_depths(image)[depth - 1]
        cut = network.cut(depth)
        assert torch.equal(cut(image), expected)
        maps = cut.all_depths(image)
    assert len(maps) == depth
    assert torch.equal(maps[-1], expected)
    assert cut.training is False


def test_lite0_depths_have_23954_93236_844838_5429928_parameters():
    counts = [cost(build(depth), (1, 3, 512, 512)) for depth in DEPTHS]
    assert [c.parameters for c in counts] == [23_954, 93_236, 844_838, 5_429_928]
    assert [round(c.macs / 1e9, 2) for c in counts] == [0.93, 2.12, 4.30, 16.14]


def test_cutting_a_cut_network_keeps_its_weights_and_training_flag():
    network = build(3).train()
    cut = network.cut(2)
    assert cut.training
    own = network.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in cut.state_dict().items())
    assert "encoder.model.blocks.2.0.conv_pw.weight" in cut.state_dict()
    assert not any(name.startswith("encoder.model.blocks.3.") for name in cut.state_dict())


def test_training_gives_every_depth_and_each_has_a_gradient_of_its_own():
    network = build().train()
    maps = network(torch.rand(2, 3, 64, 64))
    assert len(maps) == 4
    for number, logits in enumerate(maps[:3]):
        reached = gradients(network, logits.sum())
        assert f"deep_heads.{number}.weight" in reached
        assert not any(name.startswith("segmentation_head") for name in reached)
        # X^{0,k} is the deepest node; nothing below it takes part.
        deepest = min(int(n.split(".x_")[1][0]) for n in reached if ".x_" in n)
        assert deepest == 3 - number
    assert "segmentation_head.0.weight" in gradients(network, maps[3].sum())


@pytest.mark.parametrize("encoder", ["lite0", "mobilevitv2"])
def test_odd_sizes_are_continued_at_the_lower_right(encoder):
    network = build(encoder=encoder)
    image = torch.rand(1, 3, 96, 80)
    padded = nn.functional.pad(image, (0, 48, 0, 32), mode="replicate")
    with torch.inference_mode():
        assert torch.equal(network(image), network(padded)[..., :96, :80])


@pytest.mark.parametrize("depth", [0, 5])
def test_nested_decoder_refuses_unknown_depths(depth):
    with pytest.raises(ValueError, match=f"depth must be one of .* got {depth}"):
        NestedDecoder((16, 24, 40, 112, 320), depth=depth)


def test_nested_decoder_refuses_another_number_of_widths():
    with pytest.raises(ValueError, match="decoder_channels must be five"):
        NestedDecoder((16, 24, 40, 112, 320), (64, 32, 16))
