"""Writes a file whole or not at all: into a marked folder beside its place, then moves it there.

The folder's name depends only on the file's, so that a run after a kill removes what the killed one left. Its
mark shows that ecodetect made it: nothing else is removed.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_MARK = ".ecodetect-unfinished"
_MOST_BYTES = 1 << 20  # of a mark


def write_whole(target: Path, content: bytes, *, replace: bool = True) -> None:
    """Put a file in its place, safe on the disk, or leave what was there; passes OSError on.

    replace : overwrite an existing file; otherwise FileExistsError.
    """
    with staged(target) as stage:
        beside = stage / target.name
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            settle(beside, target, replace=replace)
        except FileExistsError:
            if not (target.is_file() and target.read_bytes() == content):
                raise


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder beside `target` for what is unfinished; it is gone afterwards, whatever happens.

    Raises FileExistsError where something that isn't ours lies there, and passes other OSErrors on.
    """
    stage = target.with_name(f".{target.name}.part")
    _clear(stage, target)
    stage.mkdir()
    try:
        (stage / _MARK).touch()
        yield stage
    finally:
        with suppress(OSError):
            _clear(stage, target)


def made_in(stage: Path) -> list[Path]:
    """The files that have been made in the folder, sorted."""
    return sorted(found for found in stage.rglob("*") if found.is_file() and found.name != _MARK)


def announce(stage: Path, beside: Sequence[Path]) -> None:
    """Say in the folder that files are about to be put beside the target, which follows them.

    After a kill in between they are half an output, and `staged` removes them.
    """
    mark = stage / _MARK
    mark.write_text(json.dumps([os.path.relpath(each, stage.parent) for each in beside]), encoding="utf-8")
    sync(mark)


def settle(file: Path, target: Path, *, replace: bool) -> None:
    """Move a finished file to its place.

    replace : what lies there; else FileExistsError, also where it has come there just now.
    """
    if replace:
        file.replace(target)
        return
    try:
        os.link(file, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without second names: the moment between look and move stays
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "it has appeared in between", str(target)) from None
        file.replace(target)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, safely to the disk."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() or os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _clear(stage: Path, target: Path) -> None:
    """Remove what a killed run has left; raises FileExistsError where it isn't ours."""
    try:
        state = os.lstat(stage)
    except FileNotFoundError:
        return
    mark = stage / _MARK
    is_ours = stat.S_ISDIR(state.st_mode) and (mark.is_file() or not any(stage.iterdir()))
    if not is_ours:
        raise FileExistsError(
            errno.EEXIST, f"{stage.name} is in the way, which isn't ecodetect's; move it away", str(stage)
        )
    if not os.path.lexists(target):
        for each in _announced(mark):
            (stage.parent / each).unlink(missing_ok=True)
    for entry in stage.iterdir():
        if entry.name == _MARK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    mark.unlink(missing_ok=True)
    stage.rmdir()


def _announced(mark: Path) -> list[str]:
    """The files that `announce` named, as seen from the target's folder."""
    try:
        if not 0 < mark.stat().st_size < _MOST_BYTES:
            return []
        found = json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
