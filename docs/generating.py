"""The parts of these pages that the code writes: commands with their flags, options of detectors.

A page says where they go with a comment on a line of its own, `<!-- generated: commands -->` or
`<!-- generated: options threshold -->`; Sphinx puts the Markdown there when it builds, so that pages can't
disagree with the code.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import click

_MARK = re.compile(r"^<!-- generated: (\w+)(?: ([\w-]+))? -->$", re.MULTILINE)


def filled(text: str) -> str:
    """The Markdown of a page with what its comments ask for."""
    return _MARK.sub(lambda mark: PARTS[mark[1]](*filter(None, [mark[2]])), text)


def commands() -> str:
    """A section for each command, in the order of `ecodetect --help`."""
    from ecodetect_cli.main import cli

    context = click.Context(cli, info_name="ecodetect")
    sections = []
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        text = command.get_help(click.Context(command, info_name=f"ecodetect {name}", max_content_width=100))
        sections.append(f"## {name}\n\n```text\n{text}\n```\n")
    return "\n".join(sections)


def options(detector: str) -> str:
    """The options of a detector as a table: name, default, meaning with its unit."""
    from ecodetect.detectors import describe

    rows = [
        f"| `{name}` | {f'`{default}`' if default else ''} | {_cell(meaning)} |"
        for name, (default, meaning) in describe(detector).options.items()
    ]
    return "\n".join(["| option | default | meaning |", "| --- | --- | --- |", *rows, ""])


def purpose(detector: str) -> str:
    """The first sentence of a detector's docstring."""
    from ecodetect.detectors import describe

    return describe(detector).purpose + "\n"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("*", r"\*")


PARTS: dict[str, Callable[..., str]] = {"commands": commands, "options": options, "purpose": purpose}
