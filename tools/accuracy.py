"""Test accuracy of stored networks on all images that nobody was trained on, where a profile measures it on a part.

python tools/accuracy.py RUN_DIR --data-root DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import archs, data
from bench.identity import Rng
from bench.records.files import load_record
from bench.runner.store import Store
from bench.steps import training


def accuracy(store: Store, key: str, root: Path | None) -> float:
    """Of the network that a step left."""
    stored = store.load(key)
    spec = stored.meta["identity"]["spec"]
    sizes = {part: spec[part] for part in ("owner", "adversary", "heldout")}
    images = data.load(spec["dataset"], data_root=root, **sizes)
    model = archs.build(spec["arch"], len(images.card.classes), width=spec["width"], rng=Rng("replaced"))
    model.load_state_dict(stored.tensors("model"))
    return training.accuracy(model.eval(), images.unseen)


def main() -> None:
    """Print a line per marked network: its accuracy, and what it lost against the clean host of its seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--data-root", type=Path)
    asked = parser.parse_args()
    store, known = Store(asked.run_dir / "store"), dict[str, float]()
    for path in sorted((asked.run_dir / "records").rglob("*.json")):
        record = load_record(path)
        if record.status == "ok" and record.cell.attack == "none":
            host, mark = (record.provenance.steps[name] for name in ("host", "mark"))
            for key in (host, mark):
                known[key] = known[key] if key in known else accuracy(store, key, asked.data_root)
            cell = record.cell
            blend = cell.scheme_params.get("blend", "")
            print(
                f"{cell.arch}\t{cell.scheme}\t{blend}\t{cell.seed}\t{100 * known[mark]:.2f}"
                f"\t{100 * (known[mark] - known[host]):+.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
