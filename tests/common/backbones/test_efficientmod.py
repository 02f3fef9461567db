# SPDX-License-Identifier: Apache-2.0
"""EfficientMod (arXiv 2403.19963): the published counts, outputs and gradients."""

import pytest
import timm
import torch
from published_networks import assert_near, counted, load, outputs, published
from timm.layers import DropPath

from fieldfare.common.backbones.efficientmod import AttentionBlock, EfficientMod, from_published
from fieldfare.common.encoders import create_encoder


def test_efficientmod_xxs_has_4_736_264_parameters_and_579_111_424_macs():
    found = counted("efficientmod_xxs")
    assert (found.parameters, found.macs) == (4_736_264, 579_111_424)


def test_efficientmod_xs_has_6_627_544_parameters_and_773_098_752_macs():
    found = counted("efficientmod_xs")
    assert (found.parameters, found.macs) == (6_627_544, 773_098_752)


def test_efficientmod_s_has_12_897_184_parameters_and_1_402_143_200_macs():
    found = counted("efficientmod_s")
    assert (found.parameters, found.macs) == (12_897_184, 1_402_143_200)


def test_efficientmod_s_conv_has_12_872_336_parameters_and_1_470_798_720_macs():
    found = counted("efficientmod_s_conv")
    assert (found.parameters, found.macs) == (12_872_336, 1_470_798_720)


TINY = {
    "widths": (8, 16, 24, 40),
    "modulations": (2, 2, 2, 2),
    "attentions": (0, 0, 1, 1),
    "num_classes": 10,
}


def test_outputs_and_gradients_are_the_published_ones():
    given = published("efficientmod/tiny_a")
    model = load(EfficientMod(**TINY), given, from_published)
    assert sum(p.numel() for p in model.parameters()) == 154_162
    x = given["in.x"].requires_grad_()
    last = (1, 1, 2, 2)
    names = [f"stages.{stage}.blocks.{block}" for stage, block in enumerate(last)]
    seen = outputs(model, x, names)
    for stage, (name, block) in enumerate(zip(names, last, strict=True)):
        assert_near(seen[name], given[f"act.layers.{stage}.blocks.{block}"])
    assert_near(seen[""], given["out.logits"])
    (seen[""] * given["grad.cotangent"]).sum().backward()
    assert_near(x.grad, given["grad.x"], 1e-3)
    # Each gradient of a published tensor is that of ours which takes its place.
    weights = {name.removeprefix("sd."): t for name, t in given.items() if name.startswith("sd.")}
    names = {id(tensor): name for name, tensor in from_published(weights, model).items()}
    checked = [name for name in weights if f"grad.{name}" in given]
    assert len(checked) == 4
    for name in checked:
        gradient = model.get_parameter(names[id(weights[name])]).grad
        assert_near(gradient, given[f"grad.{name}"], 1e-3)


def test_attention_with_heads_wider_than_32_is_the_published_one():
    given = published("efficientmod/attention_block")
    block = load(AttentionBlock(72, 1, 0.0, heads=2), given)
    seen = outputs(block, given["in.x"], ["attn"])
    assert_near(seen["attn"], given["act.attn"])
    assert_near(seen[""], given["out.y"])


def test_features_are_the_stages_before_the_next_downsampling():
    torch.manual_seed(0)
    model = timm.create_model("efficientmod_xxs").eval()
    encoder = create_encoder("efficientmod_xxs", 3).eval()
    encoder.model.load_state_dict(
        {k.replace("stages.", "stages_"): v for k, v in model.state_dict().items()}, strict=False
    )
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        features = encoder(x)
        found = features[-1]
        for stage in range(4):
            x = model.stages[stage](x)
            torch.testing.assert_close(features[stage], x)
        torch.testing.assert_close(model.norm(found), model.norm(x))
    assert encoder.channels == (32, 64, 128, 256)
    assert [tuple(feature.shape[2:]) for feature in features] == [(17, 25), (9, 13), (5, 7), (3, 4)]


def test_a_published_checkpoint_goes_in_by_its_file(tmp_path):
    given = published("efficientmod/tiny_a")
    state = {name.removeprefix("sd."): t for name, t in given.items() if name.startswith("sd.")}
    torch.save({"state_dict": state}, tmp_path / "tiny.pth")
    overlay = {"file": str(tmp_path / "tiny.pth"), "num_classes": 10}
    model = timm.create_model(
        "efficientmod_xxs", pretrained=True, pretrained_cfg_overlay=overlay, **TINY
    ).eval()
    with torch.no_grad():
        assert_near(model(given["in.x"]), given["out.logits"])


def test_stochastic_depth_rises_evenly_from_the_first_block_to_the_last():
    with torch.device("meta"):
        model = timm.create_model("efficientmod_s")
    rates = [m.drop_prob for m in model.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.02 * i / 27 for i in range(28)])


def test_another_classifier_or_none():
    model = EfficientMod(**TINY).eval()
    x = torch.randn(2, 3, 32, 40)
    with torch.no_grad():
        model.reset_classifier(7)
        assert model(x).shape == (2, 7)
        model.reset_classifier(0)
        assert model(x).shape == (2, 40)
    with pytest.raises(ValueError, match="max"):
        model.reset_classifier(7, "max")
