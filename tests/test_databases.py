"""GeoPackages of others: read with what is committed beside them, never touched, and never without an end."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

from ecodetect.errors import LayerError
from ecodetect.formats import files as formats
from ecodetect.guarding import guard
from ecodetect.raster.reading import open_raster


@pytest.fixture
def crowns(tmp_path: Path) -> Path:
    """A GeoPackage with the layer `crowns`: two points."""
    path = tmp_path / "field.gpkg"
    points = [shapely.Point(500_000, 5_000_000), shapely.Point(500_010, 5_000_000)]
    layer = geopandas.GeoDataFrame({"label": ["oak", "elm"]}, geometry=points, crs="EPSG:32631")
    layer.to_file(path, layer="crowns", engine="pyogrio")
    return path


@contextlib.contextmanager
def open_in_a_gis(path: Path, statement: str) -> Iterator[None]:
    """As QGIS has it: a change is committed, and lies in the -wal until the file is closed."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f'DROP TRIGGER "{name}"')  # they call functions of GDAL
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        database.execute(statement)
        database.commit()
        yield


def states(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}


@pytest.mark.parametrize("is_writable", [True, False])
def test_what_is_committed_beside_a_geopackage_is_read_and_nothing_is_touched(
    crowns: Path, is_writable: bool
) -> None:
    with open_in_a_gis(crowns, "UPDATE crowns SET label = 'ash' WHERE fid = 2"):
        before = states(crowns.parent)
        assert set(before) == {"field.gpkg", "field.gpkg-wal", "field.gpkg-shm"}
        if not is_writable:
            crowns.parent.chmod(0o555)
        assert formats.read(crowns).columns["label"].tolist() == ["oak", "ash"]
        crowns.parent.chmod(0o755)
        assert states(crowns.parent) == before


@pytest.mark.parametrize("ending", ["-wal", "-journal"])
def test_what_lies_under_the_name_of_a_journal_stays(crowns: Path, ending: str) -> None:
    """SQLite would take it away."""
    beside = crowns.with_name(crowns.name + ending)
    beside.touch()
    assert formats.read(crowns).columns["label"].tolist() == ["oak", "elm"]
    assert beside.exists()
    beside.unlink()
    beside.symlink_to("nowhere")
    with pytest.raises(LayerError, match="is not a file"):
        formats.read(crowns)
    assert beside.is_symlink()


def test_a_geopackage_closed_in_the_way_of_a_gis_gets_no_files_beside_it(crowns: Path) -> None:
    with contextlib.closing(sqlite3.connect(crowns)) as database:
        database.execute("PRAGMA journal_mode = WAL")
    before = states(crowns.parent)
    assert len(formats.read(crowns)) == 2
    assert states(crowns.parent) == before


def test_pixels_of_a_geopackage_are_read_as_they_are_committed(tmp_path: Path) -> None:
    path = tmp_path / "pixels.gpkg"
    pixels = np.full((1, 256, 256), 7, np.uint8)
    with rasterio.open(
        path, "w", driver="GPKG", width=256, height=256, count=1, dtype="uint8", crs="EPSG:32631",
        transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6), raster_table="pixels",
    ) as file:  # fmt: skip
        file.write(pixels)
    with open_in_a_gis(path, "UPDATE gpkg_contents SET identifier = 'changed'"):
        before = states(tmp_path)
        for name in (str(path), f"GPKG:{path}:pixels"):
            with open_raster(name) as raster:
                assert (raster.read(raster.grid.window, raster.bands[:1]).pixels == 7).all()
        assert states(tmp_path) == before


def add_view(path: Path, name: str, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(f"CREATE VIEW {name} AS {sql}")
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, srs_id)"
            f" VALUES ('{name}', 'features', '{name}', 32631)"
        )
        database.execute(f"INSERT INTO gpkg_geometry_columns VALUES ('{name}', 'geom', 'POINT', 32631, 0, 0)")


ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    " SELECT i AS fid, geom, label FROM n JOIN crowns ON crowns.fid = 1"
)
HANGS = ENDLESS + " WHERE i < 0"


def test_views_are_no_layers_unless_they_are_named(crowns: Path) -> None:
    add_view(crowns, "oaks", "SELECT * FROM crowns WHERE label = 'oak'")
    assert len(formats.read(crowns)) == 2
    assert len(formats.read(f"{crowns}|layername=oaks")) == 1
    with contextlib.closing(sqlite3.connect(crowns)) as database, database:
        database.execute("DELETE FROM gpkg_contents WHERE table_name = 'crowns'")
    with pytest.raises(LayerError, match=r'views \(oaks\); name one, as in "field\.gpkg\|layername=oaks"'):
        formats.read(crowns)


@pytest.mark.parametrize(
    ("sql", "says"), [(HANGS, "took longer than"), (ENDLESS, "took longer|made up by a view")]
)
def test_a_view_without_end_has_one_and_the_layer_beside_it_is_read(
    crowns: Path, sql: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_view(crowns, "endless", sql)
    assert len(formats.read(crowns)) == 2
    monkeypatch.setattr("ecodetect.formats.gis.arrow_parts.ALWAYS_BYTES", 1 << 20)
    with pytest.raises(LayerError, match=says), guard.timeout(0.7):
        formats.read(f"{crowns}|layername=endless")
    assert len(formats.read(crowns)) == 2


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIRTUAL TABLE notes USING fts5(text)",
        'CREATE VIRTUAL TABLE "my notes" USING rtree(id, x0, x1)',
    ],
)
def test_indexes_within_the_file_are_allowed(crowns: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(crowns)) as database, database:
        database.execute(statement)
    assert len(formats.read(crowns)) == 2


@pytest.mark.parametrize("kind", ["table", "index"])
@pytest.mark.parametrize(
    "sql",
    [
        "CREATE VIRTUAL TABLE evil USING VirtualOGR('/etc/passwd')",
        "create/**/virtual/**/table evil using csv(filename='/etc/passwd')",
        "CREATE -- \n VIRTUAL TABLE evil USING VirtualShape('/x')",
        'CREATE VIRTUAL TABLE "a using rtree" USING csv(x)',
    ],
)
def test_a_table_that_reaches_beyond_the_file_is_refused(crowns: Path, kind: str, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(crowns)) as database, database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute("INSERT INTO sqlite_master VALUES (?, 'evil', 'evil', 0, ?)", (kind, sql))
    with pytest.raises(LayerError, match="evil"):
        formats.read(crowns)


def test_a_table_that_reaches_beyond_is_seen_in_the_wal_too(crowns: Path) -> None:
    with open_in_a_gis(crowns, "PRAGMA writable_schema = ON"):
        with contextlib.closing(sqlite3.connect(crowns)) as database, database:
            database.execute("PRAGMA writable_schema = ON")
            sql = "CREATE VIRTUAL TABLE evil USING csv(filename='/etc/passwd')"
            database.execute("INSERT INTO sqlite_master VALUES ('table', 'evil', 'evil', 0, ?)", (sql,))
        with pytest.raises(LayerError, match="evil"):
            formats.read(crowns)


def test_a_cell_that_unpacks_to_a_gigabyte_is_refused(crowns: Path) -> None:
    add_view(crowns, "wide", "SELECT fid, geom, hex(zeroblob(560000000)) AS label FROM crowns")
    with pytest.raises(LayerError, match=r"field\.gpkg"):
        formats.read(f"{crowns}|layername=wide")
