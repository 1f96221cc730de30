"""--strict: who can't read notes, such as a script, is told by the exit code that an answer is doubtful."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest
import rasterio
from command_line import Run
from ecodetect_cli import main as main_module
from ecodetect_cli.main import COMMANDS


def raster(path: Path, **tags: str) -> Path:
    pixels = np.full((80, 80), 200, np.uint8)
    pixels[20:32, 20:32] = pixels[50:62, 50:62] = 40
    profile = {"driver": "GTiff", "width": 80, "height": 80, "count": 1, "dtype": "uint8", **tags}
    with rasterio.open(
        path, "w", transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6), crs=32632, **profile
    ) as file:
        file.write(pixels, 1)
    return path


@pytest.fixture
def sure(tmp_path: Path) -> dict[str, Path]:
    table = tmp_path / "a.csv"
    table.write_text("x,y,label,radius_px\n26.5,26.5,a,6\n56.5,56.5,a,6\n")
    return {"image": raster(tmp_path / "a.tif"), "table": table}


@pytest.fixture
def doubtful(tmp_path: Path) -> dict[str, Path]:
    """Low values are bright, and a row can't be read."""
    table = tmp_path / "b.csv"
    table.write_text("x,y,label,radius_px\n26.5,26.5,a,6\n56.5,56.5,a,6\n56.5,nowhere,a,6\n")
    return {"image": raster(tmp_path / "b.tif", photometric="MINISWHITE"), "table": table}


def calls(folder: Path, image: Path, table: Path) -> dict[str, list[object]]:
    return {
        "scan": ["scan", image, "-m", "threshold", "-o", folder / "out.gpkg"],
        "scan -q": ["scan", image, "-m", "threshold", "-o", folder / "quiet.gpkg", "-q"],
        "scan --json": ["scan", image, "-m", "threshold", "-o", folder / "json.gpkg", "--json"],
        "scan --dry-run": ["scan", image, "-m", "threshold", "-o", folder / "dry.gpkg", "--dry-run"],
        "candidates": ["candidates", image, "-o", folder / "patches.gpkg"],
        "convert": ["convert", table, folder / "out.geojson", "--image", image],
        "evaluate": ["evaluate", table, table, "--image", image, "--json"],
        "check": ["check", image, table, "-m", "heatmap", "--json"],
        "info": ["info", image],
    }


@pytest.mark.parametrize("name", calls(Path(), Path(), Path()))
def test_a_doubt_is_an_exit_code_and_the_work_is_done(
    ecodetect: Run, sure: dict[str, Path], doubtful: dict[str, Path], tmp_path: Path, name: str
) -> None:
    codes = []
    for number, inputs in enumerate((doubtful, sure)):
        folder = tmp_path / str(number)
        folder.mkdir()
        words = calls(folder, **inputs)[name]
        codes.append(ecodetect(*words, "--strict").code)
        written = [word for word in words if isinstance(word, Path) and word.parent == folder]
        assert all(path.exists() for path in written) or "--dry-run" in words
    assert codes == [3, 0]
    again = tmp_path / "again"
    again.mkdir()
    assert ecodetect(*calls(again, **doubtful)[name]).code == 0  # unasked a doubt is a note only


def test_json_gives_the_doubts_to_act_on(ecodetect: Run, doubtful: dict[str, Path], tmp_path: Path) -> None:
    for name in ("scan --json", "evaluate", "check"):
        found = json.loads(ecodetect(*calls(tmp_path, **doubtful)[name]).out)
        notes = (found[0] if isinstance(found, list) else found)["notes"]
        assert {"low-is-bright", "features-unusable"} & {n["code"] for n in notes if n["kind"] == "doubt"}, (
            name
        )


def test_every_command_that_says_notes_has_it() -> None:
    for name, (module, _, _) in COMMANDS.items():
        command = main_module.cli.get_command(click.Context(main_module.cli), name)
        assert command is not None
        source = Path(__import__(module, fromlist=["_"]).__file__).read_text(encoding="utf-8")
        says = "options.tell" in source or "say_converted" in source or "report(" in source
        assert says == any("--strict" in parameter.opts for parameter in command.params), name
