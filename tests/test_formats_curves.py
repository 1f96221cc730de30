"""Curves from GIS files are straight afterwards, at the same place and of the same area."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from ecodetect.errors import LayerError
from ecodetect.formats import files as formats
from ecodetect.formats.gis.curves import from_wkb, from_wkt, is_curved

ARC, COMPOUND, CURVED, SURFACES, FACETS, TIN, TRIANGLE = 8, 9, 10, 12, 15, 16, 17


def wkb(kind: int, *content: bytes, count: int | None = None, order: str = "<") -> bytes:
    number = len(content) if count is None else count
    return (
        (b"\x01" if order == "<" else b"\x00") + struct.pack(order + "II", kind, number) + b"".join(content)
    )


def line(kind: int, *xy: tuple[float, ...], order: str = "<") -> bytes:
    numbers = [value for position in xy for value in position]
    return wkb(kind, struct.pack(f"{order}{len(numbers)}d", *numbers), count=len(xy), order=order)


def circle(x: float, y: float, radius: float, *, order: str = "<") -> bytes:
    """As QGIS draws one: a curve polygon with one circular string of two halves."""
    ring = [(x, y + radius), (x + radius, y), (x, y - radius), (x - radius, y), (x, y + radius)]
    return wkb(CURVED, line(ARC, *ring, order=order), order=order)


@given(st.floats(-1e6, 1e6), st.floats(-1e7, 1e7), st.floats(0.05, 1e4), st.sampled_from("<>"))
def test_a_circle_keeps_its_place_and_its_area(x: float, y: float, radius: float, order: str) -> None:
    found = from_wkb(circle(x, y, radius, order=order))
    assert found.is_valid
    assert found.area == pytest.approx(math.pi * radius**2, rel=5e-4)
    assert shapely.get_coordinates(found.centroid)[0] == pytest.approx([x, y], abs=1e-3 * radius + 1e-6)
    from_centre = np.hypot(*(shapely.get_coordinates(found) - (x, y)).T)
    assert from_centre == pytest.approx(np.full(len(from_centre), radius), rel=1e-5, abs=1e-7)


@given(st.floats(0, 6.28), st.floats(0.01, 6.2), st.floats(0.1, 0.9), st.booleans())
def test_an_arc_passes_through_its_three_positions(
    start: float, turn: float, share: float, is_clockwise: bool
) -> None:
    angles = [start + (-1 if is_clockwise else 1) * turn * part for part in (0, share, 1)]
    xy = [(100 + 7 * math.cos(angle), 50 + 7 * math.sin(angle)) for angle in angles]
    found = from_wkb(line(ARC, *xy))
    assert found.length == pytest.approx(7 * turn, rel=1e-3)
    assert shapely.get_coordinates(found)[[0, -1]].tolist() == [list(xy[0]), list(xy[2])]
    assert found.distance(shapely.Point(xy[1])) < 2e-3


@pytest.mark.parametrize(
    ("text", "area"),
    [
        ("CURVEPOLYGON(CIRCULARSTRING(0 0, 2 0, 0 0))", math.pi),
        ("CurvePolygon Z (CompoundCurve Z (CircularString Z (0 0 5, 1 1 5, 2 0 5), (2 0 5, 0 0 5)))",
         math.pi / 2),
        ("CURVEPOLYGON((0 0, 4 0, 4 4, 0 4, 0 0), CIRCULARSTRING(1 2, 3 2, 1 2))", 16 - math.pi),
        ("SRID=25830;MULTISURFACE(((0 0, 1 0, 1 1, 0 0)), CURVEPOLYGON((5 0, 6 0, 6 1, 5 0)))", 1.0),
        ("GEOMETRYCOLLECTION(POINT(9 9), CURVEPOLYGON(CIRCULARSTRING(0 0, 2 0, 0 0)))", math.pi),
        ("TRIANGLE((0 0, 1 0, 1 1, 0 0))", 0.5),
        ("POLYHEDRALSURFACE Z (((0 0 0, 2 0 0, 2 2 0, 0 2 0, 0 0 0)), ((0 0 0, 0 0 1, 2 0 1, 0 0 0)))", 4.0),
        ("TIN(((0 0, 1 0, 1 1, 0 0)), ((0 0, 1 1, 0 1, 0 0)))", 1.0),
        ("CURVEPOLYGON EMPTY", 0.0),
    ],
)  # fmt: skip
def test_areas_of_what_only_gis_programs_know(text: str, area: float) -> None:
    assert from_wkt(text).area == pytest.approx(area, rel=5e-4)


def test_heights_measures_and_a_crs_in_the_bytes_are_passed_over() -> None:
    flat = from_wkb(wkb(CURVED, line(ARC, (0, 0), (2, 0), (0, 0))))
    for kind, more in (
        (1000, (5.0,)),
        (2000, (7.0,)),
        (3000, (5.0, 7.0)),
        (0x80000000, (5.0,)),
        (0x40000000, (7.0,)),
    ):
        made = wkb(CURVED + kind, line(ARC + kind, (0, 0, *more), (2, 0, *more), (0, 0, *more)))
        assert is_curved(made)
        assert from_wkb(made).equals(flat)
    stated = b"\x01" + struct.pack("<III", CURVED | 0x20000000, 25830, 1) + line(ARC, (0, 0), (2, 0), (0, 0))
    assert from_wkb(stated).equals(flat)


@given(st.binary(max_size=80), st.integers(0, 80))
def test_damaged_bytes_are_refused(noise: bytes, at: int) -> None:
    """Cut ones always, others unless they happen to be a geometry."""
    good = circle(0, 0, 1)
    with pytest.raises(ValueError, match="damaged WKB"):
        from_wkb(good[: min(at, len(good) - 1)])
    for damaged in (good[:5] + noise, good[: at + 5] + noise + good[at + 5 + len(noise) :]):
        try:
            assert isinstance(from_wkb(damaged), shapely.Geometry)
        except ValueError:
            continue


def geopackage(path: Path, shapes: list[bytes]) -> Path:
    import pyarrow as pa
    import pyogrio

    table = pa.table({"geom": pa.array(shapes, pa.binary())})
    pyogrio.write_arrow(
        table, path, driver="GPKG", geometry_name="geom", geometry_type="Unknown", crs="EPSG:25830"
    )
    return path


def test_a_file_with_curves_is_read(tmp_path: Path) -> None:
    square = shapely.to_wkb(shapely.box(0, 0, 2, 2))
    found = formats.read(geopackage(tmp_path / "a.gpkg", [square, circle(10, 10, 1)]))
    assert [shape.geom_type for shape in found.geometry] == ["Polygon", "Polygon"]
    assert shapely.area(found.geometry) == pytest.approx([4, math.pi], rel=5e-4)


def test_a_table_with_curves_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('WKT,n\n"CURVEPOLYGON (CIRCULARSTRING (0 0, 2 0, 0 0))",1\n', encoding="utf-8")
    assert shapely.area(formats.read(path).geometry) == pytest.approx([math.pi], rel=5e-4)
    path.write_text('WKT,n\n"CURVEPOLYGON (CIRCULARSTRING (0 0, 2",1\n', encoding="utf-8")
    with pytest.raises(LayerError, match=r"not a geometry in WKT \(line 2\)"):
        formats.read(path)
