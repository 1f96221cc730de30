"""The map of scores: where the detections are, whatever the cuts and interruptions, and its file."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import geopandas
import learned
import numpy as np
import pytest
import rasterio
import shapely
from command_line import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_raster import MemoryRaster
from numpy.typing import NDArray
from rasterio.transform import from_origin

from ecodetect.bundle import file as bundle
from ecodetect.chip import Chip
from ecodetect.detections import Detections, GeometryType
from ecodetect.detectors.protocol import Needs
from ecodetect.errors import Interrupted, UserError
from ecodetect.grid import Grid, Window
from ecodetect.models import choosing as models
from ecodetect.region import Region
from ecodetect.scanning import layout, score_maps
from ecodetect.scanning import run as running
from ecodetect.scanning.files import scan, scan_files
from ecodetect.scanning.journal import Journal
from ecodetect.scanning.pipeline import detect_unit, read_unit
from ecodetect.scanning.question import ScanPlan
from ecodetect.scanning.settings import Output, Settings
from ecodetect.scanning.tiling import cut_grid, in_cells

STEP = 4  # pixels a cell of `Placed`
CELL = 0.5  # metres a pixel of the rasters below


NEEDS = Needs(("grey",), 8.0, stride_px=2 * STEP, map_px=STEP)


@dataclass(frozen=True)
class Placed:
    """A detector that finds nothing, with a map of scores that says where its cells are."""

    name: str = "placed"
    kind: GeometryType = "point"
    classes: tuple[str, ...] = ("a", "b")
    needs: Needs = NEEDS
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def surveyed(self, samples: Any) -> Placed:
        return self

    def detect(self, chips: Sequence[Chip]) -> list[Detections]:
        assert all(chip.wants_map for chip in chips)
        empty = [Detections.empty(chip.grid, self.kind, self.classes) for chip in chips]
        maps = [expected(in_cells(chip.window, STEP)) for chip in chips]
        return [dataclasses.replace(each, score_map=seen) for each, seen in zip(empty, maps, strict=True)]


def expected(cells: Window) -> NDArray[np.float32]:
    y, x = np.mgrid[cells.y : cells.bottom, cells.x : cells.right]
    first = ((7 * x + 13 * y) % 61) / 64
    return np.stack([first, 1 - first]).astype(np.float32)


@settings(max_examples=10)
@given(
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    tile=st.integers(16, 160),
    units=st.integers(16, 100),
    offset=st.integers(0, 3),
    has_area=st.booleans(),
    seed=st.integers(0, 3),
)
def test_the_map_of_any_cuts_is_that_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    size: tuple[int, int],
    tile: int,
    units: int,
    offset: int,
    has_area: bool,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("maps")
    grid = Grid(*size, (CELL, 0.0, 100.0, 0.0, -CELL, 50.0))
    # Patches of no data, some of a few pixels.
    noise = np.random.default_rng(seed).random((size[1], size[0])).astype(np.float32)
    valid = cv2.GaussianBlur(noise, (0, 0), 1 + 3 * seed) > 0.49
    raster: Any = MemoryRaster(np.zeros((1, size[1], size[0]), np.uint8), grid, ("grey",), valid)
    detector, area, searched = Placed(), None, valid
    if has_area:
        shape = shapely.box(0.2 * size[0], 0.3 * size[1], 0.7 * size[0] + 1, 0.8 * size[1] + 1)
        shapely.prepare(shape)
        area = Region(shape, grid)
        searched = valid & area.pixels(grid.window)
    cuts = cut_grid(grid, tile_px=tile, largest_px=8.0, reach_px=3, margin_px=1.0, stride_px=8, unit_px=units)
    cuts = dataclasses.replace(cuts, offset_px=8 * offset if 8 * offset < tile else 0)
    plan = ScanPlan(
        detector=detector, native=grid, grid=grid, area=area, score=(0.0, 0.0), batch=2, is_mapped=True,
        laid_out=layout.Layout(cuts, workers=1, threads=1, cache_bytes=0, peak_bytes=0),
    )  # fmt: skip
    journal = Journal(folder / "journal")
    number = journal.raster("key").number
    for unit in map(cuts.unit, np.random.default_rng(seed).permutation(len(cuts)).tolist()):
        if area is not None and not area.meets(unit.core):
            continue  # never read
        found = detect_unit(plan, unit, read_unit(plan, raster, unit))
        assert found.scores is not None
        pieces = score_maps.cut(in_cells(unit.core, STEP), found.scores)
        journal.add(number, unit.number, found.candidates, found.searched, 0, pieces=pieces)
    there, out = grid.reduced(STEP), folder / "map.tif"
    score_maps.write(out, journal.pieces(number), there, detector.classes, {})
    journal.discard()
    got = opened(out)
    padded = np.pad(searched, ((0, -size[1] % STEP), (0, -size[0] % STEP)))
    known = padded.reshape(there.height, STEP, there.width, STEP).any(axis=(1, 3))
    assert np.array_equal(~np.isnan(got), np.stack([known, known]))
    assert got[:, known] == pytest.approx(expected(there.window)[:, known], abs=2**-14)


def opened(path: Path) -> NDArray[np.float32]:
    with rasterio.open(path) as file:
        return np.asarray(file.read())


@pytest.fixture(autouse=True)
def _many_units_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "UNIT_PX", 96)
    monkeypatch.setattr(score_maps, "BLOCK", 64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    card = learned.card(bands=("red", "green", "blue"), classes=("bush", "tree"))
    bundle.write(path, learned.bundle(card))
    return str(path)


def raster(path: Path, *, crs: str | None = "EPSG:32630", side: int = 200, nodata: int = 60) -> Path:
    """Dark discs on rough ground, with a corner of no data; its map has peaks wherever the network likes."""
    rng = np.random.default_rng(7)
    image = np.full((side, side + 30), 90.0)
    for x, y in rng.integers(0, side, size=(30, 2)):
        cv2.circle(image, (int(x), int(y)), int(rng.integers(5, 10)), 20.0, -1)
    pixels = (image + rng.normal(0, 3, (3, *image.shape))).clip(1, 120).astype(np.uint8)
    pixels[:, :nodata, :nodata] = 0
    place = {} if crs is None else {"crs": crs, "transform": from_origin(500_000, 4_000_000, CELL, CELL)}
    with rasterio.open(
        path, "w", driver="GTiff", width=side + 30, height=side, count=3, dtype="uint8", nodata=0, **place
    ) as file:
        file.write(pixels)
    return path


def mapped(image: Path, model: str, out: Path, **asked: Any) -> Path:
    """The map of a scan, whose detections lie beside it."""
    scan_files(
        [image],
        Settings(model=model, device="cpu", **{"tile_px": 64, **asked}),
        str(out.with_suffix(".geojson")),
        Output(score_map=str(out)),
    )
    return out


def test_the_value_under_a_detection_is_its_score(model: str, tmp_path: Path, ecodetect: Run) -> None:
    image, out, layer = raster(tmp_path / "a.tif"), tmp_path / "map.tif", tmp_path / "found.gpkg"
    done = ecodetect("scan", image, "-m", model, "-o", layer, "--score-map", out, "--tile", 64)
    assert done.code == 0
    assert f"map of scores written to {out}" in done.out
    found = geopandas.read_file(layer)
    assert len(found) > 10
    with rasterio.open(out) as file, rasterio.open(image) as source:
        assert (file.crs, file.transform, file.shape) == (source.crs, source.transform, source.shape)
        assert (file.dtypes, file.descriptions) == (("float32",) * 2, ("bush", "tree"))
        assert math.isnan(file.nodata)
        assert (file.block_shapes[0], file.compression.value) == ((64, 64), "DEFLATE")
        assert (file.overviews(1), file.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"]) == ([2, 4], "3")
        assert json.loads(file.tags()["ecodetect"])["model"] == "heatmap"
        values = np.array(list(file.sample([(p.x, p.y) for p in found.geometry])))
        scores = file.read()
        valid = source.read(1) > 0
    label = found["label"].map({"bush": 0, "tree": 1})
    # The peak is refined between pixels, so it may lie in the one beside the highest.
    assert values[np.arange(len(found)), label] == pytest.approx(found["score"], abs=0.02)
    assert np.array_equal(np.isnan(scores), np.broadcast_to(~valid, scores.shape))
    assert 0 <= np.nanmin(scores) < np.nanmax(scores) <= 1


def test_peaks_of_the_map_are_the_detections(model: str, tmp_path: Path) -> None:
    image, out = raster(tmp_path / "a.tif"), tmp_path / "map.tif"
    found = scan(image, model=model, score=0.0, score_map=out, device="cpu")
    scores = opened(out)
    for label, heat in enumerate(scores):
        of_class = found[found.label == label]
        highest = np.stack([heat[np.clip(y + dy, 0, 199), np.clip(x + dx, 0, 229)]
                            for dy in (-1, 0, 1) for dx in (-1, 0, 1)
                            for x, y in [np.floor(of_class.geometry).astype(int).T]])  # fmt: skip
        assert np.nanmax(highest, axis=0) == pytest.approx(of_class.score, abs=1e-3)


def test_same_tiling_same_bytes_and_other_tilings_nearly_the_same(model: str, tmp_path: Path) -> None:
    image = raster(tmp_path / "a.tif")
    one, two, other = (
        mapped(image, model, tmp_path / f"{name}.tif", **asked)
        for name, asked in (("one", {}), ("two", {}), ("other", {"tile_px": 128, "batch": 2}))
    )
    assert one.read_bytes() == two.read_bytes()
    assert np.allclose(opened(one), opened(other), atol=1e-4, equal_nan=True)


def stop(name: str, done: float, total: float) -> None:
    if done > 0:
        raise KeyboardInterrupt


def stop_in_writing(name: str, done: float, total: float) -> None:
    if name == "out.tif":
        raise KeyboardInterrupt


def test_an_interrupted_scan_goes_on_to_the_same_map(model: str, tmp_path: Path) -> None:
    image = raster(tmp_path / "a.tif")
    whole, out = mapped(image, model, tmp_path / "whole.tif"), tmp_path / "out.tif"
    asked = Settings(model=model, device="cpu", tile_px=64)
    layer = str(tmp_path / "out.geojson")
    # What has been done without a map isn't taken for something with one.
    wanted = Output(score_map=str(out))
    for output, stopping in ((Output(), stop), (wanted, stop), (wanted, stop), (wanted, stop_in_writing)):
        with pytest.raises(Interrupted):
            scan_files([image], asked, layer, output, progress=stopping)
        assert not out.exists()
        assert not (tmp_path / ".out.tif.part").exists()
    (summary,), _ = scan_files([image], asked, layer, wanted)
    assert (summary.resumed, summary.score_map) == (True, out)
    assert out.read_bytes() == whole.read_bytes()
    assert Path(layer).read_bytes() == whole.with_suffix(".geojson").read_bytes()
    assert (
        sorted(path.suffix for path in tmp_path.iterdir()) == [".geojson"] * 2 + [".qml"] * 2 + [".tif"] * 3
    )


def test_a_scan_killed_between_map_and_detections_can_be_run_again(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, out = raster(tmp_path / "a.tif"), tmp_path / "map.tif"

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "write_results", killed)
        with pytest.raises(KeyboardInterrupt):
            mapped(image, model, out)
    before = out.read_bytes()
    mapped(image, model, out)
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "map.geojson", "map.qml", "map.tif"]


def test_where_detections_are_there_already_only_the_map_is_made(model: str, tmp_path: Path) -> None:
    image, out, layer = raster(tmp_path / "a.tif"), tmp_path / "map.tif", tmp_path / "found.geojson"
    asked, wanted = Settings(model=model, device="cpu", tile_px=64), Output(score_map=str(out))
    scan_files([image], asked, str(layer))
    before = layer.stat().st_mtime_ns
    with pytest.raises(Interrupted):
        scan_files([image], asked, str(layer), wanted, progress=stop)
    # The journal of the map allows nobody to replace the detections.
    with pytest.raises(UserError, match=r"found.geojson exists: .*; give another name, or replace it"):
        scan_files([image], dataclasses.replace(asked, score=0.7), str(layer))
    (summary,), _ = scan_files([image], asked, str(layer), wanted)
    assert (summary.already_done, summary.score_map) == (True, out)
    assert layer.stat().st_mtime_ns == before
    made = out.stat().st_mtime_ns
    (summary,), _ = scan_files([image], asked, str(layer), wanted)
    assert (summary.already_done, summary.score_map) == (True, None)
    assert out.stat().st_mtime_ns == made
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.tif",
        "found.geojson",
        "found.qml",
        "map.tif",
    ]


def test_a_map_is_of_the_grid_that_was_scanned_and_of_the_area_of_interest(
    model: str, tmp_path: Path
) -> None:
    image = raster(tmp_path / "a.tif", crs=None)
    area = geopandas.GeoSeries([shapely.box(70, 100, 150, 180)])
    (tmp_path / "area.geojson").write_text(area.to_json())
    card = learned.card(
        bands=("red", "green", "blue"), unit="px", gsd=2.0, gsd_range=(2.0, 2.0), largest=40.0
    )
    half = tmp_path / "half.safetensors"
    bundle.write(half, learned.bundle(card))
    with rasterio.open(
        mapped(image, str(half), tmp_path / "map.tif", aoi=str(tmp_path / "area.geojson"))
    ) as file:
        assert (file.crs, file.shape, file.transform) == (None, (100, 115), rasterio.Affine.scale(2.0))
        known = ~np.isnan(file.read(1))
    assert known[50:90, 35:75].all()
    assert known.sum() == 40 * 40


def test_a_folder_with_a_map_in_it_is_scanned_without_it(model: str, tmp_path: Path) -> None:
    image = raster(tmp_path / "a.tif")
    mapped(image, model, tmp_path / "map.tif")
    # With so many blocks that what says whose it is lies far behind them.
    score_maps.write(tmp_path / "large.tif", [], Grid(3001, 2999, (2, 0, 0, 0, 2, 0)), ("a",), {})
    with rasterio.open(tmp_path / "large.tif") as file:
        like = file.profile
    for kind in ({"bigtiff": "yes"}, {"bigtiff": "yes", "endianness": "big"}, {"endianness": "big"}):
        path = tmp_path / f"{'-'.join(kind.values())}.tif"
        with rasterio.open(path, "w", **{**like, **kind}) as file:
            file.update_tags(TIFFTAG_SOFTWARE="ecodetect")
    summaries, failures = scan_files([tmp_path], Settings(model="threshold"))
    assert [summary.sources for summary in summaries] == [("a.tif",)]
    assert not failures


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["-m", "threshold", "--score-map", "map.tif"], "threshold reads its detections off no map"),
        (["-m", "{model}", "--score-map", "map.png"], "map.png can't hold a map of scores: its name must"),
        (["-m", "{model}", "--score-map", "none/map.tif"], "there is no folder none; make it first"),
        (["-m", "{model}", "--score-map", "a.tif", "--overwrite"], "would overwrite a.tif; give it another"),
        (["-m", "{model}", "-o", "x.tif", "--score-map", "x.tif"], "would overwrite x.tif; give it another"),
        (["-m", "{model}", "--score-map", "old.tif"], "replace it (--overwrite)."),
        (["-m", "{model}", "b.tif", "--score-map", "map.tif"], "is of one raster, but there are 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_sentence(
    flags: list[str], says: str, model: str, tmp_path: Path, ecodetect: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: raster(Path(path)).read_bytes() for path in ("a.tif", "b.tif", "old.tif")}
    done = ecodetect("scan", "a.tif", *(flag.format(model=model) for flag in flags))
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert says in done.err
    assert {str(path): path.read_bytes() for path in Path().iterdir()} == before


def test_models_that_answer_together_give_no_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, wanted = raster(tmp_path / "a.tif"), Output(score_map=str(tmp_path / "map.tif"))
    monkeypatch.setattr(models, "build", lambda *_, **__: Placed(kind="box"))
    for asked in (Settings(model="blobs", flips=True), Settings(model="blobs", others=("blobs",))):
        _, ((_, error),) = scan_files([image], asked, None, wanted)
        assert "leave out the map, or scan with placed as it is" in str(error)


def pieces(grid: Grid) -> Iterator[score_maps.Piece]:
    """Of a map in which each second block is empty."""
    values = np.random.default_rng(0).random((2, grid.height, grid.width)).astype(np.float32)
    for row in range(math.ceil(grid.height / 64)):
        for column in range(row % 2, math.ceil(grid.width / 64), 2):
            block = Window(column * 64, row * 64, 64, 64).clipped(grid.window)
            part = values[:, block.y : block.bottom, block.x : block.right]
            yield from score_maps.cut(block, part)


def test_empty_blocks_take_no_room_and_a_file_without_its_end_is_seen(tmp_path: Path) -> None:
    grid, out = Grid(500, 300), tmp_path / "map.tif"
    score_maps.write(out, pieces(grid), grid, ("a", "b"), {"key": "k"})
    assert score_maps.key_in(out) == "k"
    with rasterio.open(out) as file:
        there = [file.get_tag_item(f"BLOCK_OFFSET_{x}_0", "TIFF", bidx=1) is not None for x in range(4)]
    assert there == [True, False, True, False]
    whole = out.read_bytes()
    score_maps.check_whole(out, [2, 4, 8])
    for missing in (1, 1000, len(whole) // 2):
        out.write_bytes(whole[:-missing])
        with pytest.raises(Exception, match=r"end is missing|open overview"):
            score_maps.check_whole(out, [2, 4, 8])


def test_a_map_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    grid, out = Grid(100, 100), tmp_path / "map.tif"
    out.write_bytes(b"before")

    def failing() -> Iterator[score_maps.Piece]:
        yield from list(pieces(grid))[:1]
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left on device"):
        score_maps.write(out, failing(), grid, ("a", "b"), {})
    assert out.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
def test_a_pipe_under_the_name_of_a_map_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "map.tif")
    with pytest.raises(UserError, match="isn't a file that can be replaced"):
        score_maps.writable(tmp_path / "map.tif")
