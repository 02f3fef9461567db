# SPDX-License-Identifier: Apache-2.0
"""Layers that change with the number of optimiser steps done."""

from typing import Any

import torch
from torch import Tensor, nn


class Stepped(nn.Module):
    """A layer that counts the steps of the optimiser.

    Nothing moves unless they are counted: `count_steps(model, optimizer)` once, or `advance(model)`
    after each step. The count is part of the state, so a resumed run goes on where it stopped.
    """

    done: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))


def advance(model: nn.Module) -> None:
    """One optimiser step is done: move each stepped layer of the model on."""
    for module in model.modules():
        if isinstance(module, Stepped):
            module.done += 1


def count_steps(model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
    """Call `advance(model)` after every step of the optimiser; the handle returned can `remove()`.

    Attach it once more after a resume.
    """
    return optimizer.register_step_post_hook(lambda *_: advance(model))
