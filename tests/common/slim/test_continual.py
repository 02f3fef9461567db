# SPDX-License-Identifier: Apache-2.0
"""Step forms: the published stream, the whole sequence frame by frame, one frame's cost."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fieldfare.common.slim import continual

REFERENCE = Path(__file__).parents[2] / "reference" / "continual"


@pytest.fixture(scope="module")
def given():
    return load_file(REFERENCE / "stream.safetensors")


def fed(step, x):
    """Frames of (B, C, T) -> the outputs that are not None, and when the first came."""
    with torch.no_grad():
        found = [step(frame) for frame in x.unbind(2)]
    first = next(t for t, out in enumerate(found) if out is not None)
    assert all(out is not None for out in found[first:])
    return found[first:], first


def loaded(module: nn.Module, given, prefix: str) -> nn.Module:
    module.load_state_dict(
        {k.removeprefix(prefix): t for k, t in given.items() if k.startswith(prefix)}
    )
    return module.eval()


def test_the_published_stream_of_convolutions(given):
    head = nn.Sequential(
        loaded(nn.Conv1d(5, 8, 3), given, "conv.sd.0."),
        loaded(nn.BatchNorm1d(8), given, "conv.sd.1."),
        nn.ReLU(),
        loaded(nn.Conv1d(8, 8, 5), given, "conv.sd.3."),
        nn.ReLU(),
    ).eval()
    inner = loaded(nn.Conv1d(8, 8, 3, padding=1), given, "conv.sd.5.1.")
    pool = nn.AvgPool1d(4, 1)
    step = continual.SequenceStep(
        [
            continual.to_steps(head),
            continual.ResidualStep(continual.to_steps(inner)),
            continual.to_steps(pool),
        ]
    )
    found, first = fed(step, given["conv.input"])
    assert first == step.delay == given["conv.first_output_step"]
    y = torch.stack(found, dim=2)
    torch.testing.assert_close(y, given["conv.stream_output"], rtol=0, atol=1e-5)
    torch.testing.assert_close(y, given["conv.clip_output"][:, :, :-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["single", "retro"])
def test_the_published_stream_of_attention(given, kind):
    layer = loaded(nn.MultiheadAttention(8, 2), given, f"{kind}.sd.")
    step = continual.AttentionStep(layer, 6, every=kind == "retro")
    found, first = fed(step, given[f"{kind}.input_BET"])
    assert first == given[f"{kind}.first_step"]
    last = found[-1].transpose(0, 1) if kind == "retro" else found[-1]
    torch.testing.assert_close(last, given[f"{kind}.stream_last"], rtol=0, atol=1e-5)
    window = given[f"{kind}.input_BET"][:, :, -6:].permute(2, 0, 1)
    with torch.no_grad():
        whole = layer(window, window, window)[0]
    torch.testing.assert_close(last, whole if kind == "retro" else whole[-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 2])
def test_dilated_and_grouped_convolutions_give_the_whole_sequence(dilation, padding):
    model = nn.Sequential(
        nn.Conv1d(4, 4, 3, dilation=dilation, padding=padding, groups=2),
        nn.BatchNorm1d(4),
        nn.SiLU(),
        nn.Conv1d(4, 2, 2),
    ).eval()
    x = torch.randn(3, 4, 15)
    step = continual.to_steps(model)
    with torch.no_grad():
        whole = model(x)
    found, first = fed(step, x)
    y = torch.stack(found, dim=2)
    torch.testing.assert_close(y, whole[:, :, : y.shape[2]])
    assert first == step.delay == 2 * dilation - padding + 1
    assert whole.shape[2] - y.shape[2] == padding
    step.reset()
    again, _ = fed(step, x)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_what_has_no_step_form_is_refused():
    for layer in (nn.Conv1d(1, 1, 3, stride=2), nn.MaxPool1d(2), nn.AvgPool1d(2)):
        with pytest.raises(ValueError, match="step form"):
            continual.to_steps(layer)
    with pytest.raises(ValueError, match=r"call eval\(\) first"):
        continual.to_steps(nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match="looks ahead"):
        continual.ResidualStep(continual.to_steps(nn.Conv1d(1, 1, 1, padding=1)))
