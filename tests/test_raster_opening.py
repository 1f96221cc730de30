"""A raster that a library can't cope with is refused in time, and the next one is reached."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio

from ecodetect.errors import RasterError
from ecodetect.guarding import guard
from ecodetect.raster.reading import open_raster
from ecodetect.scanning.files import scan_files
from ecodetect.scanning.settings import Settings

PIXELS = np.random.default_rng(0).integers(0, 255, (3, 48, 64), np.uint8)


def picture(path: Path, driver: str) -> Path:
    with rasterio.open(path, "w", driver=driver, width=64, height=48, count=3, dtype="uint8") as dataset:
        dataset.write(PIXELS)
    return path


def grid_of_text(path: Path, rows: int, values: int) -> Path:
    head = f"ncols 100\nnrows {rows}\nxllcorner 0\nyllcorner 0\ncellsize 1\n"
    path.write_text(head + "1 " * values, encoding="ascii")
    return path


@pytest.fixture
def cycle(tmp_path: Path) -> Path:
    """An HDF5 file whose group holds itself: GDAL goes round until memory ends."""
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["pixels"] = PIXELS[0]
        file["loop"] = file["/"]
    return tmp_path / "b.h5"


def test_a_folder_is_scanned_past_a_file_that_leads_round_in_a_circle(tmp_path: Path, cycle: Path) -> None:
    picture(tmp_path / "a.tif", "GTiff")
    picture(tmp_path / "c.tif", "GTiff")
    done, failed = scan_files([tmp_path], Settings(model="threshold"), str(tmp_path / "out") + "/")
    assert len(done) == 2
    ((name, error),) = [(failure[0], failure[1]) for failure in failed]
    assert name == str(cycle)
    assert str(cycle) in str(error)


def test_ordinary_pictures_need_no_child(tmp_path: Path) -> None:
    guard.end()
    for name, driver in (("a.tif", "GTiff"), ("a.png", "PNG"), ("a.jpg", "JPEG")):
        with open_raster(picture(tmp_path / name, driver)) as raster:
            assert raster.driver == driver
    assert not guard.is_started()


def test_a_grid_of_text_is_read_when_all_its_numbers_are_there(tmp_path: Path) -> None:
    with open_raster(grid_of_text(tmp_path / "whole.asc", 3, 300)) as raster:
        assert raster.read(raster.grid.window, raster.bands).pixels.tolist() == [[[1.0] * 100] * 3]
    with pytest.raises(
        RasterError, match=r"truncated: its 100 x 30000 pixels .* 6000000 bytes .* has 2\d\d\d;"
    ):
        open_raster(grid_of_text(tmp_path / "cut.asc", 30_000, 1000))


def test_what_gdal_and_its_libraries_print_is_not_seen(cycle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ecodetect_cli", "info", str(cycle)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.h5"])
def test_a_pipe_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(RasterError, match="is not a file but a pipe"):
        open_raster(tmp_path / name)
