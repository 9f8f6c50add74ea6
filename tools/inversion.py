"""Compares the patterns that model inversion recovers with the owner's: on the marked model and on the clean host.

Zhang et al. 2018, section 5.5, say that their triggers were not recovered. Two numbers decide it: the normalised
correlation of the recovered change with the owner's (the mean of triggers minus sources), and the share of images of
the source class that the recovered change turns into the target; each beside the same on a network without the mark.
They need the owner's key, which the attack `model-inversion` is not handed.

    python -m tools.inversion --scheme zhang-content --profile quick --run-dir runs
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from bench.contract.images import pixels
from bench.contract.networks import predict
from bench.contract.verdict import Point
from bench.plan.selection import cells_of
from bench.runner.rundir import RunDir
from bench.steps.chain import unattacked, walk
from bench.steps.judge import State
from bench.steps.ownership import published_images
from bench.steps.scheme_workspace import SchemeWorkspace
from bench.steps.workspace import Place

__all__ = ["correlation", "recovered"]

ATTACK = "model-inversion"


def correlation(one: Tensor, other: Tensor) -> float:
    """Normalised cross-correlation of two tensors of one shape: 1 alike, 0 unrelated; 0 where one is constant."""
    a, b = (tensor.double().flatten() - tensor.double().mean() for tensor in (one, other))
    return float(a @ b / (a.norm() * b.norm()).clamp_min(1e-12))


def recovered(workspace: SchemeWorkspace, network: Callable[[], nn.Module]) -> Iterator[tuple[float, float, float]]:
    """Strength, correlation with the owner's pattern, and target rate on held-out images, at each rung.

    Args:
        workspace: of an attack step of `model-inversion`.
        network: gives the network that is inverted.
    """
    key: Any = workspace.keys()[0]
    rungs: list[tuple[float, Any]] = []

    def keep(state: State, strength: float, _: float) -> Point:
        rungs.append((strength, state.key))
        return Point(strength=strength)

    walk(workspace, unattacked(workspace, published_images(workspace, workspace.scheme, [key]), network), [key], keep)
    size = key.pool.shape[1]
    owners = (pixels(key.triggers[:size]) - pixels(key.pool[key.row])).mean(0)
    heldout = workspace.data.heldout
    fresh = pixels(heldout.images[heldout.labels == key.source])
    for strength, forged in rungs:
        change = forged.pattern["change"]
        answers = predict(network(), (fresh + change).clamp(0, 1)).argmax(1)
        yield strength, correlation(change, owners), float((answers == key.target).float().mean())


@click.command(help=__doc__)
@click.option("--scheme", default="zhang-*", show_default=True)
@click.option("--profile", default="quick", show_default=True)
@click.option("--dataset", help="The profile's where it is left out.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder with real data sets.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--run-dir", type=click.Path(path_type=Path), required=True, help="Of a finished run of these cells.")
def main(scheme: str, profile: str, dataset: str | None, data_root: Path | None, device: str, run_dir: Path) -> None:
    """Print a line for each rung and network."""
    store, place = RunDir(run_dir).store, Place(device, data_root)
    chosen = {"scheme": scheme, "attack": ATTACK, "profile": profile, "dataset": dataset, "data_root": data_root}
    for planned in cells_of({name: value for name, value in chosen.items() if value is not None}):
        step = planned.steps["attack"]
        if not all(store.has(needed.key) for needed in step.inputs.values()):
            continue  # of a seed that was not run
        workspace = SchemeWorkspace(step.spec, {name: store.load(s.key) for name, s in step.inputs.items()}, place)
        for name, kind in (("marked model", "mark"), ("clean host", "host")):
            for strength, alike, rate in recovered(workspace, partial(workspace.model, kind)):
                click.echo(f"{planned.cell.scheme} {name} {strength:g} steps: NCC {alike:+.3f}, target rate {rate:.3f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
