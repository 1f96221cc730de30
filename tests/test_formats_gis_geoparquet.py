"""GeoParquet of others is read, and its geometries have an end."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pytest
import shapely

from ecodetect.errors import LayerError
from ecodetect.formats import files as formats
from ecodetect.formats.gis.arrow_columns import geometries_of


def test_parquet_of_others(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame(
        {"n": [1, None], "when": geopandas.pd.to_datetime(["2024-05-01", None]), "raw": [b"x", b"y"]},
        geometry=shapely.points([(7.6, 46.9), (7.7, 46.9)]),
        crs="OGC:CRS84",
    )
    frame.to_parquet(tmp_path / "a.parquet")
    found = formats.read(tmp_path / "a.parquet")
    assert np.array_equal(found.columns["n"], [1, np.nan], equal_nan=True)
    assert found.columns["when"].tolist() == ["2024-05-01T00:00:00", ""]
    assert "raw" not in found.columns
    assert found.in_lonlat()[0].coords[0] == pytest.approx((7.6, 46.9))
    frame.drop(columns="geometry").to_parquet(tmp_path / "b.parquet")
    with pytest.raises(LayerError, match="without geometry"):
        formats.read(tmp_path / "b.parquet")


@pytest.mark.parametrize("kind", [b"\x01\x07\0\0\0\x01\0\0\0", b"\0\0\0\0\x07\0\0\0\x01"])
def test_collections_within_collections_end(kind: bytes) -> None:
    point = shapely.to_wkb(shapely.Point(1, 2))
    found = geometries_of(pa.chunked_array([[kind * 1_000_000 + point, kind * 3 + point]], pa.binary()))
    assert found[0] is None
    assert shapely.get_coordinates(found[1]).tolist() == [[1, 2]]
