"""What is refused: files that aren't rasters, cut off, too large to unpack, or that lead elsewhere.

Every refusal is one sentence that names the file, and nothing reaches stderr beside it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecodetect.errors import RasterError
from ecodetect.raster.reading import open_raster
from ecodetect.raster.safety import Address, check_files, locate

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def write(path: Path, *, side: int = 64, bands: int = 3, driver: str = "GTiff", **options: Any) -> Path:
    pixels = np.random.default_rng(3).integers(0, 255, (bands, side, side)).astype(np.uint8)
    path.parent.mkdir(exist_ok=True, parents=True)
    with rasterio.open(
        path, "w", driver=driver, width=side, height=side, count=bands, dtype="uint8", **options
    ) as dataset:
        dataset.write(pixels)
    return path


def read(path: Path | str, *, threads: int = 0, **options: Any) -> np.ndarray[Any, Any]:
    with open_raster(path, **options) as raster:
        if threads:
            with raster.env(cache_bytes=2**22, threads=threads):
                return raster.read(raster.grid.window, raster.bands).pixels
        return raster.read(raster.grid.window, raster.bands).pixels


def refusal(path: Path | str, **options: Any) -> str:
    """The one sentence with which a raster is refused."""
    with pytest.raises(RasterError) as caught:
        read(path, **options)
    sentence = str(caught.value)
    assert Path(path).name in sentence
    assert "\n" not in sentence
    assert sentence.endswith((".", "?"))
    return sentence


@pytest.fixture(autouse=True)
def _silent(capfd: pytest.CaptureFixture[str]) -> Any:
    """No library writes to stdout or stderr by itself."""
    yield
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


# -- not a raster


def test_no_such_file_suggests_near_names(tmp_path: Path) -> None:
    write(tmp_path / "ortho.tif")
    assert "did you mean" in refusal(tmp_path / "orto.tif")
    assert str(tmp_path / "ortho.tif") in refusal(tmp_path / "orto.tif")
    assert "did you mean" not in refusal(tmp_path / "something_else.jpg")


def test_a_cut_pcidsk_is_refused(tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "a.pix", "w", driver="PCIDSK", width=64, height=64, count=1, dtype="uint8"
    ) as dataset:
        dataset.write(np.full((1, 64, 64), 7, np.uint8))
    with open_raster(tmp_path / "a.pix"):
        pass
    content = (tmp_path / "a.pix").read_bytes()
    (tmp_path / "b.pix").write_bytes(content[: len(content) // 2])
    assert "truncated" in refusal(tmp_path / "b.pix")


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_to_nowhere_says_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "ortho.tif").symlink_to(tmp_path / "moved.tif")
    assert "moved.tif, which isn't there" in refusal(tmp_path / "ortho.tif")
    assert "nor its folder" in refusal(tmp_path / "no" / "such.tif")


def test_empty_folder_text(tmp_path: Path) -> None:
    (tmp_path / "empty.tif").touch()
    assert "is empty (0 bytes)" in refusal(tmp_path / "empty.tif")
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "text.tif").write_text("no pixels here", encoding="ascii")
    assert "is not a raster" in refusal(tmp_path / "text.tif")
    (tmp_path / "bytes.tif").write_bytes(bytes(range(256)))
    assert "is not a raster" in refusal(tmp_path / "bytes.tif")


def test_a_file_of_nothing_but_a_header(tmp_path: Path) -> None:
    (tmp_path / "head.tif").write_bytes(b"II*\0\x08\0\0\0")
    assert "damaged or truncated TIFF" in refusal(tmp_path / "head.tif")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
@pytest.mark.parametrize(
    "name", ["a#1.tif", "a?b.tif", "zip!x.tif", "100%.tif", "s3:x.tif", "file:x.tif", "ü & (1).tif"]
)
def test_odd_names(tmp_path: Path, name: str) -> None:
    shutil.move(write(tmp_path / "a.tif"), tmp_path / name)
    assert read(tmp_path / name).shape == (3, 64, 64)


def test_the_content_counts_not_the_name(tmp_path: Path) -> None:
    write(tmp_path / "a.png", driver="PNG").rename(tmp_path / "a.tif")
    assert read(tmp_path / "a.tif").shape == (3, 64, 64)


def test_nothing_is_written_beside_what_cannot_be_opened(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.gpkg", driver="GPKG", crs="EPSG:3857", transform=rasterio.Affine(1, 0, 0, 0, -1, 0)
    )
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(note="x")
    with sqlite3.connect(path) as base:
        base.execute("UPDATE gpkg_tile_matrix SET matrix_height = x'4750'")
    base.close()
    refusal(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.gpkg"]


def test_subdatasets_are_listed_and_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "two.gpkg"
    for table in ("first", "second"):
        write(
            path, bands=1, driver="GPKG", raster_table=table, append_subdataset=path.exists(),
            crs="EPSG:3857", transform=rasterio.Affine(1, 0, 0, 0, -1, 0),
        )  # fmt: skip
    sentence = refusal(path)
    assert "first" in sentence
    assert "second" in sentence
    with rasterio.open(path) as dataset:
        assert read(dataset.subdatasets[0]).shape[1:] == (64, 64)
    assert read(f"GPKG:{path}:second").shape[1:] == (64, 64)
    assert read(f'GPKG:"{path}":second').shape[1:] == (64, 64)
    assert read(f"GTIFF_DIR:1:{write(tmp_path / 'a.tif')}").shape == (3, 64, 64)
    with pytest.raises(RasterError, match="has no arrays of that kind"):
        open_raster(f"GTIFF_DIR:1:{path}")
    with pytest.raises(RasterError, match=r"did you mean .*two\.gpkg"):
        open_raster(f"GPKG:{path.with_name('too.gpkg')}:second")


# -- damaged


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 3), st.floats(0, 1, exclude_max=True), st.sampled_from([0, 2]))
def test_a_cut_file_is_never_read_as_a_whole_one(
    tmp_path: Path, kind: int, share: float, threads: int
) -> None:
    """Wherever a file ends: a refusal, or all of its pixels."""
    name, driver, options = [
        ("strips.tif", "GTiff", {"compress": "deflate"}),
        ("tiles.tif", "GTiff", {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "lzw"}),
        ("plain.png", "PNG", {}),
        ("photo.jpg", "JPEG", {}),
    ][kind]
    path = tmp_path / name
    if not path.exists():
        write(path, driver=driver, **options)
    content = path.read_bytes()
    cut = tmp_path / f"cut_{name}"
    cut.write_bytes(content[: int(len(content) * share)])
    try:
        pixels = read(cut, threads=threads)
    except RasterError:
        assert refusal(cut, threads=threads)
    else:
        np.testing.assert_array_equal(pixels, read(path))


def test_bare_numbers_that_end_early_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dat", driver="ENVI")
    assert read(path).shape == (3, 64, 64)
    os.truncate(path, path.stat().st_size - 1)
    assert "truncated: it has 12287 of the 12288 bytes" in refusal(path)


def test_bytes_after_the_end_of_a_picture_do_no_harm(tmp_path: Path) -> None:
    for name, driver in (("a.png", "PNG"), ("a.jpg", "JPEG")):
        path = write(tmp_path / name, driver=driver)
        expected = read(path)
        path.write_bytes(path.read_bytes() + b"\0\0 more \xff\xd8")
        np.testing.assert_array_equal(read(path), expected)


def test_a_thumbnail_within_a_cut_jpeg_has_an_end_of_its_own(tmp_path: Path) -> None:
    content = write(tmp_path / "a.jpg", driver="JPEG").read_bytes()
    thumbnail = b"Exif\0\0" + b"\xff\xd8 thumbnail \xff\xd9"
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    (tmp_path / "whole.jpg").write_bytes(content[:2] + segment + content[2:])
    assert read(tmp_path / "whole.jpg").shape == (3, 64, 64)
    (tmp_path / "cut.jpg").write_bytes(content[:2] + segment + content[2:-200])
    assert "truncated" in refusal(tmp_path / "cut.jpg")


@pytest.mark.parametrize("threads", [0, 2])
def test_a_damaged_block_is_named_by_its_pixels(tmp_path: Path, threads: int) -> None:
    path = write(tmp_path / "a.tif", side=256, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    with rasterio.open(path) as dataset:
        place = int(dataset.get_tag_item("BLOCK_OFFSET_2_1", "TIFF", bidx=1))
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\xde\xad\xbe\xef" * 64)
    sentence = refusal(path, threads=threads)
    assert "x 0 to 255, y 0 to 255" in sentence
    assert sentence.count(path.name) == 1


def test_a_block_beyond_the_end_is_found_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", side=256, tiled=True, blockxsize=64, blockysize=64)
    os.truncate(path, path.stat().st_size - 1000)
    with pytest.raises(RasterError, match=r"1 of its 16 blocks lie beyond the end .* x 192, y 192"):
        open_raster(path)


def test_a_block_that_unpacks_to_much_is_refused_with_the_numbers(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=16384, height=16384, count=3, dtype="uint8", tiled=True,
        blockxsize=16384, blockysize=16384, compress="deflate", sparse_ok=True, interleave="pixel",
        transform=rasterio.Affine(1, 0, 0, 0, -1, 0),
    ):  # fmt: skip
        pass
    sentence = refusal(path)
    assert "768 MB" in sentence
    assert "256 MB" in sentence
    assert "16384 x 16384" in sentence


# -- leading elsewhere


def vrt(
    path: Path, source: str, *, relative: str = "1", band: str = "", inside: str = "", before: str = ""
) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(
        f'{before}<VRTDataset rasterXSize="64" rasterYSize="64">{inside}'
        f'<VRTRasterBand dataType="Byte" band="1"{band}><SimpleSource>'
        f'<SourceFilename relativeToVRT="{relative}">{source}</SourceFilename>'
        "</SimpleSource></VRTRasterBand></VRTDataset>",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a raster in it, below it, and outside."""
    write(tmp_path / "secret.tif", bands=1)
    write(tmp_path / "here" / "a.tif", bands=1)
    write(tmp_path / "here" / "below" / "b.tif", bands=1)
    return tmp_path / "here"


@pytest.mark.parametrize("name", ["mosaic.vrt", "mosaic.tif"])
def test_a_mosaic_of_its_own_folder_is_read(folder: Path, name: str) -> None:
    expected = read(folder / "a.tif")
    np.testing.assert_array_equal(read(vrt(folder / name, "a.tif")), expected)
    np.testing.assert_array_equal(read(vrt(folder / name, str(folder / "a.tif"), relative="0")), expected)
    assert read(vrt(folder / name, "below/b.tif")).shape == (1, 64, 64)
    vrt(folder / "outer.vrt", name)
    np.testing.assert_array_equal(read(vrt(folder / name, "a.tif")), read(folder / "outer.vrt"))


@pytest.mark.parametrize("name", ["evil.vrt", "evil.tif"])
@pytest.mark.parametrize(
    ("source", "relative"),
    [
        ("../secret.tif", "1"),
        ("below/../../secret.tif", "1"),
        ("/etc/passwd", "0"),
        ("/vsicurl/http://127.0.0.1:9/x.tif", "0"),
        ("/vsicurl/http://127.0.0.1:9/x.tif", "1"),
        ("http://127.0.0.1:9/x.tif", "0"),
        ("GTIFF_DIR:1:../secret.tif", "0"),
        ("vrt://../secret.tif", "0"),
        ("&lt;VRTDataset/&gt;", "0"),
        ("", "1"),
    ],
)
def test_a_vrt_that_leaves_its_folder_is_refused(folder: Path, name: str, source: str, relative: str) -> None:
    assert "if you trust it, allow it" in refusal(vrt(folder / name, source, relative=relative))


def test_a_vrt_is_trusted_on_request(folder: Path) -> None:
    path = vrt(folder / "up.vrt", "../secret.tif")
    np.testing.assert_array_equal(read(path, allow_vrt=True), read(folder.parent / "secret.tif"))


def test_a_file_under_many_names_is_looked_at_once(folder: Path) -> None:
    source = "<SimpleSource><SourceFilename relativeToVRT='1'>{}</SourceFilename></SimpleSource>"
    for level in range(5):
        names = ("below/../" * way + (f"{level - 1}.vrt" if level else "a.tif") for way in range(20))
        band = "<VRTRasterBand>" + "".join(map(source.format, names)) + "</VRTRasterBand>"
        (folder / f"{level}.vrt").write_text(f"<VRTDataset>{band}</VRTDataset>")
    looked: list[str] = []
    locate(folder / "3.vrt", allow_vrt=False, check_source=lambda source: looked.append(source.name))
    assert len(looked) == 1
    with pytest.raises(RasterError, match=r"again and again, 320,000|again and again, 2\d\d,000"):
        locate(folder / "4.vrt", allow_vrt=False, check_source=lambda _: None)


def test_tricks_with_vrts_are_refused(folder: Path) -> None:
    assert "VRTRawRasterBand" in refusal(
        vrt(folder / "raw.tif", "a.tif", band=' subClass="VRTRawRasterBand"')
    )
    assert "VRTDerived" in refusal(vrt(folder / "code.tif", "a.tif", band=' subclass="VRTDerivedRasterBand"'))
    assert "CDATA" in refusal(vrt(folder / "joined.tif", "../secret.tif<!-- -->/../here/a.tif"))
    assert "CDATA" in refusal(vrt(folder / "joined.tif", "../secret.tif<![CDATA[/../here/a.tif]]>"))
    assert "not plain" in refusal(vrt(folder / "two.tif", "a.tif", relative="2"))
    assert "in its metadata" in refusal(
        vrt(
            folder / "overviews.tif",
            "a.tif",
            inside='<Metadata domain="OVERVIEWS"><MDI key="x">y</MDI></Metadata>',
        )
    )
    assert "contains itself" in refusal(vrt(folder / "self.vrt", "self.vrt"))
    vrt(folder / "up.vrt", "../secret.tif")
    assert "outside its folder" in refusal(vrt(folder / "nested.vrt", "up.vrt"))
    assert "UTF-8" in refusal(
        vrt(folder / "code.vrt", "a.tif", before='<?xml version="1.0" encoding="utf-7"?>')
    )
    (folder / "names.txt").write_text("root:x:0:0", encoding="ascii")
    assert "names.txt" in refusal(vrt(folder / "text.tif", "names.txt"))
    assert "missing" in refusal(vrt(folder / "late.vrt", "tile_2.tif"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('relativeToVRT="1"', 'relativeToVRT="1" relativetovrt="0"'),
        ("<VRTRasterBand ", '<VRTRasterBand subclass="" subClass="VRTRawRasterBand" '),
        ('band="1">', 'band="1"><subClass>VRTRawRasterBand</subClass>'),
        ("<SimpleSource>", "<SimpleSource><OpenOptions><OOI key='OVERVIEW_LEVEL'>1</OOI></OpenOptions>"),
        ("</VRTDataset>", "<PixelFunctionCode>import os</PixelFunctionCode></VRTDataset>"),
        ("</VRTDataset>", "<Group name='/'/></VRTDataset>"),
    ],
)
def test_what_a_vrt_is_made_of_is_an_allow_list(folder: Path, old: str, new: str) -> None:
    path = vrt(folder / "odd.vrt", "a.tif")
    read(path)
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    assert "if you trust it, allow it" in refusal(path)


def test_sources_of_a_vrt_have_the_walls_of_rasters(folder: Path) -> None:
    """GDAL chooses their drivers itself: they must begin as only one format does."""
    write(folder / "numbers.ers", bands=1, driver="ENVI")
    assert "can't be told by its beginning" in refusal(vrt(folder / "raw.vrt", "numbers.ers"))
    head = b'DatasetHeader Begin\n\tDataFile = "/etc/passwd"\n'
    content = (folder / "numbers.ers").read_bytes()
    (folder / "numbers.ers").write_bytes(head + content[len(head) :])
    assert "can't be told by its beginning" in refusal(vrt(folder / "raw.vrt", "numbers.ers"))
    vrt(folder / "inner.vrt", "a.tif")
    read(vrt(folder / "outer.vrt", "inner.vrt"))
    vrt(folder / "inner.vrt.ovr", "../secret.tif")
    assert "inner.vrt.ovr" in refusal(folder / "outer.vrt")
    vrt(folder / "a.tif.OVR", "../secret.tif")
    assert "a.tif.OVR" in refusal(vrt(folder / "plain.vrt", "a.tif"))


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_side_files_are_those_of_the_name_that_a_vrt_says(folder: Path) -> None:
    (folder / "link.tif").symlink_to(folder / "a.tif")
    read(vrt(folder / "linked.vrt", "link.tif"))
    vrt(folder / "link.tif.ovr", "../secret.tif")
    assert "link.tif.ovr" in refusal(folder / "linked.vrt")


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_twin_with_the_pixels_is_no_link_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path / "here" / "a.img", bands=1, driver="HFA", USE_SPILL="YES")
    read(path)
    (tmp_path / "here" / "a.ige").rename(tmp_path / "secret.ige")
    (tmp_path / "here" / "a.ige").symlink_to(tmp_path / "secret.ige")
    assert "a.ige that is a link to another folder" in refusal(path)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_link_out_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "link.tif").symlink_to(folder.parent / "secret.tif")
    assert "outside its folder" in refusal(vrt(folder / "linked.vrt", "link.tif"))


def test_a_doctype_is_refused(folder: Path) -> None:
    lol = '<!DOCTYPE v [<!ENTITY a "../secret.tif">]>'
    assert "DOCTYPE" in refusal(vrt(folder / "entity.vrt", "&a;", before=lol))


def test_a_large_hfa_file_names_its_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "here" / "a.img", bands=1, driver="HFA", USE_SPILL="YES")
    assert read(path).shape == (1, 64, 64)
    (tmp_path / "here" / "a.ige").rename(tmp_path / "x")
    path.write_bytes(path.read_bytes().replace(b"a.ige", b"../x\0"))
    assert "outside its folder" in refusal(path)
    assert "outside its folder" in refusal(vrt(tmp_path / "here" / "b.vrt", "a.img"))


def test_other_files_that_point_elsewhere_are_refused(folder: Path) -> None:
    (folder / "wms.tif").write_text("<GDAL_WMS><Service name='TMS'/></GDAL_WMS>", encoding="ascii")
    assert "XML" in refusal(folder / "wms.tif")
    (folder / "index.tif").write_text("<GDALTileIndexDataset/>", encoding="ascii")
    assert "XML" in refusal(folder / "index.tif")
    vrt(folder / "a.tif.msk", "../secret.tif")
    assert "a.tif.msk" in refusal(folder / "a.tif")
    (folder / "a.tif.msk").rename(folder / "a.tif.ovr")
    assert "a.tif.ovr" in refusal(folder / "a.tif")


def test_names_of_other_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    class Named:
        @property
        def files(self) -> list[str]:
            return [b"a\xff.tif".decode()]

    source = Address("a.pix", "a.pix", ("PCIDSK",), False)
    with pytest.raises(RasterError, match=r"a\.pix names other files"):
        check_files(Named(), tmp_path / "a.pix", source)
