"""Layers for a GIS are written whole or not at all, to the same bytes from the same features."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from gis_layers import COLUMNS, GRIDS, SUFFIXES, made_layer, made_stream, shapes_px

from ecodetect.errors import LayerError
from ecodetect.formats import files as formats
from ecodetect.formats.gis import ogr
from ecodetect.layer import Layer, Stream


def all_bytes(folder: Path) -> dict[str, str]:
    """Suffix -> hash of all files in a folder."""
    return {file.suffix: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize("kind", ["points", "polygons"])
def test_the_same_features_give_the_same_bytes(kind: str, tmp_path: Path) -> None:
    grid = GRIDS["rotated"]
    layer = made_layer(shapes_px(kind, grid, 100), grid)
    first, second = tmp_path / "here", tmp_path / "some where" / "else"
    for folder, name, batch in ((first, "a", 7), (second, "another name", 60)):
        folder.mkdir(parents=True)
        for suffix in SUFFIXES:
            formats.write(folder / f"{name}{suffix}", made_stream(layer, batch=batch))
        time.sleep(1.1 if folder is first else 0)  # beyond the seconds that clocks in files have
    assert all_bytes(first) == all_bytes(second)
    for file in first.iterdir():
        data = file.read_bytes()
        assert time.strftime("%Y-%m-%d", time.gmtime()).encode() not in data
        assert str(tmp_path).encode() not in data
        assert file.suffix == ".geojsonl" or b"here" not in data or b"sphere" in data


class Broken(Exception):
    pass


def failing(layer: Layer, error: BaseException) -> Iterator[Layer]:
    yield layer[:3]
    yield layer[3:6]
    raise error


@pytest.mark.parametrize(
    "error", [Broken("source"), KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")]
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failing_source_leaves_nothing_and_keeps_the_old(
    suffix: str, error: BaseException, tmp_path: Path
) -> None:
    grid = GRIDS["north-up"]
    layer = made_layer(shapes_px("boxes", grid), grid)
    path = tmp_path / f"out{suffix}"
    stream = Stream(failing(layer, error), "Polygon", COLUMNS, grid=grid)
    with pytest.raises((Broken, KeyboardInterrupt, LayerError)) as caught:
        formats.write(path, stream)
    assert isinstance(caught.value, LayerError if isinstance(error, OSError) else type(error))
    assert list(tmp_path.iterdir()) == []

    formats.write(path, made_stream(layer))
    before = all_bytes(tmp_path)
    with pytest.raises((Broken, KeyboardInterrupt, LayerError)):
        formats.write(path, Stream(failing(layer, error), "Polygon", COLUMNS, grid=grid), overwrite=True)
    assert all_bytes(tmp_path) == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_is_one_sentence(suffix: str, tmp_path: Path) -> None:
    grid = GRIDS["north-up"]
    layer = made_layer(shapes_px("boxes", grid), grid)
    full = OSError(errno.ENOSPC, "No space left on device")
    stream = Stream(failing(layer, full), "Polygon", COLUMNS, grid=grid)
    with pytest.raises(
        LayerError, match=r"disk is full while writing .*; free space and run the same command again"
    ):
        formats.write(tmp_path / f"out{suffix}", stream)
    assert list(tmp_path.iterdir()) == []


def test_gdals_words_for_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = RuntimeError("sqlite3_exec(COMMIT) failed: database or disk is full")
    for free, number in ((100, errno.ENOSPC), (10_000, None)):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(ogr.shutil, "disk_usage", lambda _, usage=usage: usage)
        assert ogr.failure(words, tmp_path / "out.gpkg", 1000).errno == number
    assert ogr.failure(RuntimeError("no such driver"), tmp_path / "out.gpkg", 10**9).errno is None


def test_an_existing_file_stays_unless_asked(tmp_path: Path) -> None:
    grid = GRIDS["north-up"]
    layer = made_layer(shapes_px("boxes", grid), grid)
    path = tmp_path / "out.geojson"
    path.write_text("mine")
    with pytest.raises(LayerError, match="exists"):
        formats.write(path, made_stream(layer))
    assert path.read_text() == "mine"
    formats.write(path, made_stream(layer), overwrite=True)
    assert len(formats.read(path)) == len(layer)


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / ".out.gpkg.part"
    left.mkdir()
    (left / ".ecodetect-unfinished").touch()
    (left / "out.gpkg").write_bytes(b"half")
    grid = GRIDS["north-up"]
    formats.write(tmp_path / "out.gpkg", made_stream(made_layer(shapes_px("boxes", grid), grid)))
    assert [file.name for file in tmp_path.iterdir()] == ["out.gpkg"]


def test_what_cant_be_written_is_said_before(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match=r"\.gpkg"):
        formats.writable(tmp_path / "out.xyz")
    with pytest.raises(LayerError, match="doesn't exist"):
        formats.writable(tmp_path / "nowhere" / "out.gpkg")
    (tmp_path / "folder.gpkg").mkdir()
    with pytest.raises(LayerError, match="is a folder"):
        formats.writable(tmp_path / "folder.gpkg")
    formats.writable(tmp_path / "OUT.GPKG")
    assert [file.name for file in tmp_path.iterdir()] == ["folder.gpkg"]
