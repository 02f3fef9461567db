# SPDX-License-Identifier: Apache-2.0
"""Worker processes on this machine, from the standard library.

Each worker has a pool of its own, so that its death breaks no other one. There is always a
process, even for one worker: a crash in a C library then costs one item, not the run.
"""

import contextlib
import ctypes
import glob
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from typing import ParamSpec, TypeVar

from fieldfare.common.errors import InputError

from .items import MakeWorker
from .worker import Outcome, Started, Task, Worker, describe_error

_P = ParamSpec("_P")
_T = TypeVar("_T")

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def open_lanes(
    make_worker: MakeWorker, workers: int, gpus_per_worker: float
) -> Iterator[list["LocalLane"]]:
    """The lanes of this engine; processor cores and GPUs are divided among them."""
    gpus = divide_gpus(workers, gpus_per_worker, visible_gpus()) if gpus_per_worker else None
    threads = str(max(1, len(os.sched_getaffinity(0)) // workers))
    shared = {name: threads for name in _THREAD_VARIABLES if name not in os.environ}
    pickled = pickle.dumps(make_worker)
    yield [
        LocalLane(pickled, shared | ({"CUDA_VISIBLE_DEVICES": gpus[index]} if gpus else {}))
        for index in range(workers)
    ]


class LocalLane:
    """One spawned process, fed through a pool of size one.

    Args:
        pickled: make_worker.
        environment: variables to set in the process before the model's libraries are loaded.
    """

    def __init__(self, pickled: bytes, environment: Mapping[str, str]) -> None:
        self._pickled = pickled
        self._environment = environment
        self._pool: ProcessPoolExecutor | None = None

    def start(self) -> Future[Started]:
        self._pool = ProcessPoolExecutor(
            max_workers=1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare_process,
            initargs=(self._environment,),
        )
        with _interrupts_blocked():
            return self._submit(_start, self._pickled)

    def submit(self, task: Task) -> Future[Outcome]:
        return self._submit(_perform, task)

    def stop(self, *, kill: bool) -> None:
        if self._pool is None:
            return
        if kill:  # Python 3.14 has kill_workers() for this
            for process in list((self._pool._processes or {}).values()):
                process.kill()
        self._pool.shutdown(cancel_futures=True)
        self._pool = None

    def _submit(
        self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> Future[_T]:
        assert self._pool is not None, "start() comes first"
        try:
            return self._pool.submit(function, *args, **kwargs)
        except RuntimeError as error:  # the worker died a moment ago
            future: Future[_T] = Future()
            future.set_exception(error)
            return future


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Processes started here never see Ctrl-C; only the driver acts on it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker: Worker | None = None  # of this worker process


def _prepare_process(environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    if sys.platform == "linux":  # the kernel ends us even inside a long call into C
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_die_with_driver, daemon=True).start()


def _die_with_driver() -> None:
    driver = multiprocessing.parent_process()
    if driver is not None:
        multiprocessing.connection.wait([driver.sentinel])
        os._exit(1)


def _start(pickled: bytes) -> Started:
    global _worker
    try:
        make_worker = pickle.loads(pickled)
    except Exception as error:
        return Started(error=f"the worker cannot be loaded: {describe_error(error)}")
    if torch := sys.modules.get("torch"):  # loaded with the main script, before our variables
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    _worker = Worker(make_worker)
    return _worker.start()


def _perform(task: Task) -> Outcome:
    assert _worker is not None, "start() comes first"
    return _worker.perform(task)


def visible_gpus() -> list[str]:
    """Names of the GPUs this process may use, as CUDA_VISIBLE_DEVICES has them."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name for name in listed.split(",") if name]
    return [str(index) for index in range(len(glob.glob("/dev/nvidia[0-9]*")))]


def divide_gpus(workers: int, each: float, gpus: list[str]) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each worker.

    Args:
        each: GPUs a worker gets: a whole number, or a part of one (0.5: two workers share one).

    Raises:
        InputError: there are not enough GPUs.
    """
    if each >= 1:
        whole = int(each)
        needed = workers * whole
        shares = [gpus[first : first + whole] for first in range(0, needed, whole)]
    else:
        sharing = int(1 / each)
        needed = -(-workers // sharing)
        shares = [gpus[index // sharing : index // sharing + 1] for index in range(workers)]
    if needed > len(gpus):
        raise InputError(
            f"--workers {workers} --gpus-per-worker {each:g} needs {needed} GPUs, "
            f"{len(gpus)} found (CUDA_VISIBLE_DEVICES names those to use)"
        )
    return [",".join(share) for share in shares]
