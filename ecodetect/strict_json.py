"""JSON that a stranger wrote, read so that nothing later can trip over it.

The standard library's reader takes what isn't JSON (NaN), what overflows (1e999), names that appear twice,
halves of characters that no file can hold, and lists as deep as its stack: none of these gets in here.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

MOST_CHARACTERS = 4_000_000  # ten thousand classes with all that is measured of each take one
_DEEPEST = 24  # what we write is 6 deep
_MOST_DIGITS = 18  # whole numbers fit into 64 bits
_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")


def read(text: str) -> Any:
    """What a text in JSON says; raises ValueError, in words."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it is longer than {MOST_CHARACTERS / 1e6:g} million characters")
    try:
        found = json.loads(
            text, parse_constant=_constant, parse_float=_number, parse_int=_whole, object_pairs_hook=_once
        )
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it isn't JSON: {error.msg} at character {error.pos}") from None
    _check(found)
    return found


def _check(found: Any) -> None:
    """Raise ValueError for depth, and for text that no file can hold."""
    waiting = [(found, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            if _UNWRITABLE.search(value):
                raise ValueError("it holds half a character, or a zero one")
        elif isinstance(value, dict | list):
            if depth == _DEEPEST:
                raise ValueError("it is nested too deep")
            inner = [*value, *value.values()] if isinstance(value, dict) else value
            waiting += [(each, depth + 1) for each in inner]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"it says '{twice[:40]}' twice")
    return found


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"{text[:20]}… is too large a number")
    return int(text)
