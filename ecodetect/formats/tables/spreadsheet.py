"""Texts in tables that spreadsheets open, and take for formulas: written as text, and read back as they were.

A spreadsheet works out a cell that begins with `=`, `+`, `-` or `@`, whatever is behind it; a comma in one
country and a semicolon in another begin a new cell. An apostrophe before it says that it is text.
"""

from __future__ import annotations

import re

# With their full-width twins, which some spreadsheets take for the same.
_SIGN = "[=+\\-@\uff1d\uff0b\uff0d\uff20]"
_BEFORE = '[\\s"\ufeff\u200b]*'  # what spreadsheets leave out at the beginning of a cell
_RISKY = re.compile(f"'*(?:{_BEFORE}{_SIGN}|[\t\r\n])")
_MARKED = re.compile(f"'+(?:{_BEFORE}{_SIGN}|[\t\r\n])")
# Within a text, behind what divides cells elsewhere.
_RISKY_INSIDE = re.compile(f"(?<=[;,\t\r\n|])({_BEFORE})('*{_SIGN})")
_MARKED_INSIDE = re.compile(f"(?<=[;,\t\r\n|])({_BEFORE})'('*{_SIGN})")


def as_cell(text: str) -> str:
    """A text (no number) so that no spreadsheet works it out: an apostrophe before what may be a formula.

    One that has an apostrophe there gets another one, so that `from_cell` gives each text back.
    """
    inside = _RISKY_INSIDE.sub(r"\1'\2", text)
    return f"'{inside}" if _RISKY.match(inside) else inside


def from_cell(cell: str) -> str:
    """What `as_cell` was given."""
    inside = cell[1:] if _MARKED.match(cell) else cell
    return _MARKED_INSIDE.sub(r"\1\2", inside)
