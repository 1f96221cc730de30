"""Annotation files as text: bounded in size, in the encoding they come in, never half read.

Formats made of text (tables, JSON, YOLO, XML) start here, so that a file that is missing, empty, too large
or not text is answered alike everywhere.
"""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

from ecodetect.errors import LayerError

MOST_BYTES = 256 * 2**20  # about ten million table rows; parsed JSON takes some ten times its text in memory


def read_bytes(path: Path) -> bytes:
    """All of a file, at most `MOST_BYTES`; raises LayerError when that is not possible. May be empty."""
    try:
        if not path.exists():
            raise LayerError(f"{path}: no such file.")
        if not path.is_file():
            raise LayerError(f"{path} is not a file.")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise LayerError(
                f"{path.name} has {size / 2**20:.0f} MB and is read whole, up to {MOST_BYTES // 2**20} MB;"
                " split it, or use a GeoPackage or GeoParquet."
            )
        return path.read_bytes()
    except OSError as error:
        raise LayerError(f"{path} can't be read: {error.strerror or error}.") from error


def read_text(path: Path) -> str:
    """The file's text; raises LayerError when it is empty or not text.

    UTF-8 with or without a byte order mark, UTF-16 with one, else Windows-1252 (Latin-1 with a euro sign),
    which is what spreadsheets in Western Europe write.
    """
    data = read_bytes(path)
    if not data:
        raise LayerError(f"{path.name} is empty (0 bytes).")
    return decoded(data, path)


def decoded(data: bytes, path: Path) -> str:
    """Bytes of `path` as text; see `read_text`."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", errors="replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", errors="replace")
    if "\0" in text:
        raise LayerError(f"{path.name} is not text: it holds NUL bytes.")
    return text


def read_json(path: Path) -> Any:
    """The value of a JSON file; raises LayerError naming the place of the first fault."""
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise LayerError(
            f"{path.name} is not complete JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from error
    except RecursionError as error:
        raise LayerError(f"{path.name} is nested too deeply to be an annotation file.") from error
    except ValueError as error:  # a number of more digits than Python converts
        raise LayerError(f"{path.name} holds a number that can't be read.") from error
