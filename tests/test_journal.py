"""The journal: whole units or none, sorted by place, one scan at a time."""

import numpy as np
import pytest
import shapely

from ecodetect.detections import Detections
from ecodetect.errors import UserError
from ecodetect.grid import Grid
from ecodetect.journal import Journal

GRID = Grid(100, 100)


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
    raster, _ = journal.raster("key")
    rows = np.full(10, 5)
    journal.add(raster, 1, detections(kind, [(5, 50), (3, 2)]), rows, 1)
    journal.add(raster, 0, detections(kind, [(2, 2), (7, 30)]), rows, 0)
    (found,) = journal.candidates(raster, GRID, kind, ("tree",))
    assert found.centres().tolist() == [[2, 2], [3, 2], [7, 30], [5, 50]]
    assert found.bounds()[0].tolist() == detections(kind, [(2, 2)]).bounds()[0].tolist()
    assert [(n, large, valid.sum()) for n, large, valid in journal.units(raster)] == [(0, 0, 50), (1, 1, 50)]
    journal.close()


def test_what_is_done_survives_closing_and_other_keys_are_forgotten(tmp_path):
    path = tmp_path / "a.journal"
    journal = Journal(path)
    (old, _), (new, _) = journal.raster("old"), journal.raster("new", "cuts")
    journal.add(old, 0, detections("point", [(1, 1)]), np.ones(3), 0)
    journal.add(new, 7, detections("point", [(2, 2)]), np.ones(3), 0)
    journal.close()
    journal = Journal(path)
    assert journal.raster("new", "others") == (new, "cuts")
    assert journal.done(new) == {7}
    journal.forget_all_but([new])
    assert journal.done(journal.raster("old")[0]) == set()
    journal.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_second_scan_of_the_same_output_is_refused(tmp_path):
    journal = Journal(tmp_path / "a.journal")
    with pytest.raises(UserError, match="Another scan"):
        Journal(tmp_path / "a.journal")
    journal.close()
    Journal(tmp_path / "a.journal").close()


def test_a_file_that_is_no_journal_is_left_alone(tmp_path):
    path = tmp_path / "a.journal"
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(UserError, match="not a journal"):
        Journal(path)
    assert path.read_bytes().startswith(b"something else")
