# SPDX-License-Identifier: Apache-2.0
"""Fewer channels: what is redundant goes without a trace, what is left can be built again."""

import copy

import pytest
import torch
from torch import Tensor, nn

from fieldfare.common.blocks import DepthwiseConv
from fieldfare.common.slim.moments import match_moments
from fieldfare.common.slim.narrow import Narrowing, groups_of, second_moments
from fieldfare.common.slim.widths import changed_widths, resize

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Small(nn.Module):
    """A widened block with a depthwise layer, a residual sum, and a concatenation."""

    def __init__(self, ndim: int, middle: int = 16) -> None:
        super().__init__()
        conv, norm = CONV[ndim], NORM[ndim]
        self.stem = conv(3, 8, 3, padding=1)
        self.widen = conv(8, middle, 1, bias=False)
        self.norm = norm(middle)
        self.depthwise = conv(middle, middle, 3, padding=1, groups=middle)
        self.narrow = conv(middle, 8, 1)
        self.side = conv(8, middle, 3, padding=1)
        self.head = conv(8 + middle, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = x + self.narrow(self.depthwise(self.norm(self.widen(x)).relu()).relu())
        return self.head(torch.cat([y, self.side(y).relu()], dim=1))


def images(ndim: int, count: int = 4) -> Tensor:
    return torch.randn(count, 3, *[9] * ndim, generator=torch.Generator().manual_seed(1))


def doubled(net: Small) -> Small:
    """The second half of the middle channels of both branches say what the first half says."""
    with torch.no_grad():
        for layer in (net.widen, net.norm, net.depthwise, net.side):
            for tensor in (*layer.parameters(), *layer.buffers()):
                if tensor.ndim:
                    tensor[8:] = tensor[:8]
    return net


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_channels_that_say_the_same_go_without_a_trace(ndim: int) -> None:
    torch.manual_seed(0)
    net, x = doubled(Small(ndim)).eval(), images(ndim)
    groups = groups_of(net, x[:1])
    assert [group.makers for group in groups] == [("widen", "norm", "depthwise"), ("side",)]
    assert [list(group.readers) for group in groups] == [["narrow"], ["head"]]
    small = Narrowing(net, groups, second_moments(net, groups, x.split(2))).to(0.5)
    assert small.depthwise.groups == small.side.out_channels == 8
    assert small.head.in_channels == 16
    with torch.no_grad():
        error = (small(x) - net(x)).square().mean() / net(x).var()
    assert error < 1e-4
    assert net.side.out_channels == 16  # is left as it was


def test_the_rest_makes_up_for_what_goes() -> None:
    torch.manual_seed(0)
    net, x = Small(2).eval(), images(2, 16)
    groups = groups_of(net, x[:1])
    moments = second_moments(net, groups, [x])
    small = Narrowing(net, groups, moments).to(0.5)
    plain = copy.deepcopy(small)
    for group in groups:  # the same channels, with the weights that they had
        for name, place in group.readers.items():
            old, new = net.get_submodule(name).weight, plain.get_submodule(name).weight
            maker = net.get_submodule(group.makers[0]).weight
            kept = [
                int((maker.flatten(1) == row).all(dim=1).nonzero())
                for row in plain.get_submodule(group.makers[0]).weight.flatten(1)
            ]
            with torch.no_grad():
                new[:, -len(kept) :] = old[:, place[kept]]
    with torch.no_grad():
        error = [float((own(x) - net(x)).square().mean()) for own in (small, plain)]
    assert error[0] < 0.7 * error[1]


def test_shares_in_turn_are_those_at_once() -> None:
    torch.manual_seed(0)
    net, x = Small(2, 32).eval(), images(2)
    groups = groups_of(net, x[:1])
    moments = second_moments(net, groups, [x])
    step_by_step = Narrowing(net, groups, moments)
    step_by_step.to(0.75)
    torch.testing.assert_close(
        step_by_step.to(0.25)(x), Narrowing(net, groups, moments).to(0.25)(x)
    )
    with pytest.raises(ValueError, match="share"):
        step_by_step.to(0)


def test_moments_are_those_of_the_whole_network() -> None:
    torch.manual_seed(0)
    net, x = Small(2).eval(), images(2, 16)
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.5, 2)
    same = copy.deepcopy(net)
    match_moments(same, net, {}, x.split(4))
    torch.testing.assert_close(same(x), net(x), rtol=1e-4, atol=1e-4)
    groups = groups_of(net, x[:1])
    narrowing = Narrowing(net, groups, second_moments(net, groups, [x]))
    small = narrowing.to(0.5)
    with torch.no_grad():
        small.stem.weight *= 3  # a change that all that follows sees
        small.head.bias += 5
        match_moments(small, net, narrowing.kept(), x.split(4))
        found, wanted = small(x), net(x)
        place = narrowing.kept()["widen"]
        normed = small.norm(small.widen(small.stem(x).relu()))
        before = net.norm(net.widen(net.stem(x).relu()))[:, place]
    torch.testing.assert_close(found.mean((0, 2, 3)), wanted.mean((0, 2, 3)), rtol=0, atol=1e-4)
    torch.testing.assert_close(normed.mean((0, 2, 3)), before.mean((0, 2, 3)), rtol=0, atol=1e-4)
    torch.testing.assert_close(normed.var((0, 2, 3)), before.var((0, 2, 3)), rtol=1e-2, atol=0)


def test_a_narrowed_network_is_built_again_from_its_widths() -> None:
    torch.manual_seed(0)
    net, x = Small(2).eval(), images(2)
    groups = groups_of(net, x[:1])
    small = Narrowing(net, groups, second_moments(net, groups, [x])).to(0.5)
    widths = changed_widths(small, net)
    assert widths["depthwise"] == [8, 8]
    assert widths["head"] == [16, 4]
    again = Small(2).eval()
    resize(again, widths)
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(x), small(x))


@pytest.mark.parametrize(
    ("widths", "said"),
    [
        ({"nowhere": [1, 1]}, "no layer is named nowhere"),
        ({"side": [8, 17]}, "side is 8 to 16 and cannot be"),
        ({"side": [0, 8]}, "cannot be"),
        ({"side": [8]}, "cannot be"),
        ({"side": [8, 4.0]}, "cannot be"),
        ({"": [1, 1]}, "the width of a Small cannot be changed"),
    ],
)
def test_impossible_widths_are_refused(widths: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        resize(Small(2), widths)


class Grouped(nn.Module):
    """A widened block under a group norm of pairs of channels."""

    def __init__(self, ndim: int, middle: int = 16) -> None:
        super().__init__()
        conv = CONV[ndim]
        self.stem = conv(3, 8, 3, padding=1)
        self.widen = conv(8, middle, 1, bias=False)
        self.norm = nn.GroupNorm(middle // 2, middle)
        self.depthwise = DepthwiseConv(middle, ndim=ndim)
        self.narrow = conv(middle, 8, 1)
        self.head = conv(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head(x + self.narrow(self.depthwise(self.norm(self.widen(x)).relu())))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_groups_that_say_the_same_go_without_a_trace(ndim: int) -> None:
    torch.manual_seed(0)
    net, x = Grouped(ndim).eval(), images(ndim)
    with torch.no_grad():
        for layer in (net.widen, net.norm, net.depthwise):
            for tensor in layer.parameters():
                tensor[8:] = tensor[:8]
    groups = groups_of(net, x[:1])
    assert [group.makers for group in groups] == [("widen", "norm", "depthwise")]
    assert groups[0].together == 2
    small = Narrowing(net, groups, second_moments(net, groups, x.split(2))).to(0.5)
    assert (small.norm.num_groups, small.norm.num_channels) == (4, 8)
    assert small.narrow.in_channels == len(small.depthwise.weight) == 8
    with torch.no_grad():
        error = (small(x) - net(x)).square().mean() / net(x).var()
    assert error < 1e-4
    widths = changed_widths(small, net)
    again = Grouped(ndim).eval()
    resize(again, widths)
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(x), small(x))
    with pytest.raises(ValueError, match="norm has groups of 2"):
        resize(Grouped(ndim), {"norm": [7, 7]})


def test_the_group_goes_that_the_others_can_best_make_up_for() -> None:
    torch.manual_seed(0)
    net, x = Grouped(2).eval(), images(2, 16)
    groups = groups_of(net, x[:1])
    moments = second_moments(net, groups, [x])
    narrowing = Narrowing(net, groups, moments)
    small = narrowing.to(7 / 8)
    kept = narrowing.kept()["widen"]
    gram, weight = moments["narrow"], net.narrow.weight.detach().flatten(1).double()
    lost = []
    for first in range(0, 16, 2):
        rest = [channel for channel in range(16) if channel // 2 != first // 2]
        own = torch.linalg.solve(gram[rest][:, rest], (weight @ gram)[:, rest].T).T
        change = weight.clone()
        change[:, rest] -= own
        lost.append(float((change @ gram * change).sum()))
    gone = min(range(8), key=lost.__getitem__)
    assert kept.tolist() == [channel for channel in range(16) if channel // 2 != gone]
    rest = kept.tolist()
    best = torch.linalg.solve(gram[rest][:, rest], (weight @ gram)[:, rest].T).T
    found = small.narrow.weight.flatten(1).double()
    torch.testing.assert_close(found, best, rtol=1e-2, atol=1e-3)
