"""`bench stamp` and `bench verify-images`: a person's own folder of pictures."""

from __future__ import annotations

import functools
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import rich_click as click

from bench.cli.common import console, sentences

if TYPE_CHECKING:
    from rich.console import Console

    from bench.api import Key, Scheme, Verdict
    from bench.keyfile import About
    from bench.stamping import Report, Size, Survey

__all__ = ["COMMANDS"]

Form = Literal["png", "keep"]
NOTE = ".stamped.json"


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
@click.option("--scheme", "name", default="visible-static", help="deepstamp, visible-static, visible-opacity ...")
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
    type=click.FloatRange(0, 1, min_open=True),
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
def stamp(images: Path, out: Path, form: Form, side: int | None, batch: int, overwrite: bool, **options: Any) -> None:
    """Put a visible mark on every picture of a folder, and write the secret key that proves it is yours.

    Pictures become RGB with 8 bits: transparency is laid over white, EXIF rotation is applied and then dropped with
    all other EXIF data, and of an animation the first frame is taken. The same command again goes on where it stopped
    and writes the same bytes. Files that are no pictures are skipped and named at the end. The hidden file
    .stamped.json in --out holds the key's SHA-256: published with the pictures, it ties the key to them.

    A learned mark (deepstamp) is trained against a classifier, and that on at most 2,000 of your own pictures at 32 x
    32. Its labels are your class folders; where there are none, it learns clusters of coarse colours (k-means)
    instead, so that the mark keeps what makes pictures differ.
    """
    from bench.keyfile import key_path
    from bench.stamping import check_apart, stamp_all, survey

    check_apart(images, out)
    options["profile"] = _profile(options["profile"])
    device, scheme = _device(options["device"]), _scheme(options)
    out_, looked = console(stderr=True), survey(images, out, form)
    beside = out.resolve()
    path = key_path(options["key_file"] or beside.with_name(f"{beside.name}.key"))
    say = functools.partial(out_.print, soft_wrap=True, markup=False)
    begun = functools.partial(_begun, out, path, looked, side, form, overwrite)
    begun()
    out.mkdir(parents=True, exist_ok=True)
    key = Request(scheme, images, looked, side, device, options, say).key(path)
    (out / NOTE).write_text(json.dumps(begun()) + "\n", encoding="utf-8")
    start_s = time.perf_counter()
    with Bar(looked.total, out_) as bar:
        try:
            report = stamp_all(
                scheme, key, images, out,
                form=form, side=side, batch=batch, device=device, overwrite=overwrite, tell=bar.tell,
            )  # fmt: skip
        except KeyboardInterrupt:
            out_.print("Interrupted. What is written is kept: the same command goes on from there.")
            sys.exit(130)
    _summary(report, looked.others, out, path, time.perf_counter() - start_s)


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
@click.option("--fpr", type=click.FloatRange(0, 1, True, True), default=0.01, help="False positive rate of the answer.")
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
    from bench.keyfile import load_key
    from bench.stamping import Report, sample, survey

    place = _device(options["device"])
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


COMMANDS = (stamp, verify_images)


class Bar:
    """A live bar on a terminal, a line for each tenth in a log file."""

    def __init__(self, total: int, out: Console) -> None:
        from rich import progress as bars

        columns = (
            bars.SpinnerColumn(), bars.TextColumn("{task.completed:,.0f}/{task.total:,.0f}"), bars.BarColumn(),
            bars.TextColumn("{task.description}"),
        )  # fmt: skip
        self._bar = bars.Progress(*columns, console=out, transient=True, disable=not out.is_terminal)
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
        from bench.cli.run import duration

        spent_s = time.perf_counter() - self._start_s
        left_s = spent_s * (self._total - done) / max(1, done)
        words = f"{done / max(spent_s, 1e-9):,.0f} pictures/s, about {duration(left_s)} left"
        self._bar.update(self._task, completed=done, description=words)
        if not self._out.is_terminal and 10 * done // self._total > self._tenth:
            self._tenth = 10 * done // self._total
            self._out.print(f"[{done:,}/{self._total:,}] {words}", markup=False)


def _device(asked: str) -> str:
    from bench.run import pick_device

    try:
        return pick_device(asked)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _profile(asked: str) -> str:
    from bench.profiles import PROFILES
    from bench.registry import choose

    return choose(asked, dict.fromkeys(PROFILES, ()), "a profile")[0]


def _scheme(options: Mapping[str, Any]) -> Any:
    """The scheme that was asked for, with its parameters; it can stamp."""
    from bench.cli.common import overrides
    from bench.profiles import PROFILES
    from bench.registry import choose, make, schemes

    able = {name: cls for name, cls in schemes().items() if hasattr(cls, "stamp")}
    name = choose(options["name"], dict.fromkeys(able, ()), "a scheme that stamps pictures")[0]
    params = PROFILES[options["profile"]].scheme_params(name) | overrides(options["settings"], [name]).get(name, {})
    given = {"blend": options["blend"], "watermark": options["watermark"]}
    return make(able[name], params | {param: str(value) for param, value in given.items() if value is not None})


@dataclass(frozen=True)
class Request:
    """What a key is made for.

    Attributes:
        side: every picture's, in pixels; None for their own sizes.
        options: as typed.
        say: prints a line.
    """

    scheme: Any
    images: Path
    looked: Survey
    side: int | None
    device: str
    options: Mapping[str, Any]
    say: Callable[[str], None]

    def key(self, path: Path) -> Key:
        """The key in this file, if it was made for the same request; a new one if there is none.

        Raises:
            StampError: it was made for another.
        """
        from bench.keyfile import load_key, save_key

        if not path.exists():
            key, about = self._made()
            save_key(path, key, about)
            return key
        key, about = load_key(path)
        self._compare(about, path)
        self.say(f"Using the key in {path}.")
        return key

    def _made(self) -> tuple[Key, About]:
        import secrets

        from bench.api import Rng
        from bench.folderhost import KeyMaker
        from bench.keyfile import About
        from bench.profiles import PROFILES
        from bench.registry import params_of
        from bench.stamping import key_size

        name, options = self.scheme.card.name, self.options
        rng = Rng("stamp", name, secrets.token_hex(32) if options["seed"] is None else options["seed"])
        size = key_size(self.images, self.looked.total, rng, self.side)
        key = KeyMaker(
            self.images, self.looked.total, size, options["arch"], PROFILES[options["profile"]], rng, self.device,
            self.say,
        ).make(self.scheme)  # fmt: skip
        return key, About(scheme=name, params=params_of(self.scheme), size=size, options=self._beside())

    def _beside(self) -> dict[str, Any]:
        """What a key depends on beside the scheme's parameters."""
        mark, trains = getattr(self.scheme.params, "watermark", None), self.scheme.card.keygen_trains
        names = ("seed", "arch", "profile") if trains else ("seed",)
        found = {"size": self.side, "watermark": mark and _digest(Path(mark).expanduser())}
        return found | {name: self.options[name] for name in names}

    def _compare(self, about: About, path: Path) -> None:
        from bench.registry import params_of
        from bench.stamping import StampError

        # What stands beside comes last: the watermark's content takes the place of its path.
        asked = {"scheme": self.scheme.card.name, **params_of(self.scheme), **self._beside()}
        made = {"scheme": about.scheme, **about.params, **about.options}
        if asked["seed"] is None:
            asked["seed"] = made.get("seed")
        for name in sorted(set(asked) | set(made)):
            if asked.get(name) != made.get(name):
                raise StampError(
                    f"Expected the key in {path} to have been made with {name} {asked.get(name)!r}, but it was made "
                    f"with {made.get(name)!r}: give the same options, or another --key and --out."
                )


def _begun(out: Path, key_path: Path, looked: Survey, side: int | None, form: Form, overwrite: bool) -> dict[str, Any]:
    """What to note in the folder of what it holds.

    Raises:
        StampError: there are pictures of another command, with which this one must not go on.
    """
    from bench.stamping import StampError

    key = _digest(key_path) if key_path.exists() else None
    asked = {"key": key, "pictures": looked.digest, "size": side, "format": form}
    if looked.written and not overwrite:
        try:
            found = json.loads((out / NOTE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if found != asked:
            raise StampError(
                f"Expected {out} to be empty or begun by the same command on the same files, but {looked.written} "
                "pictures in it are of another: choose another --out, or give --overwrite."
            )
    return asked


def _digest(path: Path) -> str:
    import hashlib

    from bench.stamping import StampError

    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise StampError(f"Expected to read {path}, but cannot: {error}.") from error


def _summary(report: Report, others: Report, out: Path, key_path: Path, seconds: float) -> None:
    from bench.cli.run import duration

    say = functools.partial(console().print, soft_wrap=True, markup=False)
    rate = f" ({report.stamped / max(seconds, 1e-9):,.0f} pictures/s)" if report.stamped else ""
    kept = f", {report.kept:,} were there already" if report.kept else ""
    pictures = "picture" if report.stamped == 1 else "pictures"
    say(f"{report.stamped:,} {pictures} stamped in {duration(seconds)}{rate}{kept}: {out}")
    if report.converted:
        say("Converted: " + ", ".join(f"{count:,} {note}" for note, count in report.converted.most_common()) + ".")
    for found, words in ((report, "unreadable"), (others, "of other kinds")):
        if found.skipped:
            more = ", ..." if found.skipped > len(found.named) else ""
            say(f"Skipped {found.skipped:,} {words}: {', '.join(found.named)}{more}.")
    say(f"Key: {key_path}. Keep this secret, it is the proof.")
    if out.resolve() in key_path.resolve().parents:
        say(f"Move it elsewhere before you publish {out}.")


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
