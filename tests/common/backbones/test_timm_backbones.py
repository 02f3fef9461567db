# SPDX-License-Identifier: Apache-2.0
"""Networks of the field that timm already holds: their parameters, operations and features.

TurboViT (arXiv 2308.11421) is a hierarchical transformer of mask-unit attention with pooled
queries, whose exact table was printed as a figure only; Hiera is its nearest kin here, and no more
than that.
"""

import pytest
import timm
import torch
from published_networks import counted
from timm.layers import EcaModule

from fieldfare.common.encoders import create_encoder

PARAMETERS = {
    "ecaresnet50d": 25_576_350,
    "ecaresnet50t": 25_573_814,
    "ecaresnet101d": 44_568_563,
    "eca_vovnet39b": 22_600_316,
    "efficientformer_l1": 12_289_928,
    "efficientformer_l3": 31_406_000,
    "efficientformer_l7": 82_229_328,
    "efficientvit_m0": 2_349_436,
    "efficientvit_m1": 2_980_560,
    "efficientvit_m2": 4_187_554,
    "efficientvit_m3": 6_900_722,
    "efficientvit_m4": 8_804_228,
    "efficientvit_m5": 12_473_772,
    "ese_vovnet19b_dw": 6_543_080,
    "ese_vovnet39b": 24_568_936,
    "fbnetv3_b": 8_598_464,
    "fbnetv3_d": 10_306_272,
    "fbnetv3_g": 16_623_888,
    "hiera_tiny_224": 27_910_216,
    "mobilenetv3_large_100": 5_483_032,
    "mobilenetv3_small_100": 2_542_856,
    "nasnetalarge": 88_753_150,
    "resnetrs50": 35_691_912,
    "resnetrs101": 63_618_696,
    "resnetrs152": 86_621_576,
    "resnetrs200": 93_209_992,
    "resnetrs270": 129_861_448,
    "resnetrs350": 163_956_168,
    "resnetrs420": 191_891_656,
    "spnasnet_100": 4_421_616,
    "vovnet39a": 22_600_296,
    "vovnet57a": 36_640_296,
}
# Multiply-accumulates at a size, in millions.
MMACS = {
    ("efficientformer_l1", 224): 1291,
    ("efficientformer_l3", 224): 3907,
    ("efficientformer_l7", 224): 10119,
    ("efficientvit_m0", 224): 79,
    ("efficientvit_m1", 224): 167,
    ("efficientvit_m2", 224): 201,
    ("efficientvit_m3", 224): 263,
    ("efficientvit_m4", 224): 299,
    ("efficientvit_m5", 224): 522,
    ("fbnetv3_b", 224): 408,
    ("mobilenetv3_large_100", 224): 217,
    ("mobilenetv3_small_100", 224): 57,
    ("nasnetalarge", 331): 23783,
    ("resnetrs50", 160): 2279,
    ("spnasnet_100", 224): 333,
    ("vovnet39a", 224): 7072,
    ("vovnet57a", 224): 8930,
}


@pytest.mark.parametrize(
    ("name", "count"),
    [pytest.param(name, n, id=f"{name}_has_{n:_}_parameters") for name, n in PARAMETERS.items()],
)
def test_that(name, count):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize(
    ("name", "size", "millions"),
    [
        pytest.param(name, size, n, id=f"{name}_takes_{n}_mmacs_at_{size}")
        for (name, size), n in MMACS.items()
    ],
)
def test_that_it(name, size, millions):
    assert round(counted(name, size).macs / 1e6) == millions


@pytest.mark.parametrize(
    ("name", "kernels", "count"),
    [
        pytest.param("resnet50", (3, 5, 5, 7), 80, id="eca_resnet50_has_80_more_parameters"),
        pytest.param("resnet50", (3, 3, 3, 3), 48, id="eca_resnet50_of_3_has_48_more"),
        pytest.param("resnet101", (3, 5, 5, 7), 165, id="eca_resnet101_has_165_more"),
        pytest.param("resnet152", (3, 3, 3, 3), 150, id="eca_resnet152_of_3_has_150_more"),
        pytest.param("resnet18", (3, 3, 3, 3), 24, id="eca_resnet18_of_3_has_24_more"),
    ],
)
def test_the_published(name, kernels, count):
    # Each stage's kernel as published; timm's own eca networks choose it by the channels.
    with torch.device("meta"):
        model = timm.create_model(name)
        plain = sum(parameter.numel() for parameter in model.parameters())
        for index, kernel in enumerate(kernels, start=1):
            for block in model.get_submodule(f"layer{index}"):
                block.se = EcaModule(kernel_size=kernel)
        assert sum(parameter.numel() for parameter in model.parameters()) == plain + count
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
        if name == "resnet50" and count == 80:
            assert plain + count == 25_557_112
        if name == "resnet101":
            assert plain + count == 44_549_325


SIZES = {"nasnetalarge": 320, "efficientformer_l1": 224, "hiera_tiny_224": 224}
# NASNet's convolutions without padding take off what Inception's do.
SHORT = {"nasnetalarge": 3}


@pytest.mark.parametrize("channels", [1, 3, 4, 13])
@pytest.mark.parametrize(
    "name",
    [
        "ecaresnet50t",
        "efficientformer_l1",
        "efficientvit_m0",
        "fbnetv3_b",
        "hiera_tiny_224",
        "mobilenetv3_small_100",
        "nasnetalarge",
        "resnetrs50",
        "spnasnet_100",
        "vovnet39a",
    ],
)
def test_is_an_encoder_of_any_number_of_channels(name, channels):
    size = SIZES.get(name, 64)
    with torch.device("meta"):
        encoder = create_encoder(name, channels).eval()
        features = encoder(torch.zeros(1, channels, size, size))
    short = SHORT.get(name, 0)
    for feature, width, stride in zip(features, encoder.channels, encoder.strides, strict=True):
        assert feature.shape[1] == width
        assert size // stride - short <= feature.shape[2] == feature.shape[3] <= size // stride
    assert encoder.strides[-1] in (32, 64)
