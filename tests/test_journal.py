"""The journal: whole units or none, sorted by place, one scan at a time."""

import os
import random
import shutil
import sqlite3
from pathlib import Path

import journal_damage
import numpy as np
import pytest
import shapely
from little_scene import write_scene

from ecodetect.detections import Detections
from ecodetect.errors import UserError
from ecodetect.grid import Grid, Window
from ecodetect.scanning import journal_file
from ecodetect.scanning.journal import Entry, Journal
from ecodetect.scanning.score_maps import Piece
from ecodetect.scanning.searched_ground import packed, per_row, unpacked

GRID = Grid(100, 100)
OURS = journal_file.APPLICATION


def detections(kind, xy):
    xy = np.asarray(xy, float).reshape(-1, 2)
    geometry = {
        "point": xy,
        "box": np.hstack([xy - 1, xy + 1]),
        "polygon": np.array([shapely.box(x - 1, y - 1, x + 1, y + 1) for x, y in xy], dtype=object),
    }[kind]
    n = len(xy)
    return Detections(GRID, kind, geometry, np.linspace(0.1, 0.9, n), np.zeros(n, np.int64), ("tree",))


@pytest.mark.parametrize("kind", ["point", "box", "polygon"])
def test_candidates_come_back_sorted_by_place_whatever_the_order_of_units(tmp_path, kind):
    journal = Journal(tmp_path / "a.journal")
    raster = journal.raster("key").number
    core = Window(0, 0, 10, 10)
    half = packed(np.tile(np.arange(10) < 5, (10, 1)))
    journal.add(raster, 1, detections(kind, [(5, 50), (3, 2)]), half, 1)
    journal.add(raster, 0, detections(kind, [(2, 2), (7, 30)]), b"", 0)
    (found,) = journal.candidates(raster, GRID, kind, ("tree",))
    assert found.centres().tolist() == [[2, 2], [3, 2], [7, 30], [5, 50]]
    assert found.bounds()[0].tolist() == detections(kind, [(2, 2)]).bounds()[0].tolist()
    units = [
        (n, large, per_row(unpacked(blob, core), core).sum()) for n, large, blob in journal.units(raster)
    ]
    assert units == [(0, 0, 100), (1, 1, 50)]
    journal.close()


def test_what_is_done_survives_closing_and_other_keys_are_forgotten(tmp_path):
    path = tmp_path / "a.journal"
    journal = Journal(path)
    old, new = journal.raster("old").number, journal.raster("new", "cuts").number
    journal.add(old, 0, detections("point", [(1, 1)]), b"", 0)
    journal.add(new, 7, detections("point", [(2, 2)]), b"", 0)
    journal.close()
    journal = Journal(path)
    assert journal.raster("new", "others") == Entry(new, "cuts")
    assert journal.done(new) == {7}
    journal.forget_all_but([new])
    assert journal.done(journal.raster("old").number) == set()
    journal.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_second_scan_of_the_same_output_is_refused(tmp_path):
    journal = Journal(tmp_path / "a.journal")
    with pytest.raises(UserError, match="Another scan"):
        Journal(tmp_path / "a.journal")
    journal.close()
    Journal(tmp_path / "a.journal").close()


def sqlite(path, *, application=0, version=0):
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE precious (a)")
    database.execute("INSERT INTO precious VALUES (42)")
    database.execute(f"PRAGMA application_id={application}")
    database.execute(f"PRAGMA user_version={version}")
    database.commit()
    database.close()


def open_elsewhere(path):
    """A database with what is committed in its -wal only."""
    sqlite(path.with_name("live"))
    database = sqlite3.connect(path.with_name("live"))
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("INSERT INTO precious VALUES (43)")
    database.commit()
    for suffix in ("", "-wal", "-shm"):
        shutil.copy(f"{path.with_name('live')}{suffix}", f"{path}{suffix}")
    database.close()
    path.with_name("live").unlink()


def of_a_reader(path, suffix):
    """A journal of ours with what another program leaves beside it."""
    Journal(path).close()
    Path(f"{path}{suffix}").write_bytes(b"another program's")


def linked(path, link):
    path.with_name("theirs").write_bytes(b"theirs")
    link(path.with_name("theirs"), path)


FOREIGN = {
    "a database": sqlite,
    "a database with our version": lambda path: sqlite(path, version=journal_file.SCHEMA),
    "a database of another application": lambda path: sqlite(path, application=1196444487),
    "a journal of before": lambda path: sqlite(path, version=4),
    "a journal of another version": lambda path: sqlite(
        path, application=journal_file.APPLICATION, version=99
    ),
    "a database open elsewhere": open_elsewhere,
    "a text": lambda path: path.write_bytes(b"something else entirely" * 100),
    "a short text": lambda path: path.write_bytes(b"x"),
    "a folder": lambda path: path.mkdir(),
    "an empty file with a -wal": lambda path: (path.touch(), Path(f"{path}-wal").write_bytes(b"theirs")),
    "a -wal alone": lambda path: Path(f"{path}-wal").write_bytes(b"theirs"),
    "a -shm alone": lambda path: Path(f"{path}-shm").write_bytes(b"theirs"),
    "a -journal alone": lambda path: Path(f"{path}-journal").write_bytes(b"theirs"),
    "ours with a -journal": lambda path: of_a_reader(path, "-journal"),
    "ours with a -shm": lambda path: of_a_reader(path, "-shm"),
    "a pipe": lambda path: os.mkfifo(path),
    "a link": lambda path: linked(path, lambda there, here: here.symlink_to(there)),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a second name of a file": lambda path: linked(path, lambda there, here: here.hardlink_to(there)),
    "a -wal that is a link": lambda path: linked(
        Path(f"{path}-wal"), lambda there, here: here.symlink_to(there)
    ),
}


def on_disk(folder):
    """Everything in a folder, byte for byte."""
    return {
        entry.name: (
            os.lstat(entry).st_mode,
            str(entry.readlink()) if entry.is_symlink() else None,
            entry.read_bytes() if entry.is_file() else None,
        )
        for entry in folder.iterdir()
    }


@pytest.mark.skipif(os.name == "nt", reason="pipes and links are POSIX's")
@pytest.mark.parametrize("kind", FOREIGN)
def test_whatever_is_no_journal_of_ours_is_left_as_it_is(kind, tmp_path, ecodetect):
    FOREIGN[kind](tmp_path / "o.csv.journal")
    before = on_disk(tmp_path)
    raster = write_scene(tmp_path.with_name(f"{tmp_path.name}-scene.tif"))
    for flags in ((), ("--restart",)) if "another version" not in kind else ((),):
        done = ecodetect("scan", raster, "-m", "threshold", "-o", tmp_path / "o.csv", *flags)
        assert (done.code, len(done.err.splitlines())) == (2, 1)
        assert str(tmp_path / "o.csv.journal") in done.err
        assert on_disk(tmp_path) == before


def test_a_journal_of_another_version_goes_with_restart(tmp_path):
    path = tmp_path / "j"
    sqlite(path, application=journal_file.APPLICATION, version=99)
    os.close(journal_file.held(path, any_schema=True))
    journal_file.remove(path)
    Journal(path).discard()
    assert list(tmp_path.iterdir()) == []


def test_a_journal_is_ours_from_its_first_byte_on(tmp_path):
    """Whatever a kill leaves is known as ours: an empty file, one page, or tables."""
    path = tmp_path / "j"
    path.touch()
    Journal(path).close()
    path.write_bytes(journal_file.first_page())
    Journal(path).close()
    assert journal_file.first_page()[:60] == path.read_bytes()[:24] + journal_file.first_page()[24:60]
    Journal(path).discard()
    assert list(tmp_path.iterdir()) == []


# What is changed in a journal -> units that are searched again.
CHANGES = {
    "UPDATE candidates SET score = 0.123 WHERE unit = 1 AND x = 5": {1},
    "UPDATE candidates SET x = x + 1e-9 WHERE unit = 1 AND x = 5": {1},
    "UPDATE candidates SET y = 'text' WHERE unit = 1": {1},
    "UPDATE candidates SET label = NULL WHERE unit = 1": {1},
    "UPDATE candidates SET diameter = 3 WHERE unit = 1": {1},
    "UPDATE candidates SET geometry = zeroblob(16) WHERE unit = 1 AND x = 5": {1},
    "DELETE FROM candidates WHERE unit = 1 AND x = 5": {1},
    "INSERT INTO candidates SELECT * FROM candidates WHERE unit = 1": {1},
    "INSERT INTO candidates SELECT * FROM candidates WHERE unit = 0 LIMIT 1": {0},
    "UPDATE candidates SET unit = 1 - unit WHERE raster = 1": {0, 1},
    "UPDATE candidates SET unit = 7 WHERE unit = 1": {1},
    "UPDATE candidates SET raster = 3 - raster": {0, 1},
    "UPDATE units SET too_large = 5 WHERE number = 1": {1},
    "UPDATE units SET searched = x'07' WHERE number = 1": {1},
    "UPDATE units SET expected = NULL WHERE number = 1": {1},
    "UPDATE units SET number = 7 WHERE number = 1": {1, 7},
    "UPDATE units SET seal = NULL WHERE number = 1": {1},
    "DELETE FROM units WHERE number = 1": {1},
    "UPDATE pieces SET packed = x'00' WHERE unit = 1": {1},
    "DELETE FROM pieces WHERE unit = 1": {1},
    "UPDATE pieces SET unit = 1 - unit": {0, 1},
    "UPDATE rasters SET id = id + 1 WHERE id = 2": set(),  # the first is as it was
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_unit_that_is_not_as_it_was_entered_is_dropped(change, tmp_path):
    path = tmp_path / "j"
    journal = Journal(path)
    for key in ("key", "other"):
        raster = journal.raster(key, "cuts", "state").number
        for unit in (0, 1):
            piece = Piece((unit, 0), Window(0, unit, 4, 4), bytes([unit]))
            found = detections(
                "point", [(5 + 10 * unit, raster), (7 + unit, 3)] if unit == 0 else [(5, 1 + raster), (7, 3)]
            )
            journal.add(raster, unit, found, bytes([unit]), 0, np.ones(2), [piece])
    journal.close()
    database = sqlite3.connect(path)
    database.execute(change)
    database.commit()
    database.close()
    journal = Journal(path)
    entry = journal.raster("key", "cuts", "state")
    assert journal.done(entry.number) == {0, 1} - CHANGES[change]
    assert bool(entry.damaged) == bool(CHANGES[change])
    for batch in journal.candidates(entry.number, GRID, "point", ("tree",)):
        assert len(batch) == 2 * len(journal.done(entry.number))
    assert journal.raster("key", "cuts", "state").damaged == 0
    journal.close()


@pytest.mark.parametrize("column", ["key", "cuts", "stamp"])
def test_a_raster_whose_entry_is_damaged_is_searched_again(column, tmp_path):
    journal = Journal(tmp_path / "j")
    journal.add(journal.raster("key", "cuts", "state").number, 0, detections("point", [(1, 1)]), b"", 0)
    journal.close()
    database = sqlite3.connect(tmp_path / "j")
    database.execute(f"UPDATE rasters SET {column} = 'kez'")
    database.commit()
    database.close()
    journal = Journal(tmp_path / "j")
    assert journal.lost == 1
    assert journal.done(journal.raster("key", "cuts", "state").number) == set()
    journal.close()


def test_units_of_another_state_of_the_raster_are_dropped(tmp_path):
    journal = Journal(tmp_path / "j")
    number = journal.raster("key", "cuts", "monday").number
    journal.add(number, 0, detections("point", [(1, 1)]), b"", 0)
    entry = journal.raster("key", "others", "tuesday")
    assert (entry.cuts, entry.is_replaced) == ("others", True)
    assert journal.done(entry.number) == set()
    assert not journal.raster("key", "others", "tuesday").is_replaced
    journal.close()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    images = [write_scene(folder / name) for name in ("a.tif", "b.tif")]
    killed = journal_damage.interrupted(images, folder / "scan", after=2)
    return folder, killed, journal_damage.checkpointed(killed, folder / "closed")


@pytest.mark.parametrize("kind", journal_damage.DAMAGES)
@pytest.mark.parametrize("where", ["journal", "wal", "closed"])
def test_a_damaged_journal_gives_the_same_output_or_one_sentence(kind, where, stopped):
    folder, killed, closed = stopped
    chance = random.Random(f"{kind} {where}")

    def harm(journal):
        journal_damage.damage(Path(f"{journal}-wal") if where == "wal" else journal, kind, chance)

    scan = closed if where == "closed" else killed
    assert scan.again(folder / "work", harm) in ("same", "said", "refused")


def test_a_damaged_unit_is_searched_again_and_said(stopped):
    folder, _, closed = stopped

    def harm(journal):
        database = sqlite3.connect(journal)
        database.execute("UPDATE candidates SET score = 0.5 WHERE rowid = 1")
        database.commit()
        database.close()

    assert closed.again(folder / "work", lambda journal: None) == "same"
    assert closed.again(folder / "work", harm) == "said"
