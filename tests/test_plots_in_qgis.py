"""A file of plots in QGIS itself, driven by its editing API; skipped where there is no QGIS."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from little_scene import write_scene

import ecodetect

PYTHON = "/usr/bin/python3"  # the system's, for which distributions build QGIS
REVIEW = Path(__file__).with_name("qgis_review.py")


def in_qgis(*arguments: object) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [PYTHON, *map(str, arguments)],
        env={**clean, "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, object]]]:
    """Plots that were checked in QGIS, and what it showed."""
    if not Path(PYTHON).exists() or in_qgis("-c", "import qgis.core").returncode:
        pytest.skip("QGIS's Python isn't installed")
    folder = tmp_path_factory.mktemp("qgis")
    write_scene(folder / "scene.tif", spots=60)
    asked = ecodetect.Settings(model="threshold", options={"min_area": "10px"})
    ecodetect.scan_files([folder / "scene.tif"], asked, str(folder / "found.gpkg"))
    done = ecodetect.plots(folder / "found.gpkg", n=20, size="2m")
    assert done.path is not None
    shown = in_qgis(REVIEW, done.path)
    assert shown.returncode == 0, shown.stderr
    return done.path, json.loads(shown.stdout)


def test_forms_drop_downs_and_default_values_are_there_by_themselves(
    reviewed: tuple[Path, dict[str, dict[str, object]]],
) -> None:
    _, shown = reviewed
    plots, individuals = (shown[name]["fields"] for name in ("plots", "individuals"))
    assert isinstance(plots, dict)
    assert isinstance(individuals, dict)
    assert plots["state"]["widget"] == "ValueMap"
    assert plots["state"]["choices"] == ["to do", "done", "unusable"]
    assert plots["plot"]["alias"] == "Plot, in the order to check"
    assert plots["plot"]["read_only"]
    assert not plots["checker"]["read_only"]
    assert individuals["verdict"]["choices"] == ["unchecked", "right", "false", "unsure"]
    assert individuals["verdict"]["default"] == "'right'"
    assert individuals["label"]["choices"] == ["object"]
    assert individuals["label"]["default"] == "'object'"
    assert individuals["id"]["read_only"]


def test_states_and_verdicts_have_their_colours(reviewed: tuple[Path, dict[str, dict[str, object]]]) -> None:
    _, shown = reviewed
    assert shown["plots"]["values"] == ["to do", "done", "unusable", ""]
    assert shown["plots"]["labels"]
    assert shown["individuals"]["values"] == ["unchecked", "right", "false", "unsure", "added", ""]


def test_what_was_checked_in_qgis_is_estimated(reviewed: tuple[Path, dict[str, dict[str, object]]]) -> None:
    path, _ = reviewed
    found = ecodetect.estimate(path)
    assert found.checkers == ("Ann",)
    assert len(found.used) == 20
    y, x, missed, false = (sum(row.counts["object"][at] for row in found.plots) for at in range(4))
    assert (missed, false) == (1, 2)  # one added; one false and one deleted
    assert y == x - 1
    assert found.plots[0].counts["object"][2] == 1
    assert ecodetect.more_plots(path, 5).plots == 25
