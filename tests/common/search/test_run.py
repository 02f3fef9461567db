# SPDX-License-Identifier: Apache-2.0
"""The loop: limits before evaluation, each network once, the same by the same seed."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from planted import REFERENCE, SPACE, noise, planted, size

from fieldfare.common.elastic.genes import Choice, Space
from fieldfare.common.errors import InputError
from fieldfare.common.search.cache import Cached
from fieldfare.common.search.pareto import hypervolume
from fieldfare.common.search.pretrained import PretrainedPredictor
from fieldfare.common.search.report import compare, write_report
from fieldfare.common.search.run import Problem, search
from fieldfare.common.search.strategies.controller import Controller, may_share
from fieldfare.common.search.strategies.evolution import Evolution
from fieldfare.common.search.strategies.nsga import NSGA2
from fieldfare.common.search.strategies.predictor import Predictor
from fieldfare.common.search.strategies.random import Random

STRATEGIES = {
    "random": Random,
    "evolution": Evolution,
    "nsga": NSGA2,
    "predictor": lambda space, seed: Predictor(space, seed, generations=20),
    "controller": Controller,
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_nothing_above_a_limit_is_evaluated_and_nothing_twice(name: str) -> None:
    problem, asked = planted(0), list[Choice]()

    def evaluate(choices: Sequence[Choice]) -> NDArray[np.float64]:
        asked.extend(choices)
        return problem.evaluate(choices)

    spied = Problem(problem.space, problem.objectives, evaluate, problem.costs)
    history = search(spied, STRATEGIES[name](SPACE, 0), budget=90, limits={"size": 22})
    assert len(asked) == len(set(asked)) == len(history.choices) == 90
    assert max(size(choice)["size"] for choice in asked) <= 22
    assert history.rejected > 0
    again = search(spied, STRATEGIES[name](SPACE, 0), budget=90, limits={"size": 22})
    assert again.choices == history.choices


def test_a_limit_below_the_smallest_network_is_an_error_at_once() -> None:
    space = Space({"width": (8, 16), "depth": (2, 3)})
    problem = Problem(
        space, ("error",), lambda _: pytest.fail("evaluated"), lambda c: {"macs": 1e6 * c["width"]}
    )
    with pytest.raises(InputError, match=r"macs 1e\+06: nothing fits.* takes 8e\+06"):
        search(problem, Random(space), budget=4, limits={"macs": 1e6})
    with pytest.raises(InputError, match="what is counted is macs"):
        search(problem, Random(space), budget=4, limits={"bytes": 1e6})


def test_a_small_space_is_searched_to_its_end() -> None:
    space = Space({"a": (1, 2), "b": (1, 2, 3)})
    problem = Problem(space, ("sum",), lambda cs: np.array([[sum(c.values())] for c in cs]))
    history = search(problem, NSGA2(space, 0, population=4), budget=100)
    assert len(history.choices) == 6
    assert set(history.choices) == set(space.every())


@pytest.mark.parametrize("name", ["nsga", "predictor", "evolution", "controller"])
def test_every_strategy_beats_random_search_on_a_planted_table(name: str) -> None:
    own = search(planted(1), STRATEGIES[name](SPACE, 1), budget=200)
    drawn = search(planted(1), Random(SPACE, 101), budget=200)
    assert compare(own, drawn).better
    assert own.values[:, 0].min() < drawn.values[:, 0].min()


def test_predictions_beat_plain_evolution_in_nearly_every_seed() -> None:
    volumes = {name: list[float]() for name in ("random", "nsga", "predictor")}
    for seed in range(4):
        for name, found in volumes.items():
            history = search(planted(seed), STRATEGIES[name](SPACE, seed), budget=200)
            found.append(hypervolume(history.values, REFERENCE))
    wins = np.array(volumes["predictor"]) > np.array(volumes["nsga"])
    assert wins.sum() >= 3
    assert np.mean(volumes["nsga"]) > np.mean(volumes["random"])


def test_noise_makes_no_strategy_better() -> None:
    called = [
        compare(
            search(noise(seed), NSGA2(SPACE, seed, population=16), budget=60),
            search(noise(seed), Random(SPACE, seed + 1000), budget=60),
        ).better
        for seed in range(20)
    ]
    assert sum(called) <= 1


def test_the_controller_changes_one_class_at_a_time() -> None:
    genes = list(SPACE.genes)
    classes = {f"c{start}": genes[start : start + 5] for start in range(0, 25, 5)}
    controller = Controller(SPACE, 0, classes=classes, first=8)
    search(planted(0), controller, budget=40, batch=8)
    best = max(zip(controller._rewards, map(tuple, controller._rows), strict=True))[1]
    for child in controller.ask(50):
        row = [SPACE.genes[gene].index(child[gene]) for gene in genes]
        changed = {place // 5 for place in range(25) if row[place] != best[place]}
        assert len(changed) <= 1
    with pytest.raises(ValueError, match="one class"):
        Controller(SPACE, 0, classes={"some": genes[:3]})


def test_weights_are_shared_only_between_equal_shapes_and_activations() -> None:
    parent = {"width": 8, "activation": "relu", "heads": 2, "dropout": 0.1}
    decisive = ("width", "activation", "heads")
    assert may_share(parent, parent | {"dropout": 0.5}, decisive=decisive)
    for change in ({"width": 16}, {"activation": "silu"}, {"heads": 4}):
        assert not may_share(parent, parent | change, decisive=decisive)


def test_evaluations_are_kept_and_a_torn_line_is_forgotten(tmp_path: Path) -> None:
    path, problem, calls = tmp_path / "evaluations.jsonl", planted(0), list[int]()

    def evaluate(choices: Sequence[Choice]) -> NDArray[np.float64]:
        calls.append(len(choices))
        return problem.evaluate(choices)

    def run(budget: int) -> NDArray[np.float64]:
        kept = Problem(SPACE, problem.objectives, Cached(evaluate, path, "seed 0"), problem.costs)
        return search(kept, NSGA2(SPACE, 0), budget=budget).values

    first = run(32)
    with path.open("a") as file:
        file.write('{"choice": "torn')
    both = run(64)
    assert sum(calls) == 64
    assert np.array_equal(both[:32], first)
    assert np.array_equal(run(64), both)
    assert all(json.loads(line) for line in path.read_text().splitlines())
    with pytest.raises(InputError, match="other settings"):
        Cached(evaluate, path, "seed 1")


@pytest.mark.parametrize("left", ["", '{"set', '{"settings": "see'])
def test_a_file_that_a_killed_run_only_began_is_begun_again(tmp_path: Path, left: str) -> None:
    path, choice = tmp_path / "evaluations.jsonl", SPACE.smallest()
    path.write_text(left)
    known = Cached(planted(0).evaluate, path, "seed 0")
    assert len(known) == 0
    value = known([choice])
    assert np.array_equal(Cached(planted(1).evaluate, path, "seed 0")([choice]), value)
    path.write_text("my notes")
    with pytest.raises(InputError, match="other settings"):
        Cached(planted(0).evaluate, path, "seed 0")


def test_what_is_known_is_written_before_the_next_is_asked(tmp_path: Path) -> None:
    path, rng = tmp_path / "evaluations.jsonl", np.random.default_rng(0)
    lines = list[int]()

    def one_by_one(choices: Sequence[Choice]) -> Iterator[list[float]]:
        for number, _ in enumerate(choices):
            lines.append(len(path.read_text().splitlines()))
            yield [float(number)]

    Cached(one_by_one, path)([SPACE.sample(rng) for _ in range(3)])
    assert lines == [1, 2, 3]


def test_the_report_always_has_the_random_row(tmp_path: Path) -> None:
    drawn = search(planted(2), Random(SPACE, 9), budget=64)
    own = search(planted(2), NSGA2(SPACE, 0), budget=64)
    told = write_report(tmp_path, {"nsga": own}, drawn)
    assert json.loads((tmp_path / "front.json").read_text()) == told
    assert (tmp_path / "front.png").stat().st_size > 10_000
    assert set(told["evaluations"].values()) == {64}
    assert {"nsga", "random"} == set(told["evaluations"])
    assert 0 < told["against_random"]["nsga"]["p_value"] <= 1


def test_counting_first_makes_a_predictor_of_few_measurements() -> None:
    rng = np.random.default_rng(0)
    cost = rng.random((25, 3)).cumsum(1)

    def counted(choice: Choice) -> list[float]:
        each = [cost[place, int(value)] for place, value in enumerate(choice.values())]
        return [*np.array(each).reshape(5, 5).sum(1)]

    def quality(choice: Choice) -> float:
        return float(-np.log1p(counted(choice)) @ np.arange(1, 6))

    drawn = [SPACE.sample(rng) for _ in range(220)]
    values = np.array([quality(choice) for choice in drawn])
    agreement = []
    for samples in (0, 1000):
        predictor = PretrainedPredictor(SPACE, counted, samples=samples, steps=200)
        predictor.fit(drawn[:20], values[:20], steps=200)
        guess = predictor(drawn[20:])
        order = np.sign(
            np.subtract.outer(guess, guess) * np.subtract.outer(values[20:], values[20:])
        )
        agreement.append(order.sum() / (200 * 199))
    assert agreement[1] > agreement[0] + 0.1
