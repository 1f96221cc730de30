"""A CRS that names a file is refused before PROJ opens it, wherever it stands; sound ones name none."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from pyproj import CRS

from ecodetect.errors import LayerError, RasterError, UserError
from ecodetect.formats import files as formats
from ecodetect.guarding.crs_files import file_in, file_in_metadata
from ecodetect.raster.reading import open_raster

UTM = "+proj=utm +zone=33 +ellps=bessel +nadgrids={} +type=crs"
WKT = (
    'PROJCS["x / y",GEOGCS["y",DATUM["z",SPHEROID["b",6377397.155,299.15],EXTENSION["PROJ4_GRIDS","{}"]],'
    'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["central_meridian",15],PARAMETER["scale_factor",1],UNIT["metre",1]]'
)


@pytest.mark.parametrize(
    "name",
    [
        "/data/x.gsb",
        "./x",
        "../x",
        "~/x",
        "C:\\x",
        "\\\\server\\x",
        "a/../../x",
        "https://server/x.tif",
        "@/x",
        "conus,@/x",
    ],
)
def test_a_path_is_found_in_each_way_to_write_a_crs(name: str) -> None:
    assert file_in(UTM.format(name))
    assert file_in(f"+proj=pipeline +step +proj=hgridshift +grids={name}")
    assert file_in(WKT.format(name))
    assert file_in(CRS(WKT.format("z.gsb")).to_wkt().replace("z.gsb", name))
    described = CRS(WKT.format("z.gsb")).to_json().replace("z.gsb", name.replace("\\", "\\\\"))
    assert file_in(described)
    assert file_in(described.replace("/", "\\u002f"))
    assert file_in(json.loads(described))
    assert file_in_metadata(f"<SRS>{WKT.format(name)}</SRS>")
    assert file_in_metadata(f"<GCPList Projection='{UTM.format(name)}'>")


@pytest.mark.parametrize(
    "code", [4326, 32633, 3857, 31287, 5514, 7405, 2193, "ESRI:102003", "OGC:CRS84", "ESRI:54030"]
)
def test_sound_systems_name_no_file(code: int | str) -> None:
    crs = CRS(code)
    for text in (crs.to_wkt(), crs.to_wkt("WKT1_GDAL", pretty=True), crs.to_json(), crs.srs):
        assert file_in(text) is None, text
        assert file_in_metadata(f"<SRS>{text}</SRS><MDI key='command'>gdalwarp -of=/x /a/b</MDI>") is None


@pytest.mark.parametrize(
    "stated",
    [
        "urn:ogc:def:crs:OGC:1.3:CRS84",
        "http://www.opengis.net/def/crs/EPSG/0/4326",
        "+proj=utm +zone=33 +ellps=bessel +nadgrids=conus,@alaska,us_noaa_FL.tif +type=crs",
        "+proj=utm +zone=33 +nadgrids=@null +to_meter=1/3.28 +towgs84=1,2,-.3",
        "+init=epsg:4326",
        WKT.format("BETA2007.gsb"),
        None,
    ],
)
def test_sound_words_name_no_file(stated: str | None) -> None:
    assert file_in(stated) is None


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
@pytest.mark.parametrize("words", [UTM, WKT, "+proj=tinshift +file={}", "+init={}:1"])
def test_a_pipe_that_a_crs_names_is_never_opened(tmp_path: Path, words: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    stated = words.format(tmp_path / "pipe")
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=8, height=8, count=1, dtype="uint8",
        transform=rasterio.Affine(1, 0, 5, 0, -1, 5),
    ) as file:  # fmt: skip
        file.write(np.eye(8, dtype=np.uint8), 1)
    (tmp_path / "a.tif.aux.xml").write_text(f"<PAMDataset><SRS>{stated}</SRS></PAMDataset>")
    with pytest.raises(RasterError, match="names another file"):
        open_raster(tmp_path / "a.tif")
    with pytest.raises(UserError, match="names another file"):
        formats.read(tmp_path / "a.tif")
    layer = {"type": "FeatureCollection", "features": [], "crs": {"properties": {"name": stated}}}
    (tmp_path / "a.geojson").write_text(json.dumps(layer))
    with pytest.raises(LayerError, match="from another file"):
        formats.read(tmp_path / "a.geojson")
