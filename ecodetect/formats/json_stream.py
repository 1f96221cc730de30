"""JSON read piece by piece, so that a large collection never lies in memory as a whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

from ecodetect.errors import LayerError

_BLOCK = 1 << 20  # characters read at a time
_MOST_VALUE = 1 << 28  # characters of a single value; more isn't a feature, or follows from an error before
_SPACE = re.compile(r"[ \t\r\n\x1e]*")  # with the record separator of RFC 8142


class JsonStream:
    """The values of a JSON text, in their order.

    Every method raises LayerError with line and column where the text isn't JSON or ends too early.
    """

    def __init__(self, file: TextIO, name: str) -> None:
        """file : at its start.  name : for messages."""
        self._file = file
        self._name = name
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._is_end = False
        self._lines_before = 0
        self._column_before = 0

    def sequence(self) -> Iterator[Any]:
        """Values one after the other, as in GeoJSON text sequences."""
        while self._peek():
            yield self._value()

    @property
    def is_list(self) -> bool:
        """Whether the text, at its start, is an array."""
        return self._peek() == "["

    def elements(self) -> Iterator[Any]:
        """The elements of the array that the text is, one after the other."""
        yield from self._elements()
        if self._peek():
            self._fail("something follows the end")

    def members(self, *, in_parts: str) -> Iterator[tuple[str, Any]]:
        """The members of the object that the text is, one after the other.

        in_parts : name of a member that comes as an iterator over its elements, if it is an array. It must be
            used up before the next member is asked for.
        """
        self._take("{")
        if self._peek() == "}":
            self._at += 1
        else:
            while True:
                if self._peek() != '"':
                    self._fail("a member's name in quotes is missing")
                key = self._value()
                self._take(":")
                if key == in_parts and self._peek() == "[":
                    yield key, self._elements()
                else:
                    yield key, self._value()
                if self._take(",}") == "}":
                    break
        if self._peek():
            self._fail("something follows the end")

    def _elements(self) -> Iterator[Any]:
        self._take("[")
        if self._peek() == "]":
            self._at += 1
            return
        while True:
            yield self._value()
            if self._take(",]") == "]":
                return

    def _peek(self) -> str:
        """The next character that isn't white space; empty at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if self._is_end:
                return ""
            self._more()

    def _take(self, wanted: str) -> str:
        found = self._peek()
        if not found or found not in wanted:
            self._fail(f"'{wanted[0]}' is missing")
        self._at += 1
        return found

    def _value(self) -> Any:
        if not self._peek():
            self._fail("a value is missing")
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._is_end or len(self._text) - self._at > _MOST_VALUE:
                    self._at = error.pos
                    self._fail(error.msg)
            except ValueError:
                self._fail("a number has too many digits")
            else:
                # A number at the end of what was read may go on.
                if end < len(self._text) or self._is_end:
                    self._at = end
                    return value
            self._more()

    def _more(self) -> None:
        """Read on: at least as much again as what is waiting, so that long values cost no more than twice."""
        seen = self._text[: self._at]
        lines = seen.count("\n")
        self._lines_before += lines
        self._column_before = len(seen) - seen.rfind("\n") - 1 if lines else self._column_before + len(seen)
        rest = self._text[self._at :]
        block = self._file.read(max(_BLOCK, len(rest)))
        self._text, self._at, self._is_end = rest + block, 0, not block

    def _fail(self, what: str) -> NoReturn:
        seen = self._text[: self._at]
        lines = seen.count("\n")
        column = len(seen) - seen.rfind("\n") if lines else self._column_before + len(seen) + 1
        line = self._lines_before + lines + 1
        # Nothing left where something had to come: the file was cut.
        is_cut = self._is_end and not self._text[self._at :].strip()
        how = "ends too early" if is_cut or what.startswith("Unterminated") else f"isn't JSON: {what}"
        raise LayerError(f"{self._name} {how} at line {line}, column {column}.")
