"""Texts for XML files that we write."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape

_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def holdable(text: str) -> str:
    """A text, or a whole document, without what XML has no way to write.

    Those are most control characters, halves of characters, and the last two of a plane.
    """
    return _UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def escaped(text: str) -> str:
    """A text as XML can hold it, in an element or in an attribute."""
    return escape(holdable(text), {'"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"})
