"""Pages of a TIFF as bands: which, by what names, at what size of pixels, in bounded work."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiff_files import ome, write_pages

from ecodetect.errors import RasterError
from ecodetect.raster.reading import Raster, open_raster

DESCRIPTION, PAGE_NAME, SUBFILE = 270, 285, 254


def pages(count: int = 3, dtype: str = "uint16") -> list[NDArray[Any]]:
    return [np.full((20, 30), number + 1, dtype) for number in range(count)]


def values(raster: Raster) -> list[float]:
    """The one value of each band."""
    return [float(band[0, 0]) for band in raster.read(raster.grid.window, raster.bands).pixels]


def codes(raster: Raster) -> list[tuple[str, str]]:
    return [(note.code, note.kind) for note in raster.notes if note.code != "no-transform"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_big", [False, True])
def test_pages_of_one_size_are_bands(tmp_path: Path, order: str, is_big: bool) -> None:
    path = write_pages(tmp_path / "a.tif", pages(), order=order, is_big=is_big)
    with open_raster(path) as raster:
        assert raster.bands == ("page1", "page2", "page3")
        assert values(raster) == [1, 2, 3]
        assert codes(raster) == [("pages-as-bands", "info")]
        first = raster.fingerprint
    with open_raster(path, bands="3") as raster:
        assert values(raster) == [3]
        with raster.env(cache_bytes=1 << 20, threads=2):
            assert values(raster) == [3]
    with open_raster(path, bands="red=3,green=2,blue=1") as raster:
        assert (raster.bands, values(raster)) == (("red", "green", "blue"), [3, 2, 1])
    other = write_pages(tmp_path / "b.tif", [*pages(2), pages(4)[3]], order=order, is_big=is_big)
    with open_raster(other) as raster:
        assert raster.fingerprint != first


def test_channels_by_their_ome_names_and_size(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.ome.tif", pages(), {DESCRIPTION: ome(["DAPI", "GFP 488 nm", None])})
    with open_raster(path) as raster:
        assert raster.bands == ("DAPI", "GFP 488 nm", "page3")
        assert raster.grid.gsd == pytest.approx((5e-7, 5e-7))
        assert ("pixel-size-read", "info") in codes(raster)
    with open_raster(path, bands="dapi") as raster:
        assert (raster.bands, values(raster)) == (("DAPI",), [1])
    with open_raster(path, gsd_m=3e-7) as raster:
        assert raster.grid.gsd == (3e-7, 3e-7)
        assert ("pixel-size-overruled", "choice") in codes(raster)


@pytest.mark.parametrize(
    ("order", "read"),
    [("XYCZT", [1, 2]), ("XYZCT", [1, 4]), ("XYZTC", [1, 7]), ("XYTCZ", [1, 3])],
)
def test_of_planes_and_times_the_first_is_read_and_said(tmp_path: Path, order: str, read: list[int]) -> None:
    said = ome(["DAPI", "Cy3"], planes=3, times=2, order=order)
    with open_raster(write_pages(tmp_path / "a.tif", pages(12), {DESCRIPTION: said})) as raster:
        assert (raster.bands, values(raster)) == (("DAPI", "Cy3"), read)
        (note,) = [note for note in raster.notes if note.code == "first-of-several"]
        assert "12 pages, of 3 planes and 2 times" in note.text
        assert f"GTIFF_DIR:{next(n for n in range(1, 9) if n not in read)}:FILE" in note.text


def test_an_imagej_hyperstack(tmp_path: Path) -> None:
    labels = [f"c:{1 + i % 2}/2 z:{1 + i // 2}/2 - {('DAPI', 'Cy3')[i % 2]}" for i in range(4)]
    texts = [label.encode("utf-16-le") for label in labels]
    header = b"JIJI" + struct.pack("<4sI", b"lbal", 4)
    tags = {
        DESCRIPTION: "ImageJ=1.53t\nimages=4\nchannels=2\nslices=2\nhyperstack=true\nunit=\\u00B5m\n",
        282: (4, 1),
        283: (4, 1),
        50838: struct.pack("<5I", len(header), *map(len, texts)),
        50839: header + b"".join(texts),
    }
    with open_raster(write_pages(tmp_path / "a.tif", pages(4), tags)) as raster:
        assert (raster.bands, values(raster)) == (("DAPI", "Cy3"), [1, 2])
        assert raster.grid.gsd == pytest.approx((2.5e-7, 2.5e-7))


def test_pictures_that_only_imagej_finds_are_doubtful(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", pages(1), {DESCRIPTION: "ImageJ=1.53t\nimages=40\nslices=40\n"})
    with open_raster(path) as raster:
        assert raster.bands == ("grey",)
        assert codes(raster) == [("first-of-several", "doubt")]


def test_pages_with_names_of_their_own(tmp_path: Path) -> None:
    each = [{PAGE_NAME: "Red"}, {DESCRIPTION: "<X><Biomarker>CD3</Biomarker></X>"}, {DESCRIPTION: "nir"}]
    with open_raster(write_pages(tmp_path / "a.tif", pages(), each=each)) as raster:
        assert raster.bands == ("red", "CD3", "nir")


def test_overviews_masks_and_pages_of_other_kinds_are_no_bands(tmp_path: Path) -> None:
    small = np.ones((10, 15), "uint16")
    each: list[dict[int, Any]] = [{}, {SUBFILE: 1}, {SUBFILE: 4}, {}, {}]
    path = write_pages(tmp_path / "a.tif", [pages()[0], small, pages()[1], pages()[2], small], each=each)
    with open_raster(path) as raster:
        assert values(raster) == [1, 3]
        assert codes(raster) == [("pages-as-bands", "info"), ("first-of-several", "choice")]
        assert "GTIFF_DIR:5:FILE" in raster.notes[-1].text
    with open_raster(f"GTIFF_DIR:5:{path}") as raster:
        assert (raster.grid.width, raster.grid.height) == (15, 10)


def test_pages_in_colour_are_read_one_by_one(tmp_path: Path) -> None:
    colour = np.zeros((20, 30, 3), "uint8")
    with open_raster(write_pages(tmp_path / "a.tif", [colour, colour])) as raster:
        assert raster.bands == ("red", "green", "blue")
        assert codes(raster) == [("first-of-several", "choice")]


def test_many_pages_that_say_nothing_are_a_stack(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", pages(300))
    with open_raster(path) as raster:
        assert values(raster) == [1]
        assert codes(raster) == [("first-of-several", "choice")]
    with open_raster(path, bands="300") as raster:
        assert values(raster) == [300]


@pytest.mark.parametrize(("per_cm", "gsd"), [(20_000, 5e-7), (118, None)])
def test_resolution_tags_count_where_they_can_only_be_a_microscope_s(
    tmp_path: Path, per_cm: int, gsd: float | None
) -> None:
    tags = {282: (per_cm, 1), 283: (per_cm, 1), 296: struct.pack("<H", 3)}
    with open_raster(write_pages(tmp_path / "a.tif", pages(1), tags)) as raster:
        assert raster.grid.gsd == (None if gsd is None else pytest.approx((gsd, gsd)))
        assert raster.bands == ("grey",)


@pytest.mark.parametrize(
    "text",
    [
        '<OME><!DOCTYPE a [<!ENTITY b "c">]><Image><Pixels/></Image></OME>',
        '<!DOCTYPE a [<!ENTITY b "c">]><OME><Image><Pixels SizeC="2"/></Image></OME>',
        "<OME><Image><Pixels",
        '<OME><Image><Pixels SizeC="99999999999" SizeZ="-1" DimensionOrder="ABC"/></Image></OME>',
        '<OME><Image><Pixels PhysicalSizeX="nan" PhysicalSizeY="1e400"/></Image></OME>',
        '<OME><Image><Pixels SizeC="2"/><TiffData IFD="77" FirstC="5"/></Image></OME>',
        "ImageJ=1\nchannels=999999999\nunit=\\",
    ],
)
def test_wrong_metadata_does_no_harm(tmp_path: Path, text: str) -> None:
    with open_raster(write_pages(tmp_path / "a.tif", pages(), {DESCRIPTION: text})) as raster:
        assert values(raster)[0] == 1


def test_a_circle_of_pages_is_refused(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", pages(2))
    data = bytearray(path.read_bytes())
    data[-4:] = data[4:8]  # the second page is followed by the first
    path.write_bytes(data)
    with pytest.raises(RasterError, match="circle"):
        open_raster(path)
