"""`ecodetect doctor`: what to paste into a bug report: versions, machine, and whether the libraries work.

Prints no path, name or host. Every probe may fail on the broken installation it is there to describe, so none
stops the others.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import click

from ecodetect.cores import core_count

from .terminal import say

# The environment variables by which another installation (a GIS, conda, PostGIS) gets in the way of ours.
INTERFERING = ("GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_DATA", "PROJ_LIB", "PYTHONPATH", "PYTHONHOME")
OPTIONAL = ("torchvision", "timm", "scikit-learn", "onnx")  # torch is among what runs networks
# They all unpack into the folder cv2/: of two of them, the files of one lie over those of the other.
OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
GIB = 2**30


@click.command()
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Check the installation: versions, machine, self-test. Paste the output into bug reports.

    The exit code is 1 if a part of the self-test fails.

    \b
    Examples:
      ecodetect doctor
    """
    from ecodetect.version import __version__

    say(f"ecodetect {__version__}")
    say(f"Python {platform.python_version()}, {platform.platform()}")
    say("", "Packages")
    for name, probe in PACKAGES.items():
        say(f"  {name:<14} {_attempt(probe)[1]}")
    for name in OPTIONAL:
        say(f"  {name:<14} {_installed(name) or 'not installed'}")
    say("", "What runs networks")
    for name, probe in RUNTIMES.items():
        say(f"  {name:<14} {_attempt(probe)[1]}")
    say("", "Machine")
    for name, probe in MACHINE.items():
        say(f"  {name:<14} {_attempt(probe)[1]}")
    say("", "Environment")
    for line in _interference() or ["nothing that interferes"]:
        say(f"  {line}")
    say("", "Self-test")
    well = True
    for name, probe in SELF_TEST.items():
        passed, text = _attempt(probe)
        well = well and passed
        say(f"  {'ok  ' if passed else 'FAIL'}  {name}{'' if passed else ': ' + text}")
    ctx.exit(0 if well else 1)


def _attempt(probe: Callable[[], str]) -> tuple[bool, str]:
    """Whether `probe` ran, and what it or its error says in one line."""
    try:
        return True, probe()
    except Exception as error:  # noqa: BLE001 - a broken library can raise anything when imported
        return False, " ".join(f"{type(error).__name__}: {error}".split())


def _installed(distribution: str) -> str | None:
    """The installed version, without importing it (torch alone takes five seconds)."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


# Packages: each is imported, since what a bug report is about may be that it can't be


def _import(module: str, distribution: str) -> str:
    importlib.import_module(module)
    return importlib.metadata.version(distribution)


def _rasterio() -> str:
    import rasterio

    return f"{rasterio.__version__}, GDAL {rasterio.__gdal_version__}, PROJ {rasterio.__proj_version__}"


def _pyogrio() -> str:
    import pyogrio

    return f"{pyogrio.__version__}, GDAL {pyogrio.__gdal_version_string__}"


def _geopandas() -> str:
    import geopandas

    return f"{geopandas.__version__}, pandas {_installed('pandas')}"


def _pyproj() -> str:
    import pyproj
    from pyproj.network import is_network_enabled  # type: ignore[attr-defined]

    grids = "on" if is_network_enabled() else "off"
    return f"{pyproj.__version__}, PROJ {pyproj.proj_version_str}, network grids {grids}"


def _shapely() -> str:
    import shapely

    return f"{shapely.__version__}, GEOS {shapely.geos_version_string}"


def _opencv() -> str:
    import cv2

    wheels = [f"{name} {version}" for name in OPENCV if (version := _installed(name))]
    warning = " (more than one: uninstall all, install one)" if len(wheels) > 1 else ""
    return f"{cv2.getVersionString()} from {', '.join(wheels) or 'another source'}{warning}"


PACKAGES: dict[str, Callable[[], str]] = {
    "numpy": partial(_import, "numpy", "numpy"),
    "scipy": partial(_import, "scipy", "scipy"),
    "rasterio": _rasterio,
    "pyproj": _pyproj,
    "pyogrio": _pyogrio,
    "geopandas": _geopandas,
    "shapely": _shapely,
    "opencv": _opencv,
    "scikit-image": partial(_import, "skimage", "scikit-image"),
    "pyarrow": partial(_import, "pyarrow", "pyarrow"),
    "safetensors": partial(_import, "safetensors", "safetensors"),
    "psutil": partial(_import, "psutil", "psutil"),
    "click": partial(_import, "click", "click"),
}


# What runs networks


def _onnx_runtime() -> str:
    from ecodetect.runtime.onnx_network import devices
    from ecodetect.runtime.opening import DISTRIBUTIONS

    there = ", ".join(devices())  # imports it, so a broken one shows
    wheels = [f"{name} {version}" for name in DISTRIBUTIONS["onnxruntime"] if (version := _installed(name))]
    warning = " (more than one: uninstall all, install one)" if len(wheels) > 1 else ""
    return f"{', '.join(wheels) or 'from another source'}{warning}, for {there}"


def _torch() -> str:
    """Its version and devices; asked in a process of its own, since importing it takes seconds."""
    if find_spec("torch") is None:
        return 'not installed; to train, or for most GPUs: pip install "ecodetect[train]"'
    question = (
        "import torch\n"
        "names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]\n"
        "names += ['mps'] if torch.backends.mps.is_available() else []\n"
        "print(', '.join(['cpu', *names]))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", question], capture_output=True, text=True, encoding="utf-8", timeout=120
    )
    if answer.returncode:
        raise RuntimeError(answer.stderr.strip().splitlines()[-1])
    return f"{_installed('torch')}, for {answer.stdout.strip()}"


def _scan() -> str:
    from ecodetect.models.choosing import opened
    from ecodetect.runtime.opening import usual_runtime

    model = opened("trees")
    assert model is not None
    return usual_runtime(model)


RUNTIMES: dict[str, Callable[[], str]] = {
    "onnxruntime": _onnx_runtime,
    "torch": _torch,
    "a scan": _scan,
}


# Machine


def _cores() -> str:
    usable, cores = core_count(), os.cpu_count() or 1  # a batch system or a container may lend us fewer
    return f"{cores}" if usable == cores else f"{cores}, {usable} of them usable"


def _memory() -> str:
    import psutil

    memory = psutil.virtual_memory()
    text = f"{memory.total / GIB:.1f} GiB, {memory.available / GIB:.1f} GiB of them free"
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    if limit.is_file() and (value := limit.read_text(encoding="ascii").strip()) != "max":
        text += f", limited to {int(value) / GIB:.1f} GiB"
    return text


def _temporary_space() -> str:
    return f"{shutil.disk_usage(tempfile.gettempdir()).free / GIB:.1f} GiB free"


MACHINE: dict[str, Callable[[], str]] = {
    "cores": _cores,
    "memory": _memory,
    "temporary": _temporary_space,
}


def _interference() -> list[str]:
    """A line for each variable that is set, saying only whether it points into this Python's own folder."""
    lines = []
    for name in INTERFERING:
        if value := os.environ.get(name):
            own = Path(value).is_relative_to(sys.prefix)
            lines.append(
                f"{name} points {'into' if own else 'outside'} this Python's folder"
                + ("" if own else "; if something below fails, try without it")
            )
    return lines


# Self-test


def _geotiff() -> str:
    import numpy as np
    import rasterio
    from rasterio.io import MemoryFile

    pixels = np.arange(256, dtype=np.uint16).reshape(1, 16, 16)
    transform = rasterio.Affine(0.1, 0, 500_000, 0, -0.1, 5_000_000)
    with MemoryFile() as file:
        with file.open(
            driver="GTiff",
            width=16,
            height=16,
            count=1,
            dtype="uint16",
            crs="EPSG:32631",
            transform=transform,
            compress="deflate",
        ) as raster:
            raster.write(pixels)
        with file.open() as raster:
            _expect("pixels", bool((raster.read() == pixels).all()), True)
            _expect("transform", raster.transform, transform)
            _expect("CRS", raster.crs.to_epsg(), 32631)
    return ""


def _geopackage() -> str:
    import io

    import geopandas
    import shapely

    points = geopandas.GeoDataFrame({"label": ["tree"]}, geometry=[shapely.Point(1, 2)], crs="EPSG:32631")
    file = io.BytesIO()
    points.to_file(file, driver="GPKG", engine="pyogrio")
    file.seek(0)
    back = geopandas.read_file(file, engine="pyogrio")
    _expect("label", back.label[0], "tree")
    _expect("geometry", back.geometry[0].wkt, "POINT (1 2)")
    _expect("CRS", back.crs.to_epsg(), 32631)
    return ""


# On the central meridian of UTM zone 31 (3 degrees east) at 45 degrees north the easting is exactly 500 km
# and the northing is 0.9996 times the meridian arc of WGS 84 there, 4 984 944.378 m.
UTM_EAST, UTM_NORTH = 500_000.0, 0.9996 * 4_984_944.378


def _pyproj_transform() -> str:
    import pyproj

    east, north = pyproj.Transformer.from_crs(4326, 32631, always_xy=True).transform(3.0, 45.0)
    _expect("easting, northing", (round(east, 3), round(north, 3)), (UTM_EAST, round(UTM_NORTH, 3)))
    return ""


def _rasterio_transform() -> str:
    from rasterio.warp import transform

    (east,), (north,) = transform("EPSG:4326", "EPSG:32631", [3.0], [45.0])
    _expect("easting, northing", (round(east, 3), round(north, 3)), (UTM_EAST, round(UTM_NORTH, 3)))
    return ""


def _contour() -> str:
    import cv2
    import numpy as np

    image = np.zeros((9, 9), np.uint8)
    image[2:7, 3:6] = 255
    contours, _ = cv2.findContours(image, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    _expect("boxes", [tuple(cv2.boundingRect(contour)) for contour in contours], [(3, 2, 3, 5)])
    return ""


def _expect(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise RuntimeError(f"{what} should be {expected}, got {got}")


SELF_TEST: dict[str, Callable[[], str]] = {
    "write and read a GeoTIFF in memory (rasterio)": _geotiff,
    "write and read a GeoPackage in memory (geopandas, pyogrio)": _geopackage,
    "degrees to UTM metres (pyproj)": _pyproj_transform,
    "degrees to UTM metres (rasterio)": _rasterio_transform,
    "find a contour (OpenCV)": _contour,
}
