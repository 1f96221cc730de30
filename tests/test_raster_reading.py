"""Reading rasters: pixels, masks, bands, other GSDs, blocks; with files made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling

from ecodetect.chip import Chip
from ecodetect.errors import GridError, RasterError
from ecodetect.grid import Grid, Window
from ecodetect.raster.reading import Raster, open_raster

PLACE = {"crs": "EPSG:32631", "transform": rasterio.Affine(0.1, 0, 5e5, 0, -0.1, 5e6)}


def write(path: Path, pixels: NDArray[Any], *, place: bool = True, **options: Any) -> Path:
    """A raster of (B, H, W) pixels."""
    settings = {"driver": "GTiff", **(PLACE if place else {}), **options}
    bands, height, width = pixels.shape
    with rasterio.open(
        path,
        "w",
        width=width,
        height=height,
        count=bands,
        dtype=settings.pop("dtype", pixels.dtype),
        **settings,
    ) as dataset:
        dataset.write(pixels)
    return path


def noise(
    bands: int = 3, height: int = 60, width: int = 70, dtype: str = "uint8", seed: int = 0
) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(1, 250, (bands, height, width)).astype(dtype)


def whole(raster: Raster, bands: tuple[str, ...] | None = None, grid: Grid | None = None) -> Chip:
    return raster.read((grid or raster.grid).window, bands or raster.bands, grid)


def mask(chip: Chip) -> NDArray[np.bool_]:
    return np.ones(chip.pixels.shape[1:], bool) if chip.valid is None else chip.valid


# -- pixels


@pytest.mark.parametrize(
    "dtype",
    ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"],
)
def test_every_type_comes_back_as_stored(tmp_path: Path, dtype: str) -> None:
    pixels = noise(1, dtype=dtype) if dtype != "int8" else noise(1).astype("int8")
    with open_raster(write(tmp_path / "a.tif", pixels)) as raster:
        chip = whole(raster)
        assert raster.dtype == chip.pixels.dtype == dtype
        assert chip.valid is None
        np.testing.assert_array_equal(chip.pixels, pixels)
        if dtype.startswith("float"):
            assert raster.value_range is None
        else:
            assert raster.value_range == (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.builds(Window, st.integers(-90, 90), st.integers(-90, 90), st.integers(1, 90), st.integers(1, 90)),
    st.permutations(["red", "green", "blue"]),
)
def test_any_window_of_any_bands(tmp_path: Path, window: Window, bands: list[str]) -> None:
    pixels = noise()
    path = tmp_path / "a.tif"
    if not path.exists():
        write(path, pixels, photometric="rgb", tiled=True, blockxsize=16, blockysize=32)
    wide = np.zeros((3, 270, 270), np.uint8)  # as far as any window reaches
    wide[:, 90:150, 90:160] = pixels
    there = np.zeros((270, 270), bool)
    there[90:150, 90:160] = True
    rows = slice(window.y + 90, window.bottom + 90)
    columns = slice(window.x + 90, window.right + 90)
    with open_raster(path) as raster:
        chip = raster.read(window, bands[:2])
        order = [("red", "green", "blue").index(name) for name in bands[:2]]
        np.testing.assert_array_equal(chip.pixels, wide[order, rows, columns])
        np.testing.assert_array_equal(mask(chip), there[rows, columns])
        assert chip.bands == tuple(bands[:2])
        assert chip.grid == raster.grid.crop(window)


def test_an_unknown_band_is_named(tmp_path: Path) -> None:
    with (
        open_raster(write(tmp_path / "a.tif", noise(), photometric="rgb")) as raster,
        pytest.raises(RasterError, match="no band 'nir'; it has red, green, blue"),
    ):
        raster.read(raster.grid.window, ["nir"])


def test_half_floats_and_few_bits(tmp_path: Path) -> None:
    halves = np.linspace(0, 1, 100, dtype=np.float32).astype(np.float16).astype(np.float32).reshape(1, 10, 10)
    with open_raster(write(tmp_path / "half.tif", halves, nbits=16)) as raster:
        np.testing.assert_array_equal(whole(raster).pixels, halves)
        assert raster.value_range is None
    with open_raster(write(tmp_path / "12.tif", noise(1, dtype="uint16"), nbits=12)) as raster:
        assert raster.value_range == (0.0, 4095.0)
    bits = noise(1) % 2
    with open_raster(write(tmp_path / "1.tif", bits, nbits=1)) as raster:
        assert raster.value_range == (0.0, 1.0)
        np.testing.assert_array_equal(whole(raster).pixels, bits)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers_become_their_magnitude(tmp_path: Path, dtype: str) -> None:
    pixels = np.full((1, 4, 5), 3 + 4j, dtype)
    with open_raster(write(tmp_path / "a.tif", pixels)) as raster:
        chip = whole(raster)
        assert (chip.pixels == 5).all()
        assert chip.pixels.dtype == raster.dtype == ("float32" if dtype == "complex64" else "float64")
        assert any("magnitude" in str(note) for note in raster.notes)


def test_scale_and_offset_are_said_but_not_applied(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(1, dtype="int16"), nodata=100)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = [0.01], [5.0]
    with open_raster(path) as raster:
        chip = whole(raster)
        np.testing.assert_array_equal(chip.pixels, noise(1, dtype="int16"))
        np.testing.assert_array_equal(mask(chip), noise(1)[0] != 100)
        assert "scale-unused" in [note.code for note in raster.notes]


# -- what is data


def test_nodata_where_all_bands_have_it(tmp_path: Path) -> None:
    pixels = noise()
    pixels[:, :20, :20] = 7
    pixels[0, 30:, :] = 7  # one band only: data
    with open_raster(write(tmp_path / "a.tif", pixels, nodata=7, photometric="rgb")) as raster:
        np.testing.assert_array_equal(mask(whole(raster)), ~(pixels == 7).all(axis=0))
        np.testing.assert_array_equal(mask(whole(raster, ("red",))), pixels[0] != 7)
        assert raster.read(Window(40, 5, 10, 10), raster.bands).valid is None  # fast where nothing is missing


def test_not_a_number_in_any_band_is_no_data(tmp_path: Path) -> None:
    pixels = noise(2, dtype="float32")
    pixels[0, 3, 4], pixels[1, 5, 6] = np.nan, np.inf
    expected = np.isfinite(pixels).all(axis=0)
    for nodata in (None, np.nan):
        with open_raster(write(tmp_path / "a.tif", pixels, nodata=nodata)) as raster:
            np.testing.assert_array_equal(mask(whole(raster)), expected)
    with open_raster(write(tmp_path / "b.tif", np.full((1, 9, 9), np.nan, np.float32))) as raster:
        assert not mask(whole(raster)).any()


def test_lowest_float_as_nodata(tmp_path: Path) -> None:
    pixels = noise(1, dtype="float32")
    pixels[0, 0, :] = np.finfo(np.float32).min
    with open_raster(write(tmp_path / "a.tif", pixels, nodata=-3.4028234663852886e38)) as raster:
        np.testing.assert_array_equal(mask(whole(raster)), (pixels > 0)[0])


def test_alpha_is_a_mask(tmp_path: Path) -> None:
    pixels = noise(4)
    pixels[3] = np.where(np.arange(70) < 30, 0, 255)
    with open_raster(write(tmp_path / "a.tif", pixels, photometric="rgb", alpha="yes")) as raster:
        assert raster.bands == ("red", "green", "blue")
        np.testing.assert_array_equal(mask(whole(raster)), pixels[3] > 0)
        np.testing.assert_array_equal(whole(raster).pixels, pixels[:3])


@pytest.mark.parametrize("alpha", ["yes", "no"])
def test_near_infrared_is_data_however_it_is_flagged(tmp_path: Path, alpha: str) -> None:
    pixels = noise(4)
    pixels[3, :10] = 0  # water is dark in it
    with open_raster(write(tmp_path / "a.tif", pixels, photometric="rgb", alpha=alpha)) as raster:
        assert raster.bands == ("red", "green", "blue", "nir")
        chip = whole(raster)
        assert chip.valid is None
        np.testing.assert_array_equal(chip.pixels, pixels)
        assert any("nir" in str(note) for note in raster.notes)


@pytest.mark.parametrize("inside", [True, False])
def test_masks_in_the_file_and_beside_it(tmp_path: Path, inside: bool) -> None:
    path = write(tmp_path / "a.tif", noise(), photometric="rgb")
    seen = np.where(np.arange(70) < 30, 0, 255).astype(np.uint8) * np.ones((60, 1), np.uint8)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(seen)
    assert (tmp_path / "a.tif.msk").exists() != inside
    with open_raster(path) as raster:
        np.testing.assert_array_equal(mask(whole(raster)), seen > 0)


def test_blocks_never_written_are_no_data(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=256, height=256, count=2, dtype="uint8", sparse_ok=True,
        tiled=True, blockxsize=64, blockysize=64, compress="deflate", **PLACE,
    ) as dataset:  # fmt: skip
        dataset.write(noise(2, 64, 64), window=rasterio.windows.Window(64, 128, 64, 64))
    with open_raster(path) as raster:
        expected = np.zeros((256, 256), bool)
        expected[128:192, 64:128] = True
        np.testing.assert_array_equal(mask(whole(raster)), expected)
        assert raster.is_empty(Window(0, 0, 256, 128))
        assert raster.is_empty(Window(300, 0, 10, 10))
        assert not raster.is_empty(Window(60, 120, 10, 10))
        assert raster.extent(Window(-50, 0, 400, 400)) == Window(64, 128, 64, 64)
        assert raster.extent(Window(70, 100, 20, 40)) == Window(70, 128, 20, 12)
        assert not raster.extent(Window(0, 0, 256, 128)).area
        assert raster.read(Window(64, 128, 64, 64), raster.bands).valid is None
        (sample,) = raster.samples(raster.grid, raster.bands)
        assert mask(sample).sum() == 64 * 64


# -- colours


def test_a_colour_table_is_read_as_colours(tmp_path: Path) -> None:
    index = noise(1) % 4
    path = write(tmp_path / "a.tif", index, photometric="palette")
    table = {0: (10, 20, 30, 255), 1: (40, 50, 60, 255), 2: (70, 80, 90, 255), 3: (0, 0, 0, 0)}
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, table)
    colours = np.array([table[value][:3] for value in range(4)], np.uint8)
    with open_raster(path) as raster:
        assert raster.bands == ("red", "green", "blue")
        chip = raster.read(raster.grid.window, ["blue", "red"])
        np.testing.assert_array_equal(chip.pixels[0], colours[index[0], 2])
        np.testing.assert_array_equal(chip.pixels[1], colours[index[0], 0])
        assert raster.dtype == "uint8"
    with open_raster(path, bands="1") as raster:
        np.testing.assert_array_equal(whole(raster).pixels, index)


def test_bands_by_their_interpretation(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(3, dtype="uint16"))
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    with open_raster(path) as raster:
        assert raster.bands == ("blue", "green", "red")
    with open_raster(path, bands="red,blue") as raster:
        np.testing.assert_array_equal(whole(raster).pixels, noise(3, dtype="uint16")[[2, 0]])


def test_bands_of_different_types(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", noise(1))
    write(tmp_path / "b.tif", -noise(1, dtype="int16"))
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{number}"><SimpleSource><SourceFilename relativeToVRT="1">'
        f"{name}</SourceFilename></SimpleSource></VRTRasterBand>"
        for number, (kind, name) in enumerate((("Byte", "a.tif"), ("Int16", "b.tif")), start=1)
    )
    path = tmp_path / "both.vrt"
    path.write_text(f'<VRTDataset rasterXSize="70" rasterYSize="60">{bands}</VRTDataset>', encoding="utf-8")
    with open_raster(path) as raster:
        chip = whole(raster)
        assert raster.dtype == chip.pixels.dtype == "int16"
        np.testing.assert_array_equal(chip.pixels[1], -noise(1, dtype="int16")[0])


# -- place


def test_a_stated_gsd_helps_where_the_file_says_none(tmp_path: Path) -> None:
    with open_raster(write(tmp_path / "a.png", noise(), driver="PNG", place=False), gsd_m=0.25) as raster:
        assert raster.grid.gsd == (0.25, 0.25)
        assert raster.grid.frame == "pixel"
    placed = write(tmp_path / "a.tif", noise(), photometric="rgb")
    with open_raster(placed, gsd_m=0.1015) as raster:
        assert raster.grid.gsd == pytest.approx((0.1, 0.1), rel=1e-3)
        assert [note.code for note in raster.notes] == ["gsd-unused"]
    with pytest.raises(RasterError, match=r"a.tif says that a pixel is 0.1 x 0.1 m, not 0.25 m"):
        open_raster(placed, gsd_m=0.25)


def test_a_world_file_places(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", noise(), driver="PNG", place=False)
    (tmp_path / "a.pgw").write_text("0.5\n0\n0\n-0.5\n100.25\n199.75\n", encoding="ascii")
    with open_raster(path) as raster:
        assert raster.grid.transform == (0.5, 0.0, 100.0, 0.0, -0.5, 200.0)
        assert raster.grid.frame == "affine"


def test_pages_after_the_first_are_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(1), place=False)
    with rasterio.open(
        path, "w", driver="GTiff", width=9, height=9, count=1, dtype="uint8", append_subdataset=True
    ) as dataset:
        dataset.write(noise(1, 9, 9))
    with rasterio.open(path) as dataset:
        is_paged = bool(dataset.subdatasets)
    with open_raster(path) as raster:
        if is_paged:
            assert any("2 pages" in str(note) for note in raster.notes)


# -- another GSD


def test_another_gsd_is_the_mean_of_the_ground(tmp_path: Path) -> None:
    pixels = noise(3, 64, 96)
    with open_raster(write(tmp_path / "a.png", pixels, driver="PNG", place=False), gsd_m=0.1) as raster:
        chip = whole(raster, grid=raster.grid.resampled(0.4))
        means = pixels.reshape(3, 16, 4, 24, 4).mean(axis=(2, 4))
        np.testing.assert_array_equal(chip.pixels, np.rint(means))
        assert chip.grid.gsd == (0.4, 0.4)
        assert chip.valid is None


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0.03, 0.9), st.data())
def test_a_window_at_another_gsd_is_a_crop_of_the_whole(
    tmp_path: Path, gsd: float, data: st.DataObject
) -> None:
    path = tmp_path / "a.tif"
    if not path.exists():
        pixels = noise(3, 150, 130)
        pixels[:, 40:90, 30:77] = 5
        write(path, pixels, nodata=5, photometric="rgb", tiled=True, blockxsize=32, blockysize=32)
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2, 4], Resampling.average)
    with open_raster(path) as raster:
        grid = raster.grid.resampled(gsd)
        x, y = data.draw(st.integers(-5, grid.width)), data.draw(st.integers(-5, grid.height))
        window = Window(x, y, data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40)))
        around = Window(-50, -50, grid.width + 100, grid.height + 100)
        expected = raster.read(around, raster.bands, grid).crop(window)
        chip = raster.read(window, raster.bands, grid)
        np.testing.assert_array_equal(mask(chip), mask(expected))
        np.testing.assert_array_equal(chip.pixels, expected.pixels)
        assert chip.grid == grid.crop(window)


def test_strips_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.tif", noise(3, 500, 200), photometric="rgb", blockysize=1)
    with open_raster(path) as raster:
        grid = raster.grid.resampled(0.37)
        at_once = whole(raster, grid=grid)
        monkeypatch.setattr("ecodetect.raster.reading.STRIP_VALUES", 5000)
        np.testing.assert_array_equal(whole(raster, grid=grid).pixels, at_once.pixels)


def smooth(height: int, width: int) -> NDArray[Any]:
    y, x = np.mgrid[:height, :width]
    waves = 120 + 60 * np.sin(x / 9) + 40 * np.cos(y / 7)
    return np.clip(waves + noise(1, height, width)[0] / 8, 0, 255).astype(np.uint8)[None]


@pytest.mark.parametrize(
    ("made_by", "helps"), [(Resampling.average, True), (Resampling.nearest, False), (None, False)]
)
def test_overviews_are_used_if_they_hold_means(
    tmp_path: Path, made_by: Resampling | None, helps: bool
) -> None:
    pixels = smooth(512, 512)
    path = write(tmp_path / "a.tif", pixels, tiled=True, blockxsize=64, blockysize=64)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4, 8], Resampling.average if made_by is None else made_by)
        if made_by is None:
            dataset.write(255 - pixels)  # the overviews are older than the pixels now
    if made_by is None:
        pixels = 255 - pixels
    with open_raster(path) as raster:
        grid = raster.grid.resampled(0.8)
        chip = whole(raster, grid=grid)
    bare = write(tmp_path / "bare.tif", pixels)
    with open_raster(bare) as raster:
        exact = whole(raster, grid=grid)
    off = np.abs(chip.pixels.astype(int) - exact.pixels)
    assert 0 < off.max() <= 2 if helps else off.max() == 0  # means of means are rounded twice


def test_a_grid_of_another_raster_is_refused(tmp_path: Path) -> None:
    with (
        open_raster(write(tmp_path / "a.tif", noise())) as raster,
        pytest.raises(GridError, match="Grids differ"),
    ):
        raster.read(
            Window(0, 0, 5, 5),
            raster.bands,
            Grid(60, 70, (0.2, 0.0, 5e5, 0.0, -0.2, 5e6 + 1), raster.grid.crs),
        )


# -- threads, samples, fingerprint


def test_the_same_pixels_with_threads(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tif", noise(3, 300, 300), tiled=True, blockxsize=64, blockysize=64, compress="deflate"
    )
    with open_raster(path) as raster:
        before = whole(raster)
        with raster.env(cache_bytes=2**22, threads=2):
            np.testing.assert_array_equal(whole(raster).pixels, before.pixels)
        np.testing.assert_array_equal(whole(raster).pixels, before.pixels)


def test_samples_cover_what_is_small_and_stand_for_what_is_large(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(1, 2100, 1300), compress="deflate")
    with open_raster(path) as raster:
        every = list(raster.samples(raster.grid, raster.bands))
        assert sum(chip.window.area for chip in every) == 2100 * 1300
        some = list(raster.samples(raster.grid, raster.bands, most=6))
        assert len(some) == 6
        assert len({chip.window for chip in some}) == 6
        assert [chip.window for chip in some] == [
            chip.window for chip in raster.samples(raster.grid, raster.bands, most=6)
        ]
        area = Window(600, 100, 300, 200)
        inside = list(raster.samples(raster.grid, raster.bands, area))
        assert sum(chip.window.area for chip in inside) == area.area
        assert all(chip.window.clipped(area) == chip.window for chip in inside)
        assert list(raster.samples(raster.grid, raster.bands, Window(5000, 0, 10, 10))) == []
        coarse = raster.grid.resampled(0.5)
        assert sum(chip.window.area for chip in raster.samples(coarse, raster.bands)) == coarse.window.area


def test_a_fingerprint_tells_rasters_apart_and_not_paths(tmp_path: Path) -> None:
    pixels = noise(3, 200, 200)
    changed = pixels.copy()
    changed[:, 140:170, 20:60] = 99

    def fingerprint(name: str, pixels: NDArray[Any], **options: Any) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        with open_raster(write(path, pixels, **options)) as raster:
            return raster.fingerprint

    first = fingerprint("a.tif", pixels, compress="deflate")
    assert first == fingerprint("other/b.tif", pixels, compress="deflate")
    moved = {"transform": rasterio.Affine(0.1, 0, 5e5 + 1, 0, -0.1, 5e6)}
    others = [
        fingerprint("c.tif", changed, compress="deflate"),
        fingerprint("d.tif", pixels, compress="deflate", **moved),
        fingerprint("e.tif", pixels, compress="deflate", nodata=3),
        fingerprint("f.tif", pixels[:, :-1], compress="deflate"),
    ]
    assert len({first, *others}) == 5
    one = pixels.copy()
    one[1, 77, 3] ^= 1  # one pixel of a small raster, in whatever format
    for options in ({}, {"compress": "deflate"}, {"driver": "PNG", "place": False}):
        assert fingerprint("g", pixels, **options) != fingerprint("g", one, **options)
