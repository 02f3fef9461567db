# SPDX-License-Identifier: Apache-2.0
"""Workers on one machine or many, as Ray actors (ray >= 2.60).

Actors are neither restarted nor retried by Ray itself: Ray would charge a death to every call that
waited at the actor, and would not tell how many attempts an item took. The dispatcher starts a new
actor instead, as it starts a new process in the local engine.
"""

import contextlib
import importlib.util
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from fieldfare.common.errors import InputError

from .items import MakeWorker
from .worker import Outcome, Started, Task, Worker


def require_ray() -> None:
    """Raises InputError when Ray is not installed; does not import it."""
    if importlib.util.find_spec("ray") is None:
        raise InputError("--engine ray: Ray is missing; pip install 'fieldfare-common[ray]'")


@contextlib.contextmanager
def open_lanes(
    make_worker: MakeWorker, workers: int, gpus_per_worker: float
) -> Iterator[list["RayLane"]]:
    """The lanes of this engine, on the cluster at RAY_ADDRESS or else on this machine.

    A Ray the program is already connected to is used and left as it is.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    connected = ray.is_initialized()
    if not connected:
        connect(ray, workers)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores = cores_each(nodes, workers, gpus_per_worker)
        actor = ray.remote(num_cpus=cores, num_gpus=gpus_per_worker, max_restarts=0)(Worker)
        yield [RayLane(ray, actor, make_worker) for _ in range(workers)]
    finally:
        if not connected:
            ray.shutdown()


def connect(ray: Any, workers: int) -> None:
    """Join the cluster at RAY_ADDRESS, or start Ray on this machine with a core for each worker.

    There workers are as nice as this process; Ray's own choice (15 more) starves them on a machine
    with other work.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        cores = max(workers, len(os.sched_getaffinity(0)))
        ray.init(
            "local",
            num_cpus=cores,
            include_dashboard=False,
            logging_level="WARNING",
            _system_config={"worker_niceness": 0},
        )
        return
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit() and "://" not in address:  # Ray alone would try for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address, logging_level="WARNING")
    except OSError as error:
        raise InputError(f"RAY_ADDRESS={address}: no Ray cluster answers ({error})") from error


def cores_each(nodes: Sequence[Mapping[str, float]], workers: int, gpus_per_worker: float) -> int:
    """Processor cores for each worker: as many as still let all workers run at once, at least 1.

    Args:
        nodes: resources of each node, by Ray's names (CPU, GPU).

    Raises:
        InputError: no node can hold even one worker.
    """

    def room(cores: int) -> int:
        counts = []
        for node in nodes:
            count = int(node.get("CPU", 0)) // cores
            if gpus_per_worker:
                count = min(count, int(node.get("GPU", 0) / gpus_per_worker))
            counts.append(count)
        return sum(counts)

    if not room(1):
        raise InputError(
            f"--engine ray: no node has a core and {gpus_per_worker:g} GPUs for a worker; "
            "start such a node or lower --gpus-per-worker"
        )
    most = int(max(node.get("CPU", 0) for node in nodes))
    return max((cores for cores in range(1, most + 1) if room(cores) >= workers), default=1)


class RayLane:
    """One actor.

    Args:
        ray: the module.
        actor: the class Worker as an actor class.
    """

    def __init__(self, ray: Any, actor: Any, make_worker: MakeWorker) -> None:
        self._ray, self._actor, self._make_worker = ray, actor, make_worker
        self._handle: Any = None

    def start(self) -> Future[Started]:
        self._handle = self._actor.remote(self._make_worker)
        found: Future[Started] = self._handle.start.remote().future()
        return found

    def submit(self, task: Task) -> Future[Outcome]:
        found: Future[Outcome] = self._handle.perform.remote(task).future()
        return found

    def stop(self, *, kill: bool) -> None:
        if self._handle is not None:
            self._ray.kill(self._handle)
            self._handle = None
