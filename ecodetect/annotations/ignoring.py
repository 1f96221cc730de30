"""Files of shapes, and classes, that a user names to be ignored."""

from __future__ import annotations

from collections.abc import Iterable

from ecodetect.annotations.annotation_file import AnnotationFile
from ecodetect.annotations.class_names import key as class_key
from ecodetect.errors import UserError
from ecodetect.formats import files as formats


def is_file(text: str) -> bool:
    """Whether a text that may name a file or a class names a file."""
    path, _ = formats.source_of(text)
    return path.exists() or "/" in text or "\\" in text or path.suffix.lower() in _VECTORS


def opened_shapes(text: str, layer: str | None = None, *, parameter: str) -> AnnotationFile:
    """A file of shapes beside the annotations: where they are complete, or what is ignored.

    parameter : the option that names it, for messages.
    """
    path, layer = formats.source_of(text, layer)
    if not path.exists():
        raise UserError(f"{path} doesn't exist.", parameter=parameter)
    return AnnotationFile(path, layer)


_VECTORS = frozenset(formats.suffixes(writing=False)) - {"/"}


def check_labels(labels: Iterable[str], there: Iterable[object], *, keep_spelling: bool) -> None:
    """Raise UserError for a class to ignore that no annotation has.

    there : the annotations' classes.  keep_spelling : classes spelled differently are different.
    """
    known = {str(label) for label in there}
    keys = set() if keep_spelling else {class_key(label) for label in known}
    for label in labels:
        if label not in known and class_key(label) not in keys:
            named = ", ".join(sorted(filter(None, known))[:12]) or "none"
            raise UserError(
                f"'{label}' can't be ignored: it is neither a file nor a class of the annotations ({named}).",
                parameter="ignore",
            )
