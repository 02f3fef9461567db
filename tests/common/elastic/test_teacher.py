# SPDX-License-Identifier: Apache-2.0
"""A fixed network that many sizes learn from."""

import torch
from torch import Tensor, nn

from fieldfare.common.elastic.teacher import Teacher


def test_a_batch_is_asked_about_once_and_no_gradient_goes_through() -> None:
    asked: list[bool] = []

    def ask(network: nn.Module, batch: Tensor) -> Tensor:
        asked.append(network.training)
        found: Tensor = network(batch)
        return found

    network = nn.Linear(2, 1)
    teacher, batch = Teacher(network, ask), torch.rand(3, 2)
    first, again = teacher(batch), teacher(batch)
    assert first is again
    assert torch.equal(first, network(batch))
    assert not first.requires_grad
    teacher(batch.clone())  # another batch, though equal
    assert asked == [False, False]
