"""Which features belong to which image: the same answer for training, check and evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from pyproj import CRS
from training_sets import noise, write_coco, write_points, write_raster

from ecodetect.annotations.annotation_folder import AnnotationFolder
from ecodetect.annotations.files import opened
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.annotations.sources import gather
from ecodetect.errors import LayerError
from ecodetect.evaluation.criterion import Criterion
from ecodetect.evaluation.evaluating import evaluate
from ecodetect.grid import Grid
from ecodetect.sizes import Length

SIDE = 64
AT = [(12.5, 12.5), (40.5, 40.5), (12.5, 50.5)]
# Images, and how many individuals are marked on each; nobody looked at the last.
MARKED = {"a": 3, "B": 1, "plot.1": 2, "empty": 0}
UNKNOWN = "unknown"


def images(folder: Path) -> Path:
    for name in (*MARKED, UNKNOWN):
        write_raster(folder / f"{name}.tif", noise(3, SIDE, SIDE), gsd_m=None)
    return folder


def tables(folder: Path) -> Path:
    for name, count in MARKED.items():
        write_points(folder / f"{name}.csv", AT[:count])
    return folder


def in_sub_folders(folder: Path) -> Path:
    for name, count in MARKED.items():
        write_points(folder / "day 1" / f"{name.lower()}.csv", AT[:count])
    return folder


def masks(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, count in MARKED.items():
        labels = np.zeros((SIDE, SIDE), np.uint8)
        for number, (x, y) in enumerate(AT[:count], start=1):
            labels[int(y) - 3 : int(y) + 3, int(x) - 3 : int(x) + 3] = number
        with rasterio.open(
            folder / f"{name}_mask.png", "w", driver="PNG", width=SIDE, height=SIDE, count=1, dtype="uint8"
        ) as file:
            file.write(labels, 1)
    return folder


def yolo(folder: Path) -> Path:
    folder.mkdir()
    (folder / "classes.txt").write_text("shrub\n", encoding="utf-8")
    for name, count in MARKED.items():
        rows = [f"0 {x / SIDE} {y / SIDE} 0.1 0.1" for x, y in AT[:count]]
        (folder / f"{name}.txt").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return folder


def beside_scans(folder: Path) -> Path:
    """Annotations in one folder with what a scan has found, which isn't the truth."""
    tables(folder)
    for name in (*MARKED, UNKNOWN):
        write_points(folder / f"{name}.detections.csv", AT)
    return folder


def masks_beside_images(folder: Path) -> Path:
    """As Cellpose leaves a folder: the images too, and outlines as text."""
    masks(images(folder))
    (folder / "a_cp_outlines.txt").write_text("1,1,5,1,5,5\n", encoding="utf-8")
    return folder


def coco_in_a_folder(folder: Path) -> Path:
    folder.mkdir()
    coco(folder).rename(folder / "annotations.json")
    return folder


def coco(folder: Path) -> Path:
    boxes = [(x - 3.0, y - 3.0, 6.0, 6.0) for x, y in AT]
    path = folder.with_suffix(".json")
    write_coco(path, {f"somewhere/{name}.tif": boxes[:count] for name, count in MARKED.items()}, SIDE)
    return path


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    "layout", [tables, in_sub_folders, masks, masks_beside_images, yolo, beside_scans, coco, coco_in_a_folder]
)
@pytest.mark.parametrize("are_empty", [False, True], ids=["unknown", "empty_images"])
def test_check_and_evaluate_answer_the_same_of_the_same_files(
    tmp_path: Path, layout: Callable[[Path], Path], are_empty: bool
) -> None:
    pictures, truth = images(tmp_path / "images"), layout(tmp_path / "truth")
    gathered = gather([pictures, truth], AnnotationOptions(empty_images=are_empty))
    trained = {Path(source.name).stem: int(source.kept.sum()) for source in gathered.sources}

    everywhere = {f"{name}.tif": [(1.0, 1.0, 2.0, 2.0)] for name in (*MARKED, UNKNOWN)}
    write_coco(tmp_path / "found.json", everywhere, SIDE)
    near = Criterion("distance", Length(3.0, "px"))
    done = evaluate(tmp_path / "found.json", truth, image=[pictures], criterion=near, empty_images=are_empty)
    judged = {unit.name: unit.rates.n_truths for unit in done.units}

    assert trained == judged == MARKED | ({UNKNOWN: 0} if are_empty else {})


def test_detections_of_a_mixed_folder_are_the_outputs_of_scans(tmp_path: Path) -> None:
    folder = beside_scans(images(tmp_path / "all"))
    assert set(opened(folder, are_detections=True).names) == {f"{name}.csv" for name in (*MARKED, UNKNOWN)}
    assert set(opened(folder).names) == {f"{name}.csv" for name in MARKED}


def test_one_of_several_files_for_an_image_is_said(tmp_path: Path) -> None:
    write_points(tmp_path / "a.csv", AT[:1])
    (tmp_path / "a.geojson").write_text('{"type": "FeatureCollection", "features": []}', encoding="utf-8")
    folder = opened(tmp_path)
    found = folder.of("a.tif", Grid(SIDE, SIDE), is_one=True)
    assert found is not None
    assert len(found.layer) == 1
    (note,) = folder.notes(["a.tif"])
    assert str(note) == "a.csv: it was read for a.tif; not read: a.geojson."


def test_a_file_of_two_images_of_one_name_is_doubtful(tmp_path: Path) -> None:
    write_points(tmp_path / "a.csv", AT[:1])
    folder = opened(tmp_path)
    for image in ("north/a.tif", "south/a.tif"):
        assert folder.of(image, Grid(SIDE, SIDE), is_one=False) is not None
    assert [note.code for note in folder.notes([])] == ["annotations-shared"]


def test_folders_tell_images_of_one_name_apart(tmp_path: Path) -> None:
    for count, place in enumerate(("north", "south"), start=1):
        write_points(tmp_path / place / "a.csv", AT[:count])
    folder = opened(tmp_path)
    found = [
        folder.of(f"/data/{place}/a.tif", Grid(SIDE, SIDE), is_one=False) for place in ("north", "south")
    ]
    assert [0 if each is None else len(each.layer) for each in found] == [1, 2]
    with pytest.raises(LayerError, match=r"2 files for a\.tif"):
        folder.of("a.tif", Grid(SIDE, SIDE), is_one=False)


def test_sizes_stated_for_another_picture_are_refused_in_a_file_about_many(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    write_coco(path, {"a.tif": [(1, 1, 5, 5)], "b.tif": [(1, 1, 5, 5)]}, SIDE)
    file = opened(path)
    assert file.of("a.tif", Grid(SIDE, SIDE), is_one=False) is not None
    with pytest.raises(LayerError, match="Sizes differ"):
        file.of("b.tif", Grid(2 * SIDE, SIDE), is_one=False)


def test_what_a_file_about_many_leaves_out_is_said(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    write_coco(path, {"a.tif": [(1, 1, 5, 5)], "b.tif": [(1, 1, 0, 0), (1, 1, 5, 5)]}, SIDE)
    for name in "ab":
        write_raster(tmp_path / f"{name}.tif", noise(3, SIDE, SIDE))
    notes = [str(note) for note in gather([tmp_path], AnnotationOptions()).notes]
    assert any("1 annotation left out" in note for note in notes), notes
    assert not any("coordinates are pixels" in note for note in notes)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_doubtful_ones_are_doubtful_in_training_and_in_evaluation(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "a.tif", noise(3, SIDE, SIDE), gsd_m=None)
    truth = write_points(tmp_path / "truth.csv", AT, ignore=["no", "yes", 0])
    (source,) = gather([image, truth], AnnotationOptions()).sources
    assert source.kept.tolist() == [True, False, True]
    done = evaluate(truth, truth, image=[image], criterion=Criterion("distance", Length(3.0, "px")))
    assert (done.rates.n_truths, done.ignored) == (2, 1)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("shrub\n", encoding="utf-8")
    with pytest.raises(LayerError, match="holds no file of features"):
        AnnotationFolder(tmp_path)


def test_exchanged_coordinates_are_said_of_several_rasters(tmp_path: Path) -> None:
    grids = [
        Grid(SIDE, SIDE, (0.1, 0.0, 404_000.0 + 10 * step, 0.0, -0.1, 3_285_000.0), CRS.from_epsg(32617))
        for step in range(2)
    ]
    points = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": grid.to_lonlat([AT[0]])[0, ::-1].tolist()},
        }
        for grid in grids
    ]
    path = tmp_path / "field.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": points}))
    there = opened(path)
    for grid in grids:
        found = there.of("ortho.tif", grid, is_one=False)
        assert found is not None
        assert shapely.distance(found.layer.in_pixels(grid), shapely.Point(AT[0])).max() < 1e-3
        assert [note.code for note in found.layer.notes] == ["coordinates-exchanged"]


def test_what_a_scan_says_is_read_once_however_many_images_it_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_points(tmp_path / "found.csv", AT)
    reads = []
    monkeypatch.setattr(
        "ecodetect.formats.files.read_metadata", lambda path: reads.append(path) or {"settings": {}}
    )
    found = opened(tmp_path / "found.csv")
    assert [found.metadata for _ in range(3)] == [{"settings": {}}] * 3
    assert len(reads) == 1
