"""A real cluster of three nodes, one of which is killed while it trains: nothing is lost, every number is the same."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import library
from bench.plan.plan import Plan
from bench.runner import coordinator
from bench.runner.coordinator import Summary, execute
from bench.runner.estimate import Durations
from bench.runner.executors import Settings
from bench.runner.rundir import RunDir
from bench.runner.worker import Outcome, Task, compute
from bench.steps.workspace import Place

pytest.importorskip("ray", reason='needs Ray: pip install "watermark-bench[ray]"')
from bench.runner.ray import Nodes, _module

SELECTED: Any = {
    "scheme": "uchida-random,uchida-direct", "attack": "pruning", "profile": "smoke", "arch": "alexnet",
    "settings": ["pruning.ladder=40"],
}  # fmt: skip
SMALL: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}


def noted(task: Task, root: Path, *args: Any) -> Outcome:
    """`compute`, which leaves word of when it begins and ends."""
    _note(root, "begins", task.key)
    outcome = compute(task, root, *args)
    _note(root, "ends", task.key)
    return outcome


def _note(root: Path, word: str, key: str) -> None:
    with (root.parent / f"{word}.txt").open("a") as file:
        file.write(f"{key}\n")


class Observed(Nodes):
    """Remembers itself, for a test to look at what is where."""

    made: Nodes | None = None

    def __init__(self, *args: Any) -> None:
        type(self).made = self
        super().__init__(*args)


class Silent:
    """Watches and says nothing."""

    def started(self, step: object) -> None: ...
    def finished(self, step: object, outcome: object) -> None: ...
    def settled(self, record: object) -> None: ...


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Cluster(initialize_head=True, head_node_args=SMALL)
        for _ in range(2):
            made.add_node(**SMALL)
        made.wait_for_nodes()
        yield made
        made.shutdown()


def run(run_dir: RunDir, settings: Settings) -> Summary:
    plan: Plan = library.plan(run_dir.path, **SELECTED)
    return execute(plan, run_dir, settings, Silent(), Durations(run_dir.durations, probe=lambda: 1.0))


def kill_one_that_trains(cluster: Any, run_dir: RunDir, killed: list[tuple[str, str]]) -> None:
    """Kill the node, not the head, that is in the middle of a training; remember it and the step."""
    others = {node.node_id: node for node in cluster.worker_nodes}
    deadline = time.monotonic() + 120
    while not killed and time.monotonic() < deadline:
        time.sleep(0.01)
        for flight in list(Observed.made._running.values()) if hasattr(Observed.made, "_running") else ():
            step, node = flight.task, flight.node.id
            if step.kind in ("control", "mark") and node in others and run_dir.store.epoch(step.key):
                killed.append((node, step.key))
                cluster.remove_node(others[node], allow_graceful=False)
                break


def test_a_node_that_is_killed_in_the_middle_costs_its_step_alone(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "compute", noted)
    monkeypatch.setattr("bench.runner.ray.Nodes", Observed)
    there, killed = RunDir(tmp_path / "ray"), list[tuple[str, str]]()
    (tmp_path / "ray").mkdir()
    killer = threading.Thread(target=kill_one_that_trains, args=(cluster, there, killed))
    killer.start()
    summary = run(there, Settings(Place(), executor="ray", threads=1, address=cluster.address))
    killer.join()
    ((_, lost),) = killed
    keys = [step.key for step in library.plan(there.path, **SELECTED).steps]
    began, ended = (Counter((there.path / f"{word}.txt").read_text().split()) for word in ("begins", "ends"))
    assert ended == Counter(keys), "every step ended once"
    assert began == Counter([*keys, lost]), "and began once, but the one that was killed"
    assert (summary.computed, summary.cached, summary.stopped, summary.failures) == (len(keys), 0, False, {})
    assert [note for note in summary.notes if "was lost: its steps were started again on other nodes" in note]
    here = RunDir(tmp_path / "local")
    local = run(here, Settings(Place(), threads=1))
    assert {record.status for record in summary.records} == {"ok"}
    assert {r.cell_key: r.findings() for r in summary.records} == {r.cell_key: r.findings() for r in local.records}
    assert not list(there.store.root.glob(".probe-*"))
    again = run(there, Settings(Place(), executor="ray", threads=1, address="127.0.0.1:1"))
    assert (again.computed, again.cached) == (0, len(keys)), "and a second run needs no cluster"


def test_a_cluster_of_its_own_has_workers_of_the_usual_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's default is nice 15; what a person says counts."""
    for given, wanted in ((None, "0"), ("5", "5")):
        monkeypatch.setenv("RAY_worker_niceness", given or "")
        if given is None:
            monkeypatch.delenv("RAY_worker_niceness")
        _module()
        assert os.environ.get("RAY_worker_niceness", "") == wanted  # noqa: SIM112  # this is its name
