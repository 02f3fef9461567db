# SPDX-License-Identifier: Apache-2.0
"""Stitching: published counts, configurations, logits and fits; a network stitched to itself."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from fieldfare.common.efficiency import cost
from fieldfare.common.slim.anchors import SequentialAnchor, VisionTransformerAnchor
from fieldfare.common.slim.stitch import StitchedNet, least_squares, pairs, stitches

REFERENCE = Path(__file__).parents[2] / "reference" / "stitchable_networks"
CONFIG = json.loads((REFERENCE / "config.json").read_text())


def published(norm: bool) -> StitchedNet:
    given = CONFIG["anchors"]
    anchors = [
        VisionTransformerAnchor(
            VisionTransformer(
                img_size=given["img_size"],
                patch_size=given["patch_size"],
                embed_dim=width,
                num_heads=heads,
                depth=given["depth"],
                mlp_ratio=given["mlp_ratio"],
                num_classes=given["num_classes"],
                norm_layer=lambda n, **kw: nn.LayerNorm(n, **kw, eps=given["norm_eps"]),
            )
        )
        for width, heads in zip(given["embed_dim"], given["num_heads"], strict=True)
    ]
    stitched = None if norm else lambda index, x: anchors[index].model.forward_head(x)
    net = StitchedNet(
        anchors,
        given["embed_dim"],
        window=CONFIG["kernel_size"],
        stride=CONFIG["stride"],
        stitched=stitched,
    )
    state = {}
    for name, tensor in load_file(REFERENCE / "state_dict.safetensors").items():
        parts = name.split(".")
        if parts[0] == "anchors":
            state[".".join([*parts[:2], "model", *parts[2:]])] = tensor
        else:  # stitch_layers.0.1.transform.weight
            state[f"projections.{parts[1]}.{parts[2]}.{parts[-1]}"] = tensor
    net.load_state_dict(state)
    return net.eval()


@pytest.fixture(scope="module")
def given():
    return load_file(REFERENCE / "expected.safetensors")


def test_three_deits_give_the_published_71_networks():
    found = stitches([(12,)] * 3)
    assert len(found) == 2 * 34
    assert len(found) + 3 == 71
    assert max(stitch.layer for stitch in found) + 1 == 11


def test_windows_are_cut_off_at_the_end_and_share_no_pair():
    found = pairs((5, 5), window=2, stride=2)
    assert found[:4] == [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0)]
    assert found[-1] == (4, 4, 2)
    assert len(found) == 9
    wide = pairs((5, 5), window=3, stride=1)
    assert len(wide) == len({(a, b) for a, b, _ in wide}) == 25 - 6
    assert max(layer for _, _, layer in wide) == 2
    assert pairs((2, 4)) == [(0, 1, 0), (1, 2, 1), (1, 3, 1)]


def test_three_swins_give_the_published_41_networks():
    depths = [(2, 2, 6, 2), (2, 2, 18, 2), (2, 2, 18, 2)]
    assert len(stitches(depths)) + 3 == 41


def test_configurations_are_the_published_ones():
    net = published(norm=True)
    assert net.choices().count() == CONFIG["num_configs"]
    for config in CONFIG["configs"][3:]:
        stitch = net.stitches[config["id"] - 3]
        assert [stitch.front, stitch.front + 1] == config["comb_id"]
        assert [stitch.last, stitch.first] == config["stitch_cfgs"][0]
        assert stitch.layer == config["stitch_layers"][0]
    assert [len(layers) for layers in net.projections] == [CONFIG["num_stitches"]] * 2


@pytest.mark.parametrize("norm", [True, False])
def test_logits_are_the_published_ones(given, norm):
    net = published(norm)
    seen = set()
    for config in CONFIG["configs"]:
        name = f"logits_with_norm.{config['id']}" if norm else f"logits.{config['id']}"
        if name not in given:
            continue
        net.set({"network": config["id"]})
        with torch.no_grad():
            torch.testing.assert_close(net(given["x"]), given[name], rtol=0, atol=1e-4)
        seen.add(config["id"])
    assert len(seen) >= 20


def test_the_start_is_the_published_one(given):
    front, end = given["least_squares.front"], given["least_squares.end"]
    weight, bias = least_squares(front, end)
    prefix = "least_squares.front_block0_to_second_block0"
    torch.testing.assert_close(weight, given[f"{prefix}.weight"], rtol=0, atol=1e-5)
    torch.testing.assert_close(bias, given[f"{prefix}.bias"], rtol=0, atol=1e-5)
    net = published(norm=True)
    expected = copy.deepcopy(net.projections.state_dict())
    for layer in net.projections.modules():
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.weight)
    net.initialise(given["init_batch"])
    for name, tensor in net.projections.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-4)


def test_a_network_stitched_to_itself_is_itself():
    model = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=12, num_heads=2, depth=3, num_classes=5
    )
    anchors = [VisionTransformerAnchor(model), VisionTransformerAnchor(copy.deepcopy(model))]
    net = StitchedNet(anchors, [12, 12]).eval()
    x = torch.randn(8, 3, 16, 16)
    alone = model.eval()(x)
    forward = {2 + n: s for n, s in enumerate(net.stitches) if s.first == s.last + 1}
    assert len(forward) == 2
    tokens = anchors[0].embed(x)
    for network, stitch in forward.items():
        tokens = model.blocks[stitch.last](tokens)
        weight, bias = least_squares(tokens, tokens)  # behind a block is before the next one
        torch.testing.assert_close(weight, torch.eye(12), rtol=0, atol=1e-6)
        assert bias.abs().max() < 1e-6
        with torch.no_grad():
            net.projections[0][stitch.layer].weight.copy_(weight)
            net.projections[0][stitch.layer].bias.copy_(bias)
        net.set({"network": network})
        torch.testing.assert_close(net(x), alone, rtol=0, atol=1e-5)


def convolutions(width: int, stages: tuple[int, ...], *, linear: bool = False) -> SequentialAnchor:
    """Stages of halving size and doubling width."""
    blocks, channels = [], width
    for number, depth in enumerate(stages):
        for index in range(depth):
            wide, stride = width * 2**number, 2 if number and not index else 1
            conv = nn.Conv2d(channels, wide, 3, stride, padding=1)
            blocks.append(conv if linear else nn.Sequential(conv, nn.ReLU()))
            channels = wide
    end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3))
    return SequentialAnchor(nn.Conv2d(2, width, 1), blocks, end, stages)


def test_convolutional_networks_are_stitched_stage_by_stage():
    net = StitchedNet(
        [convolutions(4, (2, 4, 2)), convolutions(6, (2, 8, 2))], [(4, 8, 16), (6, 12, 24)]
    ).eval()
    x = torch.randn(6, 2, 16, 16)
    net.initialise(x)
    assert len(net.stitches) == 1 + 7  # block 1 of the first stage, 1 to 7 of the second
    assert [net.describe(2), net.describe(3)] == [
        "network 0 to block 0, network 1 from block 1",
        "network 0 to block 2, network 1 from block 3",
    ]
    for network in range(10):
        net.set({"network": network})
        assert net(x).shape == (6, 3)
    assert net.projections[0][0].weight.shape == (6, 4)
    assert net.projections[0][-1].weight.shape == (12, 8)


def test_a_linear_network_stitched_to_a_copy_of_it_is_itself():
    anchor = convolutions(4, (2, 2), linear=True)
    net = StitchedNet([anchor, copy.deepcopy(anchor)], [(4, 8), (4, 8)]).eval()
    x = torch.randn(8, 2, 8, 8)
    net.initialise(x)
    net.set({"network": 0})
    alone = net(x)
    net.set({"network": 2})
    torch.testing.assert_close(net(x), alone, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match=r"stages \(1, 1\): there are 3 blocks"):
        SequentialAnchor(nn.Identity(), [nn.Identity()] * 3, nn.Identity(), (1, 1))


def test_only_what_is_run_is_counted():
    net = published(norm=True)
    macs = []
    for network in (0, 3, 10, 1):
        net.set({"network": network})
        macs.append(cost(net, (1, 3, 32, 32)).macs)
    small, early, late, large = macs
    assert small < late < early < large * 1.2
    assert net.describe(10) == "network 0 to block 2, network 1 from block 3"


def test_gradients_reach_both_networks_and_the_projection():
    net = published(norm=True).train()
    net.set({"network": 7})
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    assert net.projections[0][1].weight.grad is not None
    assert net.projections[0][0].weight.grad is None
    front, end, unused = (anchor.model for anchor in net.anchors)
    assert front.blocks[1].attn.qkv.weight.grad is not None
    assert front.blocks[2].attn.qkv.weight.grad is None
    assert end.blocks[2].attn.qkv.weight.grad is not None
    assert end.blocks[1].attn.qkv.weight.grad is None
    assert all(p.grad is None for p in unused.parameters())


def test_what_cannot_be_stitched_is_refused():
    with pytest.raises(ValueError, match="4 blocks, fewer than the front's 6"):
        pairs((6, 4))
    with pytest.raises(ValueError, match="at least two networks"):
        stitches([(3,)])
    with pytest.raises(ValueError, match="same number of stages"):
        stitches([(3,), (2, 2)])
    with pytest.raises(ValueError, match="gene network: 23 is none of"):
        published(norm=True).set({"network": 23})
