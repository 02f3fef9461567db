# SPDX-License-Identifier: Apache-2.0
"""Step forms of layers over time: one frame in, one frame out, at the cost of one frame.

Hedegaard and Iosifidis 2022, *Continual Inference* (arXiv 2204.03418) and *Continual Transformers*
(arXiv 2201.06268): a trained network's own weights, fed frame after frame, with what each layer
needs of the past kept. The first answers are None, until the receptive field is full; from then on
they are the outputs for the whole sequence one by one, but those that see padding at its end.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_POINTWISE = (
    nn.BatchNorm1d, nn.ReLU, nn.Tanh, nn.Sigmoid, nn.SiLU, nn.GELU, nn.Hardswish, nn.Identity,
    nn.Dropout,
)  # fmt: skip


class Step(Protocol):
    """A layer that is fed one frame (B, C) at a time."""

    delay: int
    """Frames by which the first output lags behind the first frame."""

    def __call__(self, frame: Tensor) -> Tensor | None:
        """None while the receptive field is not full."""

    def reset(self) -> None:
        """Forget all frames."""


class PointwiseStep:
    """A layer that knows no time: activations, and batch norms in evaluation mode."""

    delay = 0

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, frame: Tensor) -> Tensor:
        """(B, C) -> (B, C)."""
        found: Tensor = self.layer(frame[:, :, None])[:, :, 0]
        return found

    def reset(self) -> None:
        """Nothing is kept."""


class ConvStep:
    """An `nn.Conv1d` of stride 1, any kernel, dilation and groups; padding at the start only."""

    def __init__(self, layer: nn.Conv1d) -> None:
        if layer.stride[0] != 1 or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
            raise ValueError(f"{layer}: only stride 1 and zero padding in numbers have a step form")
        self.layer = layer
        self.span = (layer.kernel_size[0] - 1) * layer.dilation[0]
        self.delay = self.span - layer.padding[0]
        self.reset()

    def __call__(self, frame: Tensor) -> Tensor | None:
        """(B, C) -> (B, O)."""
        if not self._frames:
            self._frames.extend([torch.zeros_like(frame)] * int(self.layer.padding[0]))
        self._frames.append(frame)
        if len(self._frames) <= self.span:
            return None
        window = torch.stack(list(self._frames)[:: self.layer.dilation[0]], dim=2)
        own = self.layer
        return F.conv1d(window, own.weight, own.bias, groups=own.groups)[:, :, 0]

    def reset(self) -> None:
        """Forget all frames."""
        self._frames: deque[Tensor] = deque(maxlen=self.span + 1)


class MeanStep:
    """An `nn.AvgPool1d` of stride 1, or a mean over the last so many frames."""

    def __init__(self, width: int) -> None:
        self.width, self.delay = width, width - 1
        self.reset()

    def __call__(self, frame: Tensor) -> Tensor | None:
        """(B, C) -> (B, C)."""
        self._frames.append(frame)
        if len(self._frames) < self.width:
            return None
        return torch.stack(list(self._frames)).mean(dim=0)

    def reset(self) -> None:
        """Forget all frames."""
        self._frames: deque[Tensor] = deque(maxlen=self.width)


class SequenceStep:
    """Steps one after another."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = list(steps)
        self.delay = sum(step.delay for step in steps)

    def __call__(self, frame: Tensor) -> Tensor | None:
        """(B, C) -> (B, O)."""
        found: Tensor | None = frame
        for step in self.steps:
            if found is None:
                return None
            found = step(found)
        return found

    def reset(self) -> None:
        """Forget all frames."""
        for step in self.steps:
            step.reset()


class ResidualStep:
    """frame + step(frame), the frame held back as long as the step lags behind it."""

    def __init__(self, inner: Step) -> None:
        self.inner, self.delay = inner, inner.delay
        if self.delay < 0:
            raise ValueError("a residual around a layer that looks ahead has no step form")
        self.reset()

    def __call__(self, frame: Tensor) -> Tensor | None:
        """(B, C) -> (B, C)."""
        self._frames.append(frame)
        found = self.inner(frame)
        return None if found is None else self._frames[0] + found

    def reset(self) -> None:
        """Forget all frames."""
        self.inner.reset()
        self._frames: deque[Tensor] = deque(maxlen=self.delay + 1)


class AttentionStep:
    """Self-attention over a window of the last frames, with `nn.MultiheadAttention`'s weights.

    Keys and values of past frames are kept, so a step projects one frame.

    Args:
        layer: with `batch_first` either way; itself unchanged.
        window: frames that attend to one another.
        every: give all outputs of the window anew, (B, window, D), as each frame changes them
            (retroactive); otherwise that of the newest frame, (B, D).
    """

    def __init__(self, layer: nn.MultiheadAttention, window: int, *, every: bool = False) -> None:
        self.layer, self.window, self.every = layer, window, every
        self.delay = 0
        self.reset()

    def __call__(self, frame: Tensor) -> Tensor | None:
        """(B, D) -> (B, D) or (B, window, D)."""
        own: Any = self.layer
        projected = F.linear(frame, own.in_proj_weight, own.in_proj_bias)
        self._frames.append(projected.unflatten(-1, (3, own.num_heads, own.head_dim)))
        if len(self._frames) < self.window:
            return None
        q, k, v = torch.stack(list(self._frames), dim=1).permute(2, 0, 3, 1, 4)
        if not self.every:
            q = q[:, :, -1:]
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        found: Tensor = own.out_proj(mixed)
        return found if self.every else found[:, 0]

    def reset(self) -> None:
        """Forget all frames."""
        self._frames: deque[Tensor] = deque(maxlen=self.window)


def to_steps(model: nn.Module) -> Step:
    """The step form of a network over sequences (B, C, T), with its own weights.

    Knows `nn.Sequential`, `nn.Conv1d`, `nn.AvgPool1d` of stride 1 and layers without time; others
    are built by hand of the classes here. Feed it under `torch.inference_mode()`.

    Raises:
        ValueError: a layer without a step form, or a batch norm in training mode.
    """
    if isinstance(model, nn.Sequential):
        return SequenceStep([to_steps(layer) for layer in model])
    if isinstance(model, nn.Conv1d):
        return ConvStep(model)
    if isinstance(model, nn.AvgPool1d):
        stride, width = model.stride, model.kernel_size
        if _one(stride) == 1 and not _one(model.padding):
            return MeanStep(_one(width))
    if isinstance(model, _POINTWISE):
        if model.training and isinstance(model, nn.BatchNorm1d | nn.Dropout):
            raise ValueError(f"{model}: call eval() first")
        return PointwiseStep(model)
    raise ValueError(f"{model}: has no step form")


def _one(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[0]
