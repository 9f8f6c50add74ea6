"""The command `bench stamp`: a mark on every picture of a person's own folder."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import rich_click as click

from bench.cli.common import FiniteRange, console, sentences

if TYPE_CHECKING:
    from rich.console import Console

    from bench.api import Key, Scheme
    from bench.stamping import Report

__all__ = ["COMMANDS", "device_of", "device_option", "folder_option"]

STAMPING = ("deepstamp", "visible-displacement", "visible-opacity", "visible-static")


class SideType(click.ParamType):
    """`native`, or a number of pixels."""

    name = "native|PIXELS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """None for `native`."""
        if value is None or value == "native":
            return None
        if not str(value).isdecimal() or not 8 <= int(value) <= 8192:
            self.fail(f'Expected native or a number of pixels from 8 to 8192, but got "{value}".', param, ctx)
        return int(value)


def folder_option(name: str, words: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A required option that names a folder which exists."""
    kind = click.Path(path_type=Path, exists=True, file_okay=False)
    return click.option(name, type=kind, required=True, help=words)


device_option = click.option(
    "--device", default="auto", help="cpu, cuda, cuda:1 ...; auto takes a GPU where there is one."
)


@click.command()
@click.option("--scheme", "name", default="visible-static", help=f"{', '.join(STAMPING)}, or a plug-in's.")
@folder_option("--images", "Folder of PNG, JPEG, WebP, BMP and TIFF files, however nested; it is only read.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Where the stamped pictures go, under the same relative paths; apart from --images.",
)
@click.option(
    "--watermark",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=None,
    help="The mark, a PNG with transparency.  [default: the scheme's built-in one]",
)
@click.option(
    "--blend",
    type=FiniteRange(0, 1, min_open=True),
    default=None,
    help="How strongly the mark covers a picture.  [default: the scheme's]",
)
@click.option("--set", "settings", multiple=True, metavar="NAME.PARAM=VALUE", help="Set a parameter of the scheme.")
@click.option(
    "--size",
    "side",
    type=SideType(),
    default="native",
    help="native keeps each picture's size; a number resizes every picture to so many pixels square first.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["png", "keep"]),
    default="png",
    help="png loses nothing; keep writes each file's own format, and JPEG (quality 95) is lossy: the mark suffers.",
)
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path),
    default=None,
    help="The secret key: a .safetensors file, or a folder for one; used again if it exists.  [default: OUT.key]",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=None,
    help="Make the key from this number, for experiments: whoever guesses it has the key.  [default: unguessable]",
)
@click.option("--arch", default="wrn-10-1", help="Classifier that a learned mark (deepstamp) is trained against.")
@click.option(
    "--profile", default="quick", help="How that classifier and the mark are trained: smoke, quick, small, standard ..."
)
@click.option("--batch", type=click.IntRange(1, 65_536), default=256, help="Stamp at most so many pictures at once.")
@click.option("--overwrite", is_flag=True, help="Write again what an earlier command wrote, instead of going on.")
@device_option
@sentences
def stamp(
    images: Path, out: Path, form: Literal["png", "keep"], side: int | None, batch: int, overwrite: bool, **options: Any
) -> None:
    """Put a visible mark on every picture of a folder, and write the secret key that proves it is yours.

    Pictures become RGB with 8 bits: transparency is laid over white, EXIF rotation is applied and then dropped with
    all other EXIF data, and of an animation the first frame is taken. The same command again goes on where it stopped
    and writes the same bytes. Files that are no pictures are skipped and named at the end. The hidden file
    .stamped.json in --out holds the key's SHA-256: published with the pictures, it ties the key to them.

    A learned mark (deepstamp) is trained against a classifier, and that on at most 2,000 of your own pictures at 32 x
    32. Its labels are your class folders; where there are none, it learns clusters of coarse colours (k-means)
    instead, so that the mark keeps what makes pictures differ.
    """
    from bench.stamping import check_apart, survey
    from bench.stamping.keyfile import key_path
    from bench.stamping.session import Folder, Wish

    check_apart(images, out)
    options["profile"] = _profile(options["profile"])
    device, scheme = device_of(options["device"]), _scheme(options)
    looked, beside = survey(images, out, form), out.resolve()
    path = key_path(options["key_file"] or beside.with_name(f"{beside.name}.key"))
    folder = Folder(out, looked, side, form)
    folder.check(path, overwrite)
    say = functools.partial(console(stderr=True).print, soft_wrap=True)
    key = Wish(
        scheme, images, looked, side, options["seed"], options["arch"], options["profile"], device, say
    ).key(path)  # fmt: skip
    folder.check(path, overwrite)
    _about_the_key(path, out, folder.begin(path))
    start_s = time.perf_counter()
    report = _stamped(
        scheme, key, images, out, looked.total, form=form, side=side, batch=batch, device=device, overwrite=overwrite
    )
    _summary(report, looked.others, out, time.perf_counter() - start_s)


def _about_the_key(path: Path, out: Path, digest: str) -> None:
    """Said first: whatever happens to the pictures, the key's place is known."""
    from bench.data.walking import shown

    say = functools.partial(console().print, soft_wrap=True)
    say(f"Key: {shown(path)}. Keep this secret, it is the proof.")
    if out.resolve() in path.resolve().parents:
        say(f"Move it elsewhere before you publish {shown(out)}.")
    say(f"Digest to publish with the pictures: {digest}")


def _stamped(scheme: Any, key: Key, images: Path, out: Path, total: int, **how: Any) -> Report:
    from bench.stamping import stamp_all

    out_ = console(stderr=True)
    with Bar(total, out_) as bar:
        try:
            return stamp_all(scheme, key, images, out, tell=bar.tell, **how)
        except KeyboardInterrupt:
            out_.print("Interrupted. What is written is kept: the same command goes on from there.")
            sys.exit(130)


COMMANDS = (stamp,)


class Bar:
    """A live bar on a terminal, a line for each tenth in a log file."""

    def __init__(self, total: int, out: Console) -> None:
        from rich import progress as bars

        from bench.cli.progress import live_columns

        columns = live_columns(out, "{task.completed:,.0f}/{task.total:,.0f}")
        self._bar = bars.Progress(*columns, console=out, transient=True, expand=True, disable=not out.is_terminal)
        self._task = self._bar.add_task("", total=total)
        self._total, self._out, self._tenth, self._start_s = total, out, 0, time.perf_counter()

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def tell(self, done: int) -> None:
        """So many files are dealt with."""
        from bench.cli.computing import duration

        spent_s = time.perf_counter() - self._start_s
        left_s = spent_s * (self._total - done) / max(1, done)
        words = f"{done / max(spent_s, 1e-9):,.0f} pictures/s, about {duration(left_s)} left"
        self._bar.update(self._task, completed=done, description=words)
        if not self._out.is_terminal and 10 * done // self._total > self._tenth:
            self._tenth = 10 * done // self._total
            self._out.print(f"[{done:,}/{self._total:,}] {words}")


def device_of(asked: str) -> str:
    """The device that was asked for, or the best one."""
    from bench.runner.executors import pick_device

    try:
        return pick_device(asked)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _profile(asked: str) -> str:
    from bench.plan.profiles import PROFILES
    from bench.registry import choose

    return choose(asked, dict.fromkeys(PROFILES, ()), "a profile")[0]


def _scheme(options: Mapping[str, Any]) -> Scheme:
    """The scheme that was asked for, with its parameters; it can stamp."""
    from bench.plan.selection import overrides
    from bench.registry import choose
    from bench.stamping.session import able, scheme_to_stamp

    name = choose(options["name"], dict.fromkeys(able(), ()), "a scheme that stamps pictures")[0]
    given = {param: str(options[param]) for param in ("blend", "watermark") if options[param] is not None}
    return scheme_to_stamp(name, options["profile"], overrides(options["settings"], [name]).get(name, {}) | given)


def _summary(report: Report, others: Report, out: Path, seconds: float) -> None:
    from bench.cli.computing import duration
    from bench.data.walking import shown

    say = functools.partial(console().print, soft_wrap=True)
    rate = f" ({report.stamped / max(seconds, 1e-9):,.0f} pictures/s)" if report.stamped else ""
    kept = f", {report.kept:,} were there already" if report.kept else ""
    pictures = "picture" if report.stamped == 1 else "pictures"
    say(f"{report.stamped:,} {pictures} stamped in {duration(seconds)}{rate}{kept}: {shown(out)}")
    if report.converted:
        say("Converted: " + ", ".join(f"{count:,} {note}" for note, count in report.converted.most_common()) + ".")
    for found, words in ((report, "unreadable"), (others, "of other kinds")):
        if found.skipped:
            more = ", ..." if found.skipped > len(found.named) else ""
            say(f"Skipped {found.skipped:,} {words}: {', '.join(found.named)}{more}.")
