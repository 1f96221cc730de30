"""Notes: what a user should know besides the result, with codes for scripts.

A reason to doubt a result is a note of kind "doubt"; `--strict` turns it into an exit code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

NoteKind = Literal["info", "choice", "doubt"]


@dataclass(frozen=True, slots=True)
class Note:
    """One sentence for the user.

    code : what it is about, in lower case with hyphens (`values-mapped`); never changes once it is released.
        Code goes by it, never by the text.
    text : the sentence, without `about`.
    about : the file or raster it is about; "" for none.
    kind : "info": worth knowing; "choice": something was decided that the user may decide otherwise;
        "doubt": the answer may be wrong.
    parameter : what would decide otherwise, by the name of its option (`gsd`, `ignore_edge`); one or several.
        The text spells no flag: the command line adds it (`… (--gsd).`) where the command has it.
    """

    code: str
    text: str
    about: str = ""
    kind: NoteKind = "info"
    parameter: str | tuple[str, ...] | None = None

    def __str__(self) -> str:
        return f"{self.about}: {self.text}" if self.about else self.text

    def of(self, about: str) -> Note:
        """The same about a file; a note that says already what it is about stays."""
        return self if self.about else replace(self, about=about)

    def to_json(self) -> dict[str, str]:
        """The note as `--json` gives it."""
        return {"code": self.code, "kind": self.kind, "about": self.about, "text": self.text}


def merged(notes: Iterable[Note]) -> tuple[Note, ...]:
    """Notes without repetition: one note for several files (`a.tif and 2 more: …`)."""
    files: dict[Note, list[str]] = {}
    for note in dict.fromkeys(notes):
        files.setdefault(replace(note, about=""), []).append(note.about)
    return tuple(
        replace(note, about=f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0])
        for note, names in files.items()
    )


def doubts(notes: Iterable[Note]) -> tuple[Note, ...]:
    """Those by which the answer may be wrong."""
    return tuple(note for note in notes if note.kind == "doubt")
