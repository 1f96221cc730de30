"""Reads SQLite files from others (GeoPackages), including those in use, without changing them.

SQLite writes beside a file that it reads: it applies or creates a `-wal` or `-journal`, even for reading. So
such a file is read from a private copy that includes committed changes in its `-wal`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ecodetect.errors import LayerError, UserError
from ecodetect.guarding import guard

MAGIC = b"SQLite format 3\0"
_BESIDE = ("-wal", "-journal")
_WAL = 2  # in bytes 18 and 19: what is written goes to a -wal first
_TRIES = 3
_COMMENT = re.compile(r"/\*.*?(?:\*/|$)|--[^\n]*", re.DOTALL)


def is_at_work(path: Path) -> bool:
    """Whether reading a SQLite file would write beside it, or use files beside it."""
    try:
        with path.open("rb") as file:
            head = file.read(20)
        return head.startswith(MAGIC) and (_WAL in head[18:20] or bool(_parts(path)[1:]))
    except OSError:
        return False  # said where it is read


@contextlib.contextmanager
def at_rest(path: Path, *, error: type[UserError]) -> Iterator[Path]:
    """The file to read: itself, or a temporary copy; messages about the copy name the file."""
    if not path.is_file() or not is_at_work(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="ecodetect-") as folder:
        copy = _settled(path, Path(folder), error=error)
        try:
            yield copy
        except UserError as said:
            text = str(said).replace(str(copy), str(path))
            raise type(said)(text, parameter=said.parameter) from said


def _settled(path: Path, folder: Path, *, error: type[UserError]) -> Path:
    """A copy of a file, with the changes in the files beside it."""
    copy = _copied(path, folder, error=error)
    guard.call("ecodetect.guarding.databases:settle", str(copy), str(path), about=str(path), error=error)
    return copy


def _copied(path: Path, folder: Path, *, error: type[UserError]) -> Path:
    """A consistent copy of a file and the files beside it."""
    for _ in range(_TRIES):
        before = _states(path)
        for part in _parts(path):
            if os.path.lexists(part) and not part.is_file():
                raise error(f"{path} has {part.name} beside it, which is not a file; remove it.")
            try:
                shutil.copyfile(part, folder / part.name)
            except FileNotFoundError:  # its writer has just finished
                (folder / part.name).unlink(missing_ok=True)
            except OSError as failure:
                why = failure.strerror or failure
                raise error(f"{path} is open elsewhere and can't be copied to be read: {why}.") from failure
        if _states(path) == before:
            return folder / path.name
    raise error(f"{path} is being written by another program; try again when that has finished.")


def without_comments(sql: str) -> str:
    """The words of a table or view, as SQLite reads them."""
    return _COMMENT.sub(" ", sql)


def settle(copy: str, shown: str) -> None:
    """Merge the files beside a copy into it. For `guard`'s child."""
    try:
        with contextlib.closing(sqlite3.connect(copy)) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            database.execute("PRAGMA journal_mode = DELETE").fetchall()
    except sqlite3.Error as error:
        raise LayerError(f"{shown} can't be read with what lies beside it: {error}.") from error


_lasting: dict[tuple[str, object], Path] = {}


def lasting_copy(path: Path, *, error: type[UserError]) -> Path:
    """A copy that stays until this process ends; one for each state of a file."""
    key = str(path.absolute()), _states(path)
    if key not in _lasting:
        folder = Path(tempfile.mkdtemp(prefix="ecodetect-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _lasting[key] = _settled(path, folder, error=error)
    return _lasting[key]


def _parts(path: Path) -> list[Path]:
    """The file, and what lies beside it: SQLite takes away even what is empty, or no file."""
    beside = (path.with_name(path.name + ending) for ending in _BESIDE)
    return [path, *(part for part in beside if os.path.lexists(part))]


def _states(path: Path) -> tuple[tuple[str, int, int], ...]:
    found = []
    for part in _parts(path):
        with contextlib.suppress(OSError):
            state = part.stat()
            found.append((part.name, state.st_size, state.st_mtime_ns))
    return tuple(found)
