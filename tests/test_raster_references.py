"""Names of other files inside a raster: refused before a library follows them, whatever their spelling."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio
from listening import listening

from ecodetect.errors import RasterError
from ecodetect.raster.reading import open_raster
from ecodetect.raster.references import check_idrisi, check_metadata
from ecodetect.raster.tiff_pages import metadata_texts

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def write(path: Path, driver: str = "GTiff", *, side: int = 64, **options: Any) -> Path:
    pixels = (np.arange(side * side) % 251).reshape(1, side, side).astype(np.uint8)
    with rasterio.open(
        path, "w", driver=driver, width=side, height=side, count=1, dtype="uint8", **options
    ) as file:
        file.write(pixels)
    return path


def refused(path: Path) -> str:
    with pytest.raises(RasterError) as caught, open_raster(path) as raster:
        assert raster.overview_factors is not None
    text = str(caught.value)
    assert path.name in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    "text",
    [
        '<Item name="OVERVIEW_FILE" domain="OVERVIEWS">x.tif</Item>',
        '<Item name="overview_file" domain="overviews">x.tif</Item>',
        '<Item domain="" domain="OVERVIEWS" Name="" name="OVERVIEW_FILE">:::BASE:::x</Item>',
        '<Item name="OVERVIEW&#95;FILE" domain="OVERVIEWS">x</Item>',
        '<Item name="&#x4f;VERVIEW_FILE" domain=OVERVIEWS>x',
        '<Item name="&#x10000004f;VERVIEW_FILE" domain=OVERVIEWS>x',
        '<Item name="Y_DATASET" domain="GEOLOCATION">x</Item>',
        '<!DOCTYPE a [<!ENTITY b "OVERVIEW">]><Item name="&b;_FILE">x</Item>',
        '\0<Item name="OVERVIEW_FILE">x</Item>',
    ],
)
def test_metadata_that_name_a_file_are_refused_however_they_are_spelt(text: str) -> None:
    with pytest.raises(RasterError, match=r"a\.tif"):
        check_metadata(f"<GDALMetadata>{text}</GDALMetadata>".encode(), "a.tif")
    with pytest.raises(RasterError, match=r"a\.tif"):
        check_metadata(text.encode("utf-16"), "a.tif")


def test_ordinary_metadata_are_no_names() -> None:
    check_metadata(
        b'<GDALMetadata><Item name="OVERVIEWS_ALGORITHM">AVERAGE &amp; more</Item></GDALMetadata>\0', "a"
    )
    check_metadata(b'<GDALMetadata><Item name="URL">http://host/a.tif</Item></GDALMetadata>', "a")


def tag(path: Path, address: str) -> None:
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=f"/vsicurl/http://{address}/x.tif")


@pytest.mark.parametrize("big", ["NO", "YES"])
def test_a_tag_of_a_tiff_reaches_nobody(tmp_path: Path, big: str) -> None:
    path = write(tmp_path / "a.tif", bigtiff=big)
    with listening() as address, rasterio.Env(GDAL_HTTP_TIMEOUT="1"):
        tag(path, address)
        assert "OVERVIEW_FILE" in refused(path)
        with pytest.raises(RasterError, match="OVERVIEW_FILE"):
            open_raster(f"GTIFF_DIR:1:{path}")


def test_nor_does_one_in_an_archive(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    plain = path.read_bytes()
    with listening() as address, rasterio.Env(GDAL_HTTP_TIMEOUT="1"):
        tag(path, address)
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("tagged.tif", path.read_bytes())
            archive.writestr("plain.tif", plain)
            vrt = (
                '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1">'
                f"<SimpleSource><SourceFilename>/vsicurl/http://{address}/x.tif</SourceFilename>"
                "</SimpleSource></VRTRasterBand></VRTDataset>"
            )
            archive.writestr("plain.tif.ovr", vrt)
            archive.writestr("plain.tif.msk", vrt)
            archive.writestr("vrt.tif", vrt)
            archive.writestr(
                "plain.tif.aux.xml",
                f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/vsicurl/http://{address}/'
                "x.tif</MDI></Metadata></PAMDataset>",
            )
        with open_raster(f"/vsizip/{tmp_path}/a.zip/plain.tif") as raster:
            assert raster.overview_factors == ()
            raster.read(raster.grid.window, raster.bands)
        for name in ("tagged.tif", "vrt.tif"):
            with pytest.raises(RasterError, match=name):
                open_raster(f"/vsizip/{tmp_path}/a.zip/{name}")


@pytest.mark.parametrize(
    "name", ["/vsizip/{}/a.zip/a.h5", "/vsizip//vsisparse/{}/a.zip/a.h5", "/vsisparse/{}/x"]
)
def test_what_cannot_be_looked_at_in_an_archive_is_not_opened(tmp_path: Path, name: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", shape=(20, 40), dtype="u1", external=[(str(tmp_path / "x"), 0, 800)])
    (tmp_path / "x").write_bytes(bytes(800))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.h5", "a.h5")
    for spelt in (name, f'HDF5:"{name}"://d', f'NETCDF:"{name}":d'):
        with pytest.raises(RasterError, match="can't be opened"):
            open_raster(spelt.format(tmp_path))


@pytest.mark.parametrize(("order", "is_big"), [("<", False), (">", False), ("<", True)])
def test_all_directories_of_a_tiff_are_looked_at(tmp_path: Path, order: str, is_big: bool) -> None:
    """Also a tag that stands there twice, and a directory that ends with the file."""
    entry, number, place = (order + form for form in (("HHQQ", "Q", "Q") if is_big else ("HHII", "H", "I")))
    texts = [b"<first of the texts/>\0", b"<second of the texts/>\0", b"<of a directory below/>\0"]
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}H", 43 if is_big else 42)
    head += struct.pack(f"{order}HH", 8, 0) if is_big else b""
    start = len(head) + struct.calcsize(place)
    places = [start + sum(map(len, texts[:index])) for index in range(3)]
    main = start + sum(map(len, texts))
    below = main + struct.calcsize(number) + 3 * struct.calcsize(entry) + struct.calcsize(place)
    stated = [struct.pack(entry, 42112, 2, len(text), at) for text, at in zip(texts, places, strict=True)]
    (tmp_path / "a.tif").write_bytes(
        head
        + struct.pack(place, main)
        + b"".join(texts)
        + struct.pack(number, 3)
        + b"".join(stated[:2])
        + struct.pack(entry, 330, 18 if is_big else 4, 1, below)
        + struct.pack(place, 0)
        + struct.pack(number, 1)
        + stated[2]
    )
    assert list(metadata_texts(tmp_path / "a.tif")) == texts


def test_metadata_in_a_jpeg_2000_reach_nobody(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jp2", "JP2OpenJPEG")
    plain = path.read_bytes()
    with listening() as address, rasterio.Env(GDAL_HTTP_TIMEOUT="1"):
        text = (
            '<GDALMultiDomainMetadata><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/vsicurl/http://'
            f"{address}/x.tif</MDI></Metadata></GDALMultiDomainMetadata>"
        ).encode()
        box = struct.pack(">I4s", 8 + len(text), b"xml ") + text
        pixels = plain.index(b"jp2c") - 4
        path.write_bytes(plain[:pixels] + box + plain[pixels:])
        assert "OVERVIEW_FILE" in refused(path)
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.write(path, "a.jp2")
        with pytest.raises(RasterError, match="overviews"):
            open_raster(f"/vsizip/{tmp_path}/a.zip/a.jp2")
    path.write_bytes(plain[:pixels] + box.replace(b"OVERVIEW_FILE", b"OVERVIEW_NAME") + plain[pixels:])
    open_raster(path).close()


@pytest.mark.parametrize("name", [b"../x", b"/etc/passwd", b"C:\\x.ige", b"x\\y.ige"])
def test_pixels_of_an_erdas_file_lie_in_its_folder(tmp_path: Path, name: bytes) -> None:
    path = write(tmp_path / "abcdefghijk.img", "HFA", USE_SPILL="YES")
    with open_raster(path) as raster:
        assert raster.read(raster.grid.window, raster.bands).pixels.shape == (1, 64, 64)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"abcdefghijk.ige", name.ljust(15, b"\0")))
    assert "outside its folder" in refused(path)
    path.write_bytes(content.replace(b"abcdefghijk.ige", b"passwords.txt\0\0"))
    assert "not a .ige" in refused(path)


def test_channels_of_a_pcidsk_are_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pix", "PCIDSK")
    open_raster(path).close()
    content = path.read_bytes()
    first = (int(content[336:352]) - 1) * 512
    for name in (b"/etc/passwd", b"other.raw", b"LNK=   4", b"\x7f\xff\xff\xff"):
        path.write_bytes(content[: first + 64] + name.ljust(64) + content[first + 128 :])
        assert "from another file" in refused(path)
    path.write_bytes(content[:376] + b"many    " + content[384:])
    assert "damaged" in refused(path)


def test_the_reference_system_of_an_idrisi_raster_is_a_plain_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rst", "RST")
    open_raster(path).close()
    header = tmp_path / "a.rdc"
    header.write_bytes(header.read_bytes().replace(b"plane", b"../../etc/x"))
    assert "by a path" in refused(path)
    check_idrisi(b"ref. system : utm-17n\r\nref. units  : m", "a.rst")


Change = Callable[[sqlite3.Connection, str], None]


def view(base: sqlite3.Connection, _: str) -> None:
    base.execute("ALTER TABLE a RENAME TO b")
    base.execute("CREATE VIEW a AS SELECT * FROM b")


def view_of_contents(base: sqlite3.Connection, _: str) -> None:
    base.execute("ALTER TABLE gpkg_contents RENAME TO b")
    base.execute("CREATE VIEW gpkg_contents AS SELECT * FROM b")


def virtual_table(base: sqlite3.Connection, _: str) -> None:
    base.execute("PRAGMA writable_schema = 1")
    base.execute(
        "INSERT INTO sqlite_master VALUES"
        " ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING VirtualOGR(x)')"
    )


def hidden_virtual_table(base: sqlite3.Connection, _: str) -> None:
    base.execute("PRAGMA writable_schema = 1")
    base.execute(
        "INSERT INTO sqlite_master VALUES"
        " ('table', 'v', 'v', 0, 'CREATE/*x*/VIRTUAL/**/TABLE v USING VirtualOGR(x)')"
    )


def metadata(base: sqlite3.Connection, address: str) -> None:
    base.execute(
        "CREATE TABLE gpkg_metadata (id INTEGER PRIMARY KEY, md_scope TEXT, md_standard_uri TEXT,"
        " mime_type TEXT, metadata TEXT)"
    )
    base.execute(
        "INSERT INTO gpkg_metadata VALUES (1, 'dataset', 'http://gdal.org', 'text/xml', "
        '\'<GDALMultiDomainMetadata><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">'
        f"/vsicurl/http://{address}/x</MDI></Metadata></GDALMultiDomainMetadata>')"
    )


@pytest.mark.parametrize("change", [view, view_of_contents, virtual_table, hidden_virtual_table, metadata])
def test_a_raster_in_a_geopackage_is_plain_tables(tmp_path: Path, change: Change) -> None:
    path = tmp_path / "a.gpkg"
    place = rasterio.Affine(1, 0, 0, 0, -1, 0)
    with rasterio.open(
        path,
        "w",
        driver="GPKG",
        width=64,
        height=64,
        count=3,
        dtype="uint8",
        crs="EPSG:3857",
        transform=place,
    ) as file:
        file.write(np.zeros((3, 64, 64), np.uint8))
    before = path.read_bytes()
    open_raster(path).close()
    assert path.read_bytes() == before
    with listening() as address:
        with contextlib.closing(sqlite3.connect(path)) as base, base:
            change(base, address)
        refused(path)


def test_a_geopackage_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    with contextlib.closing(sqlite3.connect(path)) as base:
        base.execute("CREATE TABLE gpkg_contents (table_name, data_type)")
    (tmp_path / "a.gpkg-wal").write_bytes(b"x")
    refused(path)  # it holds no raster
    assert (tmp_path / "a.gpkg-wal").read_bytes() == b"x"
