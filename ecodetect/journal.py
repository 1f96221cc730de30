"""What is done of a scan: a SQLite file beside the output, from which an interrupted scan goes on.

One journal serves one output file. It knows several rasters (one layer may cover many), each by a key of
content, model and settings. Candidates are stored by unit, one transaction a unit, so that a kill loses
whole units only; they are read back sorted by place, so that the output doesn't depend on the order of work.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import zlib
from collections.abc import Collection, Generator, Iterable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.detections import Detections, Kind
from ecodetect.errors import InUseError, UserError
from ecodetect.grid import Floats, Grid, Window
from ecodetect.score_maps import Piece

try:
    import fcntl
except ImportError:  # Windows, where a file in use can't be removed
    fcntl = None  # type: ignore[assignment]

_SCHEMA = 4
_BATCH_BYTES = 2_000_000  # of geometry at once: on their way into a file they take some twenty times that
NOTHING = np.empty(0)
_TABLES = """
CREATE TABLE IF NOT EXISTS rasters (id INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, cuts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS units (raster INTEGER, number INTEGER, too_large INTEGER, valid BLOB,
    expected BLOB,
    PRIMARY KEY (raster, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pieces (raster INTEGER, block_row INTEGER, block_column INTEGER, unit INTEGER,
    x INTEGER, y INTEGER, width INTEGER, height INTEGER, packed BLOB,
    PRIMARY KEY (raster, block_row, block_column, unit));
CREATE TABLE IF NOT EXISTS candidates (raster INTEGER, y REAL, x REAL, label INTEGER, score REAL, diameter
    REAL, geometry BLOB);
"""


class Journal:
    """The journal of one output; open it once, close it, `discard` it when the output is written."""

    def __init__(self, path: Path) -> None:
        """Open or create.

        Raises InUseError when another scan holds it, UserError where the folder can't be written.
        """
        self.path = path
        self._lock = _locked(path)
        try:
            self._db = sqlite3.connect(path, timeout=0.2, isolation_level=None, check_same_thread=False)
            # The exclusive lock lasts while the journal is open and dies with the process.
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA cache_size=-16000")
            self._db.execute("PRAGMA temp_store=FILE")
            self._db.execute("BEGIN IMMEDIATE")
            self._prepare()
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            self.close()
            raise _as_user_error(path, error) from error

    def _prepare(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version != _SCHEMA:
            for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall():
                self._db.execute(f'DROP TABLE "{name}"')
        for statement in _TABLES.split(";"):
            self._db.execute(statement)
        self._db.execute(f"PRAGMA user_version={_SCHEMA}")

    # -- rasters and units ---------------------------------------------------------------------------------

    def raster(self, key: str, cuts: str = "") -> tuple[int, str]:
        """The number of the raster with this key and the cuts that its units are of; entered if it is new.

        cuts : what to enter. Of a raster that is known those count that its units were done with.
        """
        with _said(self.path):
            self._db.execute("INSERT OR IGNORE INTO rasters (key, cuts) VALUES (?, ?)", (key, cuts))
            found = self._db.execute("SELECT id, cuts FROM rasters WHERE key = ?", (key,)).fetchone()
            return int(found[0]), str(found[1])

    def is_of(self, keys: Collection[str]) -> bool:
        """Whether all its rasters have one of these keys."""
        return all(key in keys for (key,) in self._db.execute("SELECT key FROM rasters"))

    def forget_all_but(self, rasters: list[int]) -> int:
        """Drop what belongs to other keys: other settings, other rasters. Returns the number of units."""
        marks = ",".join("?" * len(rasters))
        with _said(self.path):
            for table in ("candidates", "pieces", "units"):
                dropped = self._db.execute(
                    f"DELETE FROM {table} WHERE raster NOT IN ({marks})", rasters
                ).rowcount
            self._db.execute(f"DELETE FROM rasters WHERE id NOT IN ({marks})", rasters)
        return int(dropped)

    def done(self, raster: int) -> set[int]:
        """Numbers of the units that are done."""
        return {n for (n,) in self._db.execute("SELECT number FROM units WHERE raster = ?", (raster,))}

    def add(
        self,
        raster: int,
        number: int,
        found: Detections,
        valid: NDArray[np.int64],
        too_large: int,
        expected: Floats = NOTHING,
        pieces: Iterable[Piece] = (),
    ) -> None:
        """Enter a finished unit with its candidates, whole or not at all.

        found : candidates in pixels of the scanned grid.
        valid : number of pixels searched in each row of the unit's core.
        too_large : objects wider than the detector's largest object.
        expected : individuals of each class by the detector's density, or nothing.
        pieces : of the map of scores, or nothing.
        """
        centres = found.centres()
        diameter = [None] * len(found) if found.diameter is None else found.diameter.tolist()
        if found.kind == "polygon":
            blobs: list[bytes] = list(shapely.to_wkb(found.geometry))
        else:
            blobs = [row.tobytes() for row in np.ascontiguousarray(found.geometry, dtype="<f8")]
        rows = zip(
            [raster] * len(found), centres[:, 1].tolist(), centres[:, 0].tolist(), found.label.tolist(),
            found.score.tolist(), diameter, blobs, strict=True,
        )  # fmt: skip
        packed = zlib.compress(valid.astype("<i8").tobytes(), 1)
        unit = (raster, number, too_large, packed, expected.astype("<f8").tobytes())
        mapped = ((raster, *piece.block, number, *astuple(piece.window), piece.packed) for piece in pieces)
        with _said(self.path):
            self._db.execute("BEGIN")
            try:
                self._db.executemany("INSERT INTO pieces VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", mapped)
                self._db.executemany("INSERT INTO candidates VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
                self._db.execute("INSERT INTO units VALUES (?, ?, ?, ?, ?)", unit)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def units(self, raster: int) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        """Number, too-large objects and searched pixels per row of each unit that is done, by number."""
        query = "SELECT number, too_large, valid FROM units WHERE raster = ? ORDER BY number"
        for number, too_large, packed in self._db.execute(query, (raster,)):
            yield number, too_large, np.frombuffer(zlib.decompress(packed), "<i8")

    def expected(self, raster: int) -> Floats:
        """Individuals of each class by the detector's density, on all units done; (0,): it has none."""
        query = "SELECT expected FROM units WHERE raster = ? ORDER BY number"
        each = [np.frombuffer(blob, "<f8") for (blob,) in self._db.execute(query, (raster,)) if blob]
        return np.sum(each, axis=0) if each else NOTHING

    def pieces(self, raster: int) -> Generator[Piece, None, None]:
        """All pieces of the map of scores, block after block from top to bottom, then left to right."""
        query = (
            "SELECT block_row, block_column, x, y, width, height, packed FROM pieces WHERE raster = ?"
            " ORDER BY block_row, block_column, unit"
        )
        with _said(self.path):
            for row, column, x, y, width, height, packed in self._db.execute(query, (raster,)):
                yield Piece((row, column), Window(x, y, width, height), packed)

    def candidates(
        self, raster: int, grid: Grid, kind: Kind, classes: tuple[str, ...], *, batch: int = 20_000
    ) -> Iterator[Detections]:
        """All candidates of a raster, sorted from top to bottom, then left to right, in batches.

        grid : the scanned grid, whose pixels the coordinates are.
        """
        query = (
            "SELECT label, score, diameter, geometry FROM candidates WHERE raster = ?"
            " ORDER BY y, x, label, score DESC, geometry"
        )
        with _said(self.path):
            for rows in _batches(self._db.execute(query, (raster,)), batch):
                label, score, diameter, blobs = zip(*rows, strict=True)
                geometry: NDArray[Any]
                if kind == "polygon":
                    geometry = np.asarray(shapely.from_wkb(list(blobs)), dtype=object)
                else:
                    width = 2 if kind == "point" else 4
                    geometry = np.frombuffer(b"".join(blobs), "<f8").reshape(-1, width).astype(np.float64)
                sizes = None if diameter[0] is None else np.array(diameter, np.float64)
                yield Detections(
                    grid,
                    kind,
                    geometry,
                    np.array(score, np.float64),
                    np.array(label, np.int64),
                    classes,
                    sizes,
                )
            # Pages kept for a query that has ended: what ends the file may need the room.
            self._db.execute("PRAGMA shrink_memory")

    # -- the end -------------------------------------------------------------------------------------------

    @property
    def is_blank(self) -> bool:
        """Whether no unit has been done."""
        return self._db.execute("SELECT 1 FROM units LIMIT 1").fetchone() is None

    def close(self) -> None:
        """Close, keeping what is done."""
        self._db.close()
        os.close(self._lock)

    def discard(self) -> None:
        """Close and remove: the output is written, or there is nothing to keep."""
        self._db.close()
        remove(self.path)  # before another process can have the lock, and what it writes is lost
        os.close(self._lock)


def _batches(cursor: sqlite3.Cursor, most: int) -> Iterator[list[tuple[Any, ...]]]:
    """At most so many rows at once, fewer of large geometries (the last column)."""
    rows: list[tuple[Any, ...]] = []
    size = 0
    for row in cursor:
        rows.append(row)
        size += len(row[-1])
        if len(rows) == most or size >= _BATCH_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _locked(path: Path) -> int:
    """The descriptor of a journal that no other process has, from before it is opened until it is removed.

    SQLite's own lock ends when a journal is closed, so that another process might open what is being removed.
    Raises InUseError, and UserError where the folder can't be written to.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise _cannot_write(path) from error
        if fcntl is None:
            return descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise _in_use(path) from error
        except OSError:
            return descriptor  # a file system without such locks: SQLite's own has to do
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # the other process has removed it meanwhile


def remove(path: Path) -> None:
    """Remove a journal and SQLite's files beside it."""
    for suffix in ("-wal", "-shm", "-journal", ""):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


class _said:
    """Turns SQLite's errors into one sentence."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.DatabaseError):
            raise _as_user_error(self._path, error) from error


def _in_use(path: Path) -> InUseError:
    return InUseError(f"Another scan is writing this output ({path.name} is locked); wait for it or stop it.")


def _cannot_write(path: Path) -> UserError:
    return UserError(f"{path.parent} can't be written to; choose another place with -o.")


def _as_user_error(path: Path, error: sqlite3.DatabaseError) -> UserError:
    text = str(error)
    if "locked" in text or "busy" in text:
        return _in_use(path)
    if "full" in text:
        return UserError(
            f"The disk is full ({path}); free some space and run the same command again to go on."
        )
    if "unable to open" in text or "readonly" in text:
        return _cannot_write(path)
    if "not a database" in text or "malformed" in text:
        return UserError(f"{path} is not a journal of ecodetect or is damaged; remove it and run again.")
    return UserError(f"The journal {path} can't be used ({text}); remove it and run again.")
