"""The commands `bench new`, `bench check`, `bench why` and `bench doctor`."""

from __future__ import annotations

import functools
import itertools
import re
import shlex
import sys
import textwrap
from pathlib import Path

import rich_click as click
from rich.markup import escape

from bench.cli.common import console, data_options, run_dir_option, sentences

__all__ = ["COMMANDS"]


@click.command()
@click.argument("kind", type=click.Choice(["scheme", "attack"]))
@click.argument("name")
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Where the file is written."
)
@sentences
def new(kind: str, name: str, folder: Path) -> None:
    """Write the one file of a new scheme or attack, which works at once, from a template."""
    from importlib.resources import files

    from bench.checks.submission import PLACEHOLDER
    from bench.registry import RegistryError

    _check_name(kind, name)
    target = folder / f"{name.replace('-', '_')}.py"
    if target.exists():
        raise RegistryError(f"Expected to write a new file, but {target} exists: choose another name or --folder.")
    template = files("bench.cli").joinpath(f"template_{kind}.txt").read_text(encoding="utf-8")
    words = template.replace("@NAME@", name).replace("@CLASS@", _class_name(kind, name)).replace("@TITLE@", PLACEHOLDER)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target.write_text(words, encoding="utf-8")
    except OSError as error:
        raise RegistryError(f"Expected to write {target}, but cannot ({error}): choose another --folder.") from error
    _next(kind, name, target)


def _check_name(kind: str, name: str) -> None:
    from bench.registry import RegistryError, attacks, schemes

    if not re.fullmatch(r"(?=.{1,40}$)[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise RegistryError(f'Expected a name such as "my-{kind}" (lower case, digits, hyphens), but got "{name}".')
    for other, known in (("scheme", schemes()), ("attack", attacks())):
        if name in known:
            raise RegistryError(
                f'Expected the name of a new {kind}, but "{name}" exists: see `bench show {other} {name}`.'
            )


def _class_name(kind: str, name: str) -> str:
    """`my-method` as `MyMethodScheme`: no keyword, and no name that the template imports."""
    words = "".join(part.capitalize() for part in name.split("-"))
    return words if words.endswith(kind.capitalize()) and name != kind else words + kind.capitalize()


def _next(kind: str, name: str, target: Path) -> None:
    """Tell how to go on; a file in the project's own folder needs no `--plugin`."""
    import attacks
    import schemes

    own = {Path(folder).resolve() for package in (schemes, attacks) for folder in package.__path__}
    plugin = "" if target.parent.resolve() in own else f"--plugin {shlex.quote(str(target))} "
    say = functools.partial(console().print, soft_wrap=True)
    say(f"Wrote {target}. Edit it, then:")
    say(f"  bench {plugin}check {name}")
    say(f"  bench {plugin}run --{kind} {name}")


@click.command()
@click.argument("name")
@click.option("--submission", is_flag=True, help="Check too that nothing of the template is left on its card.")
@sentences
def check(name: str, submission: bool) -> None:
    """Run the contract suite on one scheme or attack, as CI does. Exit status 1 if a check fails.

    The suite stops at a failure that explains all later ones.
    """
    from bench.checks.frames import authors_first
    from bench.checks.submission import outcomes
    from bench.checks.suite import suite
    from bench.registry import RegistryError, attacks, schemes, unknown

    known = {**schemes(), **attacks()}
    if name not in known:
        raise RegistryError(unknown(name, known, "a scheme or attack"))
    say = functools.partial(console().print, soft_wrap=True, markup=True)
    failures = 0
    for title, error in itertools.chain(outcomes(known[name].card) if submission else (), suite(name)):
        failures += error is not None
        mark = "[green]ok[/green]     " if error is None else "[red]failed[/red] "
        say(f"{mark} {escape(title)}" + (f"\n{_indented(authors_first(error, known[name]))}" if error else ""))
    say(f"{failures} check{'s' * (failures > 1)} failed." if failures else f"{escape(name)} keeps the contract.")
    sys.exit(1 if failures else 0)


def _indented(text: str) -> str:
    return textwrap.indent(escape(text), " " * 8)


@click.command()
@click.argument("key")
@run_dir_option
@sentences
def why(key: str, run_dir: Path) -> None:
    """Say why a step or cell is (not) cached: what differs from the nearest one in the store.

    KEY is the beginning of a step's key (`bench plan --keys` prints them), of a record's cell key, or of the name of a
    record's file.
    """
    from bench.registry import RegistryError
    from bench.runner.why import explain

    lines = explain(key, run_dir)
    if not lines:
        raise RegistryError(
            "Expected the beginning of a step key, of a cell key or of a record's file name, but nothing in "
            f'{run_dir} begins with "{key}": '
            "`bench plan --keys` lists the steps of a plan."
        )
    for line in lines:
        console().print(line, soft_wrap=True)


@click.command()
@data_options
@run_dir_option
def doctor(run_dir: Path, data_root: Path | None, download: bool) -> None:
    """Look for what is wrong with this installation. Exit status 1 if something is."""
    from bench.checks.doctor import examine

    out, problems = console(), 0
    for title, finding, fine in examine(run_dir, data_root):
        problems += not fine
        mark = "[green]ok[/green]      " if fine else "[red]problem[/red] "
        out.print(f"{mark} {title}: {escape(finding)}", soft_wrap=True, markup=True)
    sys.exit(1 if problems else 0)


COMMANDS = (new, check, why, doctor)
