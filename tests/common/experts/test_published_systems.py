# SPDX-License-Identifier: Apache-2.0
"""M-SMoE and MC-SMoE, THOR, Union of Experts, Read-ME, Glider: the published numbers."""

import pytest
import torch
from published_blocks import assert_near, part, published
from torch import nn
from torch.nn import functional as F

from fieldfare.common.experts import (
    Bank,
    ByExpert,
    ExpertLayer,
    LinearRouter,
    LookupRouter,
    State,
    TopK,
    Weights,
)
from fieldfare.common.experts.choice import Choice
from fieldfare.common.experts.glider import LocalGlobalRouter, TopP, adapters, gated, glider
from fieldfare.common.experts.losses import consistency
from fieldfare.common.experts.lowrank import LowRankSparse, Sensitivity, factorise, share_kept
from fieldfare.common.experts.merge import align, group, merge, numbers_of_groups
from fieldfare.common.experts.pregate import distillation, votes
from fieldfare.common.experts.recycle import by_activation, join, shared_and_own
from fieldfare.common.experts.stochastic import StochasticRouter
from fieldfare.common.experts.union import SelectiveAttention
from fieldfare.common.experts.usage import Statistics


def bank_of(*weights, **options) -> Bank:
    """A bank with these matrices."""
    return Bank(1, 1, 1, **options).like(Weights(*weights, *[None] * (4 - len(weights))))


def near(ours, theirs):
    """Gradients, relative to the largest."""
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max() + 1e-9


# M-SMoE, MC-SMoE


@pytest.mark.parametrize("name", ["A", "B"])
def test_experts_merge_as_published(name):
    every = published("mc_smoe/two_layers")
    given = part(every, f"{name}.")
    usage = torch.stack([every["A.usage"], every["B.usage"]])
    groups = numbers_of_groups(usage, 3)["AB".index(name)]
    assert groups == int(given["num_groups"])
    logits = given["router_logits"]
    statistics = Statistics(8)
    for rows in logits.split(100):
        statistics.add(TopK(1)(rows))
    similarity = statistics.similarity()
    assert_near(similarity.float(), given["similarity"])
    found = group(similarity, given["usage"], groups)
    assert torch.equal(found.cores, given["core_experts"])
    assert torch.equal(found.labels, given["group_label"])
    bank = bank_of(given["wi"], given["wo"], activation="relu")
    aligned, orders = align(bank)
    assert torch.equal(orders, given["perm_to_expert0"])
    merged = merge(aligned, found.labels, given["usage"])
    assert merged.matrices == groups
    assert_near(merged.inner[merged.index], given["merged_wi"])
    assert_near(merged.outer[merged.index], given["merged_wo"])
    choice = TopK(1, "probability")(logits)
    for each, theirs in (
        (bank, "output_before"),
        (aligned, "output_before"),
        (merged, "output_after"),
    ):
        assert_near(each(given["input"], choice.weights, choice.chosen), given[theirs])
    for label in range(groups):  # alignment at merge time, to the first of each group
        members = (found.labels == label).nonzero()[:, 0]
        own = bank.like(Weights(bank.inner[members], bank.outer[members], None, None))
        once = merge(align(own)[0], torch.zeros(len(members)).long(), given["usage"][members])
        assert_near(once.inner.expand(len(members), -1, -1), given["merged_in_group_wi"][members])


def test_a_matrix_is_compressed_as_published():
    given = published("mc_smoe/two_layers")
    factors = factorise(given["lowrank.weight"], 0.15)
    assert factors.left.shape[1] == int(given["lowrank.rank"])
    assert_near(factors.left @ factors.right, given["lowrank.L@R"])
    assert_near(factors.remainder, given["lowrank.sparse_init"])
    ours = torch.tensor([share_kept(step, 10, 60, 0.25) for step in range(1, 101)])
    assert_near(ours, given["prune.keep_ratio"])
    sensitivity = Sensitivity()
    weight = given["prune.param0"]
    for number in (1, 2):  # the published mask is made before the third counts
        sensitivity.add(weight, given[f"prune.grad{number}"])
    assert_near(sensitivity.mean, given["prune.importance_ema"])
    rows = sensitivity.rows(0.5, compat="published")
    assert torch.equal(weight * rows[:, None], given["prune.param_after"])
    assert sensitivity.mean.mean(dim=1)[rows].min() == pytest.approx(
        float(given["prune.threshold_keep_half"]), abs=1e-6
    )
    assert int(sensitivity.rows(0.5).sum()) == 12  # published are 13 of 24
    layer = LowRankSparse(factors, sensitivity.rows(0.5))
    dense = factors.left @ factors.right + factors.remainder * sensitivity.rows(0.5)[:, None]
    x = torch.randn(5, 16)
    assert (layer(x) - x @ dense.T).abs().max() < 1e-5


# THOR

STOCHASTIC = {"encoder_three_layers_four_experts": 3, "encoder_two_layers": 2}


class Encoder(nn.Module):
    """The fixture's: attention and ReLU layers, experts in even ones, time first."""

    def __init__(self, given, depth, pre_norm, count) -> None:
        super().__init__()
        self.pre_norm, self.experts = pre_norm, {}
        self.layers = nn.ModuleList()
        for number in range(depth):
            own = part(given, f"layer{number}.sd.")
            attention = nn.MultiheadAttention(16, 4)
            attention.load_state_dict(part(own, "self_attn."))
            norms = [nn.LayerNorm(16), nn.LayerNorm(16)]
            norms[0].load_state_dict(part(own, "self_attn_layer_norm."))
            norms[1].load_state_dict(part(own, "final_layer_norm."))
            size = count if number % 2 == 0 else 1
            names = ("fc1.{}weight", "fc2.{}weight", "fc1.{}bias", "fc2.{}bias")
            marks = [f"{e}." for e in range(size)] if number % 2 == 0 else [""]
            stacks = [torch.stack([own[name.format(m)] for m in marks]) for name in names]
            bank = bank_of(*stacks, activation="relu", bias=True)
            router = StochasticRouter(size, number)
            router.forced = 0
            layer = ExpertLayer(router, TopK(1), [bank])
            self.layers.append(nn.ModuleList([attention, *norms, layer]))
        self.head = nn.Linear(16, 11)
        self.head.load_state_dict(part(given, "head."))

    def forward(self, x, pad, states):
        for (attention, first, second, layer), state in zip(self.layers, states, strict=True):
            y = first(x) if self.pre_norm else x
            x = x + attention(y, y, y, key_padding_mask=pad, need_weights=False)[0]
            x = x if self.pre_norm else first(x)
            y = second(x) if self.pre_norm else x
            x = x + layer(y, state).output
            x = x if self.pre_norm else second(x)
        return self.head(x).transpose(0, 1)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_experts_are_the_published_ones(name):
    given = published(f"thor/{name}")
    depth = STOCHASTIC[name]
    three = depth == 3
    model = Encoder(given, depth, pre_norm=three, count=4 if three else 2)
    x, pad, states = given["input_TBD"], given["pad"], [State()] * depth
    answers = []
    for number in (1, 2):
        for layer, expert in zip(
            model.layers, given[f"train_selection{number}"].tolist(), strict=True
        ):
            layer[3].router.forced = max(expert, 0)
        answers.append(model(x, pad, states))
        assert_near(answers[-1], given[f"train_logits{number}"])
    counts = ~pad
    losses = [F.cross_entropy(a[counts], given["target"][counts], reduction="sum") for a in answers]
    for ours, theirs in zip(losses, ("nll1", "nll2"), strict=True):
        near(ours, given[theirs])
    agreement = consistency(*answers, mask=counts)
    near(agreement, given["consistency"])
    loss = losses[0] + losses[1] + 2 * agreement
    near(loss, given["loss_alpha2"])
    loss.backward()
    for number, layer in enumerate(model.layers):
        own, bank = part(given, f"layer{number}.grad."), layer[3].groups[0]
        marks = [f"{e}." for e in range(bank.count)] if number % 2 == 0 else [""]
        for field, key in (
            ("inner", "fc1.{}weight"),
            ("outer", "fc2.{}weight"),
            ("inner_bias", "fc1.{}bias"),
        ):
            near(getattr(bank, field).grad, torch.stack([own[key.format(m)] for m in marks]))
    for kind in ("eval_token", "eval_sentence"):
        states = []
        for number, layer in enumerate(model.layers):
            classes = torch.zeros(x.shape[:2]).long()
            if number % 2 == 0:
                chosen = given[f"{kind}.assignment.layer{number}"]
                classes = chosen if chosen.ndim == 2 else chosen[:, None].expand(x.shape[:2])
            layer[3].router = LookupRouter(layer[3].count)
            states.append(State(classes=classes))
        assert_near(model(x, pad, states), given[f"{kind}.logits"])


# Union of Experts


def union_layer(given, **options):
    names = ("linear1.weight.0", "linear2.weight.0", "linear1.bias.0", "linear2.bias")
    inner, outer, inner_bias, outer_bias = (given[f"mlp.sd.{name}"] for name in names)
    weights = (inner.transpose(1, 2), outer.transpose(1, 2), inner_bias[:, 0], outer_bias)
    router = LinearRouter(16, 4, bias=True)
    router.load_state_dict(part(given, "mlp.sd.switch_gate.w_gate."))
    return ExpertLayer(router, ByExpert(0.5, **options), [bank_of(*weights, activation="gelu")])


def test_tokens_chosen_by_experts_are_the_published_ones():
    given = published("uoe/union")
    layer, norm = union_layer(given, compat="published"), nn.LayerNorm(16)
    norm.load_state_dict(part(given, "mlp.sd.layer_norm."))
    x = given["mlp.input"].clone().requires_grad_()
    output, choice, _ = layer(x)
    ours = [choice.chosen[..., e].nonzero()[:, 1].view(3, 5) for e in range(4)]
    assert torch.equal(torch.stack(ours), given["mlp.selected_positions"])
    output = norm(x + output)
    assert_near(output, given["mlp.output"])
    output.backward(given["mlp.grad_output"])
    near(x.grad, given["mlp.grad_input"])
    assert layer.router.weight.grad is None  # the published router learns nothing
    bank = layer.groups[0]
    near(bank.inner.grad, given["mlp.grad.linear1.weight.0"].transpose(1, 2))
    near(bank.outer_bias.grad, given["mlp.grad.linear2.bias"])
    # alone in its batch a sequence gets something else, which rounding decides
    assert (norm(x[:1] + layer(x[:1]).output) - output[:1]).abs().max() > 0.5
    whole = join(bank).always(x.flatten(0, 1)).view_as(x)
    assert_near(whole, given["mlp.dense_output"])


def test_selective_attention_is_the_published_one():
    given = published("uoe/union")
    own = part(given, "attn.sd.")
    layer, norm = SelectiveAttention(16, 4, compat="published"), nn.LayerNorm(16)
    norm.load_state_dict(part(own, "layer_norm."))
    layer.load_state_dict(
        {
            "router.weight": own["switch_gate.w_gate.weight"],
            "router.bias": own["switch_gate.w_gate.bias"],
            "enter": torch.cat([own["W_q.weight.0"], own["W_kv.weight.0"]], dim=2),
            "enter_bias": torch.cat([own["W_q.bias.0"], own["W_kv.bias.0"]], dim=2),
            "leave": own["ff.weight.0"],
            "leave_bias": own["ff.bias"],
        }
    )
    x = given["attn.input"].clone().requires_grad_()
    output, chosen = layer(x)
    ours = [chosen[..., h].nonzero()[:, 1].view(3, 8) for h in range(4)]
    assert torch.equal(torch.stack(ours), given["attn.selected_positions"])
    assert_near(norm(x + output), given["attn.output"])


# Read-ME


def test_units_of_domains_are_the_published_ones():
    given = published("read_me/ffn")
    masks = by_activation(given["activation_importance"], 20, compat="published")
    assert torch.equal(masks.float(), given["expert_mask"])
    assert torch.equal(masks.all(dim=0).float(), given["shared_mask"])
    inner = torch.cat([given["sd.gate_proj.weight"], given["sd.up_proj.weight"]])
    dense = bank_of(inner[None], given["sd.down_proj.weight"][None], activation="silu", gated=True)
    x = given["input"]
    assert_near(dense.always(x.flatten(0, 1)).view_as(x), given["dense_output"])
    shared, own = shared_and_own(dense, masks)
    always = None if shared is None else Always(shared)
    layer = ExpertLayer(LookupRouter(5), TopK(1), [own], shared=always)
    output = layer(x, State(classes=given["choice"])).output
    assert_near(output, given["expert_output"])
    assert own.hidden + (0 if shared is None else shared.hidden) == 19
    vote = votes(given["router.feature"], masks)
    assert_near(distillation(given["router.logits"], vote), given["router.loss"])
    right = (given["router.logits"].argmax(dim=-1) == vote.argmax(dim=-1)).float().mean()
    assert_near(right, given["router.accuracy"])


class Always(nn.Module):
    """A dense bank as a layer."""

    def __init__(self, bank: Bank) -> None:
        super().__init__()
        self.bank = bank

    def forward(self, x):
        return self.bank.always(x)


# Glider


@pytest.mark.parametrize(
    ("name", "scale"),
    [("local_normalised_gate", 0), ("global_scale3", 3), ("global_scale100", 100)],
)
def test_adapters_are_mixed_as_published(name, scale):
    given = published("glider/lora_layer")
    base = nn.Linear(16, 12)
    base.load_state_dict({"weight": given["sd.weight"], "bias": given["sd.bias"]})
    parts = [
        tuple(given[f"sd.lora_experts.default.{e}.lora_{side}.weight"] for side in "AB")
        for e in range(5)
    ]
    gates = given["sd.lora_gate.default.weight"]
    router = LocalGlobalRouter(gates, given["expert_embedding"], scale)
    assert_near(router.gates, given["normalised_gate"])
    layer = glider(base, adapters(parts), router, TopK(2))
    state = State(task=given["task_embedding"])
    output, choice, _ = layer(given["input"], state)
    assert_near(choice.logits.float(), given[f"{name}.logits"])
    assert_near(output, given[f"{name}.output"])
    if scale == 0:
        layer.choose = TopP(0.6)
        assert_near(layer(given["input"], state).output, given["top_p0.6.output"])
        router.gates = gates  # as loaded, not normalised
        layer.choose = TopK(2)
        assert_near(layer(given["input"]).output, given["local.output"])
        rows = given["input"].flatten(0, 1)
        trained = gated(base, adapters(parts), 4, given["normalised_gate"][4], rows)
        assert_near(trained, given["train_gate.output"].flatten(0, 1))
    else:
        top = choice.logits.argsort(dim=-1, descending=True)[..., :2]
        assert torch.equal(top, given[f"{name}.top"])


def test_a_choice_is_a_tuple_of_what_was_chosen():
    choice = TopK(1)(torch.tensor([[0.0, 1.0]]))
    assert isinstance(choice, Choice)
    assert choice.usage().tolist() == [0, 1]
