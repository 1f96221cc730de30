"""Sentences for the user, said once."""

from __future__ import annotations

from collections.abc import Iterable


def merged(notes: Iterable[str]) -> tuple[str, ...]:
    """Notes without repetition: what is said of several files (`file: text`) is said once."""
    files: dict[str, list[str]] = {}
    for note in dict.fromkeys(notes):
        name, colon, text = note.partition(": ")
        files.setdefault(text if colon else note, []).append(name if colon else "")
    sentences = []
    for text, names in files.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        sentences.append(f"{names[0]}{more}: {text}" if names[0] else text)
    return tuple(sentences)
