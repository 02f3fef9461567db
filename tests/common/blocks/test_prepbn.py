# SPDX-License-Identifier: Apache-2.0
"""PRepBN: the published layer's calls, gradients and folding, and what ours promises besides."""

import copy

import pytest
import torch
from published_blocks import assert_near, part, published
from torch import nn

from fieldfare.common.blocks.prepbn import ChannelAffine, PRepBN, RepBN, fold
from fieldfare.common.blocks.steps import advance, count_steps

FILE = "slab/prepbn"
NAMES = {
    "norm1.weight": "layer.weight",
    "norm1.bias": "layer.bias",
    "norm2.alpha": "batch.alpha",
    **{
        f"norm2.bn.{part}": f"batch.norm.{part}"
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    },
}


def layer(state: dict[str, torch.Tensor], done: int = 0) -> PRepBN:
    norm = PRepBN(24, steps=5, warmup=2)
    ours = {name: state[theirs] for theirs, name in NAMES.items()}
    norm.load_state_dict(ours | {"done": torch.tensor(done)})
    return norm


def finished(steps: int = 0) -> PRepBN:
    """A norm at the end of its schedule, with statistics of its own."""
    norm = PRepBN(6, steps)
    for value in norm.parameters():
        nn.init.normal_(value)
    norm.batch(torch.randn(8, 6) * 3 + 1)
    norm.done.fill_(steps)
    return norm.eval()


def test_nine_training_calls_are_the_published_ones():
    given = published(FILE)
    norm = layer(part(given, "prepbn.sd0."))
    shares = given["prepbn.lambda"].tolist()
    for x, expected, share in zip(
        given["prepbn.in.xs"], given["prepbn.out.train"], shares, strict=True
    ):
        assert norm.share == pytest.approx(share)
        assert_near(norm(x), expected, 1e-6)
        advance(norm)
    after = part(given, "prepbn.sd9.")
    assert_near(norm.batch.norm.running_mean, after["norm2.bn.running_mean"], 1e-6)
    assert_near(norm.batch.norm.running_var, after["norm2.bn.running_var"], 1e-6)
    assert_near(norm.eval()(given["prepbn.in.eval"]), given["prepbn.out.eval"], 1e-6)


def test_gradients_at_a_share_of_three_quarters_are_the_published_ones():
    given = published(FILE)
    norm = PRepBN(24, steps=4)
    ours = {name: part(given, "prepbn.sd0.")[theirs] for theirs, name in NAMES.items()}
    norm.load_state_dict(ours | {"done": torch.tensor(1)})
    x = given["prepbn.grad.in.x"].clone().requires_grad_()
    y = norm(x)
    assert_near(y, given["prepbn.grad.out"], 1e-6)
    y.backward(given["prepbn.grad.cotangent"])
    assert_near(x.grad, given["prepbn.grad.x"], 1e-5)
    assert_near(norm.batch.alpha.grad, given["prepbn.grad.alpha"], 1e-5)


def test_folding_into_a_linear_layer_gives_the_published_weights():
    given = published(FILE)
    norm = layer(part(given, "prepbn.sd9."), done=7).eval()
    linear = nn.Linear(24, 48)
    linear.load_state_dict(part(given, "merge.linear."))
    assert isinstance(fold(norm, linear), nn.Identity)
    assert_near(linear.weight, given["merge.weight"], 1e-6)
    assert_near(linear.bias, given["merge.bias"], 1e-6)
    assert_near(linear(given["prepbn.in.eval"]), given["merge.out.unmerged"], 2e-6)


def test_accumulated_gradients_do_not_shorten_the_schedule():
    model = nn.Sequential(PRepBN(3, steps=4), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    count_steps(model, optimizer)
    shares = []
    for _ in range(5):
        shares.append(model[0].share)
        for _ in range(3):
            model(torch.randn(4, 3)).sum().backward()
        optimizer.step()
    assert shares == [1, 0.75, 0.5, 0.25, 0]


def test_evaluation_measures_the_mixture_that_is_trained():
    norm = PRepBN(6, steps=4, warmup=1).eval()
    nn.init.normal_(norm.batch.norm.running_mean)
    x = torch.randn(2, 5, 6)
    assert torch.equal(norm(x), norm.layer(x))
    for _ in range(3):
        advance(norm)
    assert norm.share == 0.5
    torch.testing.assert_close(norm(x), (norm.layer(x) + norm.batch(x)) / 2)
    for _ in range(9):
        advance(norm)
    assert torch.equal(norm(x), norm.batch(x))


def test_statistics_stand_still_while_it_warms_up():
    norm = PRepBN(6, steps=4, warmup=1)
    before = norm.batch.norm.running_mean.clone()
    norm(torch.randn(7, 6) + 3)
    assert torch.equal(norm.batch.norm.running_mean, before)
    advance(norm)
    norm(torch.randn(7, 6) + 3)
    assert not torch.equal(norm.batch.norm.running_mean, before)


def test_the_count_is_in_the_state():
    norm, other = PRepBN(6, steps=4), PRepBN(6, steps=4)
    advance(norm)
    other.load_state_dict(norm.state_dict())
    assert other.share == norm.share == 0.75


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("steps", [0, 3])
def test_a_norm_folds_into_each_of_its_readers(bias, steps):
    norm, x = finished(steps), torch.randn(2, 5, 6)
    readers = [nn.Linear(6, 4, bias=bias), nn.Linear(6, 9, bias=bias)]
    folded = copy.deepcopy(readers)
    fold(norm, *folded)
    for reader, other in zip(readers, folded, strict=True):
        assert_near(other(x), reader(norm(x)), 2e-6)


def test_what_no_linear_layer_follows_becomes_one_scale_and_shift():
    norm, x = finished(), torch.randn(2, 5, 6)
    fused = norm.fuse()
    assert isinstance(fused, ChannelAffine)
    assert_near(fused(x), norm(x), 2e-6)


def test_other_norms_are_left_alone():
    norm = nn.LayerNorm(6)
    assert fold(norm, nn.Linear(6, 6)) is norm


def test_a_norm_in_the_middle_of_its_schedule_is_not_folded():
    norm = PRepBN(6, steps=4, warmup=2)
    advance(norm)
    with pytest.raises(ValueError, match="1 of 6 steps"):
        fold(norm, nn.Linear(6, 6))


def test_a_norm_does_not_fold_into_a_convolution():
    with pytest.raises(TypeError, match="Conv1d"):
        fold(RepBN(6), nn.Conv1d(6, 6, 1))


def test_a_warmup_without_steps_is_refused():
    with pytest.raises(ValueError, match="no warmup alone"):
        PRepBN(6, steps=0, warmup=3)
