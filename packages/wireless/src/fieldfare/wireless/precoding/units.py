# SPDX-License-Identifier: Apache-2.0
"""A batch of channels for a variant, ready to be timed."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..channels.draw import draw_channels
from .learned import find_precoder
from .options import DEFAULT_MODEL, PrecoderOptions

CHANNELS, USERS, ANTENNAS = 256, 8, 8
POWER = 10.0
"""Over a noise of 1: 10 dB."""


def unit(settings: Mapping[str, Any]) -> Callable[[], object]:
    """What precodes 256 Rayleigh channels of 8 users and 8 antennas with a variant's settings."""
    H = draw_channels("rayleigh", CHANNELS, USERS, ANTENNAS, seed=0)
    ways = {name: settings[name] for name in ("refine", "schedule") if name in settings}
    model = settings.get("model", DEFAULT_MODEL)
    precoder = find_precoder(settings["method"], model, PrecoderOptions(**ways))
    power, noise = torch.full((CHANNELS,), POWER), torch.ones(CHANNELS)
    return lambda: precoder(H, power, noise, None)
