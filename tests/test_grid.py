"""Window and Grid: the algebra, and sizes on the ground against an independent geodesic."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pyproj import CRS, Geod, Transformer

from ecodetect.errors import GridError
from ecodetect.grid import IDENTITY, Affine6, Grid, Window, describe_crs, horizontal, registered, transformed

places = st.integers(-1000, 1000)
lengths = st.integers(0, 500)
windows = st.builds(Window, places, places, lengths, lengths)
UTM31 = CRS.from_epsg(32631)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Any size, pixel size, rotation, shear, mirroring and origin."""
    size = draw(st.floats(0.01, 100))
    aspect = draw(st.floats(0.2, 5))
    angle = draw(st.floats(0, 2 * math.pi))
    shear = draw(st.floats(-0.5, 0.5))
    flip = draw(st.sampled_from([1, -1]))
    cos, sin = math.cos(angle), math.sin(angle)
    a, d = size * cos, size * sin
    b, e = size * aspect * (shear * cos - flip * sin), size * aspect * (shear * sin + flip * cos)
    c, f = draw(st.floats(-1e7, 1e7)), draw(st.floats(-1e7, 1e7))
    return Grid(draw(st.integers(1, 5000)), draw(st.integers(1, 5000)), (a, b, c, d, e, f))


def rotated(size: float, degrees: float, x: float, y: float) -> Affine6:
    """North-up pixels of `size`, turned."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (size * cos, size * sin, x, size * sin, -size * cos, y)


# -- Window


@given(windows, windows)
def test_clipping_is_the_intersection(one: Window, other: Window) -> None:
    both = one.clipped(other)
    xy = np.stack(np.meshgrid(np.arange(-20, 20) * 50 + 0.5, np.arange(-20, 20) * 50 + 0.5), -1).reshape(
        -1, 2
    )
    np.testing.assert_array_equal(both.owns(xy), one.owns(xy) & other.owns(xy))
    assert both.area == other.clipped(one).area
    assert both.clipped(one) == both
    assert one.clipped(one) == one


@given(windows, st.integers(0, 50), places, places)
def test_growing_and_shifting_can_be_undone(window: Window, margin: int, dx: int, dy: int) -> None:
    assert window.shifted(dx, dy).shifted(-dx, -dy) == window
    assert window.grown(margin).grown(-margin) == window
    assert window.grown(margin).clipped(window) == window
    assert window.area == window.shifted(dx, dy).area


@given(st.lists(st.tuples(st.floats(-10, 110), st.floats(-10, 110)), min_size=1), st.integers(5, 60))
def test_windows_side_by_side_own_each_point_once(points: list[tuple[float, float]], size: int) -> None:
    xy = np.array(points)
    whole = Window(0, 0, 100, 100)
    parts = [
        Window(x, y, size, size).clipped(whole) for y in range(0, 100, size) for x in range(0, 100, size)
    ]
    owners = np.sum([part.owns(xy) for part in parts], axis=0)
    np.testing.assert_array_equal(owners, whole.owns(xy))


def test_a_window_owns_no_points_of_none() -> None:
    assert Window(0, 0, 5, 5).owns(np.empty((0, 2))).shape == (0,)


def test_a_window_has_no_negative_size() -> None:
    with pytest.raises(GridError, match="-1 x 3"):
        Window(0, 0, -1, 3)


# -- Grid: pixels and world


@given(grids(), st.lists(st.tuples(st.floats(-100, 6000), st.floats(-100, 6000)), min_size=1))
def test_pixel_to_world_and_back(grid: Grid, points: list[tuple[float, float]]) -> None:
    xy = np.array(points)
    # 1e7 m in float64 has steps of 2e-9 m, 2e-7 of the smallest pixel here.
    np.testing.assert_allclose(grid.to_pixel(grid.to_world(xy)), xy, atol=1e-5, rtol=0)


@given(grids(), windows, places, places)
def test_a_crop_lies_where_it_was_cut(grid: Grid, window: Window, x: int, y: int) -> None:
    assume(window.width and window.height)
    crop = grid.crop(window)
    assert (crop.width, crop.height) == (window.width, window.height)
    a, _, _, d, _, _ = grid.transform
    step = math.hypot(a, d)
    np.testing.assert_allclose(
        crop.to_world([(x, y)]),
        grid.to_world([(x + window.x, y + window.y)]),
        atol=1e-6 * step + 1e-8,
        rtol=0,
    )
    inner = Window(1, 2, 3, 4)
    np.testing.assert_allclose(
        crop.crop(inner).transform,
        grid.crop(inner.shifted(window.x, window.y)).transform,
        rtol=1e-12,
        atol=1e-8,
    )


@given(grids(), windows)
def test_the_step_between_pixels_of_two_grids(grid: Grid, window: Window) -> None:
    assume(window.width and window.height)
    a, b, c, d, e, f = grid.pixels_from(grid.crop(window))
    np.testing.assert_allclose((a, b, d, e), (1, 0, 0, 1), atol=1e-5)
    np.testing.assert_allclose((c, f), (window.x, window.y), atol=1e-4)


def test_grids_on_different_ground_have_no_step() -> None:
    with pytest.raises(GridError, match="UTM zone 31N"):
        Grid(5, 5).pixels_from(Grid(5, 5, IDENTITY, UTM31))


@pytest.mark.parametrize(
    "transform", [(0.0, 0.0, 1.0, 0.0, 0.0, 1.0), (1.0, 2.0, 0.0, 2.0, 4.0, 0.0), (math.nan, 0, 0, 0, 1, 0)]
)
def test_a_transform_must_be_invertible(transform: Affine6) -> None:
    with pytest.raises(GridError, match="can't be inverted"):
        Grid(5, 5, transform)


def test_a_grid_has_pixels() -> None:
    with pytest.raises(GridError, match="0 x 7 px has no pixels"):
        Grid(0, 7)


def test_frames() -> None:
    assert Grid(5, 5).frame == "pixel"
    assert Grid(5, 5, (2.0, 0.0, 0.0, 0.0, 2.0, 0.0)).frame == "affine"
    assert Grid(5, 5, IDENTITY, UTM31).frame == "crs"


def test_mixing_grids_shows_both() -> None:
    with pytest.raises(GridError, match=r"5 x 6 px .* and 7 x 8 px"):
        Grid(5, 6).assert_same(Grid(7, 8))


# -- resampling


@given(grids(), st.floats(0.05, 20), st.floats(0.05, 20))
def test_resampling_keeps_the_corner_and_has_the_gsd_asked_for(
    grid: Grid, stated: float, wanted: float
) -> None:
    assume(grid.width * stated / wanted < 1e6 and grid.height * stated / wanted < 1e6)
    known = grid.with_gsd(stated)
    out = known.resampled(wanted)
    assert out.gsd == pytest.approx((wanted, wanted), rel=1e-6)
    np.testing.assert_allclose(out.to_world([(0, 0)]), grid.to_world([(0, 0)]), rtol=1e-12, atol=1e-6)
    corner = known.to_pixel(out.to_world([(out.width, out.height)]))[0]
    # Rounded up: it covers the raster, by less than one of its own pixels too much.
    slack = 1e-4 + 2e-6 * wanted / stated
    assert (corner >= np.array([grid.width, grid.height]) - slack).all()
    assert (corner < np.array([grid.width, grid.height]) + wanted / stated + slack).all()


def test_resampling_measures_the_ground() -> None:
    grid = Grid(1000, 1000, (1e-6, 0.0, 10.0, 0.0, -1e-6, 60.0), CRS.from_epsg(4326))
    out = grid.resampled(0.5)
    assert out.gsd == pytest.approx((0.5, 0.5), rel=1e-4)
    assert out.width < out.height  # a degree of longitude is half as long at 60° north


def test_resampling_to_the_own_gsd_changes_nothing() -> None:
    grid = Grid(10, 10, (0.1, 0.0, 5e5, 0.0, -0.1, 5e6), UTM31)
    assert grid.gsd is not None
    square = grid.with_gsd(0.1)
    assert square.resampled(0.1) is square


def test_resampling_needs_a_size_on_the_ground() -> None:
    with pytest.raises(GridError, match=r"unknown .*; state it"):
        Grid(10, 10).resampled(0.1)


# -- the ground

CASES = {
    "UTM": Grid(4000, 3000, (0.5, 0.0, 3e5, 0.0, -0.5, 5.2e6), UTM31),
    "UTM turned by 20 degrees": Grid(4000, 3000, rotated(0.5, 20, 3e5, 5.2e6), UTM31),
    "UTM sheared": Grid(4000, 3000, (0.5, 0.2, 3e5, 0.1, -0.7, 5.2e6), UTM31),
    "UTM south-up": Grid(4000, 3000, (0.5, 0.0, 3e5, 0.0, 0.5, 5.2e6), UTM31),
    "lat/lon": Grid(4000, 3000, (1e-5, 0.0, 12.0, 0.0, -2e-5, 47.0), CRS.from_epsg(4326)),
    "lat/lon over the antimeridian": Grid(
        400, 300, (1e-5, 0.0, 179.998, 0.0, -1e-5, -17.0), CRS.from_epsg(4326)
    ),
    "Web Mercator": Grid(4000, 3000, (1.0, 0.0, 1.2e6, 0.0, -1.0, 8.4e6), CRS.from_epsg(3857)),
    "US survey feet": Grid(4000, 3000, (0.5, 0.0, 1.5e6, 0.0, -0.5, 6e5), CRS.from_epsg(2264)),
    "NAD27": Grid(4000, 3000, (1e-5, 0.0, -80.0, 0.0, -1e-5, 35.0), CRS.from_epsg(4267)),
    "polar": Grid(4000, 3000, (10.0, 0.0, 1e6, 0.0, -10.0, 1e6), CRS.from_epsg(3031)),
    "compound": Grid(400, 300, (0.25, 0.0, 1.5e5, 0.0, -0.25, 4.6e5), CRS.from_epsg(7415)),
}


@pytest.mark.parametrize("name", CASES)
def test_metres_per_pixel_against_a_geodesic(name: str) -> None:
    """A step of one pixel, and the area of a pixel, as PROJ's geodesics have them on the CRS's ellipsoid."""
    grid = CASES[name]
    assert grid.crs is not None
    geod = grid.crs.get_geod()
    geodetic = grid.crs.geodetic_crs
    assert isinstance(geod, Geod)
    assert geodetic is not None
    to_geodetic = Transformer.from_crs(grid.crs, geodetic, always_xy=True)

    def lonlat(x: float, y: float) -> tuple[float, float]:
        return to_geodetic.transform(*grid.to_world([(x, y)])[0])

    places = [
        (grid.width / 2, grid.height / 2),
        (0.0, 0.0),
        (float(grid.width), 3.0),
        (7.0, float(grid.height)),
    ]
    for (x, y), jacobian in zip(places, grid.metres_per_pixel(places), strict=True):
        for step, column in (((0.5, 0.0), 0), ((0.0, 0.5), 1)):
            back, forth = lonlat(x - step[0], y - step[1]), lonlat(x + step[0], y + step[1])
            azimuth, _, distance = geod.inv(*back, *forth)
            east, north = jacobian[:, column]
            assert math.hypot(east, north) == pytest.approx(distance, rel=1e-6, abs=1e-9)
            turn = (math.degrees(math.atan2(east, north)) - azimuth + 180) % 360 - 180
            assert turn == pytest.approx(0, abs=1e-2)
        corners = [lonlat(x + dx, y + dy) for dx, dy in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))]
        area, _ = geod.polygon_area_perimeter(*zip(*corners, strict=True))
        if abs(area) > 0.05:  # smaller ones drown in the rounding of PROJ's polygon area
            assert abs(np.linalg.det(jacobian)) == pytest.approx(abs(area), rel=1e-3)
    gsd = grid.gsd
    assert gsd is not None
    assert gsd == pytest.approx(tuple(np.hypot(*grid.metres_per_pixel([places[0]])[0])), rel=1e-12)


def test_feet_are_feet() -> None:
    gsd = CASES["US survey feet"].gsd
    assert gsd == pytest.approx(
        (0.5 * 1200 / 3937,) * 2, rel=2e-4
    )  # the projection's scale is within 2e-4 of 1


def test_an_engineering_crs_is_a_plane_in_its_unit() -> None:
    feet = CRS.from_wkt(
        'ENGCRS["Plot",EDATUM["Plot"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
        'LENGTHUNIT["foot",0.3048]]'
    )
    grid = Grid(10, 10, (0.5, 0.0, 0.0, 0.0, -0.5, 0.0), feet)
    assert grid.gsd == pytest.approx((0.1524, 0.1524))
    assert not grid.has_lonlat
    with pytest.raises(GridError, match="Plot"):
        grid.to_lonlat([(0, 0)])


def test_without_crs_the_ground_is_unknown_unless_stated() -> None:
    grid = Grid(10, 10)
    assert grid.gsd is None
    assert np.isnan(grid.metres_per_pixel([(1, 1)])).all()
    assert grid.with_gsd(0.2).gsd == (0.2, 0.2)
    assert abs(np.linalg.det(grid.with_gsd(0.2).metres_per_pixel([(1, 1)])[0])) == pytest.approx(0.04)


def test_places_off_the_earth_are_nan() -> None:
    goes = CRS.from_proj4("+proj=geos +h=35785831 +lon_0=-75 +sweep=x +a=6378137 +rf=298.257222101 +units=m")
    grid = Grid(542, 542, (20000.0, 0.0, -5.42e6, 0.0, -20000.0, 5.42e6), goes)
    lonlat = grid.to_lonlat([(0, 0), (271, 271)])
    assert np.isnan(lonlat[0]).all()
    assert lonlat[1] == pytest.approx((-75, 0), abs=1e-6)
    assert grid.gsd is not None


@pytest.mark.parametrize(
    ("x", "expected"), [(190.0, -170.0), (360.0, 0.0), (180.0, 180.0), (-180.0, -180.0), (-190.0, 170.0)]
)
def test_longitudes_are_wrapped(x: float, expected: float) -> None:
    grid = Grid(10, 10, (1.0, 0.0, x, 0.0, -1.0, 10.0), CRS.from_epsg(4326))
    assert grid.to_lonlat([(0, 0)])[0, 0] == pytest.approx(expected)


def test_latitudes_end_at_the_poles() -> None:
    grid = Grid(36, 19, (10.0, 0.0, -185.0, 0.0, -10.0, 95.0), CRS.from_epsg(4326))
    assert grid.to_lonlat([(0, 0), (0, 19)])[:, 1].tolist() == [90.0, -90.0]


def test_a_latitude_of_150_is_no_pole() -> None:
    grid = Grid(10, 10, (1e-5, 0.0, 50.0, 0.0, -1e-5, 150.0), CRS.from_epsg(4326))  # latitude first
    assert np.isnan(grid.to_lonlat([(5, 5)])).all()


def test_heights_are_no_part_of_a_place() -> None:
    compound = CRS.from_epsg(7415)
    assert horizontal(compound) == CRS.from_epsg(28992)
    assert len(horizontal(CRS.from_epsg(4979)).axis_info) == 2
    assert Grid(5, 5, IDENTITY, compound).crs == CRS.from_epsg(28992)


def test_a_crs_in_words() -> None:
    assert describe_crs(UTM31) == "WGS 84 / UTM zone 31N (EPSG:32631)"
    assert describe_crs(None) == "no CRS"


def test_datum_shifts_are_applied() -> None:
    moved = transformed(np.array([(-80.0, 35.0)]), CRS.from_epsg(4267), CRS.from_epsg(4326))
    metres = Geod(ellps="WGS84").inv(-80.0, 35.0, *moved[0])[2]
    assert 5 < metres < 100


def test_no_way_to_another_planet() -> None:
    europa = CRS.from_proj4("+proj=longlat +R=1562090 +no_defs")
    with pytest.raises(GridError, match="no transformation"):
        transformed(
            np.zeros((1, 2)),
            CRS.from_wkt(
                'ENGCRS["Plot",EDATUM["Plot"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
            ),
            europa,
        )


def test_a_crs_on_a_datum_of_nobody_is_known_as_such_in_time() -> None:
    crs = CRS.from_wkt(
        'GEOGCS["x",DATUM["MIF 999",SPHEROID["GRS 80",6378137,298.257222101],TOWGS84[0,0,0,0,0,0,0]],'
        'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]]'
    )
    began = time.process_time()
    assert registered(crs, 70, "EPSG") is None
    assert time.process_time() - began < 5  # PROJ alone takes 14 s of a core
