"""Ground that rasters of one layer share: told in hectares, and never where they merely touch."""

from __future__ import annotations

import math
import re

import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer

from ecodetect.grid import Affine6, Grid
from ecodetect.notes import Note
from ecodetect.region import Region
from ecodetect.scanning.overlaps import Footprint, overlap_note

UTM = CRS.from_epsg(32630)


def at(
    x: float, y: float, *, width: int = 100, height: int = 100, gsd: float = 1.0, turn: float = 0.0
) -> Grid:
    c, s = gsd * math.cos(math.radians(turn)), gsd * math.sin(math.radians(turn))
    transform: Affine6 = (c, s, 5e5 + x, s, -c, 4.1e6 + y)
    return Grid(width, height, transform, UTM)


def note_of(*grids: Grid) -> Note | None:
    return overlap_note([Footprint(f"{number}.tif", grid) for number, grid in enumerate(grids)])


def hectares(note: Note | None) -> float:
    assert note is not None
    assert (note.code, note.kind) == ("rasters-overlap", "choice")
    found = re.search(r"([\d.,e-]+) ha of ground are shown again", note.text)
    assert found is not None
    return float(found[1].replace(",", ""))


def test_the_ground_that_is_shown_again() -> None:
    note = note_of(at(0, 0), at(60, 0))
    assert hectares(note) == pytest.approx(0.4, rel=0.01)
    assert note is not None
    assert note.about == "0.tif"
    assert "overlaps 1.tif" in note.text
    assert hectares(note_of(at(0, 0), at(0, 0))) == pytest.approx(1.0, rel=0.01)
    # What lies under three is shown again twice.
    assert hectares(note_of(at(0, 0), at(0, 0), at(0, 0), at(500, 0))) == pytest.approx(2.0, rel=0.01)


@given(
    columns=st.integers(1, 5),
    rows=st.integers(1, 5),
    size=st.integers(3, 3000),
    gsd=st.sampled_from([0.05, 0.1, 0.3, 1.0, 10.0, 1 / 3]),
    turn=st.sampled_from([0.0, 17.3, 90.0]),
)
@settings(max_examples=25, deadline=None)
def test_tiles_that_touch_do_not_overlap(columns: int, rows: int, size: int, gsd: float, turn: float) -> None:
    whole = at(0, 0, width=size * columns, height=size * rows, gsd=gsd, turn=turn)
    places = [whole.to_world([(c * size, r * size)])[0] for c in range(columns) for r in range(rows)]
    tiles = [
        Grid(size, size, (*whole.transform[:2], float(x), *whole.transform[3:5], float(y)), UTM)
        for x, y in places
    ]
    assert note_of(*tiles) is None


@given(turn=st.floats(0, 360), x=st.floats(-80, 80), y=st.floats(-80, 80))
@settings(max_examples=25, deadline=None)
def test_turned_rasters_overlap_as_their_outlines_do(turn: float, x: float, y: float) -> None:
    one, two = at(0, 0, turn=turn), at(x, y)

    def outline(grid: Grid) -> shapely.Geometry:
        corners = [(0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height)]
        return shapely.Polygon(grid.to_world(corners))

    wanted = shapely.area(shapely.intersection(outline(one), outline(two))) / 1e4
    if wanted > 0.05:
        assert hectares(note_of(one, two)) == pytest.approx(wanted, rel=0.02)


def test_rasters_in_degrees_and_in_metres() -> None:
    lon, lat = Transformer.from_crs(UTM, 4326, always_xy=True).transform(5e5, 4.1e6)
    degree_m = 111_320 * math.cos(math.radians(lat))
    step = 1 / degree_m
    geographic = Grid(100, 100, (step, 0, lon, 0, -step, lat), CRS.from_epsg(4326))
    east = Grid(100, 100, (step, 0, lon + 100 * step, 0, -step, lat), CRS.from_epsg(4326))
    near = Grid(100, 100, (step, 0, lon + 90 * step, 0, -step, lat), CRS.from_epsg(4326))
    assert note_of(geographic, east) is None
    height = 100 * step * 110_960 / 1e4  # metres of a degree of latitude at 37°
    assert hectares(note_of(geographic, near)) == pytest.approx(10 * height, rel=0.02)
    assert hectares(note_of(geographic, at(0, 0))) == pytest.approx(1.0, rel=0.05)
    assert note_of(geographic, at(5000, 0)) is None


def test_web_mercator_is_measured_on_the_ground() -> None:
    crs = CRS.from_epsg(3857)
    one = Grid(100, 100, (1, 0, 0, 0, -1, 8.4e6), crs)  # 60° north, where a metre of it is half a metre
    two = Grid(100, 100, (1, 0, 50, 0, -1, 8.4e6), crs)
    ground = abs(float(one.metres_per_pixel([(50, 50)])[0, 0, 0]))
    assert hectares(note_of(one, two)) == pytest.approx(0.5 * ground**2, rel=0.02)
    assert note_of(one, Grid(100, 100, (1, 0, 100, 0, -1, 8.4e6), crs)) is None


def test_only_what_is_searched_counts() -> None:
    one, two = at(0, 0), at(60, 0)
    west = Region(shapely.box(0, 0, 55, 100), one)
    assert overlap_note([Footprint("1.tif", one, west), Footprint("2.tif", two)]) is None
    half = Region(shapely.box(0, 0, 100, 50), one)
    note = overlap_note([Footprint("1.tif", one, half), Footprint("2.tif", two)])
    assert hectares(note) == pytest.approx(0.2, rel=0.01)


def test_rasters_without_a_crs_lie_nowhere() -> None:
    plain = Grid(100, 100)
    assert note_of(plain, plain, at(0, 0)) is None


def test_many_rasters_are_no_matter_of_pairs() -> None:
    tiles = [at(x * 100, y * 100) for x in range(30) for y in range(30)]
    assert note_of(*tiles) is None
    assert hectares(note_of(*tiles, at(50, 0))) == pytest.approx(1.0, rel=0.01)
