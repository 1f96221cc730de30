"""All that the command line prints: nothing else in it writes to a terminal (tests/test_terminal.py).

Labels, names, paths and messages come from files that other people made: what would steer a terminal, hide or
turn around its text, or break its lines is shown as a mark.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, TextIO

import click

from ecodetect.errors import Interrupted, UserError
from ecodetect.notes import Note

MARK = "\N{REPLACEMENT CHARACTER}"
_OTHER = re.compile(r"[^\n\x20-\x7e]")
_LONGEST = 4000  # characters of a line; a name may have a million


def one_line(text: object) -> str:
    """A text as one line that does nothing but stand there.

    Line breaks become blanks; control characters (C0, C1, DEL), marks of direction, characters without width
    and halves of characters become `MARK`.
    """
    line = str(text)
    if not line.isprintable():
        parts = line.splitlines()
        line = " ".join(part.strip() for part in parts) if len(parts) > 1 else "".join(parts)
        line = "".join(char if char.isprintable() else " " if char.isspace() else MARK for char in line)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}… ({len(line) - _LONGEST:,} characters more)"


def sentence(said: UserError | Interrupted | Note, command: click.Command | None = None) -> str:
    """A message with the options that would help, where the command has them: `… (--gsd).`

    command : the one that runs, if not given.
    """
    text = str(said)
    if said.parameter is None:
        return text
    names = [said.parameter] if isinstance(said.parameter, str) else said.parameter
    flags = [f"--{name.replace('_', '-')}" for name in names]
    own = (command or click.get_current_context().command).params
    there = [flag for flag in flags if any(flag in each.opts for each in own)]
    return f"{text.removesuffix('.')} ({', '.join(there)})." if there else text


def say(*lines: object, to_stderr: bool = False) -> None:
    """Print each of these on a line of its own."""
    for line in lines:
        _put(f"{one_line(line)}\n", to_stderr=to_stderr)


def say_json(facts: Any) -> None:
    """Print as JSON: other than in lines, each character can be read back."""
    text = json.dumps(facts, indent=1, ensure_ascii=False, default=_plain)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    _put(_OTHER.sub(lambda found: _escaped(found[0], encoding), text) + "\n")


def _plain(value: object) -> object:
    """What JSON has no word for."""
    if isinstance(value, Note):
        return value.to_json() | {"text": sentence(replace(value, about=""))}
    return sentence(value) if isinstance(value, UserError) else str(value)


def _escaped(char: str, encoding: str) -> str:
    """A character as JSON has it, escaped where it is more than to be seen, or where there is no such."""
    try:
        char.encode(encoding)
        is_there = char.isprintable()
    except UnicodeEncodeError:
        is_there = False
    return char if is_there else json.dumps(char)[1:-1].replace("\x7f", "\\u007f")


def renew(text: str, width: int) -> int:
    """Write over the line on stderr, which has `width` characters; returns how many it has now."""
    shown = one_line(text)
    _put("\r" + shown.ljust(width) + ("" if shown else "\r"), to_stderr=True)
    return len(shown)


def _put(text: str, *, to_stderr: bool = False) -> None:
    """The one place that writes."""
    stream: TextIO | None = sys.stderr if to_stderr else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        click.echo(text.encode(encoding, "replace").decode(encoding), nl=False, err=to_stderr)
    except BrokenPipeError:  # who reads has enough: what is done goes on, and says no more
        nothing = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - as long as the process
        if to_stderr:
            sys.stderr = nothing
        else:
            sys.stdout = nothing


@contextmanager
def alone() -> Iterator[None]:
    """A context in which only `say` writes to the terminal.

    What libraries print in C goes nowhere, and so does what Python says of errors that nobody can catch.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        held = [(stream, stream.fileno()) for stream in (sys.stdout, sys.stderr)]
    except (OSError, ValueError, AttributeError):
        yield  # a stream of another program
        return
    ours: list[TextIO] = []
    before = sys.stdout, sys.stderr
    hooks = sys.unraisablehook, threading.excepthook
    sys.unraisablehook, threading.excepthook = (lambda _: None), (lambda _: None)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        for stream, number in held:
            copy = open(  # noqa: PTH123, SIM115 - closed below
                os.dup(number), "w", buffering=1, encoding=stream.encoding, errors=stream.errors
            )
            ours.append(copy)
        sys.stdout, sys.stderr = ours
        for _, number in held:
            os.dup2(nothing, number)
        yield
    finally:
        for mine, (_, number) in zip(ours, held, strict=False):
            os.dup2(mine.fileno(), number)
            with suppress(OSError):  # nobody reads any more
                mine.close()
        sys.stdout, sys.stderr = before
        sys.unraisablehook, threading.excepthook = hooks
        os.close(nothing)
