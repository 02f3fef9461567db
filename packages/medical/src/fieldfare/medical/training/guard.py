# SPDX-License-Identifier: Apache-2.0
"""How far the answers to clean cases hold, and from that the guard of a network."""

from collections.abc import Callable, Iterable
from functools import partial

from torch import Tensor

from fieldfare.common.trust.guard import Guard, fit_guard

from ..data.preparation import Prepared, prepare
from ..inference import guard, run
from ..inference.predict import Predictor
from ..inference.trust import Observer, layers_of
from .knowledge import Case

RANK, ALPHA = 4, 0.8
"""The neighbour that agrees least; `benchmarks/medical/guard.py` compares ranks."""


def observed(predictor: Predictor, prepared: Prepared) -> guard.Answer:
    """What a network's layers show of a case, and its answer."""
    plan = run.plan_one(predictor, prepared, run.InferSettings(), 0)
    with Observer(predictor, layers_of(predictor.config)) as observer:
        found = run.predict(prepared, predictor, plan, call=observer)
    return observer.features(), found


def answers_of(
    predictor: Predictor, prepared: Prepared, first: guard.Answer | None = None
) -> tuple[Tensor, Tensor]:
    """Of a case and its neighbours, see `inference.guard.neighbours`.

    Args:
        first: what `observed` gave for the case itself, where that is there already.
    """
    ask = partial(observed, predictor)
    return guard.neighbours(prepared, first or ask(prepared), ask)


def learn_guard(
    predictor: Predictor,
    cases: Iterable[Case],
    *,
    rank: int = RANK,
    alpha: float = ALPHA,
    false_alarms: float = 0.05,
    tell: Callable[[], None] = lambda: None,
) -> Guard:
    """The guard of a network, from clean cases that it was not trained on.

    Args:
        tell: called after each case.
    """
    answers = []
    for case in cases:
        prepared = prepare(case.images, case.affine, predictor.config.spacing, ndim=predictor.ndim)
        answers.append(answers_of(predictor, prepared))
        tell()
    return fit_guard(
        guard.encode_of(answers),
        guard.shifts(),
        [guard.own(case) for case in range(len(answers))],
        rank=rank,
        alpha=alpha,
        false_alarms=false_alarms,
    )
