"""The file of a journal on the disk: recognising, locking, creating and removing it.

A journal carries our `application_id` of SQLite from its first page on. Any other file with its name, or with
the names that SQLite would use beside it, belongs to another program and is left as it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from pathlib import Path

from ecodetect.errors import InUseError, UserError

try:
    import fcntl
except ImportError:  # Windows, where a file in use can't be removed
    fcntl = None  # type: ignore[assignment]

SCHEMA = 6
APPLICATION = 0x65636F4A  # "ecoJ"
_MAGIC = b"SQLite format 3\0"
_PAGE = 4096
_WAL = "-wal"  # which SQLite writes while a journal is open, and a kill leaves
_FOREIGN = ("-journal", "-shm")  # which SQLite never writes for us: ours is in WAL mode, and held alone
_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def journal_path(output: Path) -> Path:
    """Where the journal of an output lies."""
    return output.with_name(output.name + ".journal")


def held(path: Path, *, any_schema: bool = False) -> int:
    """The descriptor of a locked journal; the lock lasts from before it is opened until it is removed.

    The journal is created if there is none. SQLite's own lock ends when a journal is closed, so another
    process might open a journal that is being removed.
    any_schema : also accept a journal of another version of ecodetect.

    Raises InUseError, and UserError where the folder can't be written to, where the file isn't a journal of
    ecodetect, or is one of another version; nothing has been changed then.
    """
    while True:
        _check_sides(path)
        descriptor = _opened(path)
        try:
            if not _is_locked(descriptor, path):
                os.close(descriptor)  # the other process has removed it meanwhile
                continue
            _check_sides(path)
            _check_head(descriptor, path, any_schema=any_schema)
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(descriptor)
            raise
        return descriptor


def exists(path: Path) -> bool:
    """Whether anything lies under the name of a journal, or where SQLite would write beside it."""
    return any(os.path.lexists(f"{path}{suffix}") for suffix in ("", _WAL, *_FOREIGN))


def remove(path: Path) -> None:
    """Remove a journal that is held, and SQLite's file beside it."""
    for suffix in (_WAL, ""):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _opened(path: Path) -> int:
    """A descriptor of a plain file, new or as it is."""
    try:
        state = os.lstat(path)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):
            try:
                if os.path.lexists(f"{path}{_WAL}"):
                    raise _foreign(Path(f"{path}{_WAL}"))
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _LINKS, 0o666)
            except FileExistsError:
                raise
            except OSError as error:
                raise cannot_write(path) from error
        return _opened(path)
    except OSError as error:
        raise cannot_write(path) from error
    # Not after opening: opening a pipe or a device may already have effects.
    if not _is_plain(state):
        raise _foreign(path)
    try:
        return os.open(path, os.O_RDWR | _LINKS)
    except FileNotFoundError:
        return _opened(path)  # the other process has removed it meanwhile
    except OSError as error:
        raise _foreign(path) if error.errno == errno.ELOOP else cannot_write(path) from error


def _is_plain(state: os.stat_result) -> bool:
    """Whether it is a file with one name only, so that writing to it changes no other file."""
    return stat.S_ISREG(state.st_mode) and state.st_nlink <= 1


def _is_locked(descriptor: int, path: Path) -> bool:
    """Lock it; False if another file has its name now.  Raises InUseError."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise in_use(path) from error
    except OSError:
        return True  # a file system without such locks: SQLite's own must do
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _check_sides(path: Path) -> None:
    """Raise UserError where SQLite would write into a file of another program."""
    for suffix in _FOREIGN:
        if os.path.lexists(f"{path}{suffix}"):
            raise UserError(
                f"{path}{suffix} isn't ecodetect's: another program made it, and may have the journal"
                " open; close that program or move the file, then run again."
            )
    try:
        state = os.lstat(f"{path}{_WAL}")
    except OSError:
        return
    if not _is_plain(state):
        raise _foreign(Path(f"{path}{_WAL}"))


def _check_head(descriptor: int, path: Path, *, any_schema: bool) -> None:
    """Start an empty file as a journal; raise UserError for a file that isn't ecodetect's."""
    if not _is_plain(os.fstat(descriptor)):
        raise _foreign(path)
    os.lseek(descriptor, 0, os.SEEK_SET)
    head = os.read(descriptor, 100)
    if not head:  # new, or left by a process that was killed at once: it holds nothing that could be lost
        if os.path.lexists(f"{path}{_WAL}"):
            raise _foreign(Path(f"{path}{_WAL}"))
        try:
            if os.write(descriptor, first_page()) < _PAGE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.ftruncate(descriptor, 0)
            raise cannot_grow(path, error.strerror or str(error)) from error
        return
    if len(head) < 100 or not head.startswith(_MAGIC) or _number(head, 68) != APPLICATION:
        raise _foreign(path)
    if not any_schema and _number(head, 60) != SCHEMA:
        raise UserError(
            f"{path} is the journal of another version of ecodetect; finish the scan with that one, or remove"
            " it to start over.",
            parameter="restart",
        )


def _number(head: bytes, at: int) -> int:
    return int(struct.unpack_from(">I", head, at)[0])


def first_page() -> bytes:
    """An empty database of ours in WAL mode: one page, so that a kill can't leave half of it.

    By https://sqlite.org/fileformat2.html: the header, then an empty leaf of the table of contents.
    """
    page = bytearray(_PAGE)
    struct.pack_into(">16sHBBBBBB", page, 0, _MAGIC, _PAGE, 2, 2, 0, 64, 32, 32)
    # Changes, pages, free pages (2), schema cookie and format, cache, vacuum, encoding.
    struct.pack_into(">9I", page, 24, 1, 1, 0, 0, 0, 4, 0, 0, 1)
    struct.pack_into(">3I", page, 60, SCHEMA, 0, APPLICATION)
    struct.pack_into(">2I", page, 92, 1, 3_037_000)
    struct.pack_into(">BHHHB", page, 100, 13, 0, 0, _PAGE, 0)
    return bytes(page)


def in_use(path: Path) -> InUseError:
    """Another process is at work."""
    return InUseError(f"Another scan is writing this output ({path.name} is locked); wait for it or stop it.")


def cannot_write(path: Path) -> UserError:
    """No journal can be written to the folder."""
    return UserError(f"{path.parent} can't be written to; choose another place.", parameter="out")


def cannot_grow(path: Path, reason: str) -> UserError:
    """The journal can't be written, mostly because the disk is full."""
    if "full" in reason or "space" in reason:
        return UserError(
            f"The disk is full ({path}); free some space and run the same command again to go on."
        )
    return UserError(
        f"The journal {path} can't be written ({reason}): is the disk full? Free some space and run the same"
        " command again to go on."
    )


def _foreign(path: Path) -> UserError:
    return UserError(
        f"{path} isn't a journal of ecodetect, or is damaged; it is left as it is: move or remove it and run"
        " again, or choose another output.",
        parameter="out",
    )
