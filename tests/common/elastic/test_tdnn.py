# SPDX-License-Identifier: Apache-2.0
"""EfficientTDNN: two published supernets, nine configurations, counts, the size of the space."""

import ast
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from fieldfare.common.efficiency import cost
from fieldfare.common.elastic.network import ElasticNet
from fieldfare.common.elastic.tdnn import Layout, elastic_tdnn, space

REFERENCE = Path(__file__).parents[2] / "reference" / "efficient_tdnn"
CONFIG = json.loads((REFERENCE / "config.json").read_text())
with safe_open(REFERENCE / "supernet.safetensors", "pt") as file:
    SECOND = file.metadata()
RENAMES = [
    (r"^layer1\.conv\.conv", "stem.0"),
    (r"^layer1\.bn\.bn", "stem.2"),
    (r"first_conv\.conv\.conv", "0.0"),
    (r"first_conv\.bn\.bn", "0.2"),
    (r"resconv\.convs\.(\d)\.conv\.conv", r"1.groups.\1.0"),
    (r"resconv\.convs\.(\d)\.bn\.bn", r"1.groups.\1.2"),
    (r"last_conv\.conv\.conv", "2.0"),
    (r"last_conv\.bn\.bn", "2.2"),
    (r"se\.reduce\.linear", "3.layers.0"),
    (r"se\.expand\.linear", "3.layers.2"),
    (r"^catconv\.conv", "mix"),
    (r"^pooling\.linear1\.conv", "pool.weigh.0"),
    (r"^pooling\.linear2\.conv", "pool.weigh.2"),
    (r"^bnpool\.bn", "head.0"),
    (r"^linear\.linear", "head.1"),
    (r"^bnembed", "head.2"),
]


def ours(name: str) -> str:
    for pattern, new in RENAMES:
        name = re.sub(pattern, new, name)
    return name


def published(state, layout: Layout, widths, pooled, depths) -> ElasticNet:
    net = elastic_tdnn(space(layout, widths=widths, pooled=pooled, depths=depths), layout).eval()
    tensors = dict(net.full.named_parameters()) | dict(net.full.named_buffers())
    loaded = set()
    with torch.no_grad():
        for name, tensor in state.items():
            if found := re.match(r"(.*)\.k\d(\d)$", name):
                key = ours(f"{found[1]}.conv.weight").replace(".", "-")
                net.maps[f"{key}-to{found[2]}"].copy_(tensor.T)  # theirs multiply from the right
                continue
            tensors[ours(name)].copy_(tensor)
            loaded.add(ours(name))
    assert {name for name in tensors if "num_batches" not in name} <= loaded
    return net


def choice(net: ElasticNet, depth, widths, kernels, pooled):
    values = {"depth": depth, "pooled": pooled}
    values |= {f"width{i}": width for i, width in enumerate(widths)}
    values |= {f"kernel{i}": kernel for i, kernel in enumerate(kernels)}
    return net.space.canonical(values)


def check(net: ElasticNet, own, x, expected) -> torch.nn.Module:
    net.set(own)
    small = net.extract(own)
    with torch.no_grad():
        assert torch.equal(net(x), small(x))
        torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-5)
    return small


@pytest.mark.parametrize("name", CONFIG["configs"])
def test_the_first_supernet_gives_the_published_embeddings(name):
    given = CONFIG["constructor"]
    layout = Layout(20, 12, given["channels"], given["catconv_channels"], given["num_blocks"])
    state = load_file(REFERENCE / "state_dict.safetensors")
    net = published(state, layout, (16, 24, 32), (24, 40, 48), (2, 3))
    config = CONFIG["configs"][name]["config [depth, channels, kernels, pooled channels]"]
    own = choice(net, *config) if config else net.space.largest()
    expected = load_file(REFERENCE / "expected.safetensors")
    small = check(net, own, expected["x"], expected[f"embedding.{name}"])
    assert sum(p.numel() for p in small.parameters()) == CONFIG["configs"][name]["params"]


@pytest.mark.parametrize("number", range(4))
def test_the_second_supernet_gives_the_published_embeddings_parameters_and_macs(number):
    given = load_file(REFERENCE / "supernet.safetensors")
    layout = Layout(10, 6, 16, 24, 3)
    state = {name[3:]: tensor for name, tensor in given.items() if name.startswith("sd.")}
    net = published(state, layout, (8, 16), (8, 16, 24), (1, 2, 3))
    own = choice(net, *ast.literal_eval(SECOND["configs"])[number])
    x = given["input"]
    small = check(net, own, x, given[f"config{number}.output"])
    assert sum(p.numel() for p in small.parameters()) == given[f"config{number}.params"]
    macs = cost(small, tuple(x[:1].shape)).macs
    # the published counter adds two operations for each value that a batch norm gives
    seen = []
    for norm in small.modules():
        if isinstance(norm, torch.nn.BatchNorm1d):
            norm.register_forward_hook(lambda *call: seen.append(2 * call[2][0].numel()))
    small(x)
    assert macs + sum(seen) == given[f"config{number}.macs"]


def test_the_published_space_has_10_021_183_582_095_networks():
    layout = Layout(depth=4)
    genes = space(
        layout,
        depths=(2, 3, 4),
        widths=range(128, 513, 8),
        pooled=range(384, 1537, 8),
    )
    assert genes.count() == 10_021_183_582_095


@pytest.mark.parametrize(("depth", "width", "count"), [(4, 512, 7_550_528), (3, 1024, 15_726_144)])
def test_published_parameters_of_the_largest(depth, width, count):
    layout = Layout(width=width, depth=depth)
    genes = space(layout, depths=(depth,), widths=(width,), pooled=(1536,))
    with torch.device("meta"):
        net = elastic_tdnn(genes, layout)
    assert sum(p.numel() for p in net.full.parameters()) == count


def test_statistics_of_scattered_channels_come_back():
    layout = Layout(4, 3, 16, 16, 2)
    genes = space(layout, depths=(2,), widths=(8, 16), pooled=(8, 16))
    net = elastic_tdnn(genes, layout).train()
    net.set(genes.smallest())
    net(torch.randn(3, 4, 9) + 2)
    moved = net.full.blocks[0][0][2].running_mean != 0
    assert moved.nonzero().flatten().tolist() == list(range(0, 16, 2))
    pooled = net.full.head[0].running_mean != 0
    assert not pooled[8:16].any()
    assert pooled[16:24].all()
    assert not pooled[24:].any()
    small = net.extract(genes.smallest())
    assert torch.equal(
        small.blocks[0][0][2].running_mean, net.full.blocks[0][0][2].running_mean[::2]
    )


def test_a_width_that_eight_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="width 20 is no multiple of 8"):
        space(Layout(), widths=(20, 512))
    with pytest.raises(ValueError, match="not those of the layout"):
        space(Layout(), widths=(128, 256))
