# SPDX-License-Identifier: Apache-2.0
"""OPTIN: which heads and neurons of a transformer may go, from one batch and without training.

Khaki and Plataniotis 2024, *The Need for Speed: Pruning Transformers with One Recipe* (arXiv
2403.17921). A unit's worth is how far removing it bends the trajectory of the layers behind it: the
similarities of the feed-forward outputs among all tokens; the logits count beside it.

The published code differs from its description in two ways, which `published=True` repeats: layers
are scored with the last head of every earlier layer removed, and scores are multiplied by a ramp
over the index of the unit.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROWS = 768
"""Most tokens among which similarities are taken."""
TEMPERATURE = 4.0
"""Its square weighs the divergence of the logits, which themselves are not divided by it."""


@dataclass(frozen=True)
class Layer:
    """Of a transformer.

    Attributes:
        inputs: query, key and value, or one layer with all three after one another.
        project: behind the attention; reads the heads side by side.
        first, second: of the feed-forward part, before and behind the activation.
        heads: number of heads.
        resized: told of the number of heads that are left.
    """

    inputs: tuple[nn.Linear, ...]
    project: nn.Linear
    first: nn.Linear
    second: nn.Linear
    heads: int
    resized: Callable[[int], None] = lambda heads: None


@dataclass(frozen=True)
class Masks:
    """What is kept: heads (L, H), neurons (L, F), bool."""

    heads: Tensor
    neurons: Tensor


@dataclass(frozen=True)
class Bends:
    """What removing one unit does: distances of trajectories and divergences of logits, (L, H) and
    (L, F) each."""

    head_distance: Tensor
    head_divergence: Tensor
    neuron_distance: Tensor
    neuron_divergence: Tensor


def all_kept(layers: Sequence[Layer]) -> Masks:
    """Masks of the whole network."""
    neurons = layers[0].second.in_features
    heads = torch.ones(len(layers), layers[0].heads, dtype=torch.bool)
    return Masks(heads, torch.ones(len(layers), neurons, dtype=torch.bool))


@contextmanager
def masked(layers: Sequence[Layer], masks: Masks) -> Iterator[list[Tensor]]:
    """Within, the network runs without what is masked; the list holds the last run's feed-forward
    outputs (B, N, D) by layer."""
    outputs: list[Tensor] = [torch.empty(0)] * len(layers)
    handles = []

    def hide(heads: Tensor, width: int) -> Callable[..., tuple[Tensor]]:
        kept = heads.repeat_interleave(width)
        return lambda _, inputs: (inputs[0] * kept.to(inputs[0]),)

    def keep(index: int) -> Callable[..., None]:
        def store(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            outputs[index] = output

        return store

    for index, layer in enumerate(layers):
        width = layer.project.in_features // layer.heads
        hooks = (
            (layer.project, hide(masks.heads[index], width)),
            (
                layer.second,
                hide(masks.neurons[index], 1),
            ),
        )
        handles += [module.register_forward_pre_hook(hook) for module, hook in hooks]
        handles.append(layer.second.register_forward_hook(keep(index)))
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def trajectory_distance(first: Tensor, second: Tensor) -> Tensor:
    """Squared difference of the similarities among tokens, (B, N, D) both -> scalar."""
    grams = []
    for outputs in (first, second):
        rows = F.normalize(outputs.flatten(0, -2), dim=-1)
        if len(rows) > ROWS:
            rows = rows[torch.linspace(0, len(rows) - 1, ROWS).long()]
        grams.append(rows @ rows.T)
    return (grams[0] - grams[1]).square().sum()


def divergence(whole: Tensor, pruned: Tensor) -> Tensor:
    """KL of the logits (B, C), summed over the batch, times the temperature squared."""
    logs = pruned.log_softmax(dim=1), whole.log_softmax(dim=1)
    found = F.kl_div(*logs, reduction="sum", log_target=True) * TEMPERATURE**2
    return found.clamp(min=0)


@torch.no_grad()
def measure(
    layers: Sequence[Layer],
    run: Callable[[], Tensor],
    *,
    published: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> Bends:
    """Remove one unit at a time and see what it does.

    Args:
        run: the network in evaluation mode on one batch -> logits (B, C).
        published: keep the last head of every earlier layer removed while heads are scored.
        progress: called after each unit.
    """
    every = all_kept(layers)
    with masked(layers, every) as outputs:
        logits = run()
        whole = list(outputs)
    last = len(layers) - 1

    def bend(masks: Masks, layer: int) -> tuple[float, float]:
        with masked(layers, masks) as outputs:
            pruned = run()
        behind = range(layer + 1, len(layers)) if layer < last else [last]
        distance = sum(float(trajectory_distance(whole[m], outputs[m])) for m in behind)
        progress()
        return distance, float(divergence(logits, pruned))

    heads = [torch.zeros(every.heads.shape) for _ in range(2)]
    carried = every.heads.clone()
    for layer in range(len(layers)):
        for head in range(every.heads.shape[1]):
            kept = carried.clone() if published else every.heads.clone()
            kept[layer], kept[layer, head] = True, False
            heads[0][layer, head], heads[1][layer, head] = bend(Masks(kept, every.neurons), layer)
        carried[layer, -1] = False
    neurons = [torch.zeros(every.neurons.shape) for _ in range(2)]
    for layer in range(len(layers)):
        for neuron in range(every.neurons.shape[1]):
            kept = every.neurons.clone()
            kept[layer, neuron] = False
            found = bend(Masks(every.heads, kept), layer)
            neurons[0][layer, neuron], neurons[1][layer, neuron] = found
    return Bends(*heads, *neurons)


def combine(distance: Tensor, divergences: Tensor) -> Tensor:
    """Distance plus divergence at a tenth of its size, (L, U) both.

    The divergence is scaled by a power of ten, so that the distance leads by about ten. Where the
    divergence is the larger one, or one is zero, the mean of the scales so far serves, 1 at first.
    """
    found: list[float] = []
    scales: list[float] = []
    for d, k in zip(distance.flatten().tolist(), divergences.flatten().tolist(), strict=True):
        if d > k > 0:
            scale = 10.0 ** int(math.log10(d / k) - 1)
            scales.append(scale)
        else:
            scale = sum(scales) / len(scales) if scales else 1.0
        found.append(d + scale * k)
    return distance.new_tensor(found).view(distance.shape)


def scores(bends: Bends, *, logits: bool = True, published: bool = False) -> tuple[Tensor, Tensor]:
    """Worth of heads (L, H) and neurons (L, F), the last layer's and all heads' halved.

    Args:
        logits: count their divergence as well.
        published: multiply by the ramps, from 10 (heads) and 100 (neurons) down to 1 over the
            index, and count the last layer's distance twice without logits.
    """
    found = []
    for distance, div, ramp in (
        (bends.head_distance, bends.head_divergence, 10.0),
        (bends.neuron_distance, bends.neuron_divergence, 100.0),
    ):
        own = combine(distance, div) if logits else distance.clone()
        own[-1] *= 0.5
        if published:
            if not logits:
                own[-1] *= 2
            own = own * torch.logspace(math.log10(ramp), 0, own.shape[1])
        found.append(own)
    return found[0] * 0.5, found[1]


def unit_macs(layer: Layer, tokens: int) -> tuple[int, int]:
    """Multiply-accumulates of one head and of one neuron on a sequence of so many tokens."""
    width = layer.project.out_features
    head = layer.project.in_features // layer.heads
    return 4 * tokens * width * head + 2 * tokens**2 * head, 2 * tokens * width


def select(heads: Tensor, neurons: Tensor, macs: tuple[int, int], budget: float) -> Masks:
    """The best units that a budget allows: for every number of heads the best of them, and the best
    neurons with what is left; of these the one with the largest sum of scores.

    Args:
        heads, neurons: scores (L, H) and (L, F).
        macs: of one head and one neuron.
        budget: of all kept units together.

    Raises:
        ValueError: not one head fits.
    """
    if budget < macs[0]:
        raise ValueError(f"budget {budget:.0f}: one head alone takes {macs[0]} operations")
    orders = [torch.argsort(s.flatten(), descending=True, stable=True) for s in (heads, neurons)]
    sums = [
        s.flatten()[o].double().cumsum(0) for s, o in zip((heads, neurons), orders, strict=True)
    ]
    best, counts = -1.0, (0, 0)
    for count in range(1, heads.numel() + 1):
        left = budget - count * macs[0]
        if left < 0:
            break
        inner = min(neurons.numel(), int(left // macs[1]))
        total = float(sums[0][count - 1]) + (float(sums[1][inner - 1]) if inner else 0.0)
        if total > best:
            best, counts = total, (count, inner)
    found = []
    for shape, order, count in zip((heads, neurons), orders, counts, strict=True):
        mask = torch.zeros(shape.numel(), dtype=torch.bool)
        mask[order[:count]] = True
        found.append(mask.view(shape.shape))
    return Masks(*found)


@torch.no_grad()
def remove(layers: Sequence[Layer], masks: Masks) -> None:
    """Make the network physically smaller: it computes what the masked one does."""
    for layer, heads, neurons in zip(layers, masks.heads, masks.neurons, strict=True):
        width = layer.project.in_features // layer.heads
        kept = heads.repeat_interleave(width).nonzero().flatten()
        rows = kept
        if len(layer.inputs) == 1:
            rows = torch.cat([kept + part * len(heads) * width for part in range(3)])
        for inputs in layer.inputs:
            _keep(inputs, rows=rows)
        _keep(layer.project, columns=kept)
        inner = neurons.nonzero().flatten()
        _keep(layer.first, rows=inner)
        _keep(layer.second, columns=inner)
        layer.resized(int(heads.sum()))


def _keep(linear: nn.Linear, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
    weight = linear.weight
    if rows is not None:
        weight = nn.Parameter(weight[rows])
        if linear.bias is not None:
            linear.bias = nn.Parameter(linear.bias[rows])
    if columns is not None:
        weight = nn.Parameter(weight[:, columns].contiguous())
    linear.weight = nn.Parameter(weight.detach(), linear.weight.requires_grad)
    linear.out_features, linear.in_features = linear.weight.shape


def vision_transformer_layers(model: nn.Module) -> list[Layer]:
    """Layers of a timm VisionTransformer (DeiT, ViT)."""
    found = []
    blocks: Any = model.blocks
    for block in blocks:
        attention, mlp = block.attn, block.mlp

        def resized(heads: int, attention: Any = attention) -> None:
            attention.num_heads = heads
            attention.attn_dim = heads * attention.head_dim

        found.append(
            Layer((attention.qkv,), attention.proj, mlp.fc1, mlp.fc2, attention.num_heads, resized)
        )
    return found
