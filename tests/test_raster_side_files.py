"""Files beside a raster: found as GDAL finds them, and no way to another folder or to the network."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio
from listening import listening
from rasterio.shutil import copy

from ecodetect.errors import RasterError, UserError
from ecodetect.formats.labels import label_image
from ecodetect.raster import side_files
from ecodetect.raster.reading import open_raster
from ecodetect.raster.side_files import sides

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

NAMES = {
    "GTiff": "a.tif", "HFA": "a.img", "PNG": "a.png", "JPEG": "a.jpg", "GIF": "a.gif", "BMP": "a.bmp",
    "WEBP": "a.webp", "JP2OpenJPEG": "a.jp2", "AAIGrid": "a.asc", "XYZ": "a.xyz",
    "RST": "a.rst", "GSBG": "a.grd", "GSAG": "a.gsa", "GS7BG": "a.gs7", "SAGA": "a.sdat", "ENVI": "a.dat",
    "EHdr": "a.bil", "PCIDSK": "a.pix", "NITF": "a.ntf", "GPKG": "a.gpkg", "GRIB": "a.grb",
    "netCDF": "a.nc", "HDF5": "a.h5", "VRT": "a.vrt",
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "WEBP": {"lossless": True},
    "JP2OpenJPEG": {"reversible": "YES", "quality": 100},
    "netCDF": {"format": "NC"},
}
HEIGHTS = ("GSBG", "GSAG", "GS7BG", "XYZ", "AAIGrid", "GRIB")  # formats of floating-point numbers


def write(folder: Path, driver: str, *, side: int = 64) -> Path:
    """A raster of one format, with nothing beside it but what belongs to it."""
    folder.mkdir(exist_ok=True)
    path = folder / NAMES[driver]
    dtype = "float32" if driver in HEIGHTS else "uint8"
    pixels = (np.arange(side * side) % 251).reshape(1, side, side).astype(dtype)
    if driver == "HDF5":
        with h5py.File(path, "w") as file:
            file["d"] = pixels[0]
        return path
    pixels = np.repeat(pixels, 3 if driver in ("GPKG", "WEBP") else 1, axis=0)
    source = folder / ("source.tif" if driver != "GTiff" else path.name)
    with rasterio.open(
        source, "w", driver="GTiff", width=side, height=side, count=len(pixels), dtype=dtype,
        crs="EPSG:32631", transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6),
    ) as file:  # fmt: skip
        file.write(pixels)
    if driver != "GTiff":
        copy(source, path, driver=driver, **OPTIONS.get(driver, {}))
    if driver not in ("GTiff", "VRT"):
        source.unlink()
    path.with_name(f"{path.name}.aux.xml").unlink(missing_ok=True)
    return path


def use(path: Path) -> None:
    """Whatever a scan asks of a raster."""
    with open_raster(path) as raster:
        assert raster.overview_factors is not None
        raster.read(raster.grid.window, raster.bands)
        grid = raster.grid.resampled(3.0) if raster.grid.gsd else raster.grid
        raster.read(grid.window, raster.bands, grid)


def vrt(address: str) -> str:
    return (
        '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">/vsicurl/http://{address}/x.tif</SourceFilename><SourceBand>1'
        '</SourceBand><SrcRect xOff="0" yOff="0" xSize="64" ySize="64"/><DstRect xOff="0" yOff="0" xSize="64"'
        ' ySize="64"/></SimpleSource></VRTRasterBand></VRTDataset>'
    )


def pam(name: str) -> str:
    return (
        f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{name}</MDI></Metadata>'
        "</PAMDataset>"
    )


# Suffix of the side file, and what it holds for an address.
WAYS: dict[str, tuple[str, str]] = {
    "overview": (".ovr", "vrt"),
    "overview in capitals": (".OVR", "vrt"),
    "mask": (".Msk", "vrt"),
    "metadata": (".aux.xml", pam("/vsicurl/http://{address}/x.tif")),
    "metadata in capitals": (".Aux.XML", pam("/vsicurl/http://{address}/x.tif")),
    "by a file": (".aux.xml", pam("evil.dat")),
    "by a file of the folder": (".aux.xml", pam(":::BASE:::evil.dat")),
    "keys in another case": (".aux.xml", pam("evil.dat").replace("OVERVIEW_FILE", "Overview_file")),
    "escaped": (".aux.xml", pam("evil.dat").replace("OVERVIEW_FILE", "OVERVIE&#87;_FILE")),
    "doubled": (".aux.xml", pam("evil.dat").replace('domain="', 'Domain="" domain="')),
    "not closed": (".aux.xml", pam("evil.dat").replace("</PAMDataset>", "")),
    "geolocation": (".aux.xml", pam("evil.dat").replace("OVERVIEW_FILE", "X_DATASET")),
}


@pytest.mark.parametrize("driver", NAMES)
def test_no_request_leaves_the_machine(tmp_path: Path, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every format and every side file: a sentence, and nobody is called."""
    path = write(tmp_path, driver)
    use(path)
    monkeypatch.chdir(tmp_path)
    with listening() as address, rasterio.Env(GDAL_HTTP_TIMEOUT="1", GDAL_HTTP_CONNECTTIMEOUT="1"):
        (tmp_path / "evil.dat").write_text(vrt(address), encoding="ascii")
        for way, (suffix, content) in WAYS.items():
            side = Path(f"{path}{suffix}")
            text = vrt(address) if content == "vrt" else content.replace("{address}", address)
            side.write_text(text, encoding="ascii")
            with pytest.raises(RasterError) as caught:
                use(path)
            assert path.name in str(caught.value), way
            assert "\n" not in str(caught.value)
            side.unlink()
        side = Path(f"{path}.aux.xml")
        side.write_text(f"<PAMDataset><SRS>http://{address}/x</SRS></PAMDataset>", encoding="ascii")
        use(path)


def test_side_files_of_side_files_are_looked_at(tmp_path: Path) -> None:
    path = write(tmp_path, "GTiff")
    write(tmp_path / "other", "GTiff").rename(tmp_path / "a.tif.ovr")
    use(path)
    with listening() as address:
        for name in ("a.tif.ovr.aux.xml", "a.tif.ovr.ovr", "a.tif.OVR.msk"):
            text = pam(f"/vsicurl/http://{address}/x.tif") if name.endswith(".xml") else vrt(address)
            (tmp_path / name).write_text(text, encoding="ascii")
            with pytest.raises(RasterError, match=r"a\.tif"):
                use(path)
            (tmp_path / name).unlink()
    with rasterio.open(tmp_path / "a.tif.ovr", "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE="evil.dat")
    with pytest.raises(RasterError, match=r"a\.tif\.ovr of .* names another file"):
        use(path)


def test_a_folder_is_no_side_file(tmp_path: Path) -> None:
    """GDAL would look for a Zarr array in it."""
    path = write(tmp_path, "GTiff")
    (tmp_path / "a.tif.files").mkdir()
    use(path)
    (tmp_path / "a.tif.ovr").mkdir()
    with pytest.raises(RasterError, match=r"a\.tif\.ovr beside it, which is not a file"):
        use(path)


def test_a_side_file_begins_as_one_format_only(tmp_path: Path) -> None:
    path = write(tmp_path, "GTiff")
    content = write(tmp_path / "other", "GTiff").read_bytes()
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=1024) as file:
        file["d"] = np.zeros((64, 64), np.uint8)
    behind = (tmp_path / "a.h5").read_bytes()[1024:]
    Path(f"{path}.ovr").write_bytes(content[:8].ljust(1024, b"\0") + behind)
    with pytest.raises(RasterError, match=r"a\.tif\.ovr that is neither TIFF nor HFA"):
        use(path)


def test_a_label_image_has_the_same_walls(tmp_path: Path) -> None:
    path = write(tmp_path, "PNG")
    label_image.read_band(path)
    Path(f"{path}.aux.xml").write_text(pam("evil.dat"), encoding="ascii")
    with pytest.raises(UserError, match="names another file"):
        label_image.read_band(path)


def test_honest_side_files_are_taken(tmp_path: Path) -> None:
    path = write(tmp_path, "GTiff", side=256)
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    assert (tmp_path / "a.tif.ovr").exists()
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><Histograms/><Metadata><MDI key='STATISTICS_MEAN'>7</MDI>"
        "</Metadata></PAMRasterBand></PAMDataset>",
        encoding="ascii",
    )
    (tmp_path / "a.aux").write_text(r"\relax of LaTeX", encoding="ascii")
    with open_raster(path) as raster:
        assert raster.overview_factors == (2, 4)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege, and there are no such pipes")
def test_links_out_of_the_folder_and_pipes_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "GTiff")
    other = write(tmp_path / "other", "GTiff")
    for suffix in (".ovr", ".MSK", ".aux.xml"):
        side = Path(f"{path}{suffix}")
        side.symlink_to(other)
        with pytest.raises(RasterError, match="link to another folder"):
            use(path)
        side.unlink()
        side.symlink_to(tmp_path / "nowhere")
        with pytest.raises(RasterError, match="is not a file"):
            use(path)
        side.unlink()
    for suffix in (".ovr", ".aux.xml", ".tfw"):
        side = path.with_suffix(suffix) if suffix == ".tfw" else Path(f"{path}{suffix}")
        os.mkfifo(side)
        with pytest.raises(RasterError, match="is not a file"):
            use(path)
        side.unlink()
    for name in ("b_MTL.txt", "DIM_b.XML", "summary.txt", "METADATA.DIM", "a_RPC.TXT"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(RasterError, match="is not a file"):
            use(path)
        (tmp_path / name).unlink()
    os.mkfifo(tmp_path / "pipe.tif")
    for name in (tmp_path / "pipe.tif", f"GTIFF_DIR:1:{tmp_path / 'pipe.tif'}", "/dev/zero"):
        with pytest.raises(RasterError, match="is not a file"):
            open_raster(name)
    linked = tmp_path / "here"
    linked.mkdir()
    write(tmp_path / "other", "GTiff", side=32).rename(tmp_path / "other" / "a.tif.ovr")
    for name in ("a.tif", "a.tif.ovr"):
        (linked / name).symlink_to(tmp_path / "other" / name)
    other = write(tmp_path / "other", "GTiff")
    use(linked / "a.tif")  # all in one folder, shown in another


def test_names_are_compared_without_case_and_kept_while_the_folder_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("A.tif", "a.TIF.Ovr", "a.aux", "ab.tif", "b.a.tif", "Ä.tif.ovr"):
        (tmp_path / name).touch()
    assert {side.name for side in sides(tmp_path / "A.tif")} == {"a.TIF.Ovr", "a.aux"}
    assert {side.name for side in sides(tmp_path / "ä.tif")} == {"Ä.tif.ovr"}
    os.utime(tmp_path, (1e9, 1e9))
    sides(tmp_path / "A.tif")
    monkeypatch.setattr(side_files.os, "listdir", None)  # not asked again
    assert len(sides(tmp_path / "A.tif")) == 2


def test_a_new_side_file_is_seen_at_once(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / "a.tif").touch()
        assert not sides(tmp_path / "a.tif")
        side = tmp_path / "a.tif.ovr"
        side.touch()
        assert sides(tmp_path / "a.tif") == [side], number
        side.unlink()
