"""How a picture becomes a file: PNG or JPEG, whole or not at all, known as ours."""

from __future__ import annotations

import io
import os
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ecodetect.errors import UserError
from ecodetect.whole_file import write_whole

_SUFFIXES = (".png", ".jpg", ".jpeg")
_MARK = "ecodetect"
_HEAD_BYTES = 2048  # within which the mark lies


def writable(path: str | os.PathLike[str]) -> None:
    """Raise UserError unless a picture can be written to `path`: known suffix, existing folder."""
    target = Path(path)
    if target.suffix.lower() not in _SUFFIXES:
        raise UserError(f"{target} can't be drawn: its name must end in .png or .jpg, not '{target.suffix}'.")
    if not target.parent.is_dir():
        raise UserError(f"{target} can't be written: there is no folder {target.parent}; make it first.")


def replaceable(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise UserError, before work starts, where `save` can't write, or would replace a picture not ours.

    overwrite : replace whatever picture lies there.
    """
    writable(path)
    target = Path(path)
    if not os.path.lexists(target):
        return
    if not target.is_file():
        raise UserError(f"{target} is not a file that could be replaced; choose another name.")
    if not (overwrite or is_ours(target)):
        raise UserError(
            f"{target} exists, and ecodetect didn't draw it; choose another name or remove it.",
            parameter="overwrite",
        )


def is_ours(path: Path) -> bool:
    """Whether a picture carries the mark of `save`."""
    with path.open("rb") as file:
        return _MARK.encode() in file.read(_HEAD_BYTES)


def save(sheet: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write the picture beside its place and move it there; UserError where that fails."""
    target = Path(path)
    buffer = io.BytesIO()
    # The mark by which a scan of a folder knows its own pictures.
    if target.suffix.lower() == ".png":
        mark = PngInfo()
        mark.add_text("Software", _MARK)
        sheet.save(buffer, "PNG", pnginfo=mark)
    else:
        sheet.save(buffer, "JPEG", quality=92, subsampling=0, comment=_MARK.encode())
    try:
        write_whole(target, buffer.getvalue())
    except OSError as error:
        raise UserError(f"{target} can't be written: {error.strerror or error}.") from error
