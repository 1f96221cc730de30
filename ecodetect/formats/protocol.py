"""What a format's module gives back to the table of formats: what came of writing a layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ecodetect.notes import Note


@dataclass(frozen=True, slots=True)
class Written:
    """The result of writing a layer.

    path : the file.
    features : features in it.
    dropped : features left out because the format can't hold them; `notes` says why.
    notes : for the user.
    """

    path: Path
    features: int
    dropped: int = 0
    notes: tuple[Note, ...] = ()


def reason(error: Exception) -> str:
    """What the system or a library says, on one line and not too long."""
    text = (
        " ".join(str(getattr(error, "strerror", None) or error).split()).strip(" .") or type(error).__name__
    )
    return text if len(text) <= 200 else text[:200] + " …"
