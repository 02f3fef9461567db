# SPDX-License-Identifier: Apache-2.0
"""The dispatcher, with workers made of plain futures: who is blamed, who waits for whom."""

from collections import deque
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldfare.common.batch.dispatch import QUICK, Dispatcher, Job
from fieldfare.common.batch.items import Item
from fieldfare.common.batch.worker import Outcome, Started, Task


class FakeLane:
    """Does its oldest task when told to; dies at poison items, losing all it has.

    Args:
        forgetful: also lose the result of the item before the deadly one.
    """

    def __init__(self, poison: set[str], *, forgetful: bool, seconds: float) -> None:
        self.poison, self.forgetful, self.seconds = poison, forgetful, seconds
        self.tasks: deque[tuple[Task, Future[Outcome]]] = deque()
        self.started: Future[Started] | None = None
        self.alone: list[str] = []  # keys that had the worker to themselves
        self.most = 0

    def start(self) -> Future[Started]:
        self.started = Future()
        return self.started

    def submit(self, task: Task) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        self.tasks.append((task, future))
        self.most = max(self.most, len(self.tasks))
        return future

    def stop(self, *, kill: bool) -> None:
        self.tasks.clear()

    def step(self) -> None:
        if self.started and not self.started.done():
            self.started.set_result(Started(worker="fake"))
        if not self.tasks:
            return
        keys = [task.item.key for task, _ in self.tasks]
        deadly = keys[0] in self.poison
        if self.forgetful and len(keys) > 1:
            deadly = deadly or keys[1] in self.poison
        if deadly:
            for _, future in self.tasks:
                future.set_exception(EOFError("died"))
            self.tasks.clear()
        else:
            _, future = self.tasks.popleft()
            future.set_result(Outcome(self.seconds))


def drive(
    lanes: list[FakeLane], keys: list[str], retries: int, monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[bool, int]]:
    """Run the keys; whether each was done, and its attempts."""
    results: dict[str, tuple[bool, int]] = {}

    def finish(job: Job, outcome: Outcome, worker: str) -> None:
        assert job.item.key not in results
        results[job.item.key] = (not outcome.error, job.attempts)

    def wait(futures: list[Future], **_: object) -> None:
        assert futures
        for lane in lanes:
            lane.step()

    monkeypatch.setattr("fieldfare.common.batch.dispatch.wait", wait)
    jobs = (Job(Item(key, (), (Path(key),)), ()) for key in keys)
    dispatcher = Dispatcher(
        jobs, lanes, retries=retries, begin=lambda _: None, finish=finish, tick=lambda: None
    )
    dispatcher.run()
    dispatcher.stop()
    return results


@given(
    count=st.integers(0, 12),
    poison=st.sets(st.integers(0, 11), max_size=4),
    workers=st.integers(1, 4),
    retries=st.integers(0, 3),
    seconds=st.sampled_from([QUICK / 10, QUICK * 10]),
)
def test_exactly_the_poison_items_fail(
    count: int, poison: set[int], workers: int, retries: int, seconds: float
) -> None:
    deadly = {str(index) for index in poison}
    lanes = [FakeLane(deadly, forgetful=False, seconds=seconds) for _ in range(workers)]
    keys = [str(index) for index in range(count)]
    with pytest.MonkeyPatch.context() as patch:
        results = drive(lanes, keys, retries, patch)
    assert results == {key: (False, retries + 1) if key in deadly else (True, 1) for key in keys}


@given(poison=st.sets(st.integers(0, 11), max_size=4), workers=st.integers(1, 3))
def test_an_item_whose_result_died_with_the_worker_is_done_again(
    poison: set[int], workers: int
) -> None:
    deadly = {str(index) for index in poison}
    lanes = [FakeLane(deadly, forgetful=True, seconds=0.0) for _ in range(workers)]
    keys = [str(index) for index in range(12)]
    with pytest.MonkeyPatch.context() as patch:
        results = drive(lanes, keys, 1, patch)
    assert {key for key, (done, _) in results.items() if not done} == deadly & set(keys)


@pytest.mark.parametrize(("seconds", "most"), [(QUICK / 10, 2), (QUICK * 10, 1)])
def test_only_quick_items_queue_behind_another(
    seconds: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = [FakeLane(set(), forgetful=False, seconds=seconds) for _ in range(2)]
    drive(lanes, [str(index) for index in range(9)], 2, monkeypatch)
    assert max(lane.most for lane in lanes) == most


def test_no_more_workers_start_than_items_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = [FakeLane(set(), forgetful=False, seconds=0.0) for _ in range(8)]
    drive(lanes, ["a", "b"], 2, monkeypatch)
    assert sum(lane.started is not None for lane in lanes) == 2
