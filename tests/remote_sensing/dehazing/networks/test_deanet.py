# SPDX-License-Identifier: Apache-2.0
"""DEA-Net: its size, the numbers of the published one, its two heads."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fieldfare.common.blocks.fuse import fuse
from fieldfare.remote_sensing.dehazing.networks.convert import network_config, own_names
from fieldfare.remote_sensing.dehazing.networks.deanet import (
    DEANet,
    DEANetConfig,
    start_almost_clear,
    thickness_of,
)
from fieldfare.remote_sensing.dehazing.networks.fast import hastened

PUBLISHED = Path(__file__).parents[3] / "reference" / "deanet" / "tiny_a.safetensors"


def part(prefix):
    found = load_file(PUBLISHED)
    return {name.removeprefix(prefix): t for name, t in found.items() if name.startswith(prefix)}


def near(ours, theirs, tolerance):
    worst = float((ours.detach() - theirs).abs().max())
    limit = tolerance * (1 + float(theirs.abs().max()))
    assert worst <= limit, f"off by {worst:.2e}, allowed {limit:.2e}"


def tiny():
    tensors = own_names(part("sd."))
    network = DEANet(network_config(tensors, PUBLISHED))
    network.load_state_dict(tensors)
    return network.eval()


def small(**options):
    torch.manual_seed(0)
    return DEANet(DEANetConfig(width=8, blocks=(1, 1, 1, 1, 1), head="scattering", **options))


def test_deanet_has_7_789_313_parameters_in_training_and_3_653_377_deployed():
    network = DEANet()
    assert sum(p.numel() for p in network.parameters()) == 7_789_313
    assert sum(p.numel() for p in fuse(network).parameters()) == 3_653_377


def test_the_published_network_gives_the_published_numbers():
    network, x, wanted = tiny(), part("in.")["x"], part("out.")["y"]
    assert network.config == DEANetConfig(width=4)
    near(network(x), wanted, 1e-4)


def test_folded_it_gives_the_same():
    network, x = tiny(), part("in.")["x"]
    near(fuse(network)(x), network(x).detach(), 2e-6)
    near(fuse(network)(x), part("out.")["y"], 1e-4)


@pytest.mark.parametrize("size", [(24, 32), (17, 30)])
def test_the_fast_form_gives_the_same(size):
    network, x = tiny(), torch.rand(2, 3, *size)
    near(hastened(network)(x), network(x).detach(), 2e-6)
    assert not any(
        type(m).__name__ == "ContentGuidedAttention" for m in hastened(network).modules()
    )


def test_the_fast_form_gives_the_published_numbers():
    near(hastened(tiny())(part("in.")["x"]), part("out.")["y"], 1e-4)


def test_the_gradients_are_the_published_ones():
    network, given = tiny(), part("grad.")
    x = part("in.")["x"].requires_grad_()
    (network(x) * given["cotangent"]).sum().backward()
    wanted = own_names({name: t for name, t in given.items() if name not in ("x", "cotangent")})
    near(x.grad, given["x"], 1e-3)
    first = network.encode1[0].detail
    near(first.weights[1].grad, wanted["encode1.0.detail.conv1_1.conv.weight"], 1e-3)
    near(network.mix1.attention.place.weight.grad, wanted["mix1.attention.place.weight"], 1e-3)


@pytest.mark.parametrize("size", [(16, 16), (17, 30), (21, 19)])
def test_sides_that_four_does_not_divide_are_reflected_on(size):
    network = tiny()
    x = torch.rand(1, 3, *size)
    found = network(x)
    assert found.shape == x.shape
    padded = torch.nn.functional.pad(x, (0, -size[1] % 4, 0, -size[0] % 4), mode="reflect")
    near(found, network(padded)[..., : size[0], : size[1]].detach(), 1e-6)


def test_too_small_an_image_is_refused():
    with pytest.raises(ValueError, match="at least 16"):
        tiny()(torch.rand(1, 3, 15, 40))
    with pytest.raises(ValueError, match="at least 64"):
        small(reduction=4)(torch.rand(1, 3, 63, 80))


@pytest.mark.parametrize("reduction", [1, 4])
def test_the_scattering_head_starts_from_almost_the_image_itself(reduction):
    network = small(reduction=reduction)
    x = torch.rand(2, 3, 70, 67)
    start_almost_clear(network)
    assert 0 < (network(x) - x).square().mean().sqrt() < 0.15


def test_the_scattering_head_solves_the_scattering_model():
    network = small(reduction=4)
    start_almost_clear(network)
    clear, thickness, light = torch.rand(1, 3, 64, 64), torch.tensor([0.2, 0.5, 1.0]), 0.8
    with torch.no_grad():
        network.end.bias[:3] = thickness.expm1().log() / 4  # what softplus undoes
        network.end.bias[3:] = torch.logit(torch.tensor(light))
    through = (-thickness).exp()[:, None, None]
    near(network(clear * through + light * (1 - through)), clear, 1e-5)


def test_the_scattering_head_never_lowers_contrast():
    network = small(reduction=4)
    with torch.no_grad():
        network.end.weight.mul_(3)
    x = torch.rand(1, 3, 64, 64)
    y = network(x).detach()
    for band in range(3):  # next to each other thickness is alike: differences only grow
        ratio = y[0, band].diff(dim=1) / x[0, band].diff(dim=1)
        assert ratio.quantile(0.02) > 0.98


def test_thickness_is_never_negative_nor_endless():
    found = thickness_of(torch.linspace(-30, 30, 99))
    assert (found >= 0).all()
    assert found[0] < 1e-6
    assert found[-1] == 3


def test_the_scattering_head_folds_too():
    network = small(reduction=2)
    x = torch.rand(1, 3, 40, 36)
    near(fuse(network)(x), network.eval()(x).detach(), 2e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "fog"}, "head"),
        ({"blocks": (1, 2)}, "blocks"),
        ({"reduction": 2}, "reduction"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DEANetConfig(**options)


def test_a_configuration_survives_json():
    config = DEANetConfig(width=8, blocks=(1, 2, 3, 4, 5), head="scattering", reduction=4)
    assert DEANetConfig.from_dict(config.to_dict()) == config
