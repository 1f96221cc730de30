"""Shapefiles lie in several files, with a CRS and an encoding that may be missing or wrong."""

from __future__ import annotations

import os
from pathlib import Path

import geopandas
import pyogrio
import pytest
import shapely
from gis_layers import GRIDS, UTM, UTM_GRID, made_layer, made_stream, shapes_px, to_file
from pyproj import CRS, Transformer

from ecodetect.errors import LayerError
from ecodetect.formats import files as formats
from ecodetect.grid import Grid


def test_a_shapefile_takes_its_old_side_files_with_it(tmp_path: Path) -> None:
    grid = GRIDS["north-up"]
    path = tmp_path / "out.shp"
    formats.write(path, made_stream(made_layer(shapes_px("boxes", grid), grid)))
    (tmp_path / "out.qix").write_bytes(b"index of the old one")
    plane = Grid(500, 400)
    formats.write(path, made_stream(made_layer(shapes_px("boxes", plane), plane)), overwrite=True)
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".cpg", ".dbf", ".qml", ".shp", ".shx"]


def test_a_shapefile_without_crs_and_in_latin_1(tmp_path: Path) -> None:
    path = tmp_path / "kronen.shp"
    world = shapely.points([(400_000 + row, 5_199_990) for row in range(3)])
    frame = geopandas.GeoDataFrame({"art": ["Föhre", "Eßkastanie", "Ähre"]}, geometry=world, crs=32632)
    pyogrio.write_dataframe(frame, path, encoding="ISO-8859-1")
    path.with_suffix(".prj").unlink()
    found = formats.read(path, grid=UTM_GRID)
    assert found.columns["art"].tolist() == ["Föhre", "Eßkastanie", "Ähre"]
    assert found.crs == UTM
    assert "whose CRS was taken" in str(found.notes[0])
    assert [str(note) for note in formats.read(path).notes] == ["kronen.shp: it has no CRS."]
    assert formats.read(path, grid=GRIDS["feet"]).crs is None
    to_file(tmp_path / "degrees.shp", shapely.points([(11.502, 47.198)]), 4326).with_suffix(".prj").unlink()
    degrees = formats.read(tmp_path / "degrees.shp", grid=GRIDS["lat/lon"])
    assert degrees.in_pixels(GRIDS["lat/lon"])[0].coords[0] == pytest.approx((200, 200))
    x, y = Transformer.from_crs(4326, UTM, always_xy=True).transform(11.502, 47.198)
    utm = Grid(500, 400, (1.0, 0.0, x - 250, 0.0, -1.0, y + 200), UTM)
    found = formats.read(tmp_path / "degrees.shp", grid=utm)
    assert found.crs == CRS.from_epsg(4326)
    assert "as longitude and latitude" in str(found.notes[0])
    path.with_suffix(".shx").unlink()
    with pytest.raises(LayerError, match=r"without its \.shx"):
        formats.read(path)


def test_a_shapefile_in_utf_8_that_doesnt_say_so(tmp_path: Path) -> None:
    path = tmp_path / "a.shp"
    frame = geopandas.GeoDataFrame({"art": ["Föhre"]}, geometry=shapely.points([(7.7, 47)]), crs=4326)
    pyogrio.write_dataframe(frame, path, encoding="UTF-8")
    path.with_suffix(".cpg").unlink()
    data = bytearray(path.with_suffix(".dbf").read_bytes())
    data[29] = 0
    path.with_suffix(".dbf").write_bytes(data)
    assert formats.read(path).columns["art"].tolist() == ["Föhre"]


def test_a_cut_shapefile(tmp_path: Path) -> None:
    path = to_file(tmp_path / "a.shp", shapely.points([(7.7, 47)] * 50), 4326, a=[1] * 50)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(LayerError, match="is cut: it has 500 of"):
        formats.read(path)


def test_esris_words_for_a_crs_are_the_same_crs(tmp_path: Path) -> None:
    path = to_file(tmp_path / "a.shp", shapely.points([(400_000, 5_199_990)]), 32632)
    path.with_suffix(".prj").write_text(UTM.to_wkt("WKT1_ESRI"))
    assert formats.read(path, grid=UTM_GRID).crs == UTM
    assert formats.read(path).crs == UTM


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
@pytest.mark.parametrize("pipe", ["a.prj", "a.dbf", "a.cpg", "A.QIX", "a.shp.aux.xml"])
def test_a_pipe_beside_a_layer_is_refused_at_once(tmp_path: Path, pipe: str) -> None:
    points = geopandas.GeoDataFrame({"label": ["a"]}, geometry=[shapely.Point(10, 50)], crs=4326)
    points.to_file(tmp_path / "A.shp" if pipe[0] == "A" else tmp_path / "a.shp")
    (tmp_path / pipe).unlink(missing_ok=True)
    os.mkfifo(tmp_path / pipe)
    with pytest.raises(LayerError, match=f"has {pipe} beside it, which is not a file"):
        formats.read(tmp_path / f"{pipe[0]}.shp")
