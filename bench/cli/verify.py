"""The command `bench verify-images`: whether a folder of pictures carries the mark of a key."""

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
    from bench.stamping.session import Examined

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
@click.option(
    "--digest", default=None, metavar="SHA256", help="The digest that was published; a key with another is refused."
)
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", help="How to answer.")
@device_option
@_examined
@sentences
def verify_images(
    key_file: Path, images: Path, fpr: float, samples: int, seed: int, style: str, digest: str | None, **options: Any
) -> None:
    """Say whether a folder of pictures carries the mark of a key: its p-value and the scheme's evidence.

    Pictures of another size than the key was made for are resized to it, and the answer says how many. Exit status: 0
    detected, 1 not detected, 2 usage or an error.
    """
    from bench.plan.selection import overrides
    from bench.stamping.keyfile import load_key
    from bench.stamping.session import examine_folder

    name = load_key(key_file)[1].scheme
    settings = overrides(options["settings"], [name]).get(name, {})
    found = examine_folder(
        key_file, images, samples=samples, seed=seed, overrides=settings, digest=digest,
        device=device_of(options["device"]),
    )  # fmt: skip
    answer = _answer(found, fpr)
    if style == "json":
        click.echo(json.dumps(answer))
    else:
        _show(answer, found)
    sys.exit(0 if answer["detected"] else 1)


COMMANDS = (verify_images,)


def _answer(found: Examined, fpr: float) -> dict[str, Any]:
    return {
        "scheme": found.about.scheme,
        "images": found.images,
        "of": found.total,
        "resized": found.resized,
        "skipped": found.skipped,
        "p_value": found.verdict.p_value,
        "fpr": fpr,
        "detected": found.verdict.p_value <= fpr,
        "statistic": found.verdict.statistic,
        "details": found.verdict.details,
        "key_digest": found.digest,
        "published_key": found.published,
    }


def _show(answer: Mapping[str, Any], found: Examined) -> None:
    from rich.table import Table

    size = found.about.size
    table = Table(show_header=False)
    table.add_row("answer", "DETECTED" if answer["detected"] else "not detected", style="bold")
    table.add_row("p-value", f"{answer['p_value']:.3g} (false positive rate {answer['fpr']:g})")
    table.add_row("statistic", f"{answer['statistic']:.4g}")
    table.add_row("scheme", answer["scheme"])
    skipped = f", {answer['skipped']:,} not readable" if answer["skipped"] else ""
    table.add_row("pictures examined", f"{answer['images']:,} of {answer['of']:,}{skipped}")
    table.add_row("resized", f"{answer['resized']:,} to {size[1]} x {size[0]}, the key's size")
    named = {None: "", True: ", which the folder's own note names", False: ", but the folder's own note names another"}
    table.add_row("digest of the key", f"{found.digest}{named[found.published]}")
    for name, value in answer["details"].items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    console().print(table)
