"""What happens to steps on nodes that are lost, short of memory, or different, by a Ray of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.registry import RegistryError
from bench.runner import probe
from bench.runner import ray as nodes_module
from bench.runner.executors import NodesLostError, Settings, device_of
from bench.runner.probe import Answer, differences, examine, facts, question
from bench.runner.ray import Nodes, limit_of, memory_of
from bench.runner.store import Store
from bench.runner.worker import Outcome, Task, compute
from bench.steps.workspace import Place
from tests.fakes import on_digits

GIB = 1 << 30


class _Errors:
    """The exceptions of Ray, in the order of their classes there."""

    class RayError(Exception): ...

    class RayTaskError(RayError): ...

    class WorkerCrashedError(RayError): ...

    class OutOfMemoryError(RayError): ...

    class GetTimeoutError(RayError): ...


class _Ref:
    """What is computed when it is got."""

    def __init__(self, get: Callable[[], Any]) -> None:
        self.get = get


class FakeRay:
    """Computes at once what is sent, in this process, and keeps where; `behave` may raise what Ray would.

    Attributes:
        sent: node and resources of each step.
    """

    exceptions = _Errors
    util = SimpleNamespace(
        scheduling_strategies=SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: (node, soft))
    )

    def __init__(self, nodes: list[dict[str, Any]], behave: Callable[[str, Task], Outcome | None]) -> None:
        self.described, self.behave = nodes, behave
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.held = threading.Event()
        self.held.set()

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return self.described

    def kill(self, node: str) -> None:
        for each in self.described:
            each["Alive"] = each["Alive"] and each["NodeID"] != node

    def remote(self, **options: Any) -> Any:
        (node, soft), rest = options.pop("scheduling_strategy"), options
        assert not soft
        assert rest.pop("max_retries") == rest.pop("max_calls") == 0

        def send(environment: dict[str, str], threads: int, fn: Any, *args: Any) -> Any:
            if isinstance(args[0], probe.Question):
                return _Ref(lambda: fn(*args))
            self.sent.append((node, rest))
            return _Ref(lambda: self.behave(node, args[0]) or Outcome(args[0].key, 1.0))

        return lambda _: SimpleNamespace(remote=send)

    def wait(self, refs: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        if not self.held.wait(timeout):
            return [], refs
        return refs[:num_returns], refs[num_returns:]

    def get(self, ref: Any, timeout: float | None = None) -> Any:
        return ref.get()

    def cancel(self, ref: Any, force: bool) -> None: ...


def described(name: str, cpus: float = 2, **resources: float) -> dict[str, Any]:
    return {
        "NodeID": name, "NodeManagerAddress": f"10.0.0.{name}", "Alive": True,
        "Resources": {"CPU": cpus, "memory": 64 * GIB, **resources},
    }  # fmt: skip


class Cluster:
    """Nodes that run, and what they said."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tmp_path, self.monkeypatch = tmp_path, monkeypatch
        self.said: list[str] = []
        self.pool: Nodes | None = None
        monkeypatch.setattr(nodes_module, "POLL_S", 0.01)

    def start(self, ray: FakeRay, jobs: int = 1, device: str = "cpu") -> Nodes:
        self.monkeypatch.setattr(nodes_module, "_module", lambda: ray)
        settings = Settings(Place(device), jobs=jobs, executor="ray", threads=1)
        self.pool = Nodes(settings, Store(self.tmp_path), list(on_digits().steps.values()), self.said.append)
        return self.pool

    def send(self, *keys: str) -> list[Future[Outcome]]:
        assert self.pool is not None
        return [self.pool.submit(compute, Task("host", key, {"spec": {}}, key), self.tmp_path, Place()) for key in keys]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    made = Cluster(tmp_path, monkeypatch)
    yield made
    if made.pool is not None:
        made.pool.shutdown()


def well(node: str, task: Task) -> Outcome | None:
    return None


def test_steps_are_spread_and_no_node_has_more_than_its_limit(cluster: Cluster) -> None:
    ray = FakeRay([described("1"), described("2"), described("3", cpus=0), described("4", cpus=1)], well)
    pool = cluster.start(ray, jobs=2)
    assert pool.slots == 2 + 2 + 1, "a head without processors gets no work, and is no trouble"
    ray.held.clear()
    futures = cluster.send(*"abcdefgh")
    assert sorted(node for node, _ in ray.sent) == ["1", "1", "2", "2", "4"]
    ray.held.set()
    assert [future.result(5).key for future in futures] == list("abcdefgh")
    assert {tuple(options) for _, options in ray.sent} == {("num_cpus", "num_gpus", "memory")}
    assert cluster.said == []


def test_steps_of_a_lost_node_go_to_the_others_and_it_is_named_once(cluster: Cluster) -> None:
    ray = FakeRay([described("1"), described("2")], well)

    def lost(node: str, task: Task) -> Outcome | None:
        if node == "1":
            ray.kill("1")
            raise _Errors.WorkerCrashedError("gone")
        return None

    ray.behave = lost
    cluster.start(ray, jobs=2)
    assert [future.result(5).error for future in cluster.send(*"abcdef")] == [None] * 6
    assert len(cluster.said) == 1
    assert "Ray node 10.0.0.1 (1) was lost" in cluster.said[0]
    assert cluster.pool is not None
    assert cluster.pool.slots == 2


def test_with_the_last_node_lost_no_step_has_failed(cluster: Cluster) -> None:
    ray = FakeRay([described("1")], well)

    def lost(node: str, task: Task) -> Outcome | None:
        ray.kill(node)
        raise _Errors.RayError("gone")

    ray.behave = lost
    cluster.start(ray)
    for future in cluster.send("a", "b"):
        with pytest.raises(NodesLostError):
            future.result(5)


def test_a_step_that_kills_its_worker_fails_after_tries_on_several_nodes(cluster: Cluster) -> None:
    tried = []

    def dies(node: str, task: Task) -> Outcome | None:
        tried.append(node)
        raise _Errors.WorkerCrashedError("died")

    cluster.start(FakeRay([described(name) for name in "123"], dies))
    outcome = cluster.send("a")[0].result(5)
    assert "died 3 times" in (outcome.error or "")
    assert "fewer --jobs" in (outcome.error or "")
    assert sorted(tried) == ["1", "2", "3"]


@pytest.mark.parametrize("killed", [True, False])
def test_memory_that_is_short_is_tried_with_fewer_steps_then_named(cluster: Cluster, killed: bool) -> None:
    limits = []

    def starve(node: str, task: Task) -> Outcome | None:
        assert cluster.pool is not None
        limits.append(cluster.pool.slots)
        if killed:
            raise _Errors.OutOfMemoryError("killed by the memory monitor")
        return Outcome(task.key, 1.0, "torch.OutOfMemoryError: lower --jobs", starved=True)

    cluster.start(FakeRay([described("1", cpus=4)], starve), jobs=4)
    outcome = cluster.send("a")[0].result(5)
    assert limits == [4, 2, 1]
    assert outcome.starved
    assert "--jobs" in (outcome.error or "")
    assert len(cluster.said) == 2
    assert "at most 2 steps at a time" in cluster.said[0]


def test_a_node_that_cannot_run_our_code_fails_the_step_with_its_words(cluster: Cluster) -> None:
    def broken(node: str, task: Task) -> Outcome | None:
        raise _Errors.RayTaskError("ModuleNotFoundError: No module named 'bench'")

    cluster.start(FakeRay([described("1")], broken))
    with pytest.raises(RuntimeError, match="No module named 'bench'"):
        cluster.send("a")[0].result(5)


def test_a_node_that_differs_is_named_and_left_out(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_on_2(asked: probe.Question, name: str) -> Answer:
        answer = examine(asked, name)
        return Answer({**answer.versions, "torch": "1.0"}, ("bench.identity",), ()) if name == "2" else answer

    ray = FakeRay([described("1"), described("2")], well)
    monkeypatch.setattr(nodes_module, "examine", other_on_2)
    cluster.start(ray)
    (said,) = cluster.said
    assert said.startswith("Ray node 10.0.0.2 (2) is left out: torch 1.0 instead of ")
    assert said.endswith("; other source of bench.identity.")
    assert [future.result(5).error for future in cluster.send("a", "b")] == [None, None]
    assert {node for node, _ in ray.sent} == {"1"}
    assert list(cluster.tmp_path.glob(".probe-*")) == []


def test_without_any_node_that_can_help_there_is_one_sentence(cluster: Cluster) -> None:
    with pytest.raises(RegistryError, match=r"none\. Ray node .* has no GPU for --device cuda\.$"):
        cluster.start(FakeRay([described("1")], well), device="cuda")


@pytest.mark.parametrize(
    ("resources", "jobs", "threads", "device", "limit", "gpus"),
    [
        ({"cpus": 16}, 4, 2, "cpu", 4, 0.0),
        ({"cpus": 16}, 64, 4, "cpu", 4, 0.0),
        ({"cpus": 16, "memory": 4 * GIB}, 16, 1, "cpu", 5, 0.0),
        ({"cpus": 16, "memory": GIB / 2}, 16, 1, "cpu", 1, 0.0),
        ({"cpus": 16, "GPU": 1}, 1, 4, "cuda", 1, 1.0),
        ({"cpus": 16, "GPU": 1}, 3, 4, "cuda", 3, 0.333),
        ({"cpus": 16, "GPU": 8}, 8, 2, "cuda", 8, 1.0),
        ({"cpus": 16, "GPU": 8}, 4, 2, "cuda", 4, 1.0),
    ],
)
def test_a_nodes_limit_and_its_share_of_a_gpu(
    resources: dict[str, float], jobs: int, threads: int, device: str, limit: int, gpus: float
) -> None:
    settings = Settings(Place(device), jobs=jobs, executor="ray", threads=threads)
    node = limit_of(described("1", **resources), settings, memory=3 << 28)
    assert (node.limit, node.gpus) == (limit, gpus)


def test_a_node_with_too_few_processors_is_told_apart() -> None:
    settings = Settings(Place(), jobs=1, executor="ray", threads=4)
    with pytest.raises(ValueError, match=r"it has 2 CPU, and a step takes 4 threads: give fewer --threads"):
        limit_of(described("1"), settings, memory=1)


def test_more_images_take_more_memory() -> None:
    assert memory_of({"owner": 300}) < memory_of({"dataset": "cifar10"}) < memory_of({"dataset": "tiny-imagenet"})


@pytest.mark.parametrize(
    ("workers", "devices", "expected"),
    [(4, [0, 1], [0, 1, 0, 1]), (2, [0, 1, 2, 3], [0, 1]), (3, [5], [5, 5, 5]), (5, [2, 7, 9], [2, 7, 9, 2, 7])],
)
def test_each_device_has_one_worker_before_any_has_two(workers: int, devices: list[int], expected: list[int]) -> None:
    assert [device_of(worker, devices) for worker in range(workers)] == expected


def test_a_worker_that_sees_no_device_says_so() -> None:
    with pytest.raises(ValueError, match="this worker sees none"):
        device_of(0, [])


def test_a_machine_that_sees_the_same_has_no_differences(tmp_path: Path) -> None:
    asked = question(tmp_path / "store", None, on_digits().steps.values(), Place())
    assert "bench.steps.host" in asked.sources
    assert set(asked.data) == {"digits-m"}
    assert differences(asked, "n1", examine(asked, "n1")) == []


def test_each_difference_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = question(tmp_path, None, on_digits().steps.values(), Place())
    monkeypatch.setattr(probe, "changed", lambda sources: ["a", "b", "c", "d"])
    monkeypatch.setattr(probe, "checksum", lambda name, **_: "other")
    answer = examine(asked, "n1")
    monkeypatch.setattr(probe, "facts", lambda: {**facts(), "Pillow": "1.0", "Python": "2.7"})
    ours, theirs = probe.facts(), answer.versions
    assert differences(asked, "n1", answer) == [
        f"Python {theirs['Python']} instead of 2.7", f"Pillow {theirs['Pillow']} instead of {ours['Pillow']}",
        "other source of a, b, c and 1 more", "other images of digits-m",
    ]  # fmt: skip


def test_a_machine_with_another_disk_is_named(tmp_path: Path) -> None:
    asked = question(tmp_path / "here", None, on_digits().steps.values(), Place())
    (unseen,) = examine(probe.Question(None, tmp_path / "absent" / "x", {}, {}, Place()), "n1").troubles
    assert unseen.startswith("it does not see the store")
    (asked.folder / "n2").mkdir()
    (unwritable,) = examine(probe.Question(None, asked.folder, {}, {}, Place()), "n2").troubles
    assert unwritable.startswith("it cannot write the store")
    (elsewhere,) = differences(asked, "n3", Answer(facts(), (), ()))
    assert elsewhere.startswith("what it writes into")


def test_machines_that_share_a_url_need_no_common_disk(tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'shared'}"
    asked = question(tmp_path / "here", url, on_digits().steps.values(), Place())
    there = replace(asked, folder=tmp_path / "there" / "probe")
    assert differences(asked, "n1", examine(there, "n1")) == []
    (tmp_path / "file").write_text("")
    (unusable,) = examine(replace(there, url=f"file://{tmp_path / 'file'}"), "n1").troubles
    assert str(tmp_path / "file") in unusable
