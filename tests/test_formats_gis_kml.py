"""KML and KMZ are read folder by folder; no XML reaches beyond its file or unpacks without end."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from gis_layers import KML
from pyproj import CRS

from ecodetect.errors import LayerError
from ecodetect.formats import files as formats


def test_kml_and_kmz(tmp_path: Path) -> None:
    (tmp_path / "a.kml").write_text(KML)
    with zipfile.ZipFile(tmp_path / "b.kmz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("doc.kml", KML)
        archive.writestr("files/icon.png", b"")
    for path in (tmp_path / "a.kml", tmp_path / "b.kmz"):
        found = formats.read(path)
        assert found.columns["name"].tolist() == ["a", "b", "", "p"]
        assert found.columns["folder"].tolist() == ["trees", "trees", "old", "plots"]
        assert found.columns["acc"].tolist() == ["", "2.5", "", ""]
        assert len(found.geometry[3].interiors) == 1
        assert found.crs == CRS.from_epsg(4326)
        assert "trees (2), old (1), plots (4)" in str(found.notes[0])
        assert len(formats.read(path, layer="trees")) == 3
        with pytest.raises(LayerError, match="no folder 'x'; it has trees, old, plots"):
            formats.read(path, layer="x")


DOCTYPE = '<!DOCTYPE kml [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("suffix", [".kml", ".kmz", ".gpx", ".gml"])
def test_xml_with_a_doctype_is_refused(suffix: str, tmp_path: Path) -> None:
    text = KML.replace("<kml", f"{DOCTYPE}<kml", 1)
    path = tmp_path / f"a{suffix}"
    for encoding in ("utf-8", "utf-16"):
        data = text.replace("UTF-8", encoding).encode(encoding)
        if suffix == ".kmz":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("doc.kml", data)
        else:
            path.write_bytes(data)
        with pytest.raises(LayerError, match="DOCTYPE"):
            formats.read(path)


def test_a_kmz_that_unpacks_to_too_much(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "a.kmz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("doc.kml", "w") as file,
    ):
        for _ in range(260):
            file.write(bytes(1 << 20))
    with pytest.raises(LayerError, match="256 MB"):
        formats.read(tmp_path / "a.kmz")
