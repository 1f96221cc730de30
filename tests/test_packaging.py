"""What is installed is what is in the tree: no module or data file silently stays out of the wheel."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import source_tree
from source_tree import PACKAGES, ROOT


def tree() -> set[str]:
    """Every file of the packages, named as in the wheel."""
    return {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != ".DS_Store"
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built as `pip install .` builds it, from the source distribution as on an index."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_the_tree(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
        information = {name.split("/", 1)[1]: name for name in archive.namelist() if ".dist-info/" in name}
        assert "licenses/LICENSE" in information
        entries = archive.read(information["entry_points.txt"]).decode()
    assert sorted(tree() - files) == []  # left out: a pattern in [tool.setuptools.package-data] is missing
    assert sorted(files - tree()) == []  # too much: tests or something stale from build/
    assert "ecodetect = ecodetect_cli.main:main" in entries


@pytest.mark.slow
def test_the_wheel_runs_without_the_tree(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    source = (
        "import sys; sys.path.insert(0, sys.argv.pop()); import ecodetect; print(ecodetect.__file__)\n"
        "from ecodetect_cli.main import main; sys.exit(main(['--version']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", source, str(tmp_path)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout.splitlines()[0]


def test_each_folder_with_modules_is_a_package() -> None:
    """Without `__init__.py` a folder works in the tree and is missing from the wheel."""
    folders = {path.parent for folder in PACKAGES.values() for path in folder.rglob("*.py")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_the_command_is_installed() -> None:
    (entry,) = entry_points(group="console_scripts", name="ecodetect")
    assert entry.value == "ecodetect_cli.main:main"


def test_the_command_line_is_imported_by_one_name_only() -> None:
    """`import cli` works from the root of the tree, and makes second copies of the modules."""
    wrong = re.compile(r"^\s*(from|import) cli\b", re.MULTILINE)
    folders = ("benchmarks", "cli", "docs", "ecodetect", "recipes", "sample_data", "tests")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert [str(path) for path in paths if wrong.search(path.read_text(encoding="utf-8"))] == []


def test_every_import_is_a_declared_dependency() -> None:
    """Not one that happens to be there because another needs it."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = re.findall(r"^(?:dependencies|train) = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
    names = {name.lower() for part in lists for name in re.findall(r"""["']([A-Za-z0-9_-]+)[<>=~]""", part)}
    modules = {"opencv-python-headless": "cv2", "pillow": "PIL", "scikit-image": "skimage"}
    declared = {modules.get(name, name) for name in names} | set(sys.stdlib_module_names) | set(PACKAGES)
    imported: dict[str, str] = {}
    for module, (_, source) in source_tree.modules().items():
        for each in source_tree.imports(source):
            names = each.names if each.module is None else (each.module,) if not each.level else ()
            imported.update({name.split(".")[0]: module for name in names})
    assert {name: path for name, path in imported.items() if name not in declared} == {}
