# SPDX-License-Identifier: Apache-2.0
"""A card survives the file header and says everything on its page."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldfare.common.weights import Metric, ModelCard

CARD = ModelCard(
    name="tiny",
    task="doubling",
    summary="Doubles numbers.",
    config={"width": 3, "blocks": [1, 2], "nested": {"eps": 0.005}},
    data="whole numbers",
    data_licence="CC0-1.0",
    split="every third",
    weights_licence="Apache-2.0",
    training="one minute",
    limits="not for | letters\nor words",
    seed=7,
    date="2026-01-31",
    metrics=(Metric("error", 0.125, "mean | absolute"), Metric("share", 1.0, "of all")),
)


def test_json_round_trip() -> None:
    assert ModelCard.from_json(CARD.to_json()) == CARD


@given(
    text=st.text(),
    config=st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()),
    value=st.floats(allow_nan=False),
    seed=st.none() | st.integers(),
)
def test_any_card_round_trips(
    text: str, config: dict[str, object], value: float, seed: int | None
) -> None:
    card = ModelCard(
        text, "t", text, config, limits=text, seed=seed, metrics=(Metric(text, value, text),)
    )
    assert ModelCard.from_json(card.to_json()) == card
    assert card.to_markdown()


def test_page_holds_every_field_and_its_tables_stay_whole() -> None:
    page = CARD.to_markdown()
    for name, value in dataclasses.asdict(CARD).items():
        if name not in ("config", "metrics", "limits"):
            assert str(value) in page, name
    assert r"| Limits | not for \| letters or words |" in page.splitlines()
    assert r"| error | 0.125 | mean \| absolute |" in page.splitlines()
    assert json.loads(page.split("```json")[1].split("```")[0]) == CARD.config


def test_unknown_fields_say_so_on_the_page() -> None:
    page = ModelCard("tiny", "doubling", "Doubles.", {}).to_markdown()
    assert "| Licence of the weights | unknown |" in page
    assert "| Seed | unknown |" in page
    assert "metric" not in page


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        "3",
        "null",
        "{}",
        '{"metrics": [], "name": "x"}',
        '{"metrics": [{"name": "error"}], "name": "", "task": "", "summary": "", "config": {}}',
        '{"metrics": [], "name": "", "task": "", "summary": "", "config": {}, "later": 1}',
        '{"metrics": [], "name": "", "task": "", "summary": "", "config": [1]}',
    ],
)
def test_anything_else_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a model card|Expecting value"):
        ModelCard.from_json(text)
