"""The page "Write a detector": its detectors, installed as another package's, keep to what ours keep to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "detectors" / "writing.md"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on which to put PYTHONPATH: the page's files, and their entry points."""
    folder = tmp_path_factory.mktemp("plugin")
    text = PAGE.read_text(encoding="utf-8")
    for name, code in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        (folder / name).write_text(code, encoding="utf-8")
    found = re.search(r'^\[project\.entry-points\."(.*?)"\]\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
    assert found is not None
    facts = folder / "my_detectors-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: my_detectors\nVersion: 1\n")
    (facts / "entry_points.txt").write_text(f"[{found[1]}]\n" + found[2].replace('"', ""))
    return folder


def run(package: Path, code: str) -> str:
    paths = os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_detector_of_another_package_is_known_by_its_name(package: Path) -> None:
    code = "from ecodetect.detectors.table import describe as d; print(d('dark').purpose, *d('dark').options)"
    assert run(package, code).strip() == "Boxes around what is darker than a level. level largest_px"


def test_the_detector_of_thirty_lines_keeps_to_all(package: Path) -> None:
    run(package, "from ecodetect import testing; testing.check_detector('dark')")


def test_the_one_that_learns_keeps_to_all_and_finds_what_it_has_learned(package: Path) -> None:
    pytest.importorskip("torch")
    code = """
from ecodetect import testing
from ecodetect.detectors.table import network_kind
testing.check_detector("spots")
kind, sample = network_kind("spots"), testing.discs()
card = testing.small_card(kind)
(answer,) = kind.decode([kind.targets(sample, card)["heat"][None]], card)
testing.assert_found(answer, sample, share=1.0)
"""
    run(package, code)


def test_a_module_that_declares_nothing_is_said_in_one_sentence(package: Path) -> None:
    (package / "empty.py").write_text("")
    entries = package / "my_detectors-1.dist-info" / "entry_points.txt"
    entries.write_text(entries.read_text() + "empty = empty\n")
    code = """
from ecodetect.detectors.table import describe
from ecodetect.errors import UserError
try:
    describe("empty")
except UserError as error:
    print(error)
"""
    assert "'empty' that is installed as empty declares no KIND" in run(package, code)
