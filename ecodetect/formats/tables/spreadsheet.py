"""Texts in tables that other programs take for something else: written as text, and read back as they were.

A spreadsheet works out a cell that begins with `=`, `+`, `-` or `@`, whatever is behind it; a comma in one
country and a semicolon in another begin a new cell. pandas and R read `NA` or `null` as nothing. An
apostrophe before it says that it is text.
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


# What pandas, R or QGIS read as nothing; those with a sign are written as `as_cell` does.
_NOTHING = r"(?:<?na>?|n/a|#na|#n/a(?: n/a)?|<?null>?|none|nan|1\.#(?:ind|qnan))"
is_nothing = re.compile(rf"\s*{_NOTHING}\s*", re.IGNORECASE).fullmatch
_MAY_BE_NOTHING = re.compile(rf"'*\s*{_NOTHING}\s*", re.IGNORECASE).fullmatch


def as_class_cell(name: str) -> str:
    """The name of a class as `as_cell` writes it; one that is called `NA` gets an apostrophe too."""
    return f"'{name}" if _MAY_BE_NOTHING(name) else as_cell(name)


def from_class_cell(cell: str) -> str:
    """What `as_class_cell` was given."""
    return cell[1:] if is_named_nothing(cell) else from_cell(cell)


def is_named_nothing(cell: str) -> bool:
    """Whether a cell says that a class is called `NA`, not that there is none."""
    return cell.startswith("'") and _MAY_BE_NOTHING(cell) is not None
