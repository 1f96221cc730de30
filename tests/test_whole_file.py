"""Files are written whole or not at all, and nothing that isn't ours is cleared away for it."""

import os

import numpy as np
import pytest
import shapely
from pyproj import CRS

from ecodetect.errors import LayerError
from ecodetect.formats.files import write
from ecodetect.grid import Grid
from ecodetect.layer import Layer, Stream
from ecodetect.pictures.files import replaceable
from ecodetect.whole_file import announce, staged, write_whole


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_it_is_there_with_all_its_bytes_and_nothing_beside_it(tmp_path):
    write_whole(tmp_path / "a", b"one")
    write_whole(tmp_path / "a", b"two")
    assert ((tmp_path / "a").read_bytes(), names(tmp_path)) == (b"two", ["a"])


def test_what_came_meanwhile_is_replaced_only_if_asked(tmp_path):
    (tmp_path / "a").write_bytes(b"theirs")
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a", b"ours", replace=False)
    assert ((tmp_path / "a").read_bytes(), names(tmp_path)) == (b"theirs", ["a"])
    write_whole(tmp_path / "a", b"theirs", replace=False)  # nothing to be done


def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    stage = tmp_path / ".a.part"
    with staged(tmp_path / "a"):
        (stage / "a").write_bytes(b"half")
        (stage / "folder").mkdir()
        (stage / "folder" / "b").touch()
        kept = tmp_path / "kept"
        stage.rename(kept)
    kept.rename(stage)
    write_whole(tmp_path / "a", b"whole")
    assert names(tmp_path) == ["a"]
    (tmp_path / ".a.part").mkdir()  # killed before there was a mark
    write_whole(tmp_path / "a", b"whole")
    assert names(tmp_path) == ["a"]


def test_side_files_of_half_an_output_are_cleared_away(tmp_path):
    with staged(tmp_path / "a") as stage:
        announce(stage, [tmp_path / "a.side", tmp_path / "a.later"])
        (tmp_path / "a.side").touch()
        stage.rename(tmp_path / "kept")
    (tmp_path / "kept").rename(stage)
    with staged(tmp_path / "a"):
        assert not (tmp_path / "a.side").exists()
    assert names(tmp_path) == []


def a_folder(path):
    path.mkdir()
    (path / "theirs").write_bytes(b"theirs")


@pytest.mark.parametrize(
    "make",
    [
        a_folder,
        lambda path: path.write_bytes(b"theirs"),
        pytest.param(
            lambda path: (a_folder(path.with_name("theirs")), path.symlink_to("theirs")),
            marks=pytest.mark.skipif(os.name == "nt", reason="links need rights there"),
        ),
    ],
)
def test_what_is_in_the_way_and_not_ours_stays(make, tmp_path):
    make(tmp_path / ".a.part")
    with pytest.raises(FileExistsError, match=r"\.a\.part is in the way, which isn't ecodetect's; move it"):
        write_whole(tmp_path / "a", b"ours")
    found = [each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()]
    assert set(found) == {b"theirs"}


def points():
    grid = Grid(9, 9, (1.0, 0.0, 500_000.0, 0.0, -1.0, 4_100_000.0), CRS.from_epsg(32630))
    layer = Layer(np.array([shapely.Point(3, 4)], dtype=object), {"label": np.array(["tree"])}, grid)
    return Stream([layer], "Point", {"label": "str"}, grid, metadata={"key": "k"})


@pytest.mark.parametrize(
    ("out", "theirs"), [("a.shp", "a.dbf"), ("a.gpkg", "a.gpkg-wal"), ("a.csv", "a.csv.ecodetect")]
)
def test_a_file_beside_an_output_that_belongs_to_none_is_not_lost(out, theirs, tmp_path):
    (tmp_path / theirs).write_bytes(b"theirs")
    with pytest.raises(LayerError, match="move it or choose another"):
        write(tmp_path / out, points(), overwrite=True)
    assert names(tmp_path) == [theirs]
    assert (tmp_path / theirs).read_bytes() == b"theirs"


def test_a_picture_that_is_not_ours_is_replaced_only_if_asked(tmp_path):
    from PIL import Image

    from ecodetect.errors import UserError
    from ecodetect.pictures.files import save

    path = tmp_path / "a.png"
    Image.new("RGB", (9, 9)).save(path)
    with pytest.raises(UserError, match="ecodetect didn't draw it"):
        replaceable(path, overwrite=False)
    replaceable(path, overwrite=True)
    save(Image.new("RGB", (9, 9)), path)
    replaceable(path, overwrite=False)
