"""What an installation without torch can do: all but training, with models that hold their graph."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import learned
import numpy as np
import pytest
from command_line import Run
from PIL import Image
from training_sets import noise, write_raster

from ecodetect.bundle import file as bundle
from ecodetect.bundle.card import Card

RGB = ("red", "green", "blue")
# One process in which the extra `train` isn't installed runs all, for each would take seconds to begin.
WITHOUT = """
import contextlib, io, json, sys
absent = ("torch", "torchvision", "sklearn", "onnx", "timm")
sys.modules.update(dict.fromkeys(absent))
from ecodetect_cli.main import main
found = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(words)
    found.append([code, out.getvalue(), err.getvalue()])
assert not any(sys.modules[name] for name in absent)
print(json.dumps(found))
"""


def with_graph(path: Path, card: Card) -> Path:
    from ecodetect.detectors.table import network_kind
    from ecodetect.runtime import tracing

    made, _ = tracing.with_graphs(
        learned.bundle(card), lambda: network_kind(card.detector).network(card, None)
    )
    bundle.write(path, made)
    return path


def classifier() -> Card:
    network = {"kind": "valid", "evaluation": "dense", "window": 64, "step": 8, "width": 4}
    options = {"network": network, "patches": True, "temperature": 1.0, "typical_px": 64.0}
    return learned.card(
        "sliding_window", name="kinds", bands=RGB, classes=("dark", "bright"), options=options
    )


def support_vectors(path: Path) -> Path:
    """A support vector machine that tells dark from bright by the features of a backbone at random."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from ecodetect.detectors import learners
    from ecodetect.detectors.table import network_kind
    from ecodetect.runtime import tracing

    network = {"kind": "squeezenet1_1", "evaluation": "windows", "window": 32, "step": 32}
    options = {"network": network, "patches": True, "typical_px": 32.0, "head": "svm"}
    card = learned.card("sliding_window", name="svm", bands=RGB, classes=("dark", "bright"), options=options)
    kind = network_kind("sliding_window")
    torch.manual_seed(0)
    weights = {name: each.numpy() for name, each in kind.network(card, None).state_dict().items()}
    assert kind.taught is not None
    taught, rows = kind.taught(card, weights), []
    for level in np.linspace(0, 2, 20):
        picture = np.full((3, 32, 32), level, np.float32)
        rows.append(taught.features_of(picture, np.ones((32, 32), np.bool_), card).features)
    label = np.repeat([0, 1], 10)
    learner = learners.fit("svm", np.concatenate(rows), label, len(card.classes) + 1, 0)
    made, _ = tracing.with_graphs(taught.bundled(card, learner), lambda: kind.network(card, None))
    bundle.write(path, made)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> Path:
    """Rasters, and models with their graphs."""
    pytest.importorskip("torch")
    made = tmp_path_factory.mktemp("light")
    facts = {"bands": RGB, "thresholds": {"f1": (0.2,)}}
    with_graph(made / "points.safetensors", learned.card(**facts))
    with_graph(made / "kinds.safetensors", classifier())
    bundle.write(made / "old.safetensors", learned.bundle(learned.card(**facts)))
    write_raster(made / "ortho.tif", noise(3, 150, 150))
    for number in range(2):
        (made / "by_class" / "dark").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (9, number, 9)).save(made / "by_class" / "dark" / f"{number}.png")
    for name in ("dryland.tif", "dryland_shrubs.geojson"):
        shutil.copy(sample_data / name, made)
    return made


def run(folder: Path, *calls: tuple[str, ...]) -> list[tuple[int, str, str]]:
    """Exit code, output and messages of each command without torch."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, json.dumps(calls)],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return [tuple(each) for each in found]


def test_what_training_leaves_behind_is_used_without_torch(folder: Path) -> None:
    pair = ("dryland.tif", "dryland_shrubs.geojson")
    found = run(
        folder,
        ("scan", "ortho.tif", "-m", "points.safetensors", "-o", "found.geojson", "--json"),
        ("scan", "ortho.tif", "-m", "points.safetensors", "-o", "all.csv", "--classify", "kinds.safetensors"),
        ("classify", "found.geojson", "ortho.tif", "-m", "kinds.safetensors", "-o", "named.geojson"),
        ("explain", "ortho.tif", "-m", "kinds.safetensors", "--at", "80,70", "-o", "why.png",
         "--examples", "by_class"),
        ("evaluate", "found.geojson", "found.geojson", "--within", "3px", "--image", "ortho.tif"),
        ("check", *pair, "-m", "points.safetensors"),
        ("check", *pair),
        ("info", "points.safetensors"),
        ("info", "ortho.tif"),
        ("models",),
        ("doctor",),
    )  # fmt: skip
    assert [each for each in found if each[0] != 0] == []
    (scanned,) = json.loads(found[0][1])
    assert scanned["runtime"].startswith("ONNX Runtime ")
    assert scanned["runtime"].endswith(" on the CPU")
    assert "network run by ONNX Runtime" in found[1][1]
    assert "Grad-CAM" in found[3][2]
    assert 'pip install "ecodetect[train]"' in found[3][2]
    assert "runs in     ONNX Runtime" in found[7][1]
    assert "torch          not installed" in found[10][1]


def test_what_a_learner_says_by_deep_features_is_explained_without_torch(
    folder: Path, ecodetect: Run
) -> None:
    """No gradient leads through a learner, so the picture is the same where torch is installed."""
    support_vectors(folder / "svm.safetensors")
    why = ("explain", "by_class/dark/0.png", "-m", "svm.safetensors", "--examples", "by_class", "-o")
    ((code, shown, said),) = run(folder, (*why, "without.png"))
    assert (code, "dark" in shown) == (0, True)
    assert "because a learner decides" in said
    there = [folder / word if (folder / word).exists() else word for word in why]
    assert ecodetect(*there, folder / "with.png").code == 0
    assert (folder / "without.png").read_bytes() == (folder / "with.png").read_bytes()


def test_what_needs_torch_says_so_in_one_sentence(folder: Path) -> None:
    pair = ("dryland.tif", "dryland_shrubs.geojson")
    found = run(
        folder,
        ("train", *pair, "-o", "never.safetensors"),
        ("export", "points.safetensors", "-o", "never.onnx"),
        ("scan", "ortho.tif", "-m", "old.safetensors", "-o", "never.geojson"),
    )
    for code, _, said in found:
        assert (code, said.count("\n")) == (2, 1)
        assert "which isn't installed" in said or "which aren't installed" in said
        assert 'pip install "ecodetect[train]"' in said
    assert not list(folder.glob("never*"))
