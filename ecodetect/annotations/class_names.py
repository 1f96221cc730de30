"""One class, written in several ways: which spellings mean the same, and which of them is kept.

The same are names that differ in case, in blanks (at the ends, doubled, non-breaking, underscores), in how
accents are stored (one character or two) and in characters that can't be seen. Names with and without an
accent, with a hyphen, a dot or another word are different classes.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ecodetect.notes import Note

_MOST_LISTED = 5


def key(name: object) -> str:
    """What all spellings of a class have in common."""
    text = unicodedata.normalize("NFKC", str(name)).replace("_", " ").casefold()
    text = text.replace("i\u0307", "i")  # of the Turkish capital with a dot
    text = "".join(char for char in text if unicodedata.category(char) != "Cf" or char in "\u200c\u200d")
    return " ".join(unicodedata.normalize("NFKC", text).split())


def tidied(name: str) -> str:
    """A name without blanks at its ends or doubled, its accents as one character each."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def joined(
    labels: Sequence[NDArray[np.object_]], *, keep_spelling: bool = False
) -> tuple[list[NDArray[np.object_]], tuple[Note, ...]]:
    """Arrays of class names, each class in one spelling, and what to say of it.

    The commonest spelling wins, in all arrays together; of equally common ones the first in the alphabet.
    "" isn't a class. keep_spelling : leave the names unchanged.
    """
    if keep_spelling:
        return list(labels), ()
    counts: Counter[str] = Counter(str(name) for each in labels for name in each.tolist())
    chosen, several = spelt(counts)
    made = []
    for each in labels:
        names = np.empty(len(each), dtype=object)
        names[:] = [chosen[str(name)] for name in each.tolist()]
        made.append(names)
    return made, tuple(_said(several))


def spelt(counts: Counter[str]) -> tuple[dict[str, str], dict[str, Counter[str]]]:
    """Spelling -> the one that is kept; and of each class with several ways of writing how often each is."""
    groups: dict[str, Counter[str]] = {}
    for name, count in counts.items():
        groups.setdefault(key(name), Counter())[name] += count
    chosen: dict[str, str] = {}
    several: dict[str, Counter[str]] = {}
    for spellings in groups.values():
        tidy: Counter[str] = Counter()
        for name, count in spellings.items():
            tidy[tidied(name)] += count
        winner = min(tidy, key=lambda name: (-tidy[name], name))
        chosen.update(dict.fromkeys(spellings, winner))
        if len(spellings) > 1 and winner:
            several[winner] = spellings
    return chosen, several


def _said(several: dict[str, Counter[str]]) -> Iterable[Note]:
    if not several:
        return
    one = len(several) == 1
    classes = (
        "1 class is written in several ways and counts as one"
        if one
        else f"{len(several)} classes are written in several ways and count as one each"
    )
    text = f"{classes}: {spellings_shown(several)}; keep their spelling if they differ."
    yield Note("spellings-joined", text, kind="choice", parameter="keep_spelling")


def spellings_shown(several: dict[str, Counter[str]]) -> str:
    """Classes with their spellings, as `spelt` gives them, for messages."""
    shown = []
    for winner, spellings in sorted(several.items())[:_MOST_LISTED]:
        ways = sorted(spellings.items(), key=lambda entry: (-entry[1], entry[0]))
        more = f" and {len(ways) - _MOST_LISTED} more" if len(ways) > _MOST_LISTED else ""
        named = ", ".join(f"'{_shown(name)}' {count}" for name, count in ways[:_MOST_LISTED])
        shown.append(f"{winner} ({named}{more})")
    rest = f" and {len(several) - _MOST_LISTED} more" if len(several) > _MOST_LISTED else ""
    return f"{', '.join(shown)}{rest}"


def _shown(name: str) -> str:
    """A spelling with the number of each character that looks like another, or like nothing."""
    composed = unicodedata.normalize("NFC", name)
    return "".join(
        f"\\u{ord(char):04x}"
        if unicodedata.category(char) == "Cf"
        or (char.isspace() and char != " ")
        or (unicodedata.combining(char) and char not in composed)
        else char
        for char in name
    )
