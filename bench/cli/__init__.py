"""The command line `bench`; every command imports what it needs when it runs."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import rich_click as click

from bench import __version__

__all__ = ["main"]

click.rich_click.COMMAND_GROUPS = {
    "bench": [
        {"name": "Look", "commands": ["list", "show", "plan"]},
        {"name": "Publish images", "commands": ["stamp", "verify-images"]},
        {"name": "Compute", "commands": ["run", "calibrate", "capacity", "detect"]},
        {"name": "Results", "commands": ["results", "compare", "sync", "leaderboard", "clean"]},
        {"name": "Several machines", "commands": ["push", "pull", "merge"]},
        {"name": "Contribute", "commands": ["new", "check", "submit", "verify-submission"]},
        {"name": "Understand", "commands": ["why", "doctor"]},
    ]
}
click.rich_click.STYLE_OPTION = "cyan"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110})
@click.version_option(__version__, prog_name="bench")
@click.option(
    "--plugin", "plugins", multiple=True, type=click.Path(path_type=Path), metavar="FILE", show_default=False,
    help="A Python file, or a folder of them, with further schemes and attacks; may be given several times.",
)  # fmt: skip
def main(plugins: tuple[Path, ...]) -> None:
    """Cross every watermarking scheme with every attack on every architecture, with calibrated verdicts.

    Begin with: bench run --scheme all --attack pruning
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show must end no command
            stream.reconfigure(errors="backslashreplace")
    if plugins:
        from bench.cli.common import sentences
        from bench.registry import add_plugins

        sentences(add_plugins)(plugins)


from bench.cli import author, calibrate, capacity, detect, keep, look, report, run, share, stamp, submit, verify  # noqa: E402  # the commands register themselves on `main`

for group in (look, run, calibrate, capacity, detect, report, keep, share, stamp, verify, author, submit):
    for command in group.COMMANDS:
        main.add_command(command)
