# SPDX-License-Identifier: Apache-2.0
"""The passes of the selective scan in plain torch: step by step, and as tracing sees it."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 32
"""Steps between stored states; the states and decays of a chunk (4 KB) fit the L1 cache."""


def forward(u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Output (b, d, l), and the states (b, d, chunks + 1, n) before each chunk and at the end."""
    state = u.new_zeros(u.shape[0], *a.shape)
    outputs, kept = [], []
    driven = step * u
    for time in range(u.shape[2]):
        if time % CHUNK == 0:
            kept.append(state)
        decay = torch.exp(step[:, :, time, None] * a)
        state = decay * state + driven[:, :, time, None] * b[:, None, :, time]
        outputs.append((state @ c[:, :, time, None])[..., 0])
    kept.append(state)
    return torch.stack(outputs, dim=2), torch.stack(kept, dim=2)


def traced(u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """What tracing sees: some sqrt(l) rows of the sequence side by side, twice.

    A graph of the single steps takes minutes to export. Here the first time tells what a row adds
    to the state before it and what it leaves of that; the second begins with the state itself.
    """
    length = u.shape[2]
    columns = math.isqrt(length - 1) + 1
    rows = -(-length // columns)

    def lay(x: Tensor) -> Tensor:
        """(b, e, l) -> (columns, rows, b, e), with steps of length 0 at the end."""
        filled = F.pad(x, (0, rows * columns - length))
        found: Tensor = filled.unflatten(2, (rows, columns)).permute(3, 2, 0, 1)
        return found

    # Channels last: runtimes are slow where what is broadcast lies along the short axis of states.
    rate = a.mT
    steps, writes, reads = lay(step)[..., None, :], lay(b)[..., None], lay(c)[..., None, :]
    decays = [torch.exp(size * rate) for size in steps.unbind()]
    inflow = steps * lay(u)[..., None, :]
    driven = [x * write for x, write in zip(inflow.unbind(), writes.unbind(), strict=True)]
    added = torch.zeros_like(driven[0])
    for decay, new in zip(decays, driven, strict=True):
        added = decay * added + new
    left = torch.exp(steps.sum(dim=0) * rate)
    carried = torch.zeros_like(added[0])
    before = []
    for share, new in zip(left.unbind(), added.unbind(), strict=True):
        before.append(carried)
        carried = share * carried + new
    state = torch.stack(before)
    outputs = []
    for decay, new, read in zip(decays, driven, reads.unbind(), strict=True):
        state = decay * state + new
        outputs.append((read @ state)[..., 0, :])
    y = torch.stack(outputs)  # (columns, rows, b, d)
    return y.permute(2, 3, 1, 0).flatten(2)[..., :length], carried.mT


def backward(
    u: Tensor,
    step: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    states: Tensor,
    of_y: Tensor,
    of_last: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients of u, step, a, b and c, chunk by chunk from the end."""
    of_u, of_step = torch.empty_like(u), torch.empty_like(u)
    of_a, of_b, of_c = torch.zeros_like(a), torch.empty_like(b), torch.empty_like(c)
    driven = step * u
    carried = of_last  # gradient of the state that the next step reads
    for chunk in reversed(range(states.shape[2] - 1)):
        times = range(chunk * CHUNK, min((chunk + 1) * CHUNK, u.shape[2]))
        before = [states[:, :, chunk]]
        decays = []
        for time in times:
            decays.append(torch.exp(step[:, :, time, None] * a))
            new = driven[:, :, time, None] * b[:, None, :, time]
            before.append(decays[-1] * before[-1] + new)
        for place in reversed(range(len(times))):
            time = times[place]
            of_state = carried + of_y[:, :, time, None] * c[:, None, :, time]
            of_c[:, :, time] = (of_y[:, :, time, None] * before[place + 1]).sum(dim=1)
            of_b[:, :, time] = (of_state * driven[:, :, time, None]).sum(dim=1)
            carried = of_state * decays[place]
            of_exponent = carried * before[place]
            of_driven = (of_state * b[:, None, :, time]).sum(dim=2)
            of_u[:, :, time] = of_driven * step[:, :, time]
            of_step[:, :, time] = of_driven * u[:, :, time] + (of_exponent * a).sum(dim=2)
            of_a += (of_exponent * step[:, :, time, None]).sum(dim=0)
    return of_u, of_step, of_a, of_b, of_c
