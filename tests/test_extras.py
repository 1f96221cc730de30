"""What a package that isn't installed costs: one sentence with the command that installs it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click
import learned
import pytest
from command_line import Run
from ecodetect_cli import main as main_module

from ecodetect.bundle import file as bundle
from ecodetect.errors import PackageError
from ecodetect.extras import check_installed, import_failure

TRAIN = 'pip install "ecodetect[train]"'


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "torchvision", "sklearn", "onnx"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without a graph."""
    model = tmp_path_factory.mktemp("models") / "old.safetensors"
    bundle.write(model, learned.bundle(learned.card()))
    return model


@pytest.fixture
def scene(corners: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(corners / "dryland.tif", tmp_path))


@pytest.mark.parametrize("flags", [[], ["--dry-run"], ["--picture", "map.png"]])
def test_a_scan_with_a_model_without_a_graph_says_what_to_install(
    ecodetect: Run, scene: Path, old: Path, no_torch: None, flags: list[str]
) -> None:
    done = ecodetect("scan", scene, "-m", old, "--bands", "red,green,blue,nir=1", *flags)
    assert done.code == 2
    (line,) = [line for line in done.err.splitlines() if line.startswith("error")]
    assert "has no graph for ONNX Runtime, so it needs torch, which isn't installed" in line
    assert TRAIN in line
    assert "ecodetect export" in line  # what to do without
    assert list(scene.parent.iterdir()) == [scene]


def test_it_is_said_once_for_many_rasters(ecodetect: Run, scene: Path, old: Path, no_torch: None) -> None:
    shutil.copy(scene, scene.with_name("other.tif"))
    done = ecodetect("scan", scene.parent, "-m", old, "--bands", "red,green,blue,nir=1")
    assert (done.code, done.err.count("needs torch")) == (2, 1)


@pytest.mark.usefixtures("no_torch")
def test_other_commands_say_it_too(ecodetect: Run, corners: Path, tmp_path: Path) -> None:
    pair = (corners / "dryland.tif", corners / "dryland_shrubs.geojson")
    for words in (
        ("train", *pair, "-o", tmp_path / "m.safetensors"),
        ("export", "shrubs", "-o", tmp_path / "m.onnx"),
    ):
        done = ecodetect(*words)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "which isn't installed" in done.err or "which aren't installed" in done.err
        assert "pip install" in done.err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("No module named 'torch'", name="torch"), TRAIN),
        (ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"), TRAIN),
        (ModuleNotFoundError("No module named 'rasterio'", name="rasterio"), "pip install ecodetect."),
    ],
)
def test_an_import_that_fails_anywhere_is_such_a_sentence(
    ecodetect: Run, monkeypatch: pytest.MonkeyPatch, error: ImportError, said: str
) -> None:
    def action() -> None:
        raise error

    monkeypatch.setattr(
        main_module.LazyGroup, "get_command", lambda *_: click.Command("doctor", callback=action)
    )
    monkeypatch.setitem(sys.modules, str(error.name).partition(".")[0], None)
    done = ecodetect("doctor")
    assert done.code == 2
    assert said in done.err
    assert "internal" not in done.err


@pytest.mark.parametrize("name", ["torch._C", "onnxruntime.capi.onnxruntime_pybind11_state"])
def test_a_package_that_is_there_but_broken_is_to_be_installed_anew(name: str) -> None:
    failed = import_failure(ImportError("libc10.so: cannot open", name=name))
    assert failed is not None
    assert f"{name.split('.')[0]} is installed, but can't be loaded (libc10.so: cannot open)" in str(failed)


@pytest.mark.parametrize("name", ["ecodetect.nowhere", "json.nowhere", None])
def test_a_fault_of_ours_stays_one(name: str | None) -> None:
    assert import_failure(ImportError("no", name=name)) is None


def test_several_packages_are_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PackageError, match=r'^It needs torch and onnx, .* "ecodetect\[train\]"\.$'):
        check_installed("It", "torch", "onnx")


def test_what_comes_with_ecodetect_needs_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PackageError, match=r"^It needs onnxruntime, .*: pip install ecodetect\.$"):
        check_installed("It", "onnxruntime")
