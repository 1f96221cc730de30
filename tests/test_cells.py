"""Cells: every place belongs to exactly one, they are squares on the ground, and surveys share them."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS

from ecodetect.cells import Cells, cells_for, plane
from ecodetect.errors import UserError
from ecodetect.grid import transformed
from ecodetect.sizes import Length

UTM = CRS.from_epsg(32630)
MIDDLE = np.array([5e5, 4.1e6])


@given(x=st.floats(-1e6, 1e6), y=st.floats(-1e6, 1e6), side=st.sampled_from([0.5, 10.0, 38.0, 50.0, 1000.0]))
def test_a_place_lies_in_the_square_of_its_cell(x: float, y: float, side: float) -> None:
    lattice = Cells(side, UTM)
    (square,) = lattice.outlines(lattice.of(np.array([[x, y]])))
    assert square.buffer(1e-6).covers(shapely.Point(x, y))
    assert square.area == pytest.approx(side**2, rel=1e-6)


def test_a_place_on_an_edge_belongs_to_one_cell() -> None:
    on_edges = np.array([[100.0, 150.0], [99.999, 150.0], [100.0, 149.999], [-50.0, -0.001]])
    assert Cells(50.0, UTM).of(on_edges).tolist() == [[2, 3], [1, 3], [2, 2], [-1, -1]]


def test_cells_begin_at_the_origin_of_the_crs_and_not_at_the_raster() -> None:
    one = cells_for(Length.parse("50m"), UTM, MIDDLE)
    two = cells_for(Length.parse("50m"), UTM, MIDDLE + 777.7)
    assert one == two == Cells(50.0, UTM)


@pytest.mark.parametrize(
    ("epsg", "place", "expected"),
    [
        (32630, (500_000.0, 4_100_000.0), 32630),
        (3035, (4_321_000.0, 3_210_000.0), 3035),  # metres, and true to area
        (4326, (-3.0, 37.0), 32630),
        (4326, (18.4, -33.9), 32734),
        (4326, (20.0, 88.0), 5041),
        (4326, (180.0, 10.0), 32660),
        (3857, (-334_000.0, 4_439_000.0), 32630),  # at 37° north a metre of Web Mercator is 80 cm
        (2263, (990_000.0, 200_000.0), 32618),  # feet, in New York
    ],
)
def test_where_units_are_no_metres_the_zone_of_utm_is_taken(
    epsg: int, place: tuple[float, float], expected: int
) -> None:
    crs = CRS.from_epsg(epsg)
    found = plane(crs, np.array(place))
    assert found == CRS.from_epsg(expected)
    corners = shapely.get_coordinates(Cells(100.0, found).outlines(np.array([[3000, 3000]])))
    assert np.isfinite(transformed(corners, found, CRS.from_epsg(4326))).all()


def test_pixels_are_cut_from_the_corner() -> None:
    assert cells_for(Length.parse("200px"), None, MIDDLE) == Cells(200.0)
    assert cells_for(Length.parse("50m"), None, MIDDLE, gsd=(0.5, 0.5)) == Cells(100.0)


@pytest.mark.parametrize(
    ("side", "crs", "says"),
    [
        ("0m", UTM, "must be above 0"),
        ("20px", UTM, "in metres, such as 50m; got 20px"),
        ("50m", None, "no CRS: state its pixel size, or give it in px"),
    ],
)
def test_what_is_no_side_is_said_in_a_sentence(side: str, crs: CRS | None, says: str) -> None:
    with pytest.raises(UserError, match=says):
        cells_for(Length.parse(side), crs, MIDDLE)
