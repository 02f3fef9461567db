# SPDX-License-Identifier: Apache-2.0
"""create_encoder: rows of (name, options, input shape, channels, strides)."""

import copy
import socket

import pytest
import torch
from timm.utils import reparameterize_model

from fieldfare.common.encoders import create_encoder, list_nd_encoders

PYRAMID = (2, 4, 8, 16, 32)
LATE = (4, 8, 16, 32)
TAPPED = (2, 4, 8, 16, 32, 64)
SMALL = (2, 4, 64, 64)
FIXED = {"img_size": 64}

FAMILIES = [
    ("convnext_atto", {}, SMALL, (40, 80, 160, 320), LATE),
    ("densenet121", {}, SMALL, (64, 256, 512, 1024, 1024), PYRAMID),
    ("dla34", {}, SMALL, (32, 64, 128, 256, 512), PYRAMID),
    ("eca_vovnet39b", {}, SMALL, (64, 256, 512, 768, 1024), PYRAMID),
    ("ecaresnet50t", {}, SMALL, (64, 256, 512, 1024, 2048), PYRAMID),
    ("eeea_net_c2", {}, SMALL, (16, 24, 40, 112, 160), PYRAMID),
    ("efficientformer_l1", {}, (2, 4, 224, 224), (48, 96, 224, 448), LATE),
    ("efficientmod_xs", {}, SMALL, (32, 64, 144, 288), LATE),
    ("efficientnet_b4", {}, SMALL, (24, 32, 56, 160, 448), PYRAMID),
    ("efficientvim_m1", {}, SMALL, (16, 32, 64, 128, 192, 320), TAPPED),
    ("efficientvit_m2", {}, SMALL, (16, 32, 64, 128, 192, 224), TAPPED),
    ("ese_vovnet39b", {}, SMALL, (64, 256, 512, 768, 1024), PYRAMID),
    ("fasternet_t0", {}, SMALL, (40, 80, 160, 320), LATE),
    ("fbnetv3_b", {}, SMALL, (16, 24, 40, 120, 1344), PYRAMID),
    ("hardcorenas_a", {}, SMALL, (16, 24, 40, 112, 960), PYRAMID),
    ("hiera_tiny_224", FIXED, SMALL, (96, 192, 384, 768), LATE),
    ("hrnet_w18_small", {}, SMALL, (64, 128, 256, 512, 1024), PYRAMID),
    ("levit_128", FIXED, SMALL, (16, 32, 64, 128, 256, 384), TAPPED),
    ("mobilenetv3_large_100", {}, SMALL, (16, 24, 40, 112, 960), PYRAMID),
    ("mobilenetv3_small_100", {}, SMALL, (16, 16, 24, 48, 576), PYRAMID),
    ("mobilenetv4_conv_small", {}, SMALL, (32, 32, 64, 96, 960), PYRAMID),
    ("mobileone_s0", {}, SMALL, (48, 48, 128, 256, 1024), PYRAMID),
    ("mobilevit_s", {}, SMALL, (32, 64, 96, 128, 640), PYRAMID),
    ("regnety_002", {}, SMALL, (32, 24, 56, 152, 368), PYRAMID),
    ("resnest14d", {}, SMALL, (64, 256, 512, 1024, 2048), PYRAMID),
    ("resnet18", {}, SMALL, (64, 64, 128, 256, 512), PYRAMID),
    ("resnetrs50", {}, SMALL, (64, 256, 512, 1024, 2048), PYRAMID),
    ("resnetv2_50d_evos", {}, SMALL, (64, 256, 512, 1024, 2048), PYRAMID),
    ("simplenet_5m_m1", {}, SMALL, (64, 128, 128, 512, 256), PYRAMID),
    ("simplenet_small_05_m2", {}, SMALL, (32, 64, 64, 256, 128), PYRAMID),
    ("slab_deit_tiny", FIXED, SMALL, (192, 192, 192), (16, 16, 16)),
    ("slab_swin_tiny", FIXED, SMALL, (96, 192, 384, 768), LATE),
    ("spnasnet_100", {}, SMALL, (16, 24, 40, 96, 320), PYRAMID),
    ("starnet_s1", {}, SMALL, (24, 48, 96, 192), LATE),
    ("swin_tiny_patch4_window7_224", FIXED, SMALL, (96, 192, 384, 768), LATE),
    ("tf_efficientnetv2_s", {}, SMALL, (24, 48, 64, 160, 256), PYRAMID),
    ("vanillanet_5", {}, SMALL, (512, 1024, 2048, 4096), LATE),
    ("vanillanet_5", {"deploy": True}, SMALL, (512, 1024, 2048, 4096), LATE),
    ("vanillanet_13", {}, SMALL, (512, 1024, 2048, 4096), LATE),
    ("vgg11", {}, SMALL, (64, 128, 256, 512, 512, 512), (1, *PYRAMID)),
    ("vit_tiny_patch16_224", FIXED, SMALL, (192, 192, 192), (16, 16, 16)),
    ("vovnet39a", {}, SMALL, (64, 256, 512, 768, 1024), PYRAMID),
]


@pytest.mark.parametrize(("name", "options", "shape", "channels", "strides"), FAMILIES)
def test_channels_strides_and_features_agree(name, options, shape, channels, strides):
    # On the meta device: the same code runs, on shapes without numbers.
    with torch.device("meta"):
        encoder = create_encoder(name, shape[1], **options).eval()
        features = encoder(torch.zeros(shape))
    assert encoder.channels == channels
    assert encoder.strides == strides
    size = shape[2]
    expected = [(2, c, size // s, size // s) for c, s in zip(channels, strides, strict=True)]
    assert [tuple(feature.shape) for feature in features] == expected


@pytest.mark.parametrize(
    ("name", "in_channels", "size", "expected"),
    [
        # ceil(size / stride)
        ("resnet18", 1, (65, 97), [(33, 49), (17, 25), (9, 13), (5, 7), (3, 4)]),
        ("efficientvit_m2", 13, (65, 97), [(33, 49), (17, 25), (9, 13), (5, 7), (3, 4), (2, 2)]),
        # floor(size / stride)
        ("vanillanet_5", 3, (65, 97), [(16, 24), (8, 12), (4, 6), (2, 3)]),
        # unpadded convolutions take a little off
        ("inception_v3", 3, (128, 128), [(61, 61), (28, 28), (13, 13), (6, 6), (2, 2)]),
    ],
)
def test_odd_sizes(name, in_channels, size, expected):
    with torch.device("meta"):
        encoder = create_encoder(name, in_channels).eval()
        features = encoder(torch.zeros(1, in_channels, *size))
    assert [tuple(feature.shape[2:]) for feature in features] == expected


@pytest.mark.parametrize("name", ["efficientvit_m2", "efficientvim_m1", "mobilenetv3_small_100"])
def test_runs_for_real_and_every_feature_has_a_gradient(name):
    torch.manual_seed(0)
    encoder = create_encoder(name, 5)
    x = torch.randn(2, 5, 64, 64, requires_grad=True)
    for feature in encoder(x):
        x.grad = None
        feature.square().sum().backward(retain_graph=True)
        assert torch.isfinite(x.grad).all()
        assert x.grad.abs().max() > 0


def test_stem_outputs_are_those_of_the_stem_and_a_copy_taps_its_own():
    torch.manual_seed(0)
    encoder = create_encoder("efficientvit_m2", 3).eval()
    twin = copy.deepcopy(encoder)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(2)
        x = torch.randn(1, 3, 64, 64)
        features, doubled = encoder(x), twin(x)
        plain = encoder.model(x)
        assert len(encoder(x)) == 6  # a run of the inner network leaves nothing behind
    assert torch.equal(features[3], plain[0])
    assert all(feature.min() >= 0 for feature in features[:3])  # after the stem's ReLU
    assert not torch.equal(features[0], doubled[0])
    assert encoder.training is False


@pytest.mark.parametrize("name", ["efficientvit_m2", "efficientvim_m1", "vanillanet_5"])
def test_folding_keeps_the_features(name):
    torch.manual_seed(0)
    encoder = create_encoder(name, 3).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = encoder(x)
        features = reparameterize_model(encoder, inplace=True)(x)
    for feature, wanted in zip(features, expected, strict=True):
        torch.testing.assert_close(feature, wanted, rtol=1e-4, atol=1e-5)


def test_tapped_encoder_can_be_exported():
    encoder = create_encoder("efficientvim_m1", 3).eval()
    x = torch.randn(1, 3, 64, 64)
    exported = torch.export.export(encoder, (x,)).module()
    for ours, theirs in zip(encoder(x), exported(x), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_nothing_is_downloaded(monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    create_encoder("resnet18.a1_in1k", 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet118", 3), "resnet118: no such encoder; close names: .*resnet18"),
        (("hf-hub:timm/resnet18.a1_in1k", 3), "no such encoder"),
        (("zzzz", 3), "zzzz: no such encoder"),
        (("mobilenet_v2", 3, 3), "close names: mobilenetv2"),
        (("resnet18", 3, 3), "resnet18: exists in two dimensions only; with ndim 3 use mobilenet"),
        (("resnet18", 3, 4), "ndim 4"),
        (("resnet18", 0), "in_channels 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_encoder(*arguments)


def test_options_are_refused_where_they_would_be_lost():
    with pytest.raises(ValueError, match="img_size"):
        create_encoder("mobilenetv2_050", 1, ndim=3, img_size=64)


@pytest.mark.parametrize(
    ("name", "ndim", "shape", "channels", "sizes"),
    [
        ("mobilenetv2_050", 1, (2, 3, 100), (8, 16, 16, 48, 160), (50, 25, 13, 7, 4)),
        ("mobilenetv2_100", 1, (2, 1, 64), (16, 24, 32, 96, 320), (32, 16, 8, 4, 2)),
        ("mobilenetv2_050", 2, (2, 3, 33, 33), (8, 16, 16, 48, 160), (17, 9, 5, 3, 2)),
        ("mobilenetv2_050", 3, (2, 4, 33, 33, 33), (8, 16, 16, 48, 160), (17, 9, 5, 3, 2)),
    ],
)
def test_encoders_in_one_two_and_three_dimensions(name, ndim, shape, channels, sizes):
    encoder = create_encoder(name, shape[1], ndim)
    assert encoder.channels == channels
    assert encoder.strides == PYRAMID
    features = encoder(torch.randn(shape))
    expected = [(2, c, *[size] * ndim) for c, size in zip(channels, sizes, strict=True)]
    assert [tuple(feature.shape) for feature in features] == expected


def test_nd_encoders_are_listed():
    assert list_nd_encoders() == ["mobilenetv2_050", "mobilenetv2_100"]


def test_stem_is_found_for_an_oblong_image_size_too():
    with torch.device("meta"):
        encoder = create_encoder("levit_128", 3, img_size=(64, 128)).eval()
        features = encoder(torch.zeros(1, 3, 64, 128))
    assert encoder.strides == TAPPED
    assert [tuple(f.shape[2:]) for f in features] == [(64 // s, 128 // s) for s in TAPPED]


def test_vision_transformer_has_no_stem_to_tap():
    # NaFlexViT's attention heads look like a feature map at stride 6; they are none.
    with torch.device("meta"):
        assert create_encoder("naflexvit_base_patch16_gap", 3).strides == (16, 16, 16)


@pytest.mark.parametrize(
    ("name", "features", "stages_left_out"),
    [
        ("resnet18", 2, ("layer2", "layer3", "layer4")),
        ("tf_efficientnet_lite0", 3, ("blocks.3", "blocks.6")),
        ("mobilenetv3_large_100", 1, ("blocks.1",)),
        ("convnext_atto", 2, ("stages_2", "stages_3")),
        ("efficientvit_m2", 4, ("stages_1", "stages_2")),  # three from its stem
        ("efficientvit_m2", 2, ("stages_1", "stages_2")),
        ("efficientmod_xxs", 2, ("stages_2", "stages_3")),
        ("eeea_net_c1", 3, ("blocks_5", "blocks_12")),
        ("vanillanet_5", 1, ()),
        ("resnet18", 5, ()),
    ],
)
def test_first_features_are_those_of_the_whole_encoder(name, features, stages_left_out):
    torch.manual_seed(0)
    whole = create_encoder(name, 3).eval()
    part = create_encoder(name, 3, features=features).eval()
    tensors = whole.state_dict()
    assert part.state_dict().keys() <= tensors.keys()
    part.load_state_dict({key: tensors[key] for key in part.state_dict()})
    layers = dict(part.model.named_modules())
    for stage in stages_left_out:
        assert stage in dict(whole.model.named_modules())
        assert stage not in layers
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, found = whole(x)[:features], part(x)
    assert part.channels == whole.channels[:features]
    assert part.strides == whole.strides[:features]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("features", [0, 6, -1])
def test_number_of_features_out_of_range_is_refused(features):
    with pytest.raises(ValueError, match=f"features {features}: resnet18 has 1 to 5"):
        create_encoder("resnet18", 3, features=features)


@pytest.mark.parametrize("ndim", [1, 3])
def test_features_are_for_two_dimensions(ndim):
    with pytest.raises(ValueError, match=f"features: mobilenetv2_050 takes no .* ndim {ndim}"):
        create_encoder("mobilenetv2_050", 1, ndim, features=2)
