"""GPX, GML and MapInfo are read by OGR, which asks nobody and opens nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from gis_layers import to_file
from listening import listening

from ecodetect.errors import LayerError
from ecodetect.formats import files as formats


def test_gpx_and_gml(tmp_path: Path) -> None:
    gpx = '<gpx version="1.1" creator="x" xmlns="http://www.topografix.com/GPX/1/1">{}</gpx>'
    wpt = '<wpt lat="46.9" lon="7.6"><name>t1</name></wpt>'
    track = '<trk><trkseg><trkpt lat="46" lon="7"/><trkpt lat="47" lon="8"/></trkseg></trk>'
    (tmp_path / "a.gpx").write_text(gpx.format(wpt))
    found = formats.read(tmp_path / "a.gpx")
    assert found.columns["name"].tolist() == ["t1"]
    assert found.geometry[0].coords[0] == (7.6, 46.9)
    (tmp_path / "b.gpx").write_text(gpx.format(wpt + track))
    with pytest.raises(LayerError, match="waypoints"):
        formats.read(tmp_path / "b.gpx")
    assert len(formats.read(tmp_path / "b.gpx", layer="waypoints")) == 1
    path = to_file(tmp_path / "a.gml", shapely.points([(400_000, 5_199_990)] * 2), 32632, a=[1, 2])
    path.with_suffix(".xsd").unlink()
    before = sorted(file.name for file in tmp_path.iterdir())
    assert formats.read(path).columns["a"].tolist() == [1, 2]
    assert sorted(file.name for file in tmp_path.iterdir()) == before


_SCHEMA = "http://{0}/t http://{0}/wfs?SERVICE=WFS&amp;REQUEST=DescribeFeatureType&amp;TYPENAME=t:a"


def test_nobody_is_asked_for_the_schema_of_a_gml(tmp_path: Path) -> None:
    path = tmp_path / "a.gml"
    with listening() as address:
        path.write_text(
            '<wfs:FeatureCollection xmlns:wfs="http://www.opengis.net/wfs" xmlns:gml="http://www.opengis.net/gml"'
            f' xmlns:t="http://{address}/t" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
            f' xsi:schemaLocation="{_SCHEMA.format(address)}"><gml:featureMember><t:a><t:g>'
            '<gml:Point srsName="EPSG:4326"><gml:coordinates>1,2</gml:coordinates></gml:Point></t:g>'
            "<t:n>7</t:n></t:a></gml:featureMember></wfs:FeatureCollection>",
            encoding="ascii",
        )
        layer = formats.read(path)
    assert len(layer.geometry) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("beginning", ["!table\n!version 300\n", "Version 300\n"])
def test_a_mapinfo_file_is_no_other_format_too(tmp_path: Path, beginning: str) -> None:
    """GDAL takes a file for an OGR VRT wherever its mark stands."""
    path = tmp_path / ("a.tab" if beginning.startswith("!") else "a.mif")
    with listening() as address:
        path.write_text(
            f'{beginning}<OGRVRTDataSource><OGRVRTLayer name="x"><SrcDataSource>/vsicurl/http://{address}/x.gpkg'
            "</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>",
            encoding="ascii",
        )
        with pytest.raises(LayerError, match="has XML in it"):
            formats.read(path)


def test_mapinfo_tables_are_read_and_views_of_others_are_not(tmp_path: Path) -> None:
    wkb = shapely.to_wkb(np.array([shapely.Point(1, 2)], dtype=object))
    for name in ("a.tab", "a.mif"):
        pyogrio.raw.write(
            tmp_path / name, wkb, [np.array([7])], ["n"], driver="MapInfo File", geometry_type="Point",
            crs="EPSG:4326",
        )  # fmt: skip
        assert len(formats.read(tmp_path / name).geometry) == 1
    view = tmp_path / "view.tab"
    for text in (
        'open table "../b.tab" Hide\ncreate view v as Select * from b',
        "Definition Table\n  Type LINKED",
    ):
        view.write_text(f"!table\n!version 100\n{text}", encoding="ascii")
        with pytest.raises(LayerError, match="view of other tables"):
            formats.read(view)
    plain = (tmp_path / "a.tab").read_text(encoding="latin-1")
    view.write_text(f'{plain}begin_metadata\n"\\IsSeamless" = "TRUE"\nend_metadata\n', encoding="latin-1")
    with pytest.raises(LayerError, match="view of other tables"):
        formats.read(view)
