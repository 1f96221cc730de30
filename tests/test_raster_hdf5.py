"""An HDF5 file is read when all that it holds is in it, in a form that has an end."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ecodetect.errors import RasterError
from ecodetect.raster.hdf5 import begins_at, check
from ecodetect.raster.reading import open_raster

PIXELS = (np.arange(64 * 64) % 251).astype(np.uint8).reshape(64, 64)
Make = Callable[[Any, Path], None]


def external(file: Any, outside: Path) -> None:
    file.create_dataset("d", shape=(64, 64), dtype="u1", external=[(str(outside / "secret.bin"), 0, 4096)])


def external_in_a_group(file: Any, outside: Path) -> None:
    file["plain"] = PIXELS
    external(file.create_group("a/b"), outside)


def external_without_a_size(file: Any, outside: Path) -> None:
    name = str(outside / "secret.bin")
    file.create_dataset("d", shape=(8, 8), dtype="u1", external=[(name, 0, h5py.h5f.UNLIMITED)])


def link(file: Any, outside: Path) -> None:
    file["d"] = h5py.ExternalLink(str(outside / "secret.h5"), "/d")


def link_beside_pixels(file: Any, outside: Path) -> None:
    file["d"] = PIXELS
    file["a/b/e"] = h5py.ExternalLink("secret.h5", "/d")


def link_by_a_link(file: Any, outside: Path) -> None:
    file["d"] = h5py.SoftLink("/a/e")
    file["a/e"] = h5py.ExternalLink(str(outside / "secret.h5"), "/d")


def virtual(file: Any, outside: Path) -> None:
    layout = h5py.VirtualLayout((64, 64), "u1")
    layout[...] = h5py.VirtualSource(str(outside / "secret.h5"), "d", (64, 64))
    file.create_virtual_dataset("d", layout)


def hidden(file: Any, outside: Path) -> None:
    """An object that no link leads to, only a reference: `hide` takes its link away."""
    external(file, outside)
    file["e"] = PIXELS
    file["e"].attrs["r"] = file["d"].ref


def hide(path: Path) -> None:
    """Let the link `d` lead to `e`; the reference still leads to what `d` was."""
    with h5py.File(path) as file:
        of_d, of_e = (struct.pack("<Q", h5py.h5o.get_info(file[name].id).addr) for name in "de")
        reference = file["e"].attrs.get_id("r")
        assert reference.shape == ()
    content = path.read_bytes()
    names = content.index(b"SNOD")
    place = content.index(of_d, names)
    path.write_bytes(content[:place] + of_e + content[place + 8 :])


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.bin").write_bytes(PIXELS.tobytes())
    with h5py.File(folder / "secret.h5", "w") as file:
        file["d"] = PIXELS
    return folder


def sentence(path: Path) -> str:
    with pytest.raises(RasterError) as caught, open_raster(path):
        pass
    text = str(caught.value)
    assert path.name in text
    assert "\n" not in text
    return text


ALL = (
    external,
    external_in_a_group,
    external_without_a_size,
    link,
    link_beside_pixels,
    link_by_a_link,
    virtual,
    hidden,
)


@pytest.mark.parametrize(
    ("make", "block", "name"),
    [
        *((make, 0, "a.h5") for make in ALL),
        *((external, block, "a.h5") for block in (512, 4096)),
        *((make, 0, name) for make in (external, virtual) for name in ("a.nc", "a.tif", "a.dat")),
    ],
)
def test_pixels_of_other_files_are_refused(
    tmp_path: Path, outside: Path, make: Make, block: int, name: str
) -> None:
    path = tmp_path / name
    with h5py.File(path, "w", userblock_size=block, libver="latest" if make is virtual else None) as file:
        make(file, outside)
    if make is hidden:
        hide(path)
    assert begins_at(path) == block
    assert "is not followed" in sentence(path)


def test_a_block_before_may_look_like_another_format(tmp_path: Path, outside: Path) -> None:
    path = tmp_path / "a.bmp"
    with h5py.File(path, "w", userblock_size=512) as file:
        external(file, outside)
    content = path.read_bytes()
    path.write_bytes(b"BM" + content[2:])
    assert "is not followed" in sentence(path)


@pytest.mark.parametrize("name", ['HDF5:"{}"://d', "HDF5:{}://d", 'NETCDF:"{}":d', "NETCDF:{}:d"])
def test_an_array_by_its_name_is_no_way_around(tmp_path: Path, outside: Path, name: str) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        external(file, outside)
    with pytest.raises(RasterError, match="is not followed"):
        open_raster(name.format(path))


def test_nor_is_a_mosaic(tmp_path: Path, outside: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        external(file, outside)
    path = tmp_path / "a.vrt"
    path.write_text(
        '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">a.h5</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>',
        encoding="ascii",
    )
    assert "is not followed" in sentence(path)


def test_files_that_hold_their_pixels_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    for version, block in ((None, 0), (None, 1024), (("earliest", "v110"), 0)):
        with h5py.File(path, "w", libver=version, userblock_size=block) as file:
            file.create_dataset("d", data=PIXELS, chunks=(16, 16), compression="gzip")
            file["by_name"] = h5py.SoftLink("/d")
            file["nowhere"] = h5py.SoftLink("/none")
            file["itself"] = h5py.SoftLink("/itself")
            file["kind"] = np.dtype("f4")
            file["d"].attrs["region"] = file["d"].regionref[0:2, 0:2]
        check(str(path), path.name)
        with open_raster(f'HDF5:"{path}"://d') as raster:
            np.testing.assert_array_equal(raster.read(raster.grid.window, raster.bands).pixels[0], PIXELS)
        path.unlink()


def test_scales_of_dimensions_are_references_within(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    with h5py.File(path, "w") as file:
        file["d"] = PIXELS
        file["x"] = np.arange(64.0)
        file["x"].make_scale("x")
        file["d"].dims[1].attach_scale(file["x"])
    check(str(path), path.name)


@pytest.mark.parametrize("make", ["hard", "soft", "many", "deep"])
def test_links_without_an_end(tmp_path: Path, make: str) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["d"] = PIXELS
        group = file.create_group("g")
        if make == "hard":
            group["up"] = file["/"]
        elif make == "soft":
            group["up"] = h5py.SoftLink("/")
        elif make == "many":  # 2 to the power of 40 ways to the last
            for _ in range(40):
                below = group.create_group("a")
                group["b"] = below
                group = below
        else:
            group["/".join("g" * 100)] = PIXELS
    assert any(word in sentence(path) for word in ("would never end", "ways", "too deeply"))


def test_a_cut_or_spoilt_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["d"] = PIXELS
    content = path.read_bytes()
    path.write_bytes(content[:1000])
    assert "damaged or truncated" in sentence(path)
    names = content.index(b"SNOD")
    path.write_bytes(content[:names] + b"XXXX" + content[names + 4 :])
    assert "damaged or truncated" in sentence(path)


def test_a_file_without_hdf5_begins_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(5000))
    assert begins_at(tmp_path / "a") is None
    (tmp_path / "b").write_bytes(bytes(100) + b"\x89HDF\r\n\x1a\n" + bytes(500))
    assert begins_at(tmp_path / "b") is None
