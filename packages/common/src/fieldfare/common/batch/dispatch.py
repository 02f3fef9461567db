# SPDX-License-Identifier: Apache-2.0
"""Hands items to workers and takes care of those that die. The same loop serves every engine.

A worker does its tasks in the order it got them, so when it dies the oldest unfinished one is to
blame: that item is charged an attempt, the ones behind it are not. What was charged waits until
all other items are through and then has a worker to itself, which keeps the blame exact even where
the result of a finished item was lost together with its worker.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

from fieldfare.common.errors import InputError, RunError

from .items import Item
from .manifest import Stamps
from .temporaries import temporary_paths
from .worker import Outcome, Started, Task

#: Items quicker than this (in seconds) are sent two at a time, so that their worker does not wait
#: for the driver (1 to 3 ms an item). Slower ones are not: a second item would only queue behind
#: the first where another worker could take it.
QUICK = 0.1

#: Seconds to wait before the second attempt after an OSError; twice that before the third, ...
RETRY_PAUSE = 1.0


class Lane(Protocol):
    """One worker process. Its futures fail only when the worker died."""

    def start(self) -> Future[Started]:
        """Start the worker (again) and load the model."""

    def submit(self, task: Task) -> Future[Outcome]:
        """Send a task to the worker, behind those it has."""

    def stop(self, *, kill: bool) -> None:
        """End the worker, at once or when it is idle; returns when it is gone."""


@dataclass(slots=True, eq=False)
class Job:
    """An item on its way through the run."""

    item: Item
    stamps: Stamps
    attempts: int = 0
    pause: float = 0.0


@dataclass(slots=True, eq=False)
class _Slot:
    """A lane with what the driver knows about it."""

    lane: Lane
    worker: str = ""
    starting: Future[Started] | None = None
    ready: bool = False
    seconds: float = QUICK  # of its last item
    inflight: deque[tuple[Job, Task, Future[Outcome]]] = field(default_factory=deque)

    def has_room(self, depth: int) -> bool:
        """Whether one more task fits behind `depth` others."""
        if not self.ready or len(self.inflight) != depth:
            return False
        return depth == 0 or (self.seconds < QUICK and not self.inflight[-1][0].attempts)


class Dispatcher:
    """Runs jobs on lanes until none is left.

    Args:
        jobs: taken one by one, never far ahead of the workers.
        lanes: workers, not yet started; each starts when an item waits for it.
        retries: further attempts for an item whose worker died or that met an OSError.
        begin: called before an item's first attempt.
        finish: called with (job, outcome, worker) when an item is done or given up.
        tick: called at least once a second.
    """

    def __init__(
        self,
        jobs: Iterator[Job],
        lanes: Sequence[Lane],
        *,
        retries: int,
        begin: Callable[[Job], None],
        finish: Callable[[Job, Outcome, str], None],
        tick: Callable[[], None],
    ) -> None:
        self._jobs = jobs
        self._slots = [_Slot(lane) for lane in lanes]
        self._retries = retries
        self._begin, self._finish, self._tick = begin, finish, tick
        self._backlog: deque[Job] = deque()  # taken from jobs, not yet sent
        self._again: deque[Job] = deque()  # charged with an attempt
        self._deaths_at_start = 0  # in a row

    @property
    def waiting_for(self) -> str:
        """What keeps all items waiting, empty once a worker is ready."""
        starting = sum(slot.starting is not None for slot in self._slots)
        if not starting or any(slot.ready for slot in self._slots):
            return ""
        return f"{starting} worker{'s' * (starting > 1)} to load the model"

    def run(self) -> None:
        """Work until every job is finished.

        Raises:
            InputError, RunError: the model could not be loaded.
        """
        while True:
            self._feed()
            if not any(slot.inflight for slot in self._slots) and not self._waiting(0):
                return
            futures: list[Future[Any]] = []
            for slot in self._slots:
                futures += [future for _, _, future in slot.inflight]
                futures += [slot.starting] if slot.starting else []
            wait(futures, timeout=1.0, return_when=FIRST_COMPLETED)
            for slot in self._slots:
                self._collect_start(slot)
                self._collect(slot)
            self._tick()

    def stop(self) -> None:
        """End all workers, the busy ones at once, and remove what they were writing."""
        with ThreadPoolExecutor(len(self._slots)) as threads:
            for slot in self._slots:
                threads.submit(slot.lane.stop, kill=bool(slot.inflight) or not slot.ready)
        for slot in self._slots:
            for _, task, _ in slot.inflight:
                task.clean()

    def _feed(self) -> None:
        for depth in (0, 1):
            for slot in self._slots:
                if slot.has_room(depth) and (job := self._next(charged=depth == 0)):
                    self._send(slot, job)
        starting = sum(slot.starting is not None for slot in self._slots)
        for slot in self._slots:
            if not slot.ready and slot.starting is None and self._waiting(starting):
                slot.starting = slot.lane.start()
                starting += 1

    def _next(self, *, charged: bool) -> Job | None:
        if self._backlog:
            return self._backlog.popleft()
        job = next(self._jobs, None)
        if job is None and charged and self._again:
            return self._again.popleft()
        return job

    def _waiting(self, count: int) -> bool:
        """Whether more than `count` jobs wait for a worker."""
        while len(self._backlog) + len(self._again) <= count:
            job = next(self._jobs, None)
            if job is None:
                return False
            self._backlog.append(job)
        return True

    def _send(self, slot: _Slot, job: Job) -> None:
        task = Task(job.item, temporary_paths(job.item), job.pause)
        if not job.attempts:
            self._begin(job)
        slot.inflight.append((job, task, slot.lane.submit(task)))

    def _collect_start(self, slot: _Slot) -> None:
        if slot.starting is None or not slot.starting.done():
            return
        death, future = slot.starting.exception(), slot.starting
        slot.starting = None
        if death is not None:
            slot.lane.stop(kill=True)
            self._deaths_at_start += 1
            if self._deaths_at_start > self._retries:
                raise RunError(
                    f"the worker died {self._deaths_at_start} times while it loaded the model "
                    f"(out of memory? {type(death).__name__})"
                )
            return
        started = future.result()
        if started.error:
            raise (InputError if started.bad_input else RunError)(started.error)
        self._deaths_at_start = 0
        slot.ready, slot.worker, slot.seconds = True, started.worker, QUICK

    def _collect(self, slot: _Slot) -> None:
        while slot.inflight and slot.inflight[0][2].done():
            job, _, future = slot.inflight[0]
            job.attempts += 1
            death = future.exception()
            if death is not None:
                self._bury(slot, death)
                return
            slot.inflight.popleft()
            outcome = future.result()
            slot.seconds = outcome.seconds or 0.0
            if outcome.transient and job.attempts <= self._retries:
                job.pause = RETRY_PAUSE * job.attempts
                self._again.append(job)
            else:
                self._finish(job, outcome, slot.worker)

    def _bury(self, slot: _Slot, death: BaseException) -> None:
        """The worker died at its oldest job: give that one another chance, or give it up."""
        slot.lane.stop(kill=True)
        slot.ready = False
        (job, _, _), *behind = slot.inflight
        for _, task, _ in slot.inflight:
            task.clean()
        slot.inflight.clear()
        self._backlog.extendleft(other for other, _, _ in reversed(behind))
        if job.attempts <= self._retries:
            job.pause = 0.0
            self._again.append(job)
            return
        kind = type(death).__name__
        reason = f"the worker died while it processed the item (out of memory? crash? {kind})"
        self._finish(job, Outcome(seconds=None, error=reason), slot.worker)
