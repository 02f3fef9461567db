# SPDX-License-Identifier: Apache-2.0
"""Elastic networks: extracted equals active bit for bit in one to three dimensions, and trains."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from fieldfare.common.blocks import MBConv
from fieldfare.common.elastic import ops
from fieldfare.common.elastic.genes import Space
from fieldfare.common.elastic.mbconv import sort_hidden
from fieldfare.common.elastic.mobilenet import (
    Layout,
    Stage,
    elastic_classifier,
    elastic_encoder,
    sort_channels,
    space,
)
from fieldfare.common.elastic.network import ElasticNet
from fieldfare.common.elastic.recalibrate import recalibrate
from fieldfare.common.elastic.shrink import ShrinkingLoss, published_stages, soft_cross_entropy
from fieldfare.common.training import Draw, Preempted, TrainSettings, fit

STAGES = (Stage(24, 2, "relu"), Stage(40, 2, "hard_swish", "hard_se"))
GENES = space(2, depths=(1, 2), expansions=(3, 6))
SIZES = {1: (32,), 2: (16, 24), 3: (8, 8, 16)}


def encoder(ndim: int, norm: str = "batch") -> ElasticNet:
    net = elastic_encoder(GENES, Layout(2, ndim, 0.5, STAGES, norm))
    with torch.no_grad():
        for name, matrix in net.named_parameters():
            if name.startswith("maps"):
                matrix += 0.1 * torch.randn_like(matrix)
    return net


def draws(count: int) -> list:
    rng = np.random.default_rng(0)
    return [GENES.smallest(), *(GENES.sample(rng) for _ in range(count)), GENES.largest()]


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_extracted_equals_active_bit_for_bit(ndim, norm):
    net = encoder(ndim, norm).eval()
    x = torch.randn(2, 2, *SIZES[ndim])
    sizes = set()
    for choice in draws(3):
        net.set(choice)
        small = net.extract(choice)
        with torch.no_grad():
            for active, extracted in zip(net(x), small(x), strict=True):
                assert torch.equal(active, extracted)
        assert not small.training
        sizes.add(sum(p.numel() for p in small.parameters()))
        blocks = [module for module in small.modules() if isinstance(module, MBConv)]
        assert len(blocks) == choice["depth0"] + choice["depth1"]
    assert len(sizes) == 5


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_training_step_equals_that_of_the_extracted_one(ndim):
    net = encoder(ndim).train()
    x = torch.randn(3, 2, *SIZES[ndim])
    choice = draws(1)[1]
    small = net.extract(choice)
    net.set(choice)
    net(x)[-1].square().sum().backward()
    small(x)[-1].square().sum().backward()
    large = dict(net.full.named_parameters()) | dict(net.full.named_buffers())
    for name, tensor in small.named_buffers():
        index = tuple(slice(size) for size in tensor.shape)
        assert torch.equal(tensor, large[name][index]), name
    for name, tensor in small.named_parameters():
        if tensor.ndim > 1 and tensor.shape[2:] != large[name].shape[2:]:
            continue  # goes through a map
        index = tuple(slice(size) for size in tensor.shape)
        torch.testing.assert_close(tensor.grad, large[name].grad[index], rtol=1e-4, atol=1e-5)
        rest = large[name].grad.clone()
        rest[index] = 0
        assert not rest.any()


def test_features_are_where_the_encoder_says():
    net = encoder(2).eval()
    for choice in draws(2):
        small = net.extract(choice)
        found = small(torch.randn(1, 2, 48, 32))
        assert [f.shape[1] for f in found] == list(small.channels)
        assert [48 // f.shape[2] for f in found] == list(small.strides) == [2, 4, 8]


def test_setting_draws_no_random_number_and_changes_no_weight():
    net = encoder(2)
    before = copy.deepcopy(net.state_dict())
    state = torch.get_rng_state()
    for choice in draws(2):
        net.set(choice)
        net.extract(choice)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_wrong_choice_is_refused_and_the_old_one_stays():
    net = encoder(2)
    net.set(GENES.smallest())
    with pytest.raises(ValueError, match="gene depth0: 9 is none of"):
        net.set({**GENES.largest(), "depth0": 9})
    assert net.choice == GENES.smallest()


def test_any_module_can_be_elastic():
    genes = Space({"width": (4, 8)})
    net = ElasticNet(genes, lambda c: nn.Sequential(nn.Linear(3, c["width"]), nn.Tanh()))
    net.set({"width": 4})
    x = torch.randn(5, 3)
    assert torch.equal(
        net(x), torch.tanh(F.linear(x, net.full[0].weight[:4], net.full[0].bias[:4]))
    )


def test_a_network_that_is_no_part_of_the_large_one_is_named():
    genes = Space({"width": (4, 8)})
    net = ElasticNet(genes, lambda c: nn.Linear(32 // c["width"], 2))  # larger when it is smaller
    net.set({"width": 4})
    with pytest.raises(ValueError, match="axis 1 has 4 entries, 8 are asked for"):
        net(torch.randn(1, 8))


def test_a_kernel_that_shrinks_unsaid_is_refused():
    genes = Space({"kernel": (3, 5)})
    net = ElasticNet(genes, lambda c: nn.Conv1d(2, 2, c["kernel"]))
    net.set({"kernel": 3})
    with pytest.raises(ValueError, match="weight: its kernel shrinks, but is not among"):
        net(torch.randn(1, 2, 9))
    said = ElasticNet(genes, lambda c: nn.Conv1d(2, 2, c["kernel"]), kernels={"weight": (3, 5)})
    said.set({"kernel": 3})
    expected = F.conv1d(torch.ones(1, 2, 9), said.full.weight[:, :, 1:4], said.full.bias)
    torch.testing.assert_close(said(torch.ones(1, 2, 9)), expected)


def test_put_writes_what_take_took():
    tensor = torch.arange(24.0).view(4, 6)
    index = (2, torch.tensor([0, 3, 5]))
    part = ops.take(tensor, index)
    assert part.tolist() == [[0, 3, 5], [6, 9, 11]]
    ops.put(tensor, index, -part)
    assert tensor[0].tolist() == [0, 1, 2, -3, 4, -5]
    assert torch.equal(ops.take(tensor, index), -part)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_maps_begin_as_crops(ndim):
    weight = torch.randn(4, 2, *[7] * ndim)
    maps = ops.identity_maps((3, 5, 7), ndim)
    for side in (3, 5, 7):
        assert torch.equal(ops.shrink_kernel(weight, side, maps), ops.crop(weight, side))
    with pytest.raises(ValueError, match="kernel 1: no map leads there from 7"):
        ops.shrink_kernel(weight, 1, maps)


def test_importance_never_crosses_a_border():
    importance = torch.tensor([1.0, 3.0, 2.0, 9.0, 8.0, 10.0])
    assert ops.by_importance(importance).tolist() == [5, 3, 4, 1, 2, 0]
    assert ops.by_importance(importance, [3]).tolist() == [1, 2, 0, 5, 3, 4]
    assert ops.by_importance(torch.ones(4)).tolist() == [0, 1, 2, 3]


def test_sorting_changes_no_output_and_is_refused_where_channels_have_neighbours():
    layout = Layout(2, 2, 0.5, STAGES)
    net = elastic_classifier(GENES, layout, 3).eval()
    x = torch.randn(2, 2, 32, 32)
    with torch.no_grad():
        before = net(x)
        sort_channels(net)
        torch.testing.assert_close(net(x), before, rtol=1e-5, atol=1e-5)
    for block in net.full.modules():
        if isinstance(block, MBConv):
            importance = block.layers[-2].weight.abs().sum(dim=(0, 2, 3))
            assert (importance.diff() <= 1e-6).all()
    with pytest.raises(ValueError, match="only depthwise blocks with batch norms"):
        sort_hidden(MBConv(8, norm="group", ndim=2))


def test_recalibration_measures_biased_statistics_and_keeps_modes():
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)).eval()
    batches = [torch.randn(2, 2, 3, 3), torch.randn(4, 2, 3, 3)]
    assert recalibrate(model, batches) == 1
    seen = [model[0](b) for b in batches]
    mean = (seen[0].mean((0, 2, 3)) * 2 + seen[1].mean((0, 2, 3)) * 4) / 6
    var = sum(s.var((0, 2, 3), correction=0) * len(s) for s in seen) / 6
    torch.testing.assert_close(model[1].running_mean, mean)
    torch.testing.assert_close(model[1].running_var, var)
    assert not any(module.training for module in model.modules())
    assert model[1].num_batches_tracked == 0
    with pytest.raises(ValueError, match="at least one batch"):
        recalibrate(model, [])


def test_published_stages_open_gene_after_gene():
    genes = space()
    stages = published_stages(genes)
    assert [s.name for s in stages] == [
        "largest", "kernel", "depth 1", "depth 2", "width 1", "width 2",
    ]  # fmt: skip
    assert [s.draws for s in stages] == [1, 1, 2, 2, 4, 4]
    assert sum(s.share for s in stages) == pytest.approx(1)
    assert [s.sort for s in stages] == [None, None, None, None, (), (4,)]
    counts = [1, 3**20, (3**3 + 3**4) ** 5, (3**2 + 3**3 + 3**4) ** 5]
    assert [s.space.count() for s in stages[:4]] == counts
    assert stages[4].space.count() == (6**2 + 6**3 + 6**4) ** 5
    assert stages[5].space.count() == genes.count()


def test_the_shrinking_loss_sums_the_drawn_networks_and_teaches():
    net = elastic_classifier(GENES, Layout(2, 2, 0.5, STAGES), 3).eval()
    teacher = copy.deepcopy(net.full)
    batch = torch.randn(2, 2, 16, 16), torch.tensor([0, 2])
    seen = []

    def task(output, batch):
        seen.append(net.choice)
        return F.cross_entropy(output, batch[1])

    stage = published_stages(GENES)[-1]
    torch.manual_seed(5)
    total = ShrinkingLoss(stage, task, teacher=teacher)(net, batch)
    assert len(seen) == 4
    assert len(set(seen)) > 1
    expected = 0.0
    for choice in list(seen):
        output = net.extract(choice)(batch[0])
        expected += F.cross_entropy(output, batch[1])
        expected += soft_cross_entropy(output, teacher(batch[0]))
    torch.testing.assert_close(total, expected)
    first, seen[:] = list(seen), []
    torch.manual_seed(5)
    ShrinkingLoss(stage, task)(net, batch)
    assert seen == first
    seen.clear()
    ShrinkingLoss(stage, task, smallest=True)(net, batch)
    assert seen[0] == GENES.smallest()
    assert len(set(seen)) > 1


def test_a_few_steps_teach_small_and_large_at_once():
    net = elastic_classifier(GENES, Layout(1, 1, 0.5, STAGES), 2)
    x = torch.randn(48, 1, 16)
    y = (x.mean(dim=(1, 2)) > 0).long()
    x[y == 1] += 1.5
    loss = ShrinkingLoss(
        published_stages(GENES)[-1], lambda output, batch: F.cross_entropy(output, batch[1])
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(15):
        optimizer.zero_grad()
        loss(net, (x, y)).backward()
        optimizer.step()
    for choice in (GENES.smallest(), GENES.largest()):
        small = net.extract(choice).eval()
        recalibrate(small, [x])
        assert (small(x).argmax(1) == y).float().mean() > 0.9


class Images(Dataset):
    """Eight images of two classes."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, draw: Draw) -> tuple[torch.Tensor, int]:
        rng = np.random.default_rng(draw.index)
        return torch.tensor(rng.standard_normal((1, 16)), dtype=torch.float32), draw.index % 2


def test_a_stage_runs_and_resumes_in_the_training_loop(tmp_path):
    stage = published_stages(GENES)[-1]
    loss = ShrinkingLoss(stage, lambda output, batch: F.cross_entropy(output, batch[1]))
    settings = TrainSettings(steps=3, batch_size=2, checkpoint_every=1, warmup_steps=1)
    layout = Layout(1, 1, 0.5, STAGES)

    def run(folder, steps):
        torch.manual_seed(0)
        net = elastic_classifier(GENES, layout, 2)
        own = dataclasses.replace(settings, steps=steps)
        return fit(net, Images(), loss, own, folder, quiet=True).state_dict()

    whole = run(tmp_path / "a", 3)
    seen = []

    def stopping(network, batch):
        seen.append(network)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return loss(network, batch)

    torch.manual_seed(0)
    with pytest.raises((KeyboardInterrupt, Preempted)):
        fit(
            elastic_classifier(GENES, layout, 2), Images(), stopping, settings, tmp_path / "b",
            quiet=True,
        )  # fmt: skip
    again = run(tmp_path / "b", 3)
    assert all(torch.equal(whole[name], tensor) for name, tensor in again.items())
