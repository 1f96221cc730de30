"""Coordinates in tables as people write them: decimal commas, grouped thousands, degrees and minutes.

`412.345` and `412,345` can be read in two ways. The other cells of the same columns decide: `4.123.456,7`
says that dots group thousands. Degrees are never grouped.
"""

from __future__ import annotations

import math
import re
from typing import Literal

from ecodetect.formats.collecting import Unusable, number

Separator = Literal["", ".", ","]  # what stands between groups of three digits; "": nothing does

_MINUS = str.maketrans({"\N{MINUS SIGN}": "-", "\N{EN DASH}": "-"})
# Blanks and apostrophes between groups of three digits are never anything else.
_GAPS = re.compile(r"(?<=\d)[ \u00a0\u2009\u202f'\u2019](?=\d{3}(?!\d))")
_LONGEST = 60  # characters of a coordinate


def separator_shown(text: str) -> Separator:
    """What groups thousands in a column, if this number of it can be read in one way only; else ""."""
    text = _plain(text)
    if not is_odd(text):
        whole, dot, decimals = text.partition(".")
        return "," if dot and (len(decimals) != 3 or len(whole.lstrip("+-")) > 3) else ""
    if re.fullmatch(r"[-+]?\d{1,3}(\.\d{3})+,\d*|[-+]?\d{1,3}(\.\d{3}){2,}", text):
        return "."
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+\.\d*|[-+]?\d{1,3}(,\d{3}){2,}", text):
        return ","
    if re.fullmatch(r"[-+]?\d*,\d*", text) and not re.fullmatch(r"[-+]?\d{1,3},\d{3}", text):
        return "."  # a decimal comma: dots can only group
    return ""


def is_odd(text: str) -> bool:
    """Whether a number may be written with grouped thousands or a decimal comma."""
    return "," in text or text.count(".") > 1


def _plain(text: str) -> str:
    return _GAPS.sub("", text.strip().translate(_MINUS))


def read_number(text: str, name: str, separator: Separator = "") -> float:
    """A number in English or continental writing: 1234.5, 1234,5, 1.234,5, 1 234.5.

    name : what it is, for the reason.  separator : what groups thousands in its column.
    Raises Unusable for anything else.
    """
    text = _plain(text)
    if not text:
        raise Unusable(f"{name} is missing")
    if separator and re.fullmatch(rf"[-+]?\d{{1,3}}(\{separator}\d{{3}})+([.,]\d*)?", text):
        text = text.replace(separator, "")
    if "," not in text and text.count(".") < 2:
        return number(text, name)
    groups = re.fullmatch(r"([-+]?\d{1,3}(?:\.\d{3})+)(?:,(\d*))?|([-+]?\d{1,3}(?:,\d{3})+)\.(\d*)", text)
    if groups and (groups[2] is not None or groups[4] is not None or text.count(".") > 1):
        whole = (groups[1] or groups[3]).replace(".", "").replace(",", "")
        return number(f"{whole}.{groups[2] or groups[4] or 0}", name)
    if re.fullmatch(r"[-+]?(\d+,\d*|,\d+)([eE][-+]?\d+)?", text):
        return number(text.replace(",", "."), name)
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3}){2,}", text):
        return number(text.replace(",", ""), name)
    raise Unusable(f"'{text[:20]}' is not a number")


_PART = r"(\d+(?:[.,]\d+)?)"
_DEGREES = re.compile(
    rf"([NSEWOL]?)\s*([-+]?)\s*{_PART}"
    rf"\s*(?:(?:[°º˚d:]|deg|\s)\s*(?:{_PART}"
    rf"\s*(?:(?:['′’‘m:]|min|\s)\s*(?:{_PART}\s*(?:[\"″”“s]|''|′′|’’|sec)?)?)?)?)?"
    r"\s*([NSEWOL]?)",
    re.IGNORECASE,
)


def read_degrees(text: str, axis: Literal["longitude", "latitude"], *, is_east: bool = False) -> float:
    """Degrees in decimals, or in degrees, minutes and seconds, with a sign or a letter of the hemisphere.

    is_east : the letter O means east (Ost), as in German; else west (oeste, ouest, ovest). L is leste.
    Raises Unusable for anything else.
    """
    text = text.strip().translate(_MINUS)
    if not text:
        raise Unusable(f"{axis} is missing")
    match = _DEGREES.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        return read_number(text, axis)
    before, sign, degrees, minutes, seconds, after = match.groups()
    letter = (before or after).upper()
    if (before and after) or (sign and letter):
        raise Unusable(f"'{text[:20]}' has two signs")
    if letter and (letter in "NS") != (axis == "latitude"):
        other = "latitude" if letter in "NS" else "longitude"
        raise Unusable(f"a {other} ({letter}) in the column of {axis}s: they may be exchanged")
    parts = [number(part.replace(",", "."), axis) for part in (degrees, minutes, seconds) if part]
    if any(part != int(part) for part in parts[:-1]) or any(part >= 60 for part in parts[1:]):
        raise Unusable(f"'{text[:20]}' isn't degrees, minutes and seconds")
    value = math.fsum(part / 60**power for power, part in enumerate(parts))
    is_negative = sign == "-" or letter in tuple("SW") or (letter == "O" and not is_east)
    return -value if is_negative else value
