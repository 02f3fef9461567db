# SPDX-License-Identifier: Apache-2.0
"""SimpleNet (arXiv 1608.06037): the published counts and outputs."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from fieldfare.common.backbones import SimpleNet
from fieldfare.common.efficiency import Cost, cost

REFERENCE = Path(__file__).parents[2] / "reference" / "simplenet"


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


def test_simplenet_small_075_takes_758_853_120_macs_in_mode_m1_and_953_937_408_in_m2():
    assert counted("simplenet_small_075_m1").macs == 758_853_120
    assert counted("simplenet_small_075_m2").macs == 953_937_408


def test_simplenet_5m_takes_1_341_761_536_macs_in_mode_m1_and_1_688_578_048_in_m2():
    assert counted("simplenet_5m_m1").macs == 1_341_761_536
    assert counted("simplenet_5m_m2").macs == 1_688_578_048


def test_simplenet_9m_takes_2_774_249_984_macs_in_mode_m1_and_3_554_587_136_in_m2():
    assert counted("simplenet_9m_m1").macs == 2_774_249_984
    assert counted("simplenet_9m_m2").macs == 3_554_587_136


# Where the published network has its convolutions; a batch norm follows each.
PUBLISHED = (0, 4, 8, 12, 16, 20, 26, 30, 34, 38, 44, 48, 52)


@pytest.mark.parametrize("mode", ["m1", "m2"])
def test_every_layer_gives_what_the_published_network_gives(mode):
    given = load_file(REFERENCE / f"{mode}_tiny.safetensors")
    state = {name.removeprefix("sd."): t for name, t in given.items() if name.startswith("sd.")}
    names = {"classifier": "head"}
    for index, place in enumerate(PUBLISHED):
        names |= {f"features.{place}": f"layers.{index}.conv"}
        names |= {f"features.{place + 1}": f"layers.{index}.norm"}
    ours = {}
    for name, tensor in state.items():
        module, _, leaf = name.rpartition(".")
        ours[f"{names[module]}.{leaf}"] = tensor
    widths = tuple(state[f"features.{place}.weight"].shape[0] for place in PUBLISHED)
    model = SimpleNet(widths, mode, num_classes=len(state["classifier.bias"])).eval()
    missing, unexpected = model.load_state_dict(ours, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    seen = {}
    for index, layer in enumerate(model.layers):
        layer.register_forward_hook(lambda *a, index=index: seen.update({f"act.conv{index}": a[2]}))
    with torch.no_grad():
        seen["out.logits"] = model(given["in.x"])
    for name, tensor in seen.items():
        limit = 1e-4 + 1e-4 * given[name].abs().max()
        assert (tensor - given[name]).abs().max() <= limit, name


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
