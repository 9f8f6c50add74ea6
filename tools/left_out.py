"""Prints how often users whose images nobody trained on are claimed, scheme by scheme.

python tools/left_out.py [--profile quick] [--networks 6] [--users 10] [--dataset NAME --data-root DIR] [--device cuda]
    [SCHEME ...]

For each network, users are drawn as owners are, and it is trained on the training set without their images: fewer users
and more networks where users have large shares. Their claims should have p-values of at most a with probability at most
a. The run directory keeps what is done, so that the same command goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from math import ceil
from pathlib import Path

from scipy.stats import binomtest

from bench import data
from bench.plan.matrix import Request, expand
from bench.plan.profiles import PROFILES
from bench.plan.step import Step
from bench.registry import make, schemes
from bench.runner.rundir import RunDir
from bench.runner.store import Store
from bench.runner.worker import Task, compute
from bench.steps.workspace import Place

RATES = (0.01, 0.1)


def steps(args: argparse.Namespace) -> list[Step]:
    """The claims of left-out users, and what they need."""
    wanted: dict[str, Step] = {}
    for name in args.schemes or schemes():
        planned = expand(*asked(name, args))
        found = [cell.steps["left_out_claims"] for cell in planned if "left_out_claims" in cell.steps]
        wanted |= {step.key: step for claim in found for step in (*claim.inputs.values(), claim)}
    return list(wanted.values())


def asked(name: str, args: argparse.Namespace) -> tuple[Request, dict[str, str]]:
    """One scheme's networks, of as many users each as leave half of the training set, and the data set's checksum."""
    profile = PROFILES[args.profile]
    dataset = args.dataset or profile.dataset
    loaded = data.load(dataset, data_root=args.data_root, owner=profile.owner)
    scheme = make(schemes()[name], schemes()[name].card.scales.get(profile.name, {}))
    total = len(loaded.owner)
    users = max(1, min(args.users, total // 2 // scheme.share.count(total)))
    networks = ceil(args.networks * args.users / users)
    profile = replace(profile, left_out_owners=users, null_keys=users, trained_null_keys=users)
    request = Request((name,), ("none",), profile.archs, (dataset,), ("train",), profile, tuple(range(networks)))
    return request, {dataset: loaded.checksum}


def claims(args: argparse.Namespace) -> dict[str, list[float]]:
    """Scheme -> p-values, of all networks."""
    store, found = Store(RunDir(args.run_dir).store.root), dict[str, list[float]]()
    for step in steps(args):
        outcome = compute(
            Task(step.kind, step.key, step.identity, step.label), store.root, Place(args.device, args.data_root)
        )
        print(f"{outcome.seconds:6.1f} s  {step.label}{'  FAILED' if outcome.error else ''}", flush=True)
        if outcome.error:
            raise SystemExit(outcome.error)
        if step.kind == "left_out_claims":
            found.setdefault(step.spec["scheme"], []).extend(store.load(step.key).result["p_values"])
    return found


def row(name: str, p_values: list[float]) -> str:
    """One line: users, and at each rate the claims and their exact 95 % interval."""
    cells = [f"{name:22} {len(p_values):5}"]
    for rate in RATES:
        test = binomtest(sum(p <= rate for p in p_values), len(p_values), rate, alternative="greater")
        low, high = binomtest(test.k, test.n).proportion_ci()
        cells.append(f"{test.k:4} ({100 * low:4.1f} to {100 * high:4.1f} %), chance of as many {test.pvalue:.3f}")
    return " | ".join(cells)


def main() -> None:
    """Compute what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("schemes", nargs="*")
    parser.add_argument("--profile", default="quick", choices=PROFILES)
    parser.add_argument("--networks", type=int, default=6)
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--dataset")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/left-out"))
    args = parser.parse_args()
    found = claims(args)
    print(f"scheme                 users | p <= {RATES[0]} | p <= {RATES[1]}")
    for name in sorted(found):
        print(row(name, found[name]))


if __name__ == "__main__":
    main()
