"""What isn't data: values stated by the user, fillings that nobody declared, what JPEG leaves beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
import shapely
from numpy.typing import NDArray

from ecodetect.errors import RasterError, UserError
from ecodetect.formats import files as formats
from ecodetect.grid import Window
from ecodetect.notes import Note
from ecodetect.raster import rim
from ecodetect.raster.reading import Raster, open_raster
from ecodetect.scanning.files import scan_files
from ecodetect.scanning.settings import Settings

HEIGHT, WIDTH = 240, 320


def ground(bands: int = 3, dtype: str = "uint8", seed: int = 0) -> NDArray[Any]:
    """Ground of 40 to 200, as smooth and as grey as that of aerial pictures, (B, H, W)."""
    random = np.random.default_rng(seed)
    coarse = cv2.GaussianBlur(random.normal(size=(HEIGHT, WIDTH)), (0, 0), 3)
    grey = 120 + 30 * coarse / coarse.std() + random.normal(scale=5, size=(HEIGHT, WIDTH))
    tint = random.normal(scale=3, size=(bands, HEIGHT, WIDTH)) + 5 * np.arange(bands)[:, None, None]
    return (grey + tint).clip(40, 200).astype(dtype)


def footprint() -> NDArray[np.bool_]:
    """A turned rectangle, as flights leave it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    u, v = (x - WIDTH / 2) * 0.94 + (y - HEIGHT / 2) * 0.34, (y - HEIGHT / 2) * 0.94 - (x - WIDTH / 2) * 0.34
    return np.asarray((abs(u) < 0.36 * WIDTH) & (abs(v) < 0.36 * HEIGHT))


def write(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", width=pixels.shape[2], height=pixels.shape[1], count=len(pixels),
        dtype=pixels.dtype, crs="EPSG:32631", transform=rasterio.Affine(0.1, 0, 5e5, 0, -0.1, 5e6), **options,
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


def filled(fill: float, inside: NDArray[np.bool_], **of: Any) -> NDArray[Any]:
    pixels = ground(**of)
    pixels[:, ~inside] = fill
    return pixels


def valid(raster: Raster, window: Window | None = None) -> NDArray[np.bool_]:
    chip = raster.read(window or raster.grid.window, raster.bands)
    return np.ones(chip.pixels.shape[1:], bool) if chip.valid is None else chip.valid


def said(raster: Raster, code: str) -> list[Note]:
    return [note for note in raster.notes if note.code == code]


# -- as the user says


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("uint8", 0), ("uint16", 65535), ("int16", -9999), ("float32", -9999), ("float32", -3.4e38)],
)
def test_a_value_that_the_user_states(tmp_path: Path, dtype: str, value: float) -> None:
    path = write(tmp_path / "a.tif", filled(value, footprint(), dtype=dtype), nodata=77)
    with open_raster(path, nodata=value) as raster:
        np.testing.assert_array_equal(valid(raster), footprint())
        assert not said(raster, "nodata-undeclared")
    with open_raster(path) as raster:
        assert valid(raster).mean() > 0.99  # 77 is the file's
        (note,) = said(raster, "nodata-undeclared")
        assert note.kind == "doubt"
        assert f"state {np.dtype(dtype).type(value):.10g} for no data" in note.text
        assert "as 77 is" in note.text


def test_nan_stands_for_nothing_but_nan(tmp_path: Path) -> None:
    pixels = ground(1, "float32")
    pixels[0, :20] = np.nan
    pixels[0, 20:40] = 0
    with open_raster(write(tmp_path / "a.tif", pixels, nodata=0), nodata=float("nan")) as raster:
        assert valid(raster).mean() == 1 - 20 / HEIGHT


def test_a_value_that_no_pixel_can_have_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ground())
    with pytest.raises(RasterError, match=r"-9999 can't stand for no data in .*a\.tif: its pixels are uint8"):
        open_raster(path, nodata=-9999)


def test_what_is_no_data_is_part_of_what_a_raster_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ground(), nodata=0)
    prints = []
    for value in (None, 0, 1, float("nan")):
        with open_raster(path, nodata=value) as raster:
            prints.append(raster.fingerprint)
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


# -- what nobody declared


@pytest.mark.parametrize(
    "layout", [{}, {"tiled": True, "blockxsize": 64, "blockysize": 64}, {"compress": "deflate"}]
)
@pytest.mark.parametrize("shape", ["turned", "rim", "side", "none", "thin"])
def test_fillings_are_found_with_their_share(
    tmp_path: Path, layout: dict[str, Any], shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = footprint()
    if shape != "turned":
        inside[:] = shape != "none"
        width = {"rim": 20, "side": 60, "none": 0, "thin": 1}[shape]
        inside[:, :width] = False
        if shape in ("rim", "thin"):
            inside[-width:] = inside[:width] = inside[:, -width:] = False
    if shape == "none":
        inside[:] = True
    path = write(tmp_path / "a.tif", filled(255, inside), **layout)
    share = float((~inside).mean())
    for whole_px, tolerance in ((1 << 30, 1e-9), (0, 0.02)):
        monkeypatch.setattr(rim, "WHOLE_PX", whole_px)
        with open_raster(path) as raster:
            if shape == "none":
                assert raster.fill is None
                continue
            assert raster.fill is not None
            assert raster.fill.value == 255
            assert raster.fill.share == pytest.approx(share, abs=tolerance)


@pytest.mark.parametrize(("dtype", "scale"), [("uint8", 1.5), ("uint16", 40), ("float32", 0.001)])
@pytest.mark.parametrize("background", [0, 1.5])
def test_a_dark_background_is_no_filling(tmp_path: Path, dtype: str, scale: float, background: float) -> None:
    """Fluorescence: cells on next to nothing, whose noise is cut at 0."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    light = background + random.normal(size=(HEIGHT, WIDTH))
    for cx, cy in random.uniform((20, 20), (WIDTH - 20, HEIGHT - 20), (12, 2)):
        light += 60 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 60)
    pixels = (scale * light).clip(0, 250 if dtype == "uint8" else None)
    with open_raster(write(tmp_path / "a.tif", pixels[None].astype(dtype))) as raster:
        assert raster.fill is None


def test_a_wrong_tag_and_a_rim_of_another_value(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", filled(255, footprint()), nodata=0)
    with open_raster(path) as raster:
        (note,) = said(raster, "nodata-undeclared")
        assert "as 0 is" in note.text
        assert "state 255 for no data" in note.text


def test_a_declared_value_outside_the_type(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ground(1))
    data = path.read_bytes()
    other = write(tmp_path / "b.tif", ground(1), nodata=111)
    path.write_bytes(other.read_bytes().replace(b"111\0", b"-99\0"))
    assert data
    with open_raster(path) as raster:
        (note,) = said(raster, "nodata-unusable")
        assert "its pixels (uint8) can't have its nodata value -99" in note.text
        assert valid(raster).all()


@pytest.mark.parametrize("why", ["declared", "alpha", "dark", "inside", "classes", "constant", "uneven"])
def test_what_is_no_undeclared_filling(tmp_path: Path, why: str) -> None:
    pixels, options = ground(), {"photometric": "rgb"}
    if why == "declared":
        pixels, options = filled(0, footprint()), {"nodata": 0}
    elif why == "alpha":
        pixels = np.concatenate([filled(0, footprint()), 255 * footprint()[None].astype("uint8")])
        options |= {"alpha": "yes"}
    elif why == "dark":
        pixels[:, :, 100:110] = 0  # a track from edge to edge
        pixels[:, :, 100:110] += np.random.default_rng(1).integers(0, 9, (3, HEIGHT, 10)).astype("uint8")
    elif why == "inside":
        pixels[:, 50:150, 50:150] = 0
    elif why == "classes":
        pixels, options = np.full((1, HEIGHT, WIDTH), 7, "uint8"), {}
        pixels[0, 50:150, 50:150] = 3
    elif why == "constant":
        pixels[:] = 0
    else:
        pixels[:] = np.random.default_rng(1).integers(0, 7, pixels.shape)
    with open_raster(write(tmp_path / "a.tif", pixels, **options)) as raster:
        assert not said(raster, "nodata-undeclared")


# -- what compression leaves


@pytest.mark.parametrize("fill", [0, 255])
@pytest.mark.parametrize("how", ["jpeg", "saved again", "stated"])
def test_slivers_along_what_is_no_data_are_none_either(tmp_path: Path, fill: int, how: str) -> None:
    inside = footprint()
    pixels = filled(fill, inside)
    tag = {} if how == "stated" else {"nodata": fill}
    path = write(tmp_path / "a.tif", pixels, compress="jpeg", photometric="ycbcr", jpeg_quality=75, **tag)
    if how == "saved again":
        with rasterio.open(path) as dataset:
            path = write(tmp_path / "b.tif", dataset.read(), compress="deflate", **tag)
    with open_raster(path, nodata=fill if how == "stated" else None) as raster:
        seen = valid(raster)
        differs = (raster.read(raster.grid.window, raster.bands).pixels != fill).any(axis=0)
        off = (
            cv2.distanceTransform((~inside).astype("uint8"), cv2.DIST_C, 3) > 2
        )  # compression blurs by so much
        assert (differs & off).sum() > 2000  # what a comparison with the value alone takes for data
        assert (seen & off).sum() < 0.03 * (differs & off).sum()
        assert (inside & ~seen).sum() < 0.005 * inside.sum()
        assert [note.kind for note in said(raster, "nodata-seam")] == ["info"]
        part = Window(90, 40, 51, 47)  # as any tile sees it
        np.testing.assert_array_equal(valid(raster, part), seen[40:87, 90:141])


def test_slivers_in_overviews_too(tmp_path: Path) -> None:
    inside = footprint()
    path = write(tmp_path / "a.tif", filled(0, inside), compress="jpeg", photometric="ycbcr", nodata=0)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4], rasterio.enums.Resampling.average)
    with open_raster(path) as raster:
        grid = raster.grid.reduced(4)
        chip = raster.read(grid.window, raster.bands, grid)
        assert chip.valid is not None
        off = cv2.distanceTransform((~inside).astype("uint8"), cv2.DIST_C, 3)[2::4, 2::4] > 8
        assert not (chip.valid & off).any()


def test_dark_animals_at_the_edge_of_ordinary_ground_stay(tmp_path: Path) -> None:
    inside = footprint()
    pixels = filled(0, inside)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    animals = np.zeros(inside.shape, bool)
    for cx, cy in ((100, 60), (150, 120), (200, 190), (230, 90)):
        animals |= (x - cx) ** 2 + (y - cy) ** 2 < 64
    animals &= inside
    pixels[:, animals] = 8
    with open_raster(write(tmp_path / "a.tif", pixels, nodata=0)) as raster:
        np.testing.assert_array_equal(valid(raster), inside)
        assert not said(raster, "nodata-seam")
    # In a JPEG an animal with some pixels of just 0 keeps the others.
    pixels[:, animals] = 2
    path = write(tmp_path / "b.tif", pixels, nodata=0, compress="jpeg", photometric="ycbcr", jpeg_quality=90)
    with open_raster(path) as raster:
        inner = (x - 150) ** 2 + (y - 120) ** 2 < 64
        assert valid(raster)[inner].mean() > 0.5


@pytest.mark.parametrize("model", ["threshold", "blobs"])
@pytest.mark.parametrize("fill", [0, 255])
def test_no_detector_finds_objects_in_slivers(tmp_path: Path, model: str, fill: int) -> None:
    inside = footprint()
    path = write(
        tmp_path / "a.tif", filled(fill, inside), compress="jpeg", photometric="ycbcr", jpeg_quality=75
    )
    asked = Settings(model=model, nodata=fill)
    (summary,), _ = scan_files([str(path)], asked, str(tmp_path / "a.csv"))
    assert summary.area_ha == pytest.approx(inside.sum() * 1e-6, rel=0.02)
    with open_raster(path) as raster:
        found = formats.read(tmp_path / "a.csv", grid=raster.grid).in_pixels(raster.grid)
    xy = shapely.get_coordinates(shapely.centroid(found)).astype(int)
    assert len(xy)
    off = cv2.distanceTransform((~inside).astype("uint8"), cv2.DIST_C, 3) > 2
    assert not off[xy[:, 1], xy[:, 0]].any()
    (again,), _ = scan_files([str(path)], asked, str(tmp_path / "a.csv"))
    assert again.already_done
    with pytest.raises(UserError, match="replace it"):
        scan_files([str(path)], Settings(model=model), str(tmp_path / "a.csv"))
