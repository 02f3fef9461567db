# SPDX-License-Identifier: Apache-2.0
"""Mixtures of experts: routers, ways to choose, expert layers, and what makes them smaller."""

from .bank import Bank, Weights
from .choice import ByExpert, Capacity, Choice, TopK, scheduled_k
from .host import Chain, Hosted, chains, install
from .layer import ExpertLayer, Routed, set_experts_per_token
from .routing import (
    LinearRouter,
    LookupRouter,
    RandomRouter,
    RecurrentRouter,
    ResidualRouter,
    State,
)
from .zero import Constant, Copy, Zero

__all__ = [
    "Bank",
    "ByExpert",
    "Capacity",
    "Chain",
    "Choice",
    "Constant",
    "Copy",
    "ExpertLayer",
    "Hosted",
    "LinearRouter",
    "LookupRouter",
    "RandomRouter",
    "RecurrentRouter",
    "ResidualRouter",
    "Routed",
    "State",
    "TopK",
    "Weights",
    "Zero",
    "chains",
    "install",
    "scheduled_k",
    "set_experts_per_token",
]
