# SPDX-License-Identifier: Apache-2.0
"""PEM (arXiv 2402.19422): the published counts and outputs, and what differs from them here."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fieldfare.common.efficiency import cost
from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
)
from fieldfare.remote_sensing.buildings.networks.export import export_onnx
from fieldfare.remote_sensing.buildings.networks.fast import FastBuildingNetwork
from fieldfare.remote_sensing.buildings.networks.panoptic import (
    building_logits,
    instances,
    panoptic,
    semantic,
)
from fieldfare.remote_sensing.buildings.networks.pem import (
    PUBLISHED,
    Found,
    QueryDecoder,
    Sizes,
    sine_positions,
)
from fieldfare.remote_sensing.buildings.networks.pem_pixels import PixelDecoder

REFERENCE = Path(__file__).parents[3] / "reference" / "pem"
TINY = Sizes(16, 12, 32, 4, 48, layers=3, queries=7, classes=5)
SMALL = NetworkConfig(architecture="pem", encoder="mobilenetv3_small_050", queries=12)


def near(found, expected):
    bound = 1e-4 + 1e-4 * float(expected.abs().max())
    assert float((found - expected).abs().max()) <= bound


@pytest.fixture(scope="module")
def tiny():
    return load_file(REFERENCE / "tiny_a.safetensors")


@pytest.fixture(scope="module")
def post():
    return load_file(REFERENCE / "post_and_loss.safetensors")


def part(tensors, prefix):
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def loaded(module, tensors):
    missing, unexpected = module.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return module.eval()


def test_pixel_decoder_has_2_178_001_and_queries_9_846_548_parameters():
    pixels = PixelDecoder((256, 512, 1024, 2048), 128, 256)
    queries = QueryDecoder(128, Sizes(128, 256, 256, 8, 2048, 6, 100, classes=19))
    assert sum(p.numel() for p in pixels.parameters()) == 2_178_001
    assert sum(p.numel() for p in queries.parameters()) == 9_846_548
    assert sum(p.numel() for p in PixelDecoder((64, 256, 512, 1024), 128, 256).parameters()) == (
        1_792_977
    )


@torch.inference_mode()
def test_maps_and_queries_equal_the_published_ones(tiny):
    pixels = loaded(PixelDecoder((8, 12, 16, 20), 16, 12), part(tiny, "pixel.sd."))
    queries = loaded(QueryDecoder(16, TINY, PUBLISHED), part(tiny, "decoder.sd."))
    mask_features, levels = pixels([tiny[f"in.res{number}"] for number in (2, 3, 4, 5)])
    near(mask_features, tiny["out.mask_features"])
    for number, level in enumerate(levels):
        near(level, tiny[f"out.multi_scale.{number}"])
    chosen = []
    for layer in queries.transformer_cross_attention_layers:
        original = layer.chosen
        layer.chosen = lambda *given, take=original: chosen.append(take(*given)) or chosen[-1]
    *before, last = queries(levels, mask_features)
    for number, found in enumerate(before):
        near(found.classes, tiny[f"out.aux.{number}.pred_logits"])
        masks = tiny[f"out.aux.{number}.pred_masks"]
        near(found.masks[:, : masks.shape[1]], masks)
        assert torch.equal(chosen[number], tiny[f"act.prototype_index.{number}"])
    near(last.classes, tiny["out.pred_logits"])
    near(last.masks, tiny["out.pred_masks"])


def test_positions_equal_the_published_ones(tiny):
    expected = tiny["act.position.0"]
    near(sine_positions(torch.zeros_like(expected[:1])).expand_as(expected), expected)


def test_a_query_that_sees_nothing_may_look_everywhere():
    masks = -torch.ones(1, 3, 4, 4)
    masks[0, 1, 0, 0] = 9
    own, published = (QueryDecoder(4, TINY, compat) for compat in (None, PUBLISHED))
    hidden = own.masked(masks, (4, 4))
    assert hidden.sum(2).tolist() == [[0, 15, 0]]
    assert published.masked(masks, (4, 4)).sum(2).tolist() == [[16, 15, 16]]
    assert published.masked(-masks.abs(), (4, 4)).sum() == 0
    with pytest.raises(ValueError, match="compat"):
        QueryDecoder(4, TINY, "paper")


def test_semantic_panoptic_and_instances_equal_the_published_ones(post):
    classes, masks = post["post.in.class_logits"], post["post.in.mask_logits"]
    near(semantic(classes, masks), post["post.out.semantic"])
    things = post["post.things"].tolist()
    found = panoptic(classes, masks, things=things, sure=0.5, own=0.6)
    assert torch.equal(found.numbers.int(), post["post.out.panoptic"])
    assert list(found.classes) == post["post.out.segments"][:, 2].tolist()
    scores, labels, inside = instances(classes, masks, 6)
    mine, theirs = scores.argsort(), post["post.out.instance_scores"].argsort()
    near(scores[mine], post["post.out.instance_scores"][theirs])
    assert torch.equal(labels[mine], post["post.out.instance_classes"][theirs])
    assert torch.equal(inside[mine], post["post.out.instance_masks"][theirs].bool())


def test_two_touching_roofs_are_parted_by_an_edge():
    classes = torch.tensor([[[5.0, -5], [5, -5], [-5, 5]]])
    masks = torch.full((1, 3, 16, 16), -9.0)
    masks[0, 0, 2:14, 2:8] = masks[0, 1, 2:14, 8:14] = 9
    masks[0, 2] = 9  # of no building
    building, edge = building_logits(Found(classes, masks), (64, 64))[0].sigmoid() > 0.5
    assert building[12:52, 12:52].all()
    assert not building[:6].any()
    assert edge[20:44, 31:33].all()
    assert not edge[20:44, 14:26].any()
    nothing = building_logits(Found(-classes, masks), (64, 64)).sigmoid()
    assert float(nothing[:, 1].max()) < 1e-3


def test_cost_grows_linearly_with_queries():
    """Attention to tokens is a product with each query; only the queries among themselves are
    squared, and those are few."""

    def macs(queries):
        decoder = QueryDecoder(64, Sizes(queries=queries))

        class One(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.decoder = decoder

            def forward(self, x):
                levels = [x[..., ::step, ::step] for step in (8, 4, 2)]
                return self.decoder(levels, x)[-1].masks

        return cost(One(), (1, 64, 64, 64)).macs

    few, more, most = macs(25), macs(50), macs(100)
    assert (most - more) / (more - few) == pytest.approx(2, rel=0.1)


def built():
    torch.manual_seed(0)
    return BuildingNetwork(SMALL).eval()


@torch.inference_mode()
def test_network_gives_maps_of_any_size_and_its_fast_form_agrees():
    network, image = built(), torch.rand(2, 3, 100, 140)
    maps = network(image)
    assert maps.shape == (2, 2, 100, 140)
    assert torch.isfinite(maps).all()
    fast = FastBuildingNetwork(network)(image)
    assert float((fast.sigmoid() - maps.sigmoid()).abs().max()) < 1e-3


def test_training_gives_what_queries_say_and_every_weight_learns():
    network = built().train()
    found = network(torch.rand(2, 3, 128, 128))
    assert [tuple(one.masks.shape) for one in found] == [(2, 12, 32, 32)] * 4
    sum(one.masks.square().mean() + one.classes.square().mean() for one in found).backward()
    silent = [name for name, p in network.decoder.named_parameters() if p.grad is None]
    assert silent == []


def test_what_pem_cannot_do_is_refused(tmp_path):
    with pytest.raises(ValueError, match="pem gives building and edge"):
        NetworkConfig(architecture="pem", outputs=("building",))
    with pytest.raises(InputError, match="no ONNX form"):
        export_onnx(built(), tmp_path / "a.onnx", tile=64)
    assert list(tmp_path.iterdir()) == []
