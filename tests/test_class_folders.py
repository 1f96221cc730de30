"""Pictures in folders by class: what is found, what training sees, and a classifier that learns them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import Run
from PIL import Image

pytest.importorskip("torch")

from ecodetect.annotations.class_folders import (
    ClassPictures,
    DrawnPatches,
    are_classes,
    gather_classes,
    pictures,
)
from ecodetect.annotations.contract import contract
from ecodetect.annotations.dataset import Dataset
from ecodetect.bundle import file as bundle
from ecodetect.errors import UserError
from ecodetect.training import planning

SIDE = 48


def drawn(folder: Path, per_class: int, seed: int = 0) -> Path:
    """Pictures of stripes, of dots, and of nothing but noise, each in its folder."""
    rng = np.random.default_rng(seed)
    for name in ("dots", "plain", "stripes"):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.normal(110, 12, (SIDE, SIDE, 3))
            if name == "stripes":
                pixels[:, rng.integers(0, 6) :: 6] += 70
            elif name == "dots":
                for x, y in rng.integers(4, SIDE - 4, (6, 2)):
                    pixels[y - 3 : y + 3, x - 3 : x + 3] += 80
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def test_folders_of_pictures_are_classes(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "set", 2)
    assert are_classes([folder])
    assert {name: len(paths) for name, paths in pictures(folder).items()} == {
        "dots": 2, "plain": 2, "stripes": 2,
    }  # fmt: skip
    assert not are_classes([folder / "dots"])  # pictures, but no classes
    assert not are_classes([tmp_path / "nothing"])


def test_train_and_val_are_parts_of_one_set(tmp_path: Path) -> None:
    drawn(tmp_path / "set" / "train", 3)
    drawn(tmp_path / "set" / "val", 2, seed=1)
    assert {len(paths) for paths in pictures(tmp_path / "set").values()} == {5}
    assert are_classes([tmp_path / "set"])


def test_images_beside_annotations_are_no_classes(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "a.png")
    assert not are_classes([tmp_path])


def test_a_class_with_one_picture_is_refused(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "set", 2)
    (folder / "dots" / "1.png").unlink()
    with pytest.raises(UserError, match=r"'dots' in .* has 1 picture"):
        gather_classes(folder)


def test_every_picture_is_one_individual_of_one_size(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "set", 2)
    Image.new("RGB", (90, 60), (90, 120, 90)).save(folder / "plain" / "wide.png")
    sources = gather_classes(folder).sources
    made, _ = contract(sources, typical_px=64.0, scaling="fixed")
    data = Dataset(sources, made)
    patches = ClassPictures(data, 64)
    assert len(patches) == 7
    for each in patches:
        assert each.image.shape == (3, 64, 64)
        assert each.valid.all()
        assert each.known.all()
        assert len(each.objects) == 1
        assert each.objects.box[0].tolist() == [0, 0, 64, 64]
    wider = DrawnPatches(data, None, 64, 80).chip(np.random.default_rng(0))
    assert wider.image.shape == (3, 80, 80)
    assert wider.valid.all()  # turned pictures have corners


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "LEAST_STEPS", 90)
    monkeypatch.setattr(planning, "PASSES", 4)
    monkeypatch.setattr(planning, "EPOCHS", 3)
    monkeypatch.setattr(planning, "STEP_PX", 16 * 64 * 64)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_classifier_learns_pictures_by_class(ecodetect: Run, tmp_path: Path) -> None:
    drawn(tmp_path / "set" / "train", 16)
    drawn(tmp_path / "set" / "val", 6, seed=1)
    out = tmp_path / "kinds.safetensors"
    done = ecodetect("train", tmp_path / "set", "-o", out, "-q", "--set", "smoothing=0.1")
    assert done.code == 0, done.err
    card = bundle.read_card(out)
    assert card.classes == ("dots", "plain", "stripes")
    assert card.detector == "sliding_window"
    assert card.options["patches"]
    assert card.options["smoothing"] == 0.1
    assert card.options["temperature"] > 0
    assert card.metrics[0]["n"] == 18
    assert card.thresholds["f1"] == (0.0, 0.0, 0.0)  # every picture has an answer
    assert card.metrics[0]["f1"] > 0.6  # of three kinds, by a network that has just begun


def test_others_than_a_classifier_refuse_classes(ecodetect: Run, tmp_path: Path) -> None:
    folder = drawn(tmp_path / "set", 2)
    done = ecodetect("train", folder, "-m", "yolo", "-o", tmp_path / "x.safetensors")
    assert done.code == 2
    assert "in folders by class, which yolo can't learn from" in done.err


def test_a_detector_without_settings_of_training_says_so(ecodetect: Run, tmp_path: Path) -> None:
    folder = drawn(tmp_path / "set", 2)
    done = ecodetect("train", folder, "-o", tmp_path / "x.safetensors", "--set", "windw=8m")
    assert done.code == 2
    assert "did you mean window?" in done.err


def test_a_learner_can_decide_by_the_features_of_a_backbone(ecodetect: Run, tmp_path: Path) -> None:
    drawn(tmp_path / "set" / "train", 5)
    drawn(tmp_path / "set" / "val", 3, seed=1)
    out = tmp_path / "kinds.safetensors"
    flags = ("--backbone", "mobilenet_v2", "--weights", "none", "--set", "head=knn")
    done = ecodetect("train", tmp_path / "set", "-o", out, *flags)
    assert done.code == 0, done.err
    made = bundle.read(out)
    assert made.card.options["learner"]["kind"] == "knn"
    assert made.card.metrics[0]["n"] == 9
    picture = tmp_path / "set" / "val" / "stripes" / "0.png"
    assert ecodetect("scan", picture, "-m", out, "-o", tmp_path / "found.csv").code == 0
    assert len((tmp_path / "found.csv").read_text().splitlines()) == 2  # one window, one answer
    refused = ecodetect("train", tmp_path / "set", "-o", tmp_path / "x.safetensors", "--set", "head=knn")
    assert refused.code == 2
    assert "a backbone; name one (--backbone)" in refused.err
