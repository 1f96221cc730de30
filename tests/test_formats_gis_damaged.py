"""Damaged layers for a GIS are read or refused in one sentence."""

from __future__ import annotations

import io
import json
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from gis_layers import KML, UTM_GRID, made_layer, made_stream, shapes_px
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecodetect.errors import LayerError
from ecodetect.formats import files as formats


@cache
def seeds() -> dict[str, bytes]:
    """A small whole file of each format."""
    layer = made_layer(shapes_px("polygons", UTM_GRID, 3), UTM_GRID)
    files = {".kml": KML.encode()}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("doc.kml", KML)
    files[".kmz"] = packed.getvalue()
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".geojson", ".geojsonl", ".gpkg", ".parquet", ".fgb", ".shp"):
            path = Path(folder) / f"a{suffix}"
            formats.write(path, made_stream(layer))
            files[suffix] = path.read_bytes()
        files[".shx"] = (Path(folder) / "a.shx").read_bytes()
        files[".dbf"] = (Path(folder) / "a.dbf").read_bytes()
    return files


SEEDED = (".dbf", ".fgb", ".geojson", ".geojsonl", ".gpkg", ".kml", ".kmz", ".parquet", ".shp", ".shx")
TOKENS = (
    b"null",
    b"-1e999",
    b"NaN",
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b"<",
    b"&a;",
    b"\xff\xff\xff\xff",
    b"\0",
    b",",
    b"9" * 30,
)
NEW = st.one_of(st.binary(min_size=1, max_size=4), st.sampled_from(TOKENS))
CHANGES = st.lists(st.tuples(st.floats(0, 1), NEW, st.integers(0, 8)), max_size=6)


def mutated(data: bytes, changes: Any, cut_at: float) -> bytes:
    """Bytes written over at relative places, with a few removed there, and the end cut."""
    for place, new, removed in changes:
        at = int(place * len(data))
        data = data[:at] + new + data[at + removed :]
    return data[: int(cut_at * len(data)) + 1]


def assert_read_or_refused(folder: Path, suffix: str, data: bytes) -> None:
    path = folder / f"fuzz{suffix}"
    path.write_bytes(data)
    if suffix in (".shx", ".dbf"):
        path = folder / "fuzz.shp"
        path.write_bytes(seeds()[".shp"])
    if path.suffix == ".shp":
        for side in {".shx", ".dbf"} - {suffix}:
            path.with_suffix(side).write_bytes(seeds()[side])
    found, refusal = None, ""
    try:
        found = formats.read(path, grid=UTM_GRID)
    except LayerError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert found is None or set(shapely.get_type_id(found.geometry).tolist()) <= {0, 3, 6}


WHERE = st.one_of(st.just(1.0), st.floats(0, 1))


@pytest.mark.parametrize("suffix", SEEDED)
def test_mutated_files_are_read_or_refused(
    suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    @settings(max_examples=25, suppress_health_check=list(HealthCheck))
    @given(CHANGES, WHERE)
    def check(changes: Any, cut_at: float) -> None:
        assert_read_or_refused(tmp_path, suffix, mutated(seeds()[suffix], changes, cut_at))

    check()
    assert capfd.readouterr() == ("", "")  # GDAL keeps quiet


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SEEDED)
def test_many_mutated_files_are_read_or_refused(suffix: str, tmp_path: Path) -> None:
    @settings(max_examples=500, suppress_health_check=list(HealthCheck))
    @given(CHANGES, WHERE)
    def check(changes: Any, cut_at: float) -> None:
        assert_read_or_refused(tmp_path, suffix, mutated(seeds()[suffix], changes, cut_at))

    check()


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)
GEOMETRY_TYPES = st.sampled_from(
    ["Point", "MultiPoint", "LineString", "Polygon", "MultiPolygon", "GeometryCollection", "Nonsense"]
)
COORDINATES = st.recursive(st.floats(), lambda inner: st.lists(inner, max_size=5), max_leaves=20)
ANY_GEOMETRY = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {"type": GEOMETRY_TYPES, "coordinates": st.one_of(COORDINATES, JSON), "geometries": JSON}
    ),
)
ANY_FEATURE = st.one_of(
    JSON, st.fixed_dictionaries({"type": st.just("Feature"), "geometry": ANY_GEOMETRY, "properties": JSON})
)


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.lists(ANY_FEATURE, max_size=4), JSON)
def test_geojson_of_any_values_is_read_or_refused(tmp_path: Path, features: Any, crs: Any) -> None:
    text = json.dumps({"type": "FeatureCollection", "crs": crs, "features": features})
    assert_read_or_refused(tmp_path, ".geojson", text.encode())


def test_an_outline_that_crosses_itself_without_end_is_left_out(tmp_path: Path) -> None:
    ring = np.random.default_rng(0).uniform(0, 1000, (6000, 2))
    tangled, sound = shapely.Polygon(ring), shapely.Polygon([(0, 0), (9, 9), (9, 0), (0, 9)])
    layer = geopandas.GeoDataFrame({"label": ["a", "b"]}, geometry=[tangled, sound], crs="EPSG:32631")
    layer.to_file(tmp_path / "crowns.gpkg", engine="pyogrio")
    found = formats.read(tmp_path / "crowns.gpkg")
    assert found.columns["label"].tolist() == ["b"]
    assert "crosses itself more than 500 times was left out" in " ".join(map(str, found.notes))
