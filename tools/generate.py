"""Write docs/cli.md from the commands themselves; `tests/run/test_docs.py` fails when it is stale."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from bench.cli import main

TARGET = Path(__file__).parents[1] / "docs" / "cli.md"


def reference() -> str:
    """Every command with its arguments and options, as Markdown."""
    lines = ["# Command line", "", "Written by `make docs` from the commands' own help.", ""]
    shown = {"bench [OPTIONS] COMMAND": main} | {f"bench {name}": command for name, command in main.commands.items()}
    for title, command in shown.items():
        lines += [f"## {title}", "", *paragraphs(command.help), ""]
        arguments = [param for param in command.params if isinstance(param, click.Argument)]
        options = [param for param in command.params if isinstance(param, click.Option)]
        if arguments:
            lines += ["Arguments: " + ", ".join(f"`{argument(each)}`" for each in arguments), ""]
        if options:
            lines += ["| option | meaning | default |", "|---|---|---|", *map(row, options), ""]
    return "\n".join(lines).rstrip() + "\n"


def paragraphs(text: str | None) -> list[str]:
    """Help text with its lines joined, a paragraph an item."""
    blocks = [" ".join(block.split()) for block in (text or "").split("\n\n")]
    return [line for block in blocks for line in (block, "")][:-1]


def argument(param: click.Argument) -> str:
    """`WHAT` or its choices."""
    choices = getattr(param.type, "choices", None)
    return "|".join(choices) if choices else str(param.name).upper()


def row(param: click.Option) -> str:
    """One line of the table of options."""
    names = ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))
    choices = getattr(param.type, "choices", None)
    meaning = re.sub(r"\[default: ([^]]*)\]", r"(default: \1)", param.help or "")
    if choices:
        meaning = f"{meaning} One of {', '.join(choices)}.".strip()
    return f"| {names} | {escaped(meaning)} | {escaped(default(param))} |"


def default(param: click.Option) -> str:
    """The default as it is typed."""
    value: Any = param.default
    if param.is_flag or param.multiple or value is None or type(value).__name__ == "Sentinel":
        return ""
    return f"`{value}`"


def escaped(text: str) -> str:
    """Text that does not end a table's cell."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
