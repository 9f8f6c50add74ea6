"""`bench verify-images`: does a folder of pictures carry the mark of a key?"""

from __future__ import annotations

import functools
import json
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from bench.cli.common import FiniteRange, console, sentences
from bench.cli.stamp import device_of, device_option, folder_option

if TYPE_CHECKING:
    from bench.api import Key, Scheme, Verdict
    from bench.stamping import Size
    from bench.stamping.keyfile import About

__all__ = ["COMMANDS"]


def _examined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Whatever goes wrong ends with exit status 2: status 1 is an answer."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except click.ClickException:
            raise
        except KeyboardInterrupt:
            sys.exit(130)
        except Exception as error:
            traceback.print_exc()
            raise click.UsageError(f"The pictures could not be examined: {type(error).__name__}: {error}") from error

    return wrapped


@click.command("verify-images")
@click.option("--key", "key_file", type=click.Path(path_type=Path), required=True, help="What `bench stamp` wrote.")
@folder_option("--images", "Folder of the pictures in question, however nested.")
@click.option("--fpr", type=FiniteRange(0, 1, True, True), default=0.01, help="False positive rate of the answer.")
@click.option("--samples", type=click.IntRange(1, 100_000), default=500, help="Examine at most so many pictures.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Which ones are drawn.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME.PARAM=VALUE",
    help="Set a parameter of the scheme: more decoys allow a smaller p-value.",
)  # fmt: skip
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", help="How to answer.")
@device_option
@_examined
@sentences
def verify_images(
    key_file: Path, images: Path, fpr: float, samples: int, seed: int, style: str, **options: Any
) -> None:
    """Say whether a folder of pictures carries the mark of a key: its p-value and the scheme's evidence.

    Pictures of another size than the key was made for are resized to it, and the answer says how many. Exit status: 0
    detected, 1 not detected, 2 usage or an error.
    """
    from bench.api import Rng
    from bench.stamping import Report, sample, survey
    from bench.stamping.keyfile import load_key

    place = device_of(options["device"])
    key, about = load_key(key_file)
    scheme, report = _scheme_of(about, options["settings"]), Report()
    total = survey(images).total
    rng = Rng("verify-images", seed)
    pictures, _, resized = sample(images, total, samples, rng, about.size, report)
    verdict = _verdict(scheme, key, pictures, place)
    answer: dict[str, Any] = {
        "scheme": about.scheme,
        "images": len(pictures),
        "of": total,
        "resized": resized,
        "skipped": report.skipped,
        "p_value": verdict.p_value,
        "fpr": fpr,
        "detected": verdict.p_value <= fpr,
        "statistic": verdict.statistic,
        "details": verdict.details,
    }
    if style == "json":
        click.echo(json.dumps(answer))
    else:
        _show(answer, about.size)
    sys.exit(0 if answer["detected"] else 1)


COMMANDS = (verify_images,)


def _scheme_of(about: About, settings: tuple[str, ...]) -> Scheme:
    from bench.cli.common import overrides
    from bench.registry import make, schemes, unknown
    from bench.stamping import StampError

    known = schemes()
    if about.scheme not in known:
        raise StampError(unknown(about.scheme, known, "the key of a scheme that is installed"))
    return make(known[about.scheme], about.params | overrides(settings, [about.scheme]).get(about.scheme, {}))


def _verdict(scheme: Scheme, key: Key, pictures: Any, device: str) -> Verdict:
    import torch

    from bench.api import ImageSet, Suspect

    images = ImageSet(pictures, torch.zeros(len(pictures), dtype=torch.int64)).to(device)
    with torch.no_grad():
        return scheme.verify(Suspect(scheme.card.access, images=images), key.to(device))


def _show(answer: Mapping[str, Any], size: Size) -> None:
    from rich.table import Table

    table = Table(show_header=False)
    table.add_row("answer", "DETECTED" if answer["detected"] else "not detected", style="bold")
    table.add_row("p-value", f"{answer['p_value']:.3g} (false positive rate {answer['fpr']:g})")
    table.add_row("statistic", f"{answer['statistic']:.4g}")
    table.add_row("scheme", answer["scheme"])
    skipped = f", {answer['skipped']:,} not readable" if answer["skipped"] else ""
    table.add_row("pictures examined", f"{answer['images']:,} of {answer['of']:,}{skipped}")
    table.add_row("resized", f"{answer['resized']:,} to {size[1]} x {size[0]}, the key's size")
    for name, value in answer["details"].items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    console().print(table)
