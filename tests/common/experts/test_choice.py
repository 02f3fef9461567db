# SPDX-License-Identifier: Apache-2.0
"""Which experts a token gets, and how many tokens an expert."""

import pytest
import torch

from fieldfare.common.experts import ByExpert, Capacity, TopK, scheduled_k
from fieldfare.common.experts.choice import Choice
from fieldfare.common.experts.glider import TopP
from fieldfare.common.experts.losses import balance, mean_balance, z_loss


def test_the_switch_layer_worked_by_hand(examples):
    given = examples["switch"]
    logits = torch.tensor(given["probabilities"]).log()
    choice = TopK(1, "probability")(logits)
    assert choice.chosen.int().argmax(dim=-1).tolist() == given["choice"]
    assert choice.usage().tolist() == pytest.approx(given["fraction"], abs=1e-5)
    assert logits.softmax(dim=-1).mean(dim=0).tolist() == pytest.approx(
        given["mean_probability"], abs=1e-5
    )
    assert 0.01 * float(balance(choice)) == pytest.approx(given["loss_alpha0_01"], abs=1e-5)
    assert choice.weights.sum(dim=-1).tolist() == pytest.approx([0.5, 0.6, 0.5, 0.7, 0.7, 0.4])
    for factor in (1.0, 1.25):
        kept = Capacity(TopK(1, "probability"), factor)(logits)
        dropped = (~kept.chosen.any(dim=-1)).nonzero()[:, 0].tolist()
        assert dropped == given["dropped_at_capacity_2"]
        assert (
            int(kept.chosen.sum(dim=0).max()) == given[f"capacity_{str(factor).replace('.', '_')}"]
        )
        assert not kept.weights[dropped].any()


def test_balance_is_one_where_experts_are_used_alike():
    logits = torch.eye(4).repeat(6, 1) * 3
    assert float(balance(TopK(1)(logits))) == pytest.approx(1, abs=1e-6)
    assert float(balance(TopK(4)(logits))) == pytest.approx(1, abs=1e-6)
    skewed = TopK(1)(torch.tensor([[5.0, 0, 0, 0]]).repeat(8, 1))
    assert float(balance(skewed)) > 3
    assert float(mean_balance([skewed, skewed])) == pytest.approx(float(balance(skewed)))
    assert float(z_loss(TopK(1)(torch.zeros(3, 4)))) == pytest.approx(
        torch.log(torch.tensor(4.0)) ** 2
    )


def test_masked_tokens_count_for_no_loss():
    logits, mask = torch.randn(2, 6, 4), torch.ones(2, 6, dtype=torch.bool)
    mask[1, 3:] = False
    for loss in (balance, z_loss):
        masked = loss(TopK(2)(logits, mask))
        rest = TopK(2)(logits[mask])
        assert float(masked) == pytest.approx(float(loss(rest)), abs=1e-6)


def test_among_equal_experts_the_first_are_chosen():
    choice = TopK(2)(torch.tensor([[1.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]]))
    assert choice.chosen.tolist() == [[False, True, True, False], [True, True, False, False]]


def test_renormalised_weights_do_not_know_the_others_to_the_bit():
    logits = torch.randn(1000, 9)
    few = torch.cat([logits[:, :3], torch.full((1000, 6), -50.0)], dim=1)
    assert torch.equal(TopK(3)(few).weights[:, :3], TopK(3)(few[:, :3]).weights)


@pytest.mark.parametrize("weights", ["renormalised", "probability", "one"])
def test_weights_are_what_their_name_says(weights):
    logits = torch.randn(2, 5, 6, requires_grad=True)
    choice = TopK(2, weights)(logits)
    chosen = choice.weights[choice.chosen].view(2, 5, 2)
    if weights == "renormalised":
        assert torch.allclose(chosen.sum(dim=-1), torch.ones(2, 5))
    if weights == "probability":
        assert torch.allclose(chosen, logits.softmax(dim=-1)[choice.chosen].view(2, 5, 2))
    if weights == "one":
        assert torch.equal(chosen, torch.ones(2, 5, 2))
    assert not choice.weights[~choice.chosen].any()
    (choice.weights * torch.randn(2, 5, 6)).sum().backward()
    assert logits.grad.abs().sum() > 0


def test_an_expert_that_cannot_be_is_not_chosen():
    logits = torch.tensor([[0.0, -torch.inf, -torch.inf], [1.0, 2.0, -torch.inf]])
    for weights in ("renormalised", "probability", "one"):
        choice = TopK(3, weights)(logits)
        assert choice.chosen.tolist() == [[True, False, False], [True, True, False]]
        assert bool(choice.weights.isfinite().all())
        assert not choice.weights[~choice.chosen].any()


def test_a_sequence_may_choose_as_a_whole():
    logits, mask = torch.randn(3, 5, 4), torch.ones(3, 5, dtype=torch.bool)
    mask[0, 2:] = False
    choice = TopK(2, per_sequence=True)(logits, mask)
    assert bool((choice.chosen[1] == choice.chosen[1, :1]).all())
    mean = logits[0, :2].mean(dim=0)
    assert choice.chosen[0, 0].nonzero()[:, 0].tolist() == sorted(mean.topk(2).indices.tolist())
    assert not choice.chosen[0, 2:].any()


def test_an_expert_takes_its_share_of_each_sequence_and_only_who_wants_it():
    logits = torch.randn(4, 10, 5)
    choice = ByExpert(0.3, keep=2)(logits)
    assert int(choice.chosen.sum(dim=1).max()) <= 3
    wanted = TopK(2)(logits).chosen
    assert not (choice.chosen & ~wanted).any()
    for sequence in range(4):
        for expert in range(5):
            wish = (logits.softmax(dim=-1) * wanted)[sequence, :, expert]
            best = wish.topk(3).indices[wish.topk(3).values > 0]
            taken = choice.chosen[sequence, :, expert].nonzero()[:, 0]
            assert taken.tolist() == sorted(best.tolist())
    published = ByExpert(0.3, compat="published")(logits)
    assert bool((published.chosen.sum(dim=1) == 3).all())


def test_capacity_of_a_sequence_does_not_depend_on_its_neighbours_unless_asked():
    logits = torch.randn(3, 8, 4)
    logits[0, :, 0] += 9
    alone = Capacity(TopK(1))(logits[1:2])
    assert torch.equal(Capacity(TopK(1))(logits).chosen[1:2], alone.chosen)
    whole = Capacity(TopK(1), 0.5, whole_batch=True)(logits)
    assert bool((whole.chosen.flatten(0, 1).sum(dim=0) <= 3).all())


def test_experts_until_their_probabilities_reach_p():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    choice = TopP(0.6)(logits)
    assert choice.chosen.tolist() == [[True, True, False, False]]
    assert choice.weights[0, :2].tolist() == pytest.approx([0.625, 0.375])
    assert bool(TopP(1.0)(logits).chosen.all())
    with pytest.raises(ValueError, match="at most 1"):
        TopP(1.5)


def test_gradients_are_finite_where_nothing_is_chosen():
    logits = torch.randn(1, 6, 3, requires_grad=True)
    for weights in ("renormalised", "one", "probability"):
        ByExpert(0.1, keep=1, weights=weights)(logits).weights.sum().backward()
    assert bool(logits.grad.isfinite().all())


def test_wrong_requests_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        TopK(0)
    with pytest.raises(ValueError, match="renormalised, probability or one"):
        TopK(1, "half")(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="linear, cosine or exponential"):
        scheduled_k(0, 10, 1, 2, "steps")
    with pytest.raises(ValueError, match="must be at least 1"):
        scheduled_k(0, 0, 1, 2)


def test_a_choice_tells_how_many_experts_ran():
    chosen = torch.tensor([[[True, True, False], [False, True, False]]])
    choice = Choice(chosen, chosen.float(), torch.zeros(1, 2, 3))
    assert choice.per_token().tolist() == [[2, 1]]
    assert choice.per_token(slice(0, 1)).tolist() == [[1, 0]]
    assert choice.usage().tolist() == pytest.approx([1 / 3, 2 / 3, 0])
