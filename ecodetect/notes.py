"""Notes: what a user should know beside the answer, said once, with a code that scripts can go by.

Whatever makes an answer doubtful is a note of kind "doubt"; `--strict` makes it an exit code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["info", "choice", "doubt"]


@dataclass(frozen=True, slots=True)
class Note:
    """One sentence for the user.

    code : what it is about, in lower case with hyphens (`values-mapped`); never changes once it is released.
        Code goes by it, never by the text.
    text : the sentence, without `about`.
    about : the file or raster it is about; "" for none.
    kind : "info": worth knowing; "choice": something was decided that the user may decide otherwise;
        "doubt": the answer may be wrong.
    """

    code: str
    text: str
    about: str = ""
    kind: Kind = "info"

    def __str__(self) -> str:
        return f"{self.about}: {self.text}" if self.about else self.text

    def to_json(self) -> Mapping[str, str]:
        """The note as `--json` gives it."""
        return {"code": self.code, "kind": self.kind, "about": self.about, "text": self.text}


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
