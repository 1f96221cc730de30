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


def writable(path: str | os.PathLike[str]) -> None:
    """Raise UserError unless a picture can be written to `path`: known suffix, existing folder."""
    target = Path(path)
    if target.suffix.lower() not in _SUFFIXES:
        raise UserError(f"{target} can't be drawn: its name must end in .png or .jpg, not '{target.suffix}'.")
    if not target.parent.is_dir():
        raise UserError(f"{target} can't be written: there is no folder {target.parent}; make it first.")


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
