"""Makes pictures of the sample images that steps left in a store."""

from __future__ import annotations

import base64
import io
from collections.abc import Container, Iterable, Iterator

from torch import Tensor

from bench.records.pictures import PictureRow
from bench.records.record import CellRecord
from bench.runner.store import Store, StoreError
from bench.steps.samples import SAMPLES

__all__ = ["pictures"]


def pictures(records: Iterable[CellRecord], store: Store, known: Container[str]) -> Iterator[PictureRow]:
    """The pictures of the records' marks, and of what attacks on images left of them, one of each.

    Args:
        records: in any order; of equal marks the lowest seed is shown.
        store: where their steps are; those that are not there are passed over.
        known: what needs no new picture, by `PictureRow.about`.
    """
    seen: set[str] = set()
    for record in sorted(records, key=lambda each: (each.cell.seed, each.filename)):
        for step, names in (("mark", ("before", "after", "triggers")), ("attack", ("attacked",))):
            if record.status != "ok" or (step == "attack" and record.stage != "data"):
                continue
            wanted = [_row(record, name) for name in names]
            if all(row.about in seen or row.about in known for row in wanted):
                continue
            seen |= {row.about for row in wanted}
            found = _samples(store, record.provenance.steps.get(step))
            for name, row in zip(names, wanted, strict=True):
                if name in found and row.about not in known:
                    yield row.model_copy(update={"images": len(found[name]), "png": _strip(found[name])})


def _row(record: CellRecord, name: str) -> PictureRow:
    cell = record.cell
    what = cell.attack if name == "attacked" else name
    return PictureRow.model_construct(
        scheme=cell.scheme, scheme_params=cell.scheme_params, dataset=cell.dataset, profile=cell.profile, what=what
    )


def _samples(store: Store, key: str | None) -> dict[str, Tensor]:
    try:
        return store.load(key).tensors(SAMPLES) if key is not None and store.holds(key) else {}
    except StoreError:
        return {}


def _strip(images: Tensor) -> str:
    """N x C x H x W uint8 beside one another, as a PNG in base64."""
    from PIL import Image

    wide = images.permute(2, 0, 3, 1).flatten(1, 2)  # H x NW x C
    array = wide.expand(-1, -1, 3).contiguous().numpy() if wide.shape[2] == 1 else wide.contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
