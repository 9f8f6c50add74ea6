"""Computes steps on the nodes of a Ray cluster: keys travel, and results go through the store.

Each step is a task that is bound to one node, so the coordinator alone decides how many are on each. Ray repeats
nothing by itself: a step is started again where its node was lost or its memory was short, and otherwise fails.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.plan.step import Step
from bench.registry import RegistryError
from bench.runner.cores import cores
from bench.runner.estimate import DEFAULT_IMAGES, IMAGES
from bench.runner.executors import NodesLostError, Settings
from bench.runner.probe import Question, differences, examine, question
from bench.runner.store import Store
from bench.runner.worker import LOWER, Outcome, Task

__all__ = ["Node", "Nodes", "limit_of", "memory_of"]

OBJECTS = 80 << 20  # bytes of a local cluster's object store: only keys go through it
PROCESS = 3 << 28  # bytes of a worker before it has images
IMAGE = 3 * 32 * 32
ANSWER_S = 120.0  # a node that does not answer so long is left out
POLL_S = 0.1
HEAD = "node:__internal_head__"  # a resource of the node that runs the cluster's own services: the last to get work
CRASHES = 3  # of its worker, until a step has failed


@dataclass
class Node:
    """A node that gets work.

    Attributes:
        limit: most steps at a time.
        gpus: that each step gets, for instance a third of one.
        memory: bytes that Ray gives to all.
        running: steps that are there now.
    """

    id: str
    name: str
    limit: int
    gpus: float = 0.0
    memory: float = float("inf")
    running: int = 0


@dataclass
class _Flight:
    """A step on its way: where it is, how many could be beside it, and how often a worker died with it."""

    fn: Callable[..., Any]
    task: Task
    args: tuple[Any, ...]
    future: Future[Outcome]
    node: Node | None = None
    limit: int = 0
    crashes: int = 0
    avoid: set[str] = field(default_factory=set)


class Nodes(Executor):
    """Runs steps on the nodes that would compute the same as this process.

    Attributes:
        slots: how many steps may be in flight.
    """

    def __init__(self, settings: Settings, store: Store, steps: Sequence[Step], say: Callable[[str], None]) -> None:
        """Join the cluster, or start one on this machine, and ask every node.

        Args:
            settings: threads of a step, and how many at a time on a node.
            store: where results go: a folder that every node sees, or shared at a URL.
            steps: that are to be computed.
            say: told, in sentences, which node is left out or lost.

        Raises:
            RegistryError: Ray is not installed, there is no such cluster, or no node can help.
        """
        self._ray = _module()
        self._settings, self._say = settings, say
        self._joined = _join(self._ray, settings.address)
        self._lock = threading.RLock()
        self._queue: deque[_Flight] = deque()
        self._running: dict[Any, _Flight] = {}
        self._ended = threading.Event()
        self._environment = {name: value for name, value in os.environ.items() if name.startswith("BENCH_")}
        try:
            self._nodes = self._usable(store, steps)
        except BaseException:
            self.shutdown()
            raise
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @property
    def slots(self) -> int:
        """At least 1, so that a step meets the error where there is no node."""
        return max(1, sum(node.limit for node in self._nodes))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Compute `fn(task, ...)` on some node; `args` begins with the task."""
        future: Future[Outcome] = Future()
        with self._lock:
            self._queue.append(_Flight(fn, args[0], args[1:], future))
            self._start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End what is running, and leave the cluster; one that was started for this run ends."""
        self._ended.set()
        with suppress(AttributeError):
            self._thread.join()
        for ref in self._running:
            with suppress(Exception):
                self._ray.cancel(ref, force=True)
        if self._joined:
            self._ray.shutdown()

    def _usable(self, store: Store, steps: Sequence[Step]) -> list[Node]:
        """The nodes that have what a step needs and would compute the same; the others are named."""
        memory = max((memory_of(step.spec) for step in steps), default=PROCESS)
        nodes, refused = list[Node](), list[str]()
        for described in sorted(self._ray.nodes(), key=lambda node: HEAD in node["Resources"]):
            if described["Alive"] and described["Resources"].get("CPU"):  # without: a head that is to do no work
                try:
                    nodes.append(limit_of(described, self._settings, memory))
                except ValueError as error:
                    refused.append(str(error))
        with _asked(store, steps, self._settings) as asked:
            why = self._ask(asked, nodes)
        refused += [f"Ray node {node.name} is left out: {'; '.join(why[node.id])}." for node in nodes if why[node.id]]
        for sentence in refused:
            self._say(sentence)
        able = [node for node in nodes if not why[node.id]]
        if not able:
            raise RegistryError(" ".join(["Expected a Ray node that can compute, but there is none.", *refused]))
        return able

    def _ask(self, asked: Question, nodes: Sequence[Node]) -> dict[str, list[str]]:
        """Why nodes cannot help, by their id."""
        ray = self._ray
        refs = {node.id: self._send(node, 0, examine, asked, node.id) for node in nodes}
        ray.wait(list(refs.values()), num_returns=len(refs), timeout=ANSWER_S) if refs else None
        why = {}
        for name, ref in refs.items():
            try:
                why[name] = differences(asked, name, ray.get(ref, timeout=1))
            except ray.exceptions.GetTimeoutError:
                why[name] = [f"it did not answer within {ANSWER_S:.0f} s"]
            except ray.exceptions.RayError as error:
                why[name] = [f"it could not be asked ({str(error).strip().splitlines()[-1]})"]
        return why

    def _send(self, node: Node, cpus: int, fn: Callable[..., Any], *args: Any, **resources: float) -> Any:
        """Start a function on a node, and there only."""
        strategies = self._ray.util.scheduling_strategies
        bound = strategies.NodeAffinitySchedulingStrategy(node.id, soft=False)
        # max_calls=0: Ray would end the process, and import torch anew, after each step that has a GPU.
        remote = self._ray.remote(num_cpus=cpus, max_retries=0, max_calls=0, scheduling_strategy=bound, **resources)
        return remote(_on_node).remote(self._environment, self._settings.threads, fn, *args)

    def _start(self) -> None:
        """Start what is queued, each where most is free; with no node left everything that is queued fails."""
        while self._queue:
            if not self._nodes:
                self._queue.popleft().future.set_exception(NodesLostError("Every Ray node that could compute is lost."))
                continue
            flight = self._queue[0]
            free = [node for node in self._nodes if node.running < node.limit]
            free = [node for node in free if node.id not in flight.avoid] or free
            if not free:
                return
            node = max(free, key=lambda node: node.limit - node.running)
            self._queue.popleft()
            node.running += 1
            flight.node, flight.limit = node, node.limit
            memory = min(memory_of(flight.task.identity["spec"]), int(node.memory) // node.limit)
            sent = self._send(
                node, self._settings.threads, flight.fn, flight.task, *flight.args, num_gpus=node.gpus, memory=memory
            )
            self._running[sent] = flight

    def _watch(self) -> None:
        while not self._ended.is_set():
            with self._lock:
                refs = list(self._running)
            if not refs:
                self._ended.wait(POLL_S)
                continue
            ready, _ = self._ray.wait(refs, num_returns=1, timeout=POLL_S)
            for ref in ready:
                with self._lock:
                    self._land(ref, self._running.pop(ref))
                    self._start()

    def _land(self, ref: Any, flight: _Flight) -> None:
        node, errors = flight.node, self._ray.exceptions
        assert node is not None  # it was started
        node.running -= 1
        try:
            outcome = self._ray.get(ref)
        except errors.OutOfMemoryError:
            outcome = Outcome(flight.task.key, 0.0, f"Out of memory on Ray node {node.name}: {LOWER}", starved=True)
        except errors.RayTaskError as error:  # not the step's, whose errors are in its outcome
            flight.future.set_exception(RuntimeError(f"Ray node {node.name}: {error}"))
            return
        except errors.RayError as error:
            self._crashed(flight, node, error)
            return
        if outcome.starved and flight.limit > 1:
            self._say(f"Memory was short on Ray node {node.name}: it gets at most {flight.limit // 2} steps at a time.")
            node.limit = min(node.limit, flight.limit // 2)
            self._queue.appendleft(flight)
        else:
            flight.future.set_result(outcome)

    def _crashed(self, flight: _Flight, node: Node, error: Exception) -> None:
        """Start a step again whose node is lost; one whose worker dies on nodes that live fails in the end."""
        if not any(other["NodeID"] == node.id and other["Alive"] for other in self._ray.nodes()):
            if node in self._nodes:
                self._nodes.remove(node)
                self._say(f"Ray node {node.name} was lost: its steps were started again on other nodes.")
        elif (flight := _crashed_again(flight, node)).crashes >= CRASHES:
            words = f"The worker process died {CRASHES} times (killed, or out of memory): {LOWER}"
            flight.future.set_result(Outcome(flight.task.key, 0.0, f"{error}\n{words}"))
            return
        self._queue.appendleft(flight)


def limit_of(described: Mapping[str, Any], settings: Settings, memory: int) -> Node:
    """A node, as Ray describes it, with the most steps that it can have at a time.

    Args:
        described: an item of `ray.nodes()`.
        settings: threads of a step, steps at a time on a node, and the kind of device.
        memory: bytes that the largest step needs.

    Raises:
        ValueError: it has too few processors, or no GPU where one is needed.
    """
    has = described["Resources"]
    name = f"{described['NodeManagerAddress']} ({described['NodeID'][:6]})"
    cpus, gpus, bytes_ = int(has.get("CPU", 0)), float(has.get("GPU", 0)), has.get("memory", float("inf"))
    if cpus < settings.threads:
        raise ValueError(
            f"Ray node {name} is left out: it has {cpus} CPU, and a step takes {settings.threads} threads: "
            "give fewer --threads."
        )
    limit = min(settings.jobs, cpus // settings.threads)
    if bytes_ < float("inf"):
        limit = max(1, min(limit, int(bytes_ // memory)))
    share = 0.0
    if settings.place.device.startswith("cuda"):
        if not gpus:
            raise ValueError(f"Ray node {name} is left out: it has no GPU for --device {settings.place.device}.")
        share = min(1.0, int(gpus / limit * 1000) / 1000)
    return Node(described["NodeID"], name, limit, share, bytes_)


def memory_of(spec: Mapping[str, Any]) -> int:
    """Bytes that a step of this spec may take: a process, and its images decoded, dealt out and in batches."""
    images = spec.get("owner") or IMAGES.get(spec.get("dataset", ""), DEFAULT_IMAGES)
    return PROCESS + 4 * IMAGE * int(images)


def _crashed_again(flight: _Flight, node: Node) -> _Flight:
    flight.crashes += 1
    flight.avoid.add(node.id)
    return flight


@contextmanager
def _asked(store: Store, steps: Sequence[Step], settings: Settings) -> Iterator[Question]:
    made = question(store.root, store.url, steps, settings.place)
    try:
        yield made
    finally:
        shutil.rmtree(made.folder, ignore_errors=True)


def _on_node(environment: Mapping[str, str], threads: int, fn: Callable[..., Any], *args: Any) -> Any:
    """What a task does on its node: the settings of the process that sent it, then its work."""
    os.environ.update(environment)
    torch.set_num_threads(threads)
    return fn(*args)


def _module() -> Any:
    """Ray, which tells nobody that it is used, and starts no worker at nice 15, where other work starves it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # of a cluster that this process starts
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise RegistryError(
            'Expected Ray to be installed for --executor ray: pip install "watermark-bench[ray]".'
        ) from error
    return ray


def _join(ray: Any, address: str | None) -> bool:
    """Join a cluster, or start one on this machine; false where this process is in one already.

    Ray's handler of SIGTERM, which would end this process before anything is written, is taken out again.
    """
    if ray.is_initialized():
        return False
    address = address or os.environ.get("RAY_ADDRESS")
    own = {} if address else {"num_cpus": cores(), "object_store_memory": OBJECTS, "include_dashboard": False}
    before = signal.getsignal(signal.SIGTERM)
    try:
        _answers(address)
        ray.init(address or "local", log_to_driver=False, configure_logging=False, **own)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RegistryError(f"Expected a Ray cluster at {address or 'this machine'}, but: {reason}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    return True


def _answers(address: str | None) -> None:
    """Ray would try for a minute, and then end the process.

    Raises:
        OSError: nothing listens at this HOST:PORT.
    """
    host, _, port = (address or "").rpartition(":")
    if port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
