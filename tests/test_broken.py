"""Files that once broke a command, found by `benchmarks/robustness/`: now an answer, or one sentence.

They lie in `broken/`: `rasters/` in a folder each, with the files beside them; `cards/`, put into a bundle
here; `models/`; `layers/`, in a folder each. What is found again goes there too, as small as it can be made.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import Run
from safetensors.numpy import save_file
from training_sets import noise, write_raster

from ecodetect.bundle.file import KEY
from ecodetect.formats import files as formats

BROKEN = Path(__file__).parent / "broken"
OURS = ("error: ", "warning: ", "note: ")


def test_rasters(tmp_path: Path) -> None:
    shutil.copytree(BROKEN / "rasters", tmp_path / "rasters")
    for packed in (tmp_path / "rasters").rglob("*.gz"):  # databases are mostly zeros
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".xml")
    assert len(files) > 5
    command = [sys.executable, "-m", "ecodetect_cli", "scan", *map(str, files), "-m", "threshold", "-q"]
    done = subprocess.run([*command, "-o", f"{tmp_path}/out/"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert not done.stdout
    *lines, end = done.stderr.splitlines()
    assert end.endswith(f"of {len(files)} rasters couldn't be scanned.")
    assert all(line.startswith(OURS) for line in lines), done.stderr
    refused = [line for line in lines if line.startswith("error: ")]
    assert len(refused) + len(list((tmp_path / "out").rglob("*.geojson"))) == len(files)


@pytest.mark.parametrize("folder", sorted((BROKEN / "layers").iterdir()), ids=lambda folder: folder.stem)
def test_layers(ecodetect: Run, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "layer")
    for packed in (tmp_path / "layer").glob("*.gz"):  # databases are mostly zeros
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    suffixes = formats.suffixes(writing=False)
    (path,) = (path for path in (tmp_path / "layer").iterdir() if path.suffix in suffixes)
    began = time.process_time()
    done = ecodetect("info", path)
    assert time.process_time() - began < 8  # seconds of a core, in which most files are read a thousand times
    assert done.code in (0, 2), done.err
    assert all(line.startswith(OURS) for line in done.err.splitlines())


def assert_refused(ecodetect: Run, model: Path, folder: Path) -> None:
    """One sentence, and nothing written."""
    raster = write_raster(folder / "a.tif", noise(4, 64, 64))
    for arguments in (
        ("scan", raster, "-m", model, "-o", folder / "out.csv", "--bands", "red=1,green=2,blue=3,nir=4"),
    ):
        done = ecodetect(*arguments)
        assert done.code == 2, done.err
        assert done.err.startswith("error: ")
        assert len(done.err.splitlines()) == 1
    assert not (folder / "out.csv").exists()


@pytest.mark.parametrize("path", sorted((BROKEN / "cards").iterdir()), ids=lambda path: path.stem)
def test_cards(ecodetect: Run, path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "m.safetensors", metadata={KEY: text})
    assert_refused(ecodetect, tmp_path / "m.safetensors", tmp_path)


@pytest.mark.parametrize("path", sorted((BROKEN / "models").iterdir()), ids=lambda path: path.stem)
def test_models(ecodetect: Run, path: Path, tmp_path: Path) -> None:
    shutil.copyfile(path, tmp_path / path.name)
    assert_refused(ecodetect, tmp_path / path.name, tmp_path)
