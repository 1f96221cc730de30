"""The progress of a scan: a SQLite file beside the output, from which an interrupted scan resumes.

One journal serves one output file. It knows several rasters (one layer may cover many), each by a key of
content, model and settings. Candidates are stored per unit, in one transaction, so that a kill loses only
whole units. They are read back sorted by place, so that the output doesn't depend on the order of work.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import zlib
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import astuple
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.detections import Detections, GeometryType
from ecodetect.errors import UserError
from ecodetect.grid import Floats, Grid, Window
from ecodetect.scanning import journal_file
from ecodetect.scanning.score_maps import Piece

_BATCH_BYTES = 2_000_000  # of geometry at once: while a file is written they take about twenty times as much
# `seal`: hash of everything that a row stands for, see `_seal_of_raster` and `_seal_of_unit`.
_TABLES = """
CREATE TABLE rasters (id INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, cuts TEXT NOT NULL,
    stamp TEXT NOT NULL, seal BLOB NOT NULL);
CREATE TABLE units (raster INTEGER, number INTEGER, too_large INTEGER, searched BLOB, expected BLOB,
    seal BLOB, PRIMARY KEY (raster, number)) WITHOUT ROWID;
CREATE TABLE pieces (raster INTEGER, block_row INTEGER, block_column INTEGER, unit INTEGER,
    x INTEGER, y INTEGER, width INTEGER, height INTEGER, packed BLOB,
    PRIMARY KEY (raster, block_row, block_column, unit));
CREATE TABLE candidates (raster INTEGER, unit INTEGER, y REAL, x REAL, label INTEGER, score REAL, diameter
    REAL, geometry BLOB);
"""
_STATEMENTS = tuple(" ".join(each.split()) for each in _TABLES.split(";") if each.strip())
# SQLite quotes what it can't read: a UnicodeError.
_DAMAGE = (sqlite3.DatabaseError, UnicodeError, zlib.error, shapely.errors.GEOSException)
_HOLDING = ("candidates", "pieces", "units")  # tables whose rows belong to rasters


class Entry(NamedTuple):
    """A raster in a journal.

    number : its number in the journal.
    cuts : the cuts of its units.
    damaged : finished units that are searched again, because their rows aren't what was found.
    is_replaced : the raster's file has changed since its units were searched: all are searched again.
    """

    number: int
    cuts: str
    damaged: int = 0
    is_replaced: bool = False


class Journal:
    """The journal of one output; open it once, close it, `discard` it when the output is written.

    path : of the file.
    lost : number of units whose raster's entry is damaged; they are dropped.
    """

    def __init__(self, path: Path) -> None:
        """Open or create.

        Raises InUseError when another scan uses it; UserError where the folder can't be written to, and where
        the file isn't a journal of ecodetect or is damaged as a whole.
        """
        self.path = path
        self.lost = 0
        self._lock = journal_file.held(path)
        self._facts: dict[int, tuple[str, str, str]] = {}  # key, cuts and stamp of rasters by number
        try:
            with _said(path):
                self._db = sqlite3.connect(path, timeout=0.2, isolation_level=None, check_same_thread=False)
        except BaseException:
            os.close(self._lock)
            raise
        try:
            # The exclusive lock lasts while the journal is open and dies with the process.
            with _said(path):
                self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.execute("PRAGMA cache_size=-16000")
                self._db.execute("PRAGMA temp_store=FILE")
                self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        there = [sql for (sql,) in self._db.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL")]
        if not there:
            for statement in _STATEMENTS:
                self._db.execute(statement)
        elif tuple(there) != _STATEMENTS:
            raise sqlite3.DatabaseError("malformed: other tables")
        elif (found := self._db.execute("PRAGMA integrity_check(1)").fetchone()) != ("ok",):
            raise sqlite3.DatabaseError(f"malformed: {found}")
        else:
            self._drop_unknown()
        self._db.execute("COMMIT")

    def _drop_unknown(self) -> None:
        """Drop rasters with a changed entry, and rows that belong to no raster."""
        known = [
            each[0]
            for each in self._db.execute("SELECT id, key, cuts, stamp, seal FROM rasters").fetchall()
            if each[-1] == _seal_of_raster(*each[1:-1])
        ]
        marks = ",".join("?" * len(known))
        self._db.execute(f"DELETE FROM rasters WHERE id NOT IN ({marks})", known)
        for table in _HOLDING:  # units last, because they are counted
            self.lost = self._db.execute(
                f"DELETE FROM {table} WHERE raster IS NULL OR raster NOT IN ({marks})", known
            ).rowcount

    # -- rasters and units ---------------------------------------------------------------------------------

    def raster(self, key: str, cuts: str = "", stamp: str = "") -> Entry:
        """The entry of the raster with this key; created if it is new.

        cuts : to enter for a new raster; a known raster keeps the cuts of its finished units.
        stamp : the state of the raster's file. Units that were searched in another state are dropped.
        Known units are checked against their seals, and dropped if they have changed.
        """
        with _said(self.path):
            there = self._db.execute("SELECT id, cuts, stamp FROM rasters WHERE key = ?", (key,)).fetchone()
            if there is None:
                return Entry(self._entered(key, cuts, stamp), cuts)
            number, of_units, before = int(there[0]), str(there[1]), str(there[2])
            if before != stamp:
                is_blank = not self.done(number)
                self._begin_anew(number)
                return Entry(self._entered(key, cuts, stamp), cuts, is_replaced=not is_blank)
            self._facts[number] = key, of_units, stamp
            return Entry(number, of_units, self._mended(number))

    def _entered(self, key: str, cuts: str, stamp: str) -> int:
        row = (key, cuts, stamp, _seal_of_raster(key, cuts, stamp))
        found = self._db.execute("INSERT INTO rasters (key, cuts, stamp, seal) VALUES (?, ?, ?, ?)", row)
        assert found.lastrowid is not None
        self._facts[found.lastrowid] = key, cuts, stamp
        return found.lastrowid

    def _begin_anew(self, number: int) -> None:
        self._db.execute("BEGIN")
        for table in _HOLDING:
            self._db.execute(f"DELETE FROM {table} WHERE raster = ?", (number,))
        self._db.execute("DELETE FROM rasters WHERE id = ?", (number,))
        self._db.execute("COMMIT")

    def forget(self, number: int) -> None:
        """Drop a raster and all its finished units."""
        with _said(self.path):
            self._begin_anew(number)

    def _mended(self, number: int) -> int:
        """Drop the changed units of a raster; returns their number."""
        stated = {
            unit: (too_large, searched, expected, seal)
            for unit, too_large, searched, expected, seal in self._db.execute(
                "SELECT number, too_large, searched, expected, seal FROM units WHERE raster = ?", (number,)
            )
        }
        if not stated:
            for table in ("candidates", "pieces"):
                self._db.execute(f"DELETE FROM {table} WHERE raster = ?", (number,))
            return 0
        pieces: dict[int, list[tuple[Any, ...]]] = {}
        for unit, *rest in self._db.execute(
            "SELECT unit, block_row, block_column, x, y, width, height, packed FROM pieces WHERE raster = ?"
            " ORDER BY block_row, block_column",
            (number,),
        ):
            pieces.setdefault(unit, []).append((*rest[:-1], _digest(rest[-1])))
        sound = self._sound_units(number, stated, pieces)
        bad = {unit for unit in (*stated, *pieces) if unit not in sound}
        kept = sorted(sound)
        self._db.execute("CREATE TEMP TABLE IF NOT EXISTS sound (unit INTEGER PRIMARY KEY)")
        self._db.execute("BEGIN")
        self._db.execute("DELETE FROM sound")
        self._db.executemany("INSERT INTO sound VALUES (?)", [(unit,) for unit in kept])
        dropped = 0
        for table, column in (("candidates", "unit"), ("pieces", "unit"), ("units", "number")):
            dropped += self._db.execute(
                f"DELETE FROM {table} WHERE raster = ? AND"
                f" ({column} IS NULL OR {column} NOT IN (SELECT unit FROM sound))",
                (number,),
            ).rowcount
        self._db.execute("COMMIT")
        return max(len(bad), min(dropped, 1))

    def _sound_units(
        self,
        number: int,
        stated: dict[int, tuple[Any, ...]],
        pieces: dict[int, list[tuple[Any, ...]]],
    ) -> set[int]:
        """Which units are unchanged since they were entered.

        A unit's candidates were entered together, so they are consecutive; a unit that appears a second time
        has rows that aren't its own.
        """
        rows = self._db.execute(
            "SELECT unit, y, x, label, score, diameter, geometry FROM candidates WHERE raster = ?"
            " ORDER BY rowid",
            (number,),
        )
        seals: dict[Any, bytes | None] = {}
        for unit, group in groupby(rows, key=lambda row: row[0]):
            candidates = _hash_of_rows(group)
            seals[unit] = None if unit in seals else candidates
        without = _hash_of_candidates([], [], [], [], [], [])
        raster, sound = self._facts[number], set()
        for unit, (too_large, searched, expected, seal) in stated.items():
            candidates = seals.get(unit, without)
            if candidates is not None:
                mapped = pieces.get(unit, [])
                if seal == _seal_of_unit(raster, unit, too_large, searched, expected, candidates, mapped):
                    sound.add(unit)
        return sound

    def is_of(self, keys: Collection[str]) -> bool:
        """Whether all its rasters have one of these keys."""
        with _said(self.path):
            return all(key in keys for (key,) in self._db.execute("SELECT key FROM rasters"))

    def forget_all_but(self, rasters: list[int]) -> int:
        """Drop the units of other keys (other settings or rasters). Returns their number."""
        marks = ",".join("?" * len(rasters))
        with _said(self.path):
            for table in _HOLDING:
                dropped = self._db.execute(
                    f"DELETE FROM {table} WHERE raster NOT IN ({marks})", rasters
                ).rowcount
            self._db.execute(f"DELETE FROM rasters WHERE id NOT IN ({marks})", rasters)
        return int(dropped)

    def done(self, raster: int) -> set[int]:
        """Numbers of the finished units."""
        with _said(self.path):
            return {n for (n,) in self._db.execute("SELECT number FROM units WHERE raster = ?", (raster,))}

    def add(
        self,
        raster: int,
        number: int,
        found: Detections,
        searched: bytes,
        too_large: int,
        expected: Floats | None = None,
        pieces: Iterable[Piece] = (),
    ) -> None:
        """Enter a finished unit with its candidates, whole or not at all.

        found : candidates in pixels of the scanned grid.
        searched : which pixels of the unit's core were searched, as `searched_ground.packed` has it.
        too_large : objects wider than the detector's largest object.
        expected : individuals of each class by the detector's density; None or (0,): it has none.
        pieces : of the map of scores, if any.
        """
        centres = found.centres()
        diameter = [None] * len(found) if found.diameter is None else found.diameter.tolist()
        if found.kind == "polygon":
            blobs: list[bytes] = list(shapely.to_wkb(found.geometry))
        else:
            blobs = [row.tobytes() for row in np.ascontiguousarray(found.geometry, dtype="<f8")]
        y, x = centres[:, 1].tolist(), centres[:, 0].tolist()
        label, score = found.label.tolist(), found.score.tolist()
        rows = zip(
            [raster] * len(found), [number] * len(found), y, x, label, score, diameter, blobs, strict=True
        )
        by_density = b"" if expected is None else expected.astype("<f8").tobytes()
        mapped = sorted((*piece.block, *astuple(piece.window), piece.packed) for piece in pieces)
        seal = _seal_of_unit(
            self._facts[raster], number, too_large, searched, by_density,
            _hash_of_candidates(y, x, label, score, diameter, blobs),
            [(*rest, _digest(data)) for *rest, data in mapped],
        )  # fmt: skip
        unit = (raster, number, too_large, searched, by_density, seal)
        parts = [(raster, *rest[:2], number, *rest[2:]) for rest in mapped]
        with _said(self.path):
            self._db.execute("BEGIN")
            try:
                self._db.executemany("INSERT INTO pieces VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", parts)
                self._db.executemany("INSERT INTO candidates VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
                self._db.execute("INSERT INTO units VALUES (?, ?, ?, ?, ?, ?)", unit)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def units(self, raster: int) -> Iterator[tuple[int, int, bytes]]:
        """Number, too-large objects and searched pixels (packed) of each unit that is done, by number."""
        query = "SELECT number, too_large, searched FROM units WHERE raster = ? ORDER BY number"
        with _said(self.path):
            yield from self._db.execute(query, (raster,))

    def searched(self, raster: int, number: int) -> bytes:
        """The searched pixels (packed) of a unit that is done."""
        query = "SELECT searched FROM units WHERE raster = ? AND number = ?"
        with _said(self.path):
            (found,) = self._db.execute(query, (raster, number)).fetchone()
        return bytes(found)

    def expected(self, raster: int) -> Iterator[tuple[int, Floats]]:
        """Number of each unit that is done, and individuals of each class on it by the detector's density.

        Nothing for a detector that has none.
        """
        query = "SELECT number, expected FROM units WHERE raster = ? ORDER BY number"
        with _said(self.path):
            for number, blob in self._db.execute(query, (raster,)):
                if blob:
                    yield number, np.frombuffer(blob, "<f8")

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
        self, raster: int, grid: Grid, kind: GeometryType, classes: tuple[str, ...], *, batch: int = 20_000
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
            # Frees pages kept for a finished query: writing the file's end may need the room.
            self._db.execute("PRAGMA shrink_memory")

    # -- the end -------------------------------------------------------------------------------------------

    @property
    def is_blank(self) -> bool:
        """Whether no unit is finished."""
        with _said(self.path):
            return self._db.execute("SELECT 1 FROM units LIMIT 1").fetchone() is None

    def close(self) -> None:
        """Close, keeping the finished units."""
        self._db.close()
        os.close(self._lock)

    def discard(self) -> None:
        """Close and remove: the output is written, or there is nothing to keep."""
        self._db.close()
        journal_file.remove(self.path)  # before another process can lock it and lose what it writes
        os.close(self._lock)


def _batches(cursor: sqlite3.Cursor, most: int) -> Iterator[list[tuple[Any, ...]]]:
    """Rows in batches, smaller ones for large geometries (the last column)."""
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


def _digest(data: Any) -> bytes:
    return hashlib.blake2b(data if isinstance(data, bytes) else repr(data).encode(), digest_size=16).digest()


def _seal_of_raster(key: Any, cuts: Any, stamp: Any) -> bytes:
    return _digest(repr((key, cuts, stamp)))


def _seal_of_unit(
    raster: tuple[str, str, str],
    number: Any,
    too_large: Any,
    searched: Any,
    expected: Any,
    candidates: bytes,
    pieces: list[tuple[Any, ...]],
) -> bytes:
    """A checksum of a unit with all its results.

    raster : key, cuts and stamp of the raster, so that no unit passes for a unit of another raster.
    candidates : see `_hash_of_candidates`.
    pieces : of the map of scores, by block: block, window and digest of the pixels.
    """
    return _digest(
        repr((raster, number, too_large, _digest(searched), _digest(expected), candidates, pieces))
    )


def _hash_of_candidates(
    y: Sequence[Any],
    x: Sequence[Any],
    label: Sequence[Any],
    score: Sequence[Any],
    diameter: Sequence[Any],
    blobs: Iterable[bytes],
) -> bytes:
    """A checksum of the candidates of a unit in the order in which they were entered.

    Raises TypeError, ValueError or OverflowError for values that no candidate can have.
    """
    digest = hashlib.blake2b(digest_size=16)
    for column in (y, x, score, diameter):
        # As a database stores them: without -0.0, and NaN as NULL.
        digest.update((np.array(column, "<f8") + 0.0).tobytes())
    digest.update(np.array(label, "<i8").tobytes())
    blobs = list(blobs)
    digest.update(np.array([len(blob) for blob in blobs], "<i8").tobytes())
    digest.update(b"".join(blobs))
    return digest.digest()


def _hash_of_rows(rows: Iterable[tuple[Any, ...]]) -> bytes | None:
    """The same for rows of the table; None where they hold values that no candidate can have."""
    _, y, x, label, score, diameter, blobs = zip(*rows, strict=True)
    try:
        if {*map(type, y), *map(type, x), *map(type, score)} != {float} or {*map(type, label)} != {int}:
            return None
        return _hash_of_candidates(y, x, label, score, diameter, blobs)
    except (TypeError, ValueError, OverflowError):
        return None


class _said:
    """Turns SQLite's errors, and other effects of damage, into one sentence."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, _DAMAGE):
            raise _as_user_error(self._path, error) from error


def _as_user_error(path: Path, error: BaseException) -> UserError:
    text = str(error)
    if "locked" in text or "busy" in text:
        return journal_file.in_use(path)
    if "full" in text or "disk I/O" in text:
        return journal_file.cannot_grow(path, text)
    if "unable to open" in text or "readonly" in text:
        return journal_file.cannot_write(path)
    return UserError(
        f"The journal {path} is damaged; remove it to search from the beginning.", parameter="restart"
    )
