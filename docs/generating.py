"""The parts of these pages that the code writes: commands with their options, detectors, the map of rooms.

A page says where they go with a comment on a line of its own, `<!-- generated: commands -->` or
`<!-- generated: options threshold -->`; Sphinx puts the Markdown there when it builds, so that pages can't
disagree with the code.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

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
        text = command.get_help(click.Context(command, info_name=f"ecodetect {name}", terminal_width=100))
        sections.append(f"## {name}\n\n```text\n{text}\n```\n")
    return "\n".join(sections)


def options(detector: str) -> str:
    """The options of a detector as a table: name, default, what values it takes, meaning."""
    from ecodetect.detectors.table import declared, describe

    hints = get_type_hints(declared(detector).options)
    rows = [
        f"| `{name}` | `{default}` | {_values(hints[name])} | {_cell(meaning)} |"
        for name, (default, meaning) in describe(detector).options.items()
    ]
    return "\n".join(["| option | default | takes | meaning |", "| --- | --- | --- | --- |", *rows, ""])


def _values(hint: Any) -> str:
    """What may follow `NAME=`, in words, of the type of an option."""
    if get_origin(hint) in (Union, types.UnionType):
        return ", ".join(_values(kind) for kind in get_args(hint))
    if get_origin(hint) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(hint))
    return _TYPES[hint.__name__]


_TYPES = {
    "Length": "a length (`3m`, `25px`)",
    "Area": "an area (`2m2`, `40px`)",
    "bool": "`yes`, `no`",
    "float": "a number",
    "int": "a whole number",
    "str": "a name",
    "NoneType": "`none`",
}


def purpose(detector: str) -> str:
    """What a detector is for, in a sentence."""
    from ecodetect.detectors.table import describe

    return describe(detector).purpose + "\n"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("*", r"\*")


def room_map() -> str:
    """The map of the rooms, as the docstring of the package has it."""
    import ecodetect

    _, _, rooms = (ecodetect.__doc__ or "").partition("stands above them all.\n\n")
    return f"```text\n{rooms.strip()}\n```\n"


PARTS: dict[str, Callable[..., str]] = {
    "commands": commands,
    "map": room_map,
    "options": options,
    "purpose": purpose,
}
