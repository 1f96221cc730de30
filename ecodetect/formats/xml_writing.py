"""Texts for XML files that we write."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape

_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def escaped(text: str) -> str:
    """A text as XML can hold it, in an element or in an attribute."""
    # XML 1.0 has no way to write most control characters, no surrogates, and not the last two of a plane.
    kept = _UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", text)
    return escape(kept, {'"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"})
