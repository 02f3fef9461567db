# SPDX-License-Identifier: Apache-2.0
"""Expert layers in the place of a network's own, and routers that know nothing of the network."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fieldfare.common.efficiency import cost
from fieldfare.common.experts import (
    Bank,
    ExpertLayer,
    LookupRouter,
    State,
    TopK,
    Weights,
    chains,
    install,
    set_experts_per_token,
)
from fieldfare.common.experts.host import layers
from fieldfare.common.experts.losses import mean_balance
from fieldfare.common.experts.merge import merge_network
from fieldfare.common.experts.pregate import PreGate, distillation, rotate, votes
from fieldfare.common.experts.prune import prune_network
from fieldfare.common.experts.recipes import KINDS, build
from fieldfare.common.experts.stochastic import StochasticRouter, hashed, members, spread
from fieldfare.common.experts.union import SelectiveAttention
from fieldfare.common.experts.usage import observe


class FeedForward(nn.Module):
    """A network's own layer."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(8, 32, bias=False), nn.Linear(16, 8, bias=False)

    def forward(self, x):
        first, second = self.enter(x).chunk(2, dim=-1)
        return self.leave(nn.functional.silu(first) * second)


class Host(nn.Module):
    """Three layers with norms, and a head over the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FeedForward() for _ in range(3))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(self.norm(x))
        return self.head(x.mean(dim=1))


NAMES = [f"layers.{number}" for number in range(3)]


def bank_of(layer):
    weights = Weights(layer.enter.weight[None], layer.leave.weight[None], None, None)
    return Bank(1, 1, 1, activation="silu", gated=True).like(weights)


def with_experts(host, kind, **options):
    made = []

    def make(number, layer):
        before = made[-1] if made else None
        made.append(build(kind, bank_of(layer), experts=4, number=number, before=before, **options))
        return made[-1]

    return install(host, NAMES, make)


def state(size):
    return State(keys=torch.arange(size) + 5, classes=torch.arange(size) % 4)


@pytest.mark.parametrize("kind", ["learned", "random", "recurrent"])
def test_a_network_with_its_layers_cut_is_the_network(kind):
    host, x = Host().eval(), torch.randn(4, 6, 8)
    expected = host(x)
    with_experts(host, kind, k=4)
    assert (host(x) - expected).abs().max() < 1e-6
    copied = Host().eval()
    expected = copied(x)
    with_experts(copied, kind, k=1, start="copies")
    assert (copied(x) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_hosted_network_trains_saves_copies_and_is_counted(kind, tmp_path):
    host, x = Host(), torch.randn(4, 6, 8)
    chain = with_experts(host, kind)
    chain.given = state(4)
    assert chains(host) == [chain]
    host.train()
    loss = host(x).square().sum()
    finite = all(bool(c.logits.isfinite().all()) for c in chain.choices.values())
    if finite:
        loss = loss + mean_balance(chain.choices.values())
    loss.backward()
    host.eval()
    expected = host(x)
    assert list(chain.choices) == NAMES
    save_file(host.state_dict(), tmp_path / "host.safetensors")  # refuses tensors held twice
    twin = Host()
    with_experts(twin, kind).given = state(4)
    twin.load_state_dict(load_file(tmp_path / "host.safetensors"))
    assert torch.equal(twin.eval()(x), expected)
    copied = copy.deepcopy(host)
    assert torch.equal(copied(x), expected)
    assert chains(copied)[0] is not chain
    assert not chains(copy.deepcopy(host))[0].choices
    counted = cost(host, x).macs
    assert counted >= sum(
        host.get_submodule(name).layer.macs(choice) for name, choice in chain.choices.items()
    )


def test_memory_runs_through_the_layers_and_begins_anew():
    host, x = Host().eval(), torch.randn(2, 6, 8)
    chain = with_experts(host, "recurrent")
    first = host(x)
    assert torch.equal(host(x), first)
    cells = {id(layer.layer.router.shared_cell) for layer in host.layers}
    assert len(cells) == 1
    names = [name for name, _ in host.named_parameters() if "cell" in name]
    assert all(name.startswith("layers.0.") for name in names)
    moved = host.double()
    assert (moved(x.double()) - first).abs().max() < 1e-5
    assert set_experts_per_token(host, 1) == 3
    host(x.double())
    assert all(bool((c.per_token() == 1).all()) for c in chain.choices.values())


@pytest.mark.parametrize("kind", ["recurrent", "moe++"])
def test_memory_of_other_tokens_is_refused(kind):
    first, second = (build(kind, bank_of(FeedForward()), experts=4) for _ in range(2))
    after = first(torch.randn(2, 6, 8)).state
    with pytest.raises(ValueError, match="chains of their own"):
        second(torch.randn(2, 3, 8), after)


def test_values_of_flows_serve_their_bursts():
    layer = ExpertLayer(LookupRouter(2), TopK(1), [Bank(2, 8, 4)])
    choice = layer(torch.randn(6, 3, 8), State(classes=torch.tensor([1, 0]))).choice
    assert choice.chosen[:, 0].int().argmax(dim=-1).tolist() == [1, 1, 1, 0, 0, 0]


def test_a_network_of_copies_merges_to_one_matrix_a_layer_without_loss():
    host, batches = Host().eval(), [torch.randn(4, 6, 8) for _ in range(3)]
    chain = with_experts(host, "learned", start="copies")
    expected = [host(x) for x in batches]
    statistics = observe(chain, (host(x) for x in batches))
    assert list(statistics) == NAMES
    assert statistics["layers.1"].tokens == 3 * 4 * 6
    groups = merge_network(host, statistics, 1)
    assert all(layer.layer.groups[0].matrices == 1 for layer in host.layers)
    assert groups["layers.0"].labels.tolist() == [0, 0, 0, 0]
    for x, before in zip(batches, expected, strict=True):
        assert (host(x) - before).abs().max() < 1e-6
    with pytest.raises(ValueError, match="not merged yet"):
        merge_network(host, statistics, 1)


def test_a_network_loses_its_unused_experts_without_a_bit():
    host, x = Host().eval(), torch.randn(1, 2, 8)
    chain = with_experts(host, "random", k=1)
    expected = host(x)
    statistics = observe(chain, (host(x) for _ in range(2)))
    assert all(bool((s.chosen == 0).any()) for s in statistics.values())
    kept = prune_network(host, statistics, 1)
    assert [layer.count for layer in layers(host).values()] == [len(k) for k in kept.values()]
    assert torch.equal(host(x), expected)
    prune_network(host, observe(chain, [host(x)]), 4)
    assert all(layer.count == 1 for layer in layers(host).values())


def test_a_layer_says_how_many_feed_forward_experts_ran():
    layer = build("moe++", bank_of(FeedForward()), experts=4)
    choice = layer(torch.randn(2, 5, 8)).choice
    assert torch.equal(layer.ran(choice), choice.chosen[..., :4].sum(dim=-1))
    duo = build("duo", bank_of(FeedForward()))
    duo.router.forced = 0
    assert not duo.ran(duo(torch.randn(2, 5, 8)).choice).any()


# stochastic


def test_a_key_gives_the_same_expert_everywhere_and_all_experts_alike():
    keys = torch.arange(-5000, 5000)
    drawn = torch.stack([StochasticRouter(4, layer).draw(keys) for layer in range(3)])
    assert torch.equal(drawn[0][7:9], StochasticRouter(4).draw(keys[7:9]))
    shares = torch.stack([(drawn == e).float().mean(dim=1) for e in range(4)])
    assert (shares - 0.25).abs().max() < 0.02
    assert ((drawn[0] == drawn[1]).float().mean() - 0.25).abs() < 0.02
    assert int(hashed(keys).min()) >= 0
    # of splitmix64 itself, its top bits: the first numbers of the seed 0
    top = [0xE220A8397B1DCDAF >> 33, 0x6E789E6AA1B965F4 >> 33]
    assert [int(hashed(torch.tensor([0]), salt)) for salt in (0, 1)] == top


def test_members_that_are_alike_do_not_disagree():
    host, x = Host().eval(), torch.randn(4, 6, 8)
    chain = with_experts(host, "stochastic", start="copies")
    chain.given = state(4)
    with torch.no_grad():
        answers = members(host, lambda: host(x), 4)
        assert spread(answers).abs().max() < 1e-6
        host.layers[1].layer.groups[0].outer[2] += 3 * torch.randn(8, 16)
        answers = members(host, lambda: host(x), 4)
        assert bool((spread(answers) > 1e-5).all())
        assert (answers[0] - answers[1]).abs().max() < 1e-6
        for layer in host.layers:
            layer.layer.router.forced = "all"
            layer.layer.choose = TopK(4)
        assert bool(host(x).isfinite().all())
    certain = torch.tensor([[[9.0, -9, -9]], [[-9.0, 9, -9]]])
    assert float(spread(certain)) == pytest.approx(0.6931, abs=1e-3)
    with pytest.raises(ValueError, match="no 5 experts"):
        members(host, lambda: host(x), 5)


def test_training_draws_one_expert_for_the_batch():
    host, x = Host().train(), torch.randn(4, 6, 8)
    chain = with_experts(host, "stochastic")
    seen = set()
    for _ in range(20):
        host(x)
        for choice in chain.choices.values():
            used = choice.usage().nonzero()[:, 0].tolist()
            assert len(used) == 1
            seen |= set(used)
    assert seen == {0, 1, 2, 3}


# Read-ME


def test_a_pre_gating_router_sees_token_numbers_alone_and_no_future():
    gate = PreGate(torch.randn(50, 12), 4, width=16, heads=2).eval()
    ids = torch.randint(50, (3, 7))
    logits = gate(ids)
    assert logits.shape == (3, 7, 4)
    assert gate.route(ids).shape == (3, 7)
    later = ids.clone()
    later[:, 4:] = torch.randint(50, (3, 3))
    assert (gate(later)[:, :4] - logits[:, :4]).abs().max() < 1e-6
    assert (gate(ids[:1]) - logits[:1]).abs().max() < 1e-5
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[:, 0] = False
    other = ids.clone()
    other[:, 0] = (ids[:, 0] + 1) % 50
    assert (gate(other, mask)[:, 1:] - gate(ids, mask)[:, 1:]).abs().max() < 1e-6
    assert not any(p.numel() == 50 * 12 for p in gate.parameters())


def test_a_pre_gating_router_learns_what_layers_vote_for():
    table = torch.randn(20, 8)
    masks = torch.zeros(4, 16, dtype=torch.bool)
    for expert in range(4):
        masks[expert, expert * 4 : expert * 4 + 4] = True
    ids = torch.randint(20, (8, 6))
    activation = torch.rand(20, 16)
    activation[
        torch.arange(20)[:, None], (torch.arange(20) % 4 * 4)[:, None] + torch.arange(4)
    ] += 2
    vote = votes(activation[ids], masks)
    assert torch.equal(vote.argmax(dim=-1), ids % 4)
    gate = PreGate(table, 4, width=16, heads=2)
    optimiser = torch.optim.Adam(gate.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        distillation(gate(ids), vote).backward()
        optimiser.step()
    assert (gate.route(ids) == ids % 4).float().mean() > 0.9


def test_turning_keeps_lengths_and_knows_only_distances():
    x, y = torch.randn(6, 8), torch.randn(6, 8)
    assert torch.allclose(rotate(x).norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    at = torch.tensor([3, 4, 5, 6, 7, 8])
    assert torch.allclose(rotate(x) @ rotate(y).T, rotate(x, at) @ rotate(y, at).T, atol=1e-5)


# Union of Experts


def test_selective_attention_is_alone_what_it_is_in_a_batch_and_its_router_learns():
    layer = SelectiveAttention(8, 4)
    x = torch.randn(5, 9, 8)
    output, chosen = layer(x)
    assert bool((chosen.sum(dim=-1) == 2).all())
    for row in range(5):
        assert (layer(x[row : row + 1])[0] - output[row : row + 1]).abs().max() < 1e-6
    later = x.clone()
    later[:, 6:] = torch.randn(5, 3, 8)
    assert (layer(later)[0][:, :6] - output[:, :6]).abs().max() < 1e-6
    mask = torch.ones(5, 9, dtype=torch.bool)
    mask[:, 6:] = False
    assert (layer(x, mask)[0][:, :6] - layer(x[:, :6])[0]).abs().max() < 1e-6
    assert not layer(x, mask)[0][:, 6:].any()
    output.square().sum().backward()
    assert layer.router.weight.grad.abs().sum() > 0
    published = SelectiveAttention(8, 4, compat="published")
    assert (published(x[:1])[0] - published(x)[0][:1]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="must be even"):
        SelectiveAttention(9, 3)


def test_parts_of_a_pass_are_routed_as_if_each_ran_alone():
    host = Host().eval()
    chain = with_experts(host, "recurrent", k=1)
    parts = [torch.randn(2, 5, 8), torch.randn(3, 4, 8)]
    masks = [torch.ones(2, 5, dtype=torch.bool), torch.arange(4) < torch.tensor([[4], [2], [1]])]
    alone = []
    for x, mask in zip(parts, masks, strict=True):
        chain.given = State(mask=mask)
        host(x)
        alone.append(dict(chain.choices))
    with torch.inference_mode():
        for _ in range(2):  # a second pass forgets the first
            chain.given = [State(mask=mask) for mask in masks]
            xs = list(parts)
            for layer in host.layers:  # layer by layer, as a network that mixes them must
                xs = [x + layer(host.norm(x)) for x in xs]
    for name in NAMES:
        for number, choice in enumerate(chain.parts[name]):
            assert torch.equal(choice.chosen, alone[number][name].chosen)
        joined = chain.choices[name]
        assert joined.chosen.shape == (2 * 5 + 3 * 4, 4)
        assert int(joined.mask.sum()) == 10 + 7
        assert int(joined.chosen.sum()) == 17
    with pytest.raises(ValueError, match="more often than the chain was given states"):
        host.layers[1](parts[0])
