"""Asks another machine, before it gets work, whether it would compute the same as this one, and into the same store."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import PIL
import torch
from PIL import features

from bench.data.errors import DataError
from bench.data.loading import checksum
from bench.plan.fingerprint import changed
from bench.plan.step import Step
from bench.registry import attacks, schemes
from bench.runner.remote import RemoteError
from bench.runner.shared import store_at
from bench.steps.workspace import Place

__all__ = ["Answer", "Question", "differences", "examine", "facts", "question"]

TOKEN = "asked"


@dataclass(frozen=True)
class Question:
    """What a machine is asked.

    Attributes:
        url: where results are shared; None for a run directory that all nodes share.
        folder: in the store, with a token in the file `asked`; an answer repeats it in a file of its own.
        sources: module -> hash of all source behind the steps.
        data: data set -> checksum.
        place: where data sets are found.
    """

    url: str | None
    folder: Path
    sources: Mapping[str, str]
    data: Mapping[str, str]
    place: Place


@dataclass(frozen=True)
class Answer:
    """What a machine says of itself.

    Attributes:
        versions: of what decides a result: name -> version.
        changed: modules whose source is another here.
        troubles: sentences about the store and the data sets; empty where all is as the question says.
    """

    versions: Mapping[str, str]
    changed: tuple[str, ...]
    troubles: tuple[str, ...]


def question(root: Path, url: str | None, steps: Iterable[Step], place: Place) -> Question:
    """What to ask about these steps; leaves a token in the store. Its folder is the caller's to remove.

    Args:
        root: of the store.
        url: where it shares results; None for nowhere.
        steps: that are to be computed.
        place: where the machine finds data sets.

    Raises:
        OSError: the store cannot be written.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix=".probe-", dir=root))
    (folder / TOKEN).write_text(os.urandom(16).hex(), encoding="ascii")
    sources: dict[str, str] = {}
    data: dict[str, str] = {}
    for step in steps:
        sources |= step.sources
        data |= {step.spec["dataset"]: step.data, **step.spec.get("auxiliary", {})}
    return Question(url, folder, sources, data, place)


def facts() -> dict[str, str]:
    """The versions that decide a result, of this process."""
    jpeg = features.version("libjpeg_turbo") or features.version("jpg")
    return {
        "Python": platform.python_version(),
        "torch": str(torch.__version__),
        "Pillow": f"{PIL.__version__} (JPEG {jpeg})",
    }


def examine(asked: Question, name: str) -> Answer:
    """Answer, on the machine that is asked; decodes each data set, so that its workers find it in the cache.

    Args:
        asked: the question.
        name: of this machine, unique among those that are asked.
    """
    for load in (schemes, attacks):  # a plug-in's module exists once the registry has loaded it
        load()
    troubles = [*_store(asked, name), *_data(asked)]
    return Answer(facts(), tuple(changed(asked.sources)), tuple(troubles))


def differences(asked: Question, name: str, answer: Answer) -> list[str]:
    """Why a machine cannot help, as parts of a sentence; empty where it can.

    Args:
        asked: the question.
        name: under which it answered.
        answer: what it said.
    """
    ours = facts()
    found = [f"{what} {answer.versions.get(what)} instead of {ours[what]}" for what in ours
             if answer.versions.get(what) != ours[what]]  # fmt: skip
    if answer.changed:
        more = f" and {len(answer.changed) - 3} more" if len(answer.changed) > 3 else ""
        found.append(f"other source of {', '.join(answer.changed[:3])}{more}")
    found += answer.troubles
    if not answer.troubles and asked.url is None and _read(asked.folder / name) != _read(asked.folder / TOKEN):
        found.append(f"what it writes into {asked.folder.parent} is not seen here")
    return found


def _store(asked: Question, name: str) -> list[str]:
    if asked.url is not None:
        try:
            store_at(asked.folder.parent, asked.url).prepare()
        except (RemoteError, OSError) as error:
            return [str(error).rstrip(".")]
        return []
    token = _read(asked.folder / TOKEN)
    if token is None:
        return [
            f"it does not see the store {asked.folder.parent}: use a run directory that all nodes share, or --store"
        ]
    try:
        (asked.folder / name).write_text(token, encoding="ascii")
    except OSError as error:
        return [f"it cannot write the store {asked.folder.parent} ({error.strerror})"]
    return []


def _data(asked: Question) -> list[str]:
    troubles = []
    for name, wanted in asked.data.items():
        place = asked.place
        try:
            found = checksum(name, data_root=place.data_root, download=place.download, cache=place.cache)
        except DataError as error:
            troubles.append(str(error))
            continue
        if found != wanted:
            troubles.append(f"other images of {name}")
    return troubles


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return None
