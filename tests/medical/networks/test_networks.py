# SPDX-License-Identifier: Apache-2.0
"""The networks: shapes, parameters, and that saving memory changes nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.medical import options
from fieldfare.medical.networks.config import (
    ATTENTIONS,
    GROUPS,
    NORMS,
    PRESETS,
    NetworkConfig,
)
from fieldfare.medical.networks.create import check_sizes, create_network
from fieldfare.medical.networks.export import export_onnx
from fieldfare.medical.networks.models import TASK, describe, load_model

TINY = NetworkConfig(channels=(8, 12, 16), blocks=(1, 2, 3), decoder_blocks=(1, 2), expansion=2)
SLICES = replace(PRESETS["resunet_aspp_small"], encoder="mobilenetv3_small_050")


def gradients(network: Any, image: Tensor) -> dict[str, Tensor]:
    """Of a loss that weighs every logit differently."""
    network.zero_grad()
    torch.manual_seed(1)  # of dropout
    found = network(image)
    maps = found if isinstance(found, list) else [found]
    loss = sum((m * torch.linspace(-1, 1, m.numel()).view_as(m).to(m)).sum() for m in maps)
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("reversible", 1_603_203),
        ("reversible_deep", 1_717_443),
        ("reversible_wide", 5_983_491),
        ("reversible_small", 419_145),
        ("resunet_aspp", 8_571_736),
        ("resunet_aspp_small", 1_747_981),
        ("resunet_aspp_3d", 5_137_952),
    ],
)
def test_presets_have_their_parameters(preset: str, parameters: int) -> None:
    network = create_network(PRESETS[preset])
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_the_command_offers_every_choice() -> None:
    assert set(options.PRESETS) == set(PRESETS)
    assert options.NORMS == NORMS
    assert options.ATTENTIONS == ATTENTIONS
    assert set(options.GROUPS) == set(GROUPS)


@pytest.mark.parametrize("size", [(8, 8, 8), (13, 7, 18)])
@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, norm="instance", attention="eca"),
        replace(TINY, norm="evonorm", attention="eca", group_size=4),
        replace(PRESETS["resunet_aspp_3d"], channels=(8, 12, 16)),
    ],
)
def test_volumes_of_any_size_keep_it(config: NetworkConfig, size: tuple[int, ...]) -> None:
    network = create_network(config).eval()
    assert network(torch.randn(2, 4, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("size", [(64, 64), (37, 90)])
@pytest.mark.parametrize(
    "config",
    [
        SLICES,
        replace(SLICES, encoder="efficientmod_xxs"),  # has no feature of stride 2
        replace(SLICES, encoder="eeea_net_c1"),
        replace(TINY, ndim=2, attention="se", norm="evonorm"),
    ],
)
def test_slices_of_any_size_keep_it(config: NetworkConfig, size: tuple[int, ...]) -> None:
    network = create_network(config).eval()
    assert network(torch.randn(2, 4, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize(
    "config", [TINY, replace(PRESETS["resunet_aspp_3d"], channels=(8, 12, 16))]
)
def test_deep_supervision_gives_every_level_in_training_only(config: NetworkConfig) -> None:
    network = create_network(replace(config, deep_supervision=True))
    maps = network.train()(torch.randn(1, 4, 14, 16, 16))
    assert [tuple(m.shape[2:]) for m in maps] == [(14, 16, 16), (8, 8, 8)]
    assert network.eval()(torch.randn(1, 4, 14, 16, 16)).shape == (1, 3, 14, 16, 16)


@pytest.mark.parametrize("mode", ["checkpoint", "reversible"])
@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, dropout=0.3, deep_supervision=True, attention="se"),
        replace(TINY, norm="evonorm", attention="eca", group_size=2),
    ],
)
def test_memory_modes_have_the_same_gradients_to_1e_12(config: NetworkConfig, mode: str) -> None:
    torch.manual_seed(0)
    network = create_network(config).double().train()
    image = torch.randn(1, 4, 12, 12, 12, dtype=torch.float64)
    plain = gradients(network, image)
    network.memory = mode
    other = gradients(network, image)
    for name, wanted in plain.items():
        scale = max(1.0, float(wanted.abs().max()))
        assert float((other[name] - wanted).abs().max()) / scale < 1e-12, name


def test_reversible_float32_gradients_are_within_1e_4() -> None:
    torch.manual_seed(0)
    network = create_network(TINY).train()
    image = torch.randn(1, 4, 12, 12, 12)
    plain = gradients(network, image)
    network.memory = "reversible"
    found = gradients(network, image)
    whole = torch.cat([plain[name].flatten() for name in plain])  # some of its parts are all but 0
    error = torch.cat([found[name].flatten() for name in plain]) - whole
    assert float(error.norm() / whole.norm()) < 1e-4


def test_images_beyond_the_border_are_not_seen() -> None:
    torch.manual_seed(0)
    network = create_network(TINY).eval()
    image = torch.randn(1, 4, 12, 12, 11)
    continued = torch.nn.functional.pad(image, (0, 1))
    torch.testing.assert_close(network(image), network(continued)[..., :11])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "vnet"}, "architecture"),
        ({"ndim": 1}, "ndim"),
        ({"encoder": "resnet18"}, "2D"),
        ({"blocks": (1, 1)}, "blocks"),
        ({"norm": "batch"}, "norm must be one of"),
        ({"attention": "cbam"}, "attention"),
        ({"group_size": 7}, "group_size 7 must divide"),
        ({"ndim": 2, "encoder": "resnet18"}, "has its own"),
        ({"architecture": "resunet_aspp", "norm": "evonorm"}, "of reversible_unet only"),
        ({"architecture": "resunet_aspp", "group_size": 8}, "of reversible_unet"),
    ],
)
def test_what_cannot_be_built_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_network(replace(TINY, **change))


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("resnet19", "no such encoder; close names: .*resnet18"),
        ("vit_tiny_patch16_224", "does not take slices of any size"),
    ],
)
def test_an_encoder_that_cannot_serve_is_refused(encoder: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_sizes(create_network(replace(SLICES, encoder=encoder)))


def test_evonorm_is_its_own_activation_and_none_stands_between_levels() -> None:
    network = create_network(replace(TINY, norm="evonorm"))
    kinds = [type(module).__name__ for module in network.modules()]
    assert "SiLU" not in kinds
    assert "EvoNormS0" not in [type(m).__name__ for m in [*network.down.modules()]]
    assert "EvoNormS0" in kinds


def test_e2gc_mixes_eight_channels_of_a_filter() -> None:
    wide = replace(TINY, channels=(16, 32, 64))
    plain, grouped = (create_network(replace(wide, group_size=size)) for size in (1, 8))

    def filters(network: Any) -> int:
        weights = [parameter for parameter in network.parameters() if parameter.ndim == 5]
        return sum(weight.numel() for weight in weights if weight.shape[2:].numel() == 27)

    stem = 16 * 4 * 27
    assert filters(grouped) - stem == 8 * (filters(plain) - stem)


def test_a_config_from_before_groups_were_a_choice_is_the_same() -> None:
    old = TINY.to_dict()
    assert "group_size" not in old
    assert NetworkConfig.from_dict(old) == TINY
    assert NetworkConfig.from_dict(replace(TINY, group_size=8).to_dict()).group_size == 8


def test_the_slice_network_has_no_memory_modes() -> None:
    with pytest.raises(ValueError, match="no reversible stages"):
        create_network(SLICES, memory="reversible")


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        SLICES,
        replace(SLICES, encoder="eeea_net_c1", attention="eca"),
        replace(TINY, norm="evonorm", attention="eca", group_size=4),
    ],
)
def test_a_model_file_gives_the_network_back(config: NetworkConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = create_network(config).eval()
    card = ModelCard(name="tiny", task=TASK, summary="untrained", config=config.to_dict())
    save_model_file(tmp_path / "tiny.safetensors", network.state_dict(), card)
    again, _ = load_model(str(tmp_path / "tiny.safetensors"))
    image = torch.randn(1, 4, *[16] * config.ndim)
    assert again.config == config
    torch.testing.assert_close(again(image), network(image), rtol=0, atol=0)
    assert f"{config.ndim}D" in describe(config)


@pytest.mark.slow
@pytest.mark.parametrize("config", [TINY, SLICES])
def test_onnx_agrees(config: NetworkConfig, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="ONNX IS NOT INSTALLED: export is NOT tested")
    network = create_network(config)
    assert export_onnx(network, tmp_path / "net.onnx", tile=64 if config.ndim == 2 else 16) < 1e-3
