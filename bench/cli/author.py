"""`bench new`, `bench check`, `bench why` and `bench doctor`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import rich_click as click
from rich.markup import escape

from bench.cli.common import console, data_options, run_dir_option, sentences

__all__ = ["COMMANDS"]


@click.command()
@click.argument("kind", type=click.Choice(["scheme", "attack"]))
@click.argument("name")
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=None, help="[default: schemes/ or attacks/]"
)
@sentences
def new(kind: str, name: str, folder: Path | None) -> None:
    """Write the one file of a new scheme or attack, which works at once, from a template."""
    import attacks
    import schemes
    from bench.registry import RegistryError
    from bench.registry import attacks as all_attacks
    from bench.registry import schemes as all_schemes

    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise RegistryError(f'Expected a name such as "my-{kind}" (lower case, digits, hyphens), but got "{name}".')
    if name in (all_schemes() if kind == "scheme" else all_attacks()):
        raise RegistryError(f'Expected the name of a new {kind}, but "{name}" exists: see `bench show {kind} {name}`.')
    package = schemes if kind == "scheme" else attacks
    target = (folder or Path(package.__path__[0])) / f"{name.replace('-', '_')}.py"
    if target.exists():
        raise RegistryError(f"Expected to write a new file, but {target} exists: choose another name.")
    template = (Path(__file__).parent / f"template_{kind}.txt").read_text(encoding="utf-8")
    words = "".join(part.capitalize() for part in name.split("-"))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(template.replace("@NAME@", name).replace("@CLASS@", words), encoding="utf-8")
    out = console()
    out.print(f"Wrote {target}.", soft_wrap=True)
    out.print(f"Next: edit it, then `bench check {name}`, then `bench run --{kind} {name}`.")


@click.command()
@click.argument("name")
@sentences
def check(name: str) -> None:
    """Run the contract suite on one scheme or attack, as CI does. Exit status 1 if a check fails."""
    from bench.checks.suite import suite
    from bench.registry import RegistryError, attacks, schemes, unknown

    if name not in {**schemes(), **attacks()}:
        raise RegistryError(unknown(name, [*schemes(), *attacks()], "a scheme or attack"))
    out, failures = console(), 0
    for title, error in suite(name):
        failures += error is not None
        out.print(
            f"[red]failed[/red]  {title}\n        {escape(error)}" if error else f"[green]ok[/green]      {title}",
            soft_wrap=True,
        )
    out.print(f"{failures} checks failed." if failures else f"{name} keeps the contract.")
    sys.exit(1 if failures else 0)


@click.command()
@click.argument("key")
@run_dir_option
@sentences
def why(key: str, run_dir: Path) -> None:
    """Say why a step or cell is (not) cached: what differs from the nearest one in the store.

    KEY is the beginning of a step's key (`bench plan --keys` prints them) or of a record's cell key.
    """
    from bench.registry import RegistryError
    from bench.runner.why import explain

    lines = explain(key, run_dir)
    if not lines:
        raise RegistryError(
            f'Expected the beginning of a step or cell key, but nothing in {run_dir} begins with "{key}": '
            "`bench plan --keys` lists the steps of a plan."
        )
    for line in lines:
        console().print(line, soft_wrap=True, markup=False)


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
        out.print(f"{mark} {title}: {escape(finding)}", soft_wrap=True)
    sys.exit(1 if problems else 0)


COMMANDS = (new, check, why, doctor)
