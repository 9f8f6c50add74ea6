"""Draw what visible marks look like, and what is left of them after removal; print how well each was removed.

    python tools/pictures.py docs/visible.png --profile quick
    python tools/pictures.py /tmp/cifar.png --profile small --dataset cifar10 --data-root DIR

Keys and marks are steps of the matrix, computed in a run directory like those of `bench run`; no model is trained on
the marked images.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from bench.api import ImageSet, Point, Rng, Suspect
from bench.data import checksum
from bench.data.image_quality import marked_pixels, masked_psnr_db, residual_energy
from bench.plan.matrix import Request, expand
from bench.plan.profiles import PROFILES
from bench.plan.step import Step
from bench.runner.store import Store
from bench.runner.worker import Task, compute
from bench.steps.chain import unattacked, walk
from bench.steps.judge import State
from bench.steps.ownership import Published, published_images
from bench.steps.scheme_workspace import SchemeWorkspace
from bench.steps.workspace import Place

SCHEMES = ("visible-static", "visible-opacity", "visible-displacement", "deepstamp")
REMOVALS = ("removal-matting", "removal-median")
COUNT, SCALE, MARGIN = 10, 3, 190


def main() -> None:
    """Compute, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--profile", default="quick", choices=PROFILES)
    parser.add_argument("--arch", default="wrn")
    parser.add_argument("--dataset", default="digits-m")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--run-dir", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = list(_rows(asked, Store((asked.run_dir or Path(temporary)) / "store")))
    _draw(rows, asked.out)


def _rows(asked: argparse.Namespace, store: Store) -> Iterator[tuple[str, torch.Tensor]]:
    place = Place(data_root=asked.data_root)
    profile = PROFILES[asked.profile]
    sums = {asked.dataset: checksum(asked.dataset, data_root=asked.data_root)}
    request = Request(SCHEMES, ("none",), (asked.arch,), (asked.dataset,), ("train",), profile, (0,), null_keys=0)
    print(f"{'scheme':22}{'after':20}{'psnr of the mark':>18}{'residual':>10}{'p':>8}")
    for number, planned in enumerate(expand(request, sums)):
        workspace = _opened(planned.steps["mark"], store, place)
        keys = workspace.keys()
        published = published_images(workspace, workspace.scheme, keys)
        if number == 0:
            chosen = torch.randperm(len(published.originals), generator=Rng("pictures").torch())[:COUNT]
            yield "clean", published.originals[chosen]
        yield workspace.scheme.card.name, published.images.images[chosen]
        _tell(workspace, keys, published, "-", published.images)
        for name in REMOVALS:
            cleaned = _removed(workspace, keys, published, name)
            _tell(workspace, keys, published, name, cleaned)
            if name == REMOVALS[0]:
                yield f"  after {name}", cleaned.images[chosen]


def _opened(step: Step, store: Store, place: Place) -> SchemeWorkspace:
    """A step with its inputs computed; not the step itself, for nothing here needs the marked model."""
    for needed in step.inputs.values():
        _opened(needed, store, place)
        outcome = compute(Task(needed.kind, needed.key, needed.identity, needed.label), store.root, place)
        if outcome.error:
            raise SystemExit(outcome.error)
    return SchemeWorkspace(step.spec, {name: store.load(needed.key) for name, needed in step.inputs.items()}, place)


def _removed(workspace: SchemeWorkspace, keys: Any, published: Published, name: str) -> ImageSet:
    """The published images after a removal that knows the whole collection."""
    spec = {**workspace.spec, "attacks": [[name, {"ladder": [100.0]}]]}
    attacked = SchemeWorkspace(spec, workspace.inputs, workspace.place)
    reached: list[ImageSet] = []

    def keep(state: State, strength: float, _: float) -> Point:
        reached.append(state.images)
        return Point(strength=strength)

    walk(attacked, unattacked(attacked, published, torch.nn.Identity), keys, keep)
    return reached[-1]


def _tell(workspace: SchemeWorkspace, keys: Any, published: Published, name: str, shown: ImageSet) -> None:
    clean, marked = published.originals, published.images.images
    verdict = workspace.scheme.verify(Suspect("data set", images=shown), keys[0])
    psnr = masked_psnr_db(clean, shown.images, marked_pixels(clean, marked))
    left = residual_energy(clean, marked, shown.images)
    print(f"{workspace.scheme.card.name:22}{name:20}{psnr:15.1f} dB{left:10.3f}{verdict.p_value:8.3g}", flush=True)


def _draw(rows: list[tuple[str, torch.Tensor]], out: Path) -> None:
    side = rows[0][1].shape[-1] * SCALE
    picture = Image.new("RGB", (MARGIN + COUNT * (side + 4), len(rows) * (side + 4)), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    for y, (label, images) in enumerate(rows):
        pen.text((6, y * (side + 4) + side // 2 - 9), label, fill="black", font=font)
        for x, image in enumerate(images.cpu()):
            tile = Image.fromarray(image.movedim(0, -1).numpy()).resize((side, side), Image.Resampling.NEAREST)
            picture.paste(tile, (MARGIN + x * (side + 4), y * (side + 4)))
    picture.save(out, optimize=True)


if __name__ == "__main__":
    main()
