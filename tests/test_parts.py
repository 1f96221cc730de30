"""Polygons of several parts: as many individuals as parts in a GIS, one area where ground is meant."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from ecodetect.annotations.laying import on_raster
from ecodetect.formats import files as formats
from ecodetect.formats.parts import separated, several, united
from ecodetect.grid import Grid
from ecodetect.layer import Layer
from ecodetect.region import read_area

GRID = Grid(200, 100)


@given(st.lists(st.integers(1, 5), max_size=8))
def test_each_part_is_an_individual_with_the_columns_of_its_feature(counts: list[int]) -> None:
    shapes = np.array(
        [
            shapely.MultiPolygon(
                [shapely.box(x, 10 * y, x + 5, 10 * y + 5) for x in range(0, 10 * count, 10)]
            )
            for y, count in enumerate(counts)
        ],
        dtype=object,
    )
    layer = Layer(
        shapes, {"n": np.arange(len(counts))}, grid=GRID, are_parts=several(shapes, in_degrees=False)
    )
    found = on_raster(layer, GRID, name="a.gpkg")
    assert found.columns["n"].tolist() == [n for n, count in enumerate(counts) for _ in range(count)]
    assert shapely.area(found.geometry) == pytest.approx(np.full(sum(counts), 25.0))
    split = [count for count in counts if count > 1]
    assert [note.code for note in found.notes] == ["parts-separated"] * bool(split)
    if split:
        assert f"{sum(split)} individuals" in found.notes[0].text


def written(path: Path, shape: shapely.Geometry) -> Path:
    feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)}
    content = {"type": "FeatureCollection", "ecodetect:frame": "pixel", "features": [feature]}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_an_outline_that_crosses_itself_is_one_individual(tmp_path: Path) -> None:
    bowtie = shapely.Polygon([(1, 1), (9, 9), (9, 1), (1, 9)])
    found = formats.read(written(tmp_path / "a.geojson", bowtie), grid=GRID)
    assert len(separated(found, "a")[0]) == 1


def test_what_is_cut_at_the_antimeridian_is_one() -> None:
    halves = shapely.MultiPolygon([shapely.box(179, 1, 180, 2), shapely.box(-180, 1, -179, 2)])
    apart = shapely.MultiPolygon([shapely.box(178, 1, 179, 2), shapely.box(-180, 1, -179, 2)])
    shapes = np.array([halves, apart], dtype=object)
    assert several(shapes, in_degrees=True).tolist() == [False, True]


def test_parts_that_overlap_are_whole_individuals_and_one_area(tmp_path: Path) -> None:
    both = shapely.MultiPolygon([shapely.box(1, 1, 9, 9), shapely.box(5, 1, 13, 9)])
    path = written(tmp_path / "a.geojson", both)
    found = formats.read(path, grid=GRID)
    assert shapely.area(separated(found, "a")[0].geometry).tolist() == [64, 64]
    assert shapely.area(united(found.geometry)).tolist() == [96]
    assert read_area(str(path), GRID).shape.area == pytest.approx(96)
