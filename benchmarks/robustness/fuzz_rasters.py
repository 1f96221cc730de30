"""Spoil rasters of every driver that is read, with the files beside them.

    python -m benchmarks.robustness.fuzz_rasters --minutes 20

Drivers that this GDAL doesn't have are left out; so is SRTMHGT, whose smallest file is 3 MB of heights.
"""

from __future__ import annotations

import random
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.shutil import copy

from benchmarks.robustness.mutations import SECRET

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from foreign_files import read_raster
from tiff_files import ome, write_pages

from benchmarks.robustness.fuzzing import Target, command, main
from ecodetect.errors import UserError

WIDTH, HEIGHT = 40, 30
PLACE = {"crs": "EPSG:32617", "transform": rasterio.Affine(0.5, 0, 404_000, 0, -0.5, 3_285_000)}
DEGREES = {"crs": "EPSG:4326", "transform": rasterio.Affine(0.001, 0, -81.99, 0, -0.001, 29.69)}
# suffix -> driver, bands, type, and how it is created.
WRITTEN: Mapping[str, tuple[str, int, str, dict[str, Any]]] = {
    "plain.tif": ("GTiff", 3, "uint8", {}),
    "tiled.tif": (
        "GTiff",
        4,
        "uint16",
        {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"},
    ),
    "lzw.tif": ("GTiff", 3, "int16", {"compress": "lzw", "predictor": 2, "nodata": -1, "interleave": "band"}),
    "jpeg.tif": ("GTiff", 3, "uint8", {"compress": "jpeg", "photometric": "ycbcr"}),
    "webp.tif": ("GTiff", 3, "uint8", {"compress": "webp"}),
    "zstd.tif": ("GTiff", 1, "float32", {"compress": "zstd", "predictor": 3, "nodata": float("nan")}),
    "lerc.tif": ("GTiff", 1, "float32", {"compress": "lerc"}),
    "packbits.tif": ("GTiff", 1, "uint8", {"compress": "packbits", "nbits": 4}),
    "big.tif": ("GTiff", 1, "uint32", {"bigtiff": "yes", "sparse_ok": True}),
    "complex.tif": ("GTiff", 1, "complex64", {}),
    "picture.png": ("PNG", 4, "uint8", {}),
    "deep.png": ("PNG", 1, "uint16", {}),
    "picture.jpg": ("JPEG", 3, "uint8", {"progressive": True}),
    "grey.jpg": ("JPEG", 1, "uint8", {}),
    "picture.webp": ("WEBP", 3, "uint8", {}),
    "picture.bmp": ("BMP", 3, "uint8", {}),
    "picture.gif": ("GIF", 1, "uint8", {}),
    "picture.jp2": ("JP2OpenJPEG", 3, "uint8", {"quality": 50}),
    "image.img": ("HFA", 2, "uint16", {"compressed": True}),
    "grid.asc": ("AAIGrid", 1, "float32", {}),
    "weather.grb": ("GRIB", 1, "float32", {}),
    "image.rmf": ("RMF", 3, "uint8", {}),
    "idrisi.rst": ("RST", 1, "int16", {}),
    "ascii.grd": ("GSAG", 1, "float32", {}),
    "six.grd": ("GSBG", 1, "float32", {}),
    "seven.grd": ("GS7BG", 1, "float64", {}),
    "image.pix": ("PCIDSK", 3, "uint8", {}),
    "saga.sdat": ("SAGA", 1, "float32", {}),
    "points.xyz": ("XYZ", 1, "float32", {}),
    "tiles.gpkg": ("GPKG", 3, "uint8", {}),
    "raw.dat": ("ENVI", 2, "int16", {"interleave": "bil"}),
    "raw.bil": ("EHdr", 1, "int16", {}),
    "spy.ntf": ("NITF", 3, "uint8", {}),
    "classic.nc": ("netCDF", 1, "float32", {}),
    "four.nc": ("netCDF", 1, "int16", {"format": "NC4C"}),
}


def make(folder: Path) -> dict[str, str]:
    """Good rasters, each in a folder of its own."""
    opened = {}
    for name, (driver, bands, dtype, options) in WRITTEN.items():
        place = folder / name.replace(".", "_")
        place.mkdir()
        try:
            _written(place / name, driver, bands, dtype, options)
            read_raster(place / name)
        except (rasterio.errors.RasterioError, SystemError, UserError) as error:
            print(f"{name} isn't made: {error!r}", flush=True)
            continue
        opened[place.name] = name
    for maker in (
        _palette,
        _points,
        _pyramid,
        _microscope,
        _imagej,
        _mosaic,
        _hdf5,
        _grass,
        _dted,
        _world,
        _subdata,
        _archive,
    ):
        place = folder / maker.__name__[1:]
        place.mkdir()
        opened[place.name] = maker(place).name
        run(place / opened[place.name], random.Random(0))
    return opened


def _pixels(bands: int, dtype: str, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    most = 16 if bands == 1 and dtype == "uint8" else 251
    return (np.arange(bands * height * width).reshape(bands, height, width) * 7 % most).astype(dtype)


def _written(path: Path, driver: str, bands: int, dtype: str, options: Mapping[str, Any]) -> Path:
    """A raster by any driver, by way of a TIFF."""
    size = {"width": WIDTH, "height": HEIGHT, "count": bands, "dtype": dtype}
    direct = driver == "GTiff"
    first = path if direct else path.with_name("first.tif")
    with rasterio.open(first, "w", driver="GTiff", **size, **PLACE, **(options if direct else {})) as file:
        file.write(_pixels(bands, dtype))
        if bands > 1:
            file.descriptions = [f"B{n}" for n in range(bands)]
        file.update_tags(AREA_OR_POINT="Area", note="made to be spoilt")
        file.scales = [2.0] * bands
    if not direct:
        copy(first, path, driver=driver, strict=False, **options)
        first.unlink()
        Path(f"{first}.aux.xml").unlink(missing_ok=True)
    return path


def _palette(folder: Path) -> Path:
    path = folder / "palette.png"
    with rasterio.open(path, "w", driver="PNG", width=WIDTH, height=HEIGHT, count=1, dtype="uint8") as file:
        file.write(_pixels(1, "uint8"))
        file.write_colormap(1, {n: (n, 255 - n, 9, 255) for n in range(16)})
    return path


def _points(folder: Path) -> Path:
    """Ground control points and rational polynomials instead of a transform."""
    path = folder / "points.tif"
    corners = ((0, 0), (0, WIDTH), (HEIGHT, 0), (HEIGHT, WIDTH), (9, 9))
    points = [GroundControlPoint(row, col, 404_000 + col / 2, 3_285_000 - row / 2) for row, col in corners]
    with rasterio.open(path, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=1, dtype="uint8") as file:
        file.write(_pixels(1, "uint8"))
        file.gcps = (points, rasterio.crs.CRS.from_epsg(32617))
    return path


def _pyramid(folder: Path) -> Path:
    """Overviews, a mask, statistics and a table of colours: in the file and beside it."""
    path = folder / "pyramid.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=128, height=96, count=4, dtype="uint8", nodata=0, tiled=True,
        blockxsize=32, blockysize=32, compress="deflate", **PLACE,
    ) as file:  # fmt: skip
        file.write(_pixels(4, "uint8", 96, 128))
        file.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    with rasterio.Env(TIFF_USE_OVR=True, GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
        file.write_mask(np.full((96, 128), 255, "uint8"))
    Path(f"{path}.aux.xml").write_text(
        '<PAMDataset><SRS>EPSG:32617</SRS><Metadata><MDI key="AREA_OR_POINT">Area</MDI></Metadata>'
        '<PAMRasterBand band="1"><Description>red</Description><NoDataValue>3</NoDataValue><Scale>2</Scale>'
        '<Metadata><MDI key="STATISTICS_MAXIMUM">250</MDI></Metadata></PAMRasterBand></PAMDataset>',
        encoding="utf-8",
    )
    return path


def _microscope(folder: Path) -> Path:
    planes = [_pixels(1, "uint16")[0] for _ in range(4)]
    return write_pages(folder / "scan.ome.tif", planes, {270: ome(["DAPI", "GFP"], planes=2)})


def _imagej(folder: Path) -> Path:
    planes = [_pixels(1, "uint8")[0] for _ in range(3)]
    text = "ImageJ=1.53\nimages=3\nchannels=3\nhyperstack=true\nmode=composite\nunit=micron\nspacing=1\n"
    return write_pages(folder / "stack.tif", planes, {270: text, 282: (2, 1), 283: (2, 1)}, is_big=True)


def _mosaic(folder: Path) -> Path:
    _written(folder / "left.tif", "GTiff", 1, "uint8", {})
    path = folder / "mosaic.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}"><SRS>EPSG:32617</SRS>'
        "<GeoTransform>404000, 0.5, 0, 3285000, 0, -0.5</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1"><NoDataValue>0</NoDataValue><SimpleSource>'
        '<SourceFilename relativeToVRT="1">left.tif</SourceFilename><SourceBand>1</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" xSize="{WIDTH}" ySize="{HEIGHT}"/>'
        f'<DstRect xOff="0" yOff="0" xSize="{WIDTH}" ySize="{HEIGHT}"/>'
        "</SimpleSource></VRTRasterBand></VRTDataset>",
        encoding="utf-8",
    )
    return path


def _hdf5(folder: Path) -> Path:
    path = folder / "cube.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("images")
        group.create_dataset("image", data=_pixels(1, "uint16")[0], chunks=(10, 10), compression="gzip")
        group["image"].attrs["note"] = SECRET
    return path


def _subdata(folder: Path) -> Path:
    """Several arrays in one file."""
    path = folder / "arrays.nc"
    with h5py.File(path, "w") as file:
        for name in ("a", "b"):
            file.create_dataset(name, data=_pixels(1, "float32")[0])
    return path


def _archive(folder: Path) -> Path:
    """A raster in a ZIP."""
    path = folder / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(_written(folder / "plain.tif", "GTiff", 1, "uint8", {}), "plain.tif")
    (folder / "plain.tif").unlink()
    return path


def _grass(folder: Path) -> Path:
    path = folder / "grass.asc"
    rows = "\n".join(" ".join(map(str, range(WIDTH))) for _ in range(HEIGHT))
    path.write_text(f"north: 30\nsouth: 0\neast: 40\nwest: 0\nrows: {HEIGHT}\ncols: {WIDTH}\n{rows}\n")
    return path


def _dted(folder: Path) -> Path:
    path, first = folder / "heights.dt0", folder / "first.tif"
    place = {
        "crs": "EPSG:4326",
        "transform": rasterio.Affine(1 / 120, 0, 9 - 1 / 240, 0, -1 / 120, 51 + 1 / 240),
    }
    with rasterio.open(
        first, "w", driver="GTiff", width=121, height=121, count=1, dtype="int16", **place
    ) as file:
        file.write(_pixels(1, "int16", 121, 121))
    copy(first, path, driver="DTED")
    first.unlink()
    return path


def _world(folder: Path) -> Path:
    """A picture with a place beside it, and EXIF in it."""
    path = folder / "photo.jpg"
    _written(path, "JPEG", 3, "uint8", {"EXIF_DateTime": "2024:01:01 00:00:00"})
    (folder / "photo.jgw").write_text("0.5\n0\n0\n-0.5\n404000\n3285000\n")
    (folder / "photo.prj").write_text(rasterio.crs.CRS.from_epsg(32617).to_wkt())
    return path


def run(path: Path, chance: random.Random) -> None:
    """Read it; now and then by the command line."""
    dice = chance.random()
    if path.suffix == ".zip":
        read_raster(f"/vsizip/{path}/plain.tif")
    elif path.name == "arrays.nc":
        read_raster(f'NETCDF:"{path}":{chance.choice("ab")}')
    elif dice < 0.04:
        command("info", path)
    elif dice < 0.08:
        command(
            "scan",
            path,
            "-m",
            "threshold",
            "-o",
            path.parent / "found.csv",
            "--overwrite",
            "--max-memory",
            "900MB",
        )
    else:
        read_raster(path)


TARGET = Target(
    "rasters", make, run, left=("found.csv", "found.csv.ecodetect", "found.csv.journal", ".journal-wal")
)

if __name__ == "__main__":
    sys.exit(main(TARGET))
