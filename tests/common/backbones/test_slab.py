# SPDX-License-Identifier: Apache-2.0
"""SLAB (arXiv 2405.11582): the published counts and outputs of its Swin and DeiT, and folding."""

import pytest
import timm
import torch
from published_networks import assert_near, counted, load, outputs, published
from torch import nn

from fieldfare.common.backbones import SlabDeit, SlabSwin
from fieldfare.common.backbones.slab_parts import ShiftedWindowAttention, from_published
from fieldfare.common.blocks import PRepBN, advance
from fieldfare.common.blocks.fuse import fuse


def parameters(name: str, **options: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in timm.create_model(name, **options).parameters())


def small_swin(**options: object) -> SlabSwin:
    return SlabSwin(
        56, 2, 12, (2, 2, 1), (2, 2, 3), (True, False, False), num_classes=10, **options
    )


def scrambled(model: nn.Module) -> nn.Module:
    """In evaluation mode, with batch norms as after some training."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.3)
    return model.eval()


def test_slab_swin_tiny_has_29_191_837_parameters_and_4_483_341_312_macs():
    found = counted("slab_swin_tiny")
    assert (found.parameters, found.macs) == (29_191_837, 4_483_341_312)


def test_slab_swin_tiny_has_29_216_605_parameters_with_its_layer_norms():
    assert parameters("slab_swin_tiny", norm_steps=60_000) == 29_216_605


# The published class holds one vector more, as wide as the tokens, that no output depends on.
def test_slab_deit_tiny_has_6_188_609_parameters_192_fewer_than_6_188_801():
    found = counted("slab_deit_tiny")
    assert found.parameters == 6_188_801 - 192 == 6_188_609
    assert round(found.macs / 1e6) == 1139


def test_slab_deit_small_has_22_973_057_parameters_384_fewer_than_22_973_441():
    found = counted("slab_deit_small")
    assert found.parameters == 22_973_441 - 384 == 22_973_057
    assert round(found.macs / 1e6) == 4359


def test_swin_gives_what_the_published_one_gives_and_folding_keeps_it():
    given = published("slab/swin_tiny")
    model = load(small_swin(), given, from_published)
    places = {  # the published stages downsample at their end
        "act.layers.0.blocks.1": "layers.0.blocks.1",
        "act.layers.0": "layers.1.downsample",
        "act.layers.1.blocks.1": "layers.1.blocks.1",
        "act.layers.1": "layers.2.downsample",
        "act.layers.2.blocks.0": "layers.2.blocks.0",
    }
    folded = fuse(model)
    with torch.no_grad():
        seen = outputs(model, given["in.x"], list(places.values()))
        for theirs, ours in places.items():
            assert_near(seen[ours].flatten(1, 2), given[theirs])
        assert_near(seen[""], given["out.logits"])
        assert_near(folded(given["in.x"]), given["out.logits"])
    assert not any(isinstance(module, PRepBN | nn.BatchNorm1d) for module in folded.modules())


def test_deit_gives_what_the_published_one_gives_and_folding_keeps_it():
    given = published("slab/deit_tiny")
    model = load(SlabDeit(24, 3, 2, 2, num_classes=10), given, from_published)
    x = given["in.x_28"].repeat_interleave(8, 2).repeat_interleave(8, 3)
    folded = fuse(model)
    with torch.no_grad():
        seen = outputs(model, x, ["blocks.0", "blocks.1", "norm"])
        for name in ("blocks.0", "blocks.1", "norm"):
            assert_near(seen[name].flatten(1, 2), given[f"act.{name}"])
        assert_near(seen[""], given["out.logits"])
        assert_near(folded(x), given["out.logits"])


def test_folding_keeps_the_outputs_where_windows_are_padded():
    # A map of 10 x 12 positions in windows of 7; then one of 5 x 6.
    # (Where all of a query's products with the keys are near 0, rounding decides its attention, and
    # folding moves by rounding: such weights are left out by the seed.)
    torch.manual_seed(0)
    model = SlabSwin((20, 24), 2, 12, (2, 2), (2, 2), (False, False), num_classes=5)
    scrambled(model)
    assert model.layers[0].blocks[0].attn.pads == (4, 2)
    x = torch.randn(2, 3, 20, 24)
    with torch.no_grad():
        expected, found = model(x), fuse(model)(x)
    assert_near(found, expected, 1e-5)
    assert expected.abs().max() > 0.1


@pytest.mark.parametrize("size", [(14, 14), (10, 15), (5, 20)])
def test_shifted_windows_see_their_neighbours_and_nothing_across_the_edge(size):
    torch.manual_seed(0)
    attention = ShiftedWindowAttention(8, 2, size, 7, 3).eval()
    x = torch.randn(1, *size, 8)
    row, column = size[0] - 1, size[1] - 1
    with torch.no_grad():
        before = attention(x)
        x[0, row, column] += 1
        changed = (attention(x) - before).abs().amax((0, 3)) > 1e-6
    # Windows begin at 3, 10, 17; one that holds the whole axis does not move.
    first = [3 + (extent - 4) // 7 * 7 if extent > 7 else 0 for extent in size]
    expected = torch.zeros(size, dtype=torch.bool)
    expected[first[0] :, first[1] :] = True
    assert torch.equal(changed, expected)


def test_an_image_of_another_size_is_refused_and_img_size_builds_for_it():
    model = SlabDeit(24, 3, 2, 2, img_size=(32, 64), num_classes=5).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 32, 64)).shape == (1, 5)
        with pytest.raises(ValueError, match=r"\(64, 32\).*built for \(32, 64\); give img_size"):
            model(torch.zeros(1, 3, 64, 32))
    with pytest.raises(ValueError, match=r"img_size \(40, 40\): must be multiples of 16"):
        SlabDeit(24, 3, 2, 2, img_size=40)
    with pytest.raises(ValueError, match=r"img_size \(72, 72\): must be multiples of 16"):
        SlabSwin(72, 2, 12)


def test_layer_norms_leave_by_steps_and_only_then_does_it_fold():
    torch.manual_seed(0)
    model = small_swin(norm_steps=2).train()
    x = torch.randn(2, 3, 56, 56)
    with pytest.raises(ValueError, match="0 of 2 steps"):
        fuse(model)
    for _ in range(2):
        model(x)
        advance(model)
    with torch.no_grad():
        assert_near(fuse(model)(x), model.eval()(x), 1e-5)


@pytest.mark.parametrize("kind", [small_swin, lambda: SlabDeit(24, 3, 2, 2, img_size=32)])
def test_another_classifier_or_none(kind):
    with torch.device("meta"):
        model = kind()
        x = torch.zeros(2, 3, *model.stem.size)
        model.reset_classifier(7)
        assert model(x).shape == (2, 7)
        model.reset_classifier(0)
        assert model(x).shape == (2, model.num_features)
    with pytest.raises(ValueError, match="max"):
        model.reset_classifier(7, "max")
