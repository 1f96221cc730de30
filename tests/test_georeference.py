"""The place of a raster from what its file says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pyproj import CRS

from ecodetect.grid import IDENTITY, Affine6
from ecodetect.raster.georeference import place

UTM = CRS.from_epsg(32631).to_wkt()
TRANSFORM: Affine6 = (0.1, 0.0, 5e5, 0.0, -0.1, 5e6)


def test_transform_and_crs() -> None:
    grid, notes = place(100, 80, TRANSFORM, UTM)
    assert grid.frame == "crs"
    assert grid.transform == TRANSFORM
    assert notes == []


@pytest.mark.parametrize(
    ("transform", "wkt", "frame", "message"),
    [
        (IDENTITY, None, "pixel", "no CRS and no transform"),
        (TRANSFORM, None, "affine", "no CRS"),
        (IDENTITY, UTM, "pixel", "a CRS but no transform"),
        (TRANSFORM, 'PROJCRS["nonsense"]', "affine", "can't be understood"),
        ((1.0, 1.0, 0.0, 1.0, 1.0, 0.0), UTM, "pixel", "can't be inverted"),
    ],
)
def test_what_is_missing_is_said(transform: Affine6, wkt: str | None, frame: str, message: str) -> None:
    grid, notes = place(100, 80, transform, wkt)
    assert grid.frame == frame
    assert len(notes) == 1
    assert message in str(notes[0])


def test_rpcs_are_not_used() -> None:
    grid, notes = place(100, 80, IDENTITY, None, has_rpc=True)
    assert grid.frame == "pixel"
    assert "RPC" in str(notes[0])


def test_control_points_on_a_plane_place_exactly() -> None:
    a, b, c, d, e, f = (0.3, 0.1, 412_345.6, -0.1, -0.3, 5_432_109.8)
    corners = [(0, 0), (100, 0), (0, 80), (100, 80), (37, 11)]
    control = [(x, y, a * x + b * y + c, d * x + e * y + f) for x, y in corners]
    grid, notes = place(100, 80, IDENTITY, None, control, UTM)
    np.testing.assert_allclose(
        grid.to_pixel(np.array(control)[:, 2:]), np.array(control)[:, :2], atol=1e-6, rtol=0
    )
    assert grid.crs is not None
    assert "5 ground control points" in str(notes[0])


def test_how_far_control_points_lie_from_the_plane_is_said() -> None:
    control = [
        (0.0, 0.0, 0.0, 0.0),
        (100.0, 0.0, 100.0, 0.0),
        (0.0, 80.0, 0.0, -80.0),
        (100.0, 80.0, 103.0, -80.0),
    ]
    _, notes = place(100, 80, IDENTITY, None, control, UTM)
    assert "0.74 px" in str(notes[0])  # a saddle of 3 m: 0.75 m everywhere, of pixels that are 1.015 m wide


@pytest.mark.parametrize(
    ("control", "message"),
    [
        ([(0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0), (2.0, 2.0, 2.0, 2.0)], "don't span a plane"),
        ([(0.0, 0.0, 0.0, 0.0)], "don't span a plane"),
        ([(0.0, 0.0, 0.0, 0.0), (9.0, 0.0, math.nan, 0.0), (0.0, 9.0, 0.0, math.inf)], "don't span a plane"),
        ([(0.0, 0.0, 0.0, 1e308), (9.0, 0.0, 9.0, 1e308), (0.0, 9.0, 0.0, 9.0)], "don't span a plane"),
        ([(0.0, 0.0, 0.0, 0.0), (9.0, 0.0, 9e-320, 0.0), (0.0, 9.0, 0.0, 9e-320)], "don't span a plane"),
        (
            [(0.0, 0.0, 0.0, 0.0), (99.0, 0.0, 99.0, 0.0), (0.0, 79.0, 0.0, -79.0), (99.0, 79.0, 0.0, 70.0)],
            "not used",
        ),
    ],
)
def test_control_points_that_place_nothing(control: list[tuple[float, ...]], message: str) -> None:
    grid, notes = place(100, 80, IDENTITY, None, control, UTM)  # type: ignore[arg-type]
    assert grid.frame == "pixel"
    assert message in str(notes[0])


def test_a_geocentric_crs_places_nothing() -> None:
    grid, notes = place(100, 80, TRANSFORM, CRS.from_epsg(4978).to_wkt())
    assert grid.frame == "affine"
    assert "centre of the Earth" in str(notes[0])


def test_a_transform_goes_before_control_points() -> None:
    grid, _ = place(100, 80, TRANSFORM, UTM, [(0.0, 0.0, 7.0, 7.0)] * 4, UTM)
    assert grid.transform == TRANSFORM


def test_a_gsd_that_varies_is_said() -> None:
    wgs84 = CRS.from_epsg(4326).to_wkt()
    _, notes = place(360, 170, (1.0, 0.0, -180.0, 0.0, -1.0, 85.0), wgs84)
    assert "varies" in str(notes[0])
    _, notes = place(360, 170, (1e-5, 0.0, 8.0, 0.0, -1e-5, 50.0), wgs84)
    assert notes == []
