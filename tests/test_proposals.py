"""What a threshold proposes and a classifier confirms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run
from learned import PROPOSER, bundle, card

torch = pytest.importorskip("torch")

from training_sets import write_raster  # noqa: E402

from ecodetect.annotations.sample import Objects, Sample  # noqa: E402
from ecodetect.bundle import file as files  # noqa: E402
from ecodetect.bundle.card import Scaling  # noqa: E402
from ecodetect.chip import Chip  # noqa: E402
from ecodetect.detectors import proposals, sliding_window, window_networks  # noqa: E402
from ecodetect.detectors.learned import Wishes  # noqa: E402
from ecodetect.detectors.learned_detector import LearnedDetector  # noqa: E402
from ecodetect.detectors.protocol import Scene  # noqa: E402
from ecodetect.errors import UserError  # noqa: E402
from ecodetect.grid import Grid, Window  # noqa: E402
from ecodetect.runtime import torch_network  # noqa: E402
from ecodetect.training import planning  # noqa: E402

RGB = ("red", "green", "blue")
SCENE = Scene(RGB, None, "uint8", (0.0, 255.0))
SIDE = 160
DISCS = np.array([[40.0, 40.0], [110.0, 60.0], [70.0, 120.0]])


def ground(dark: Any = DISCS, radius: float = 9.0) -> Any:
    """Light ground with dark discs, uint8 (3, H, W)."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    pixels = np.full((SIDE, SIDE), 170.0) + np.random.default_rng(0).normal(0, 3, (SIDE, SIDE))
    for centre in dark:
        pixels[np.hypot(x - centre[0], y - centre[1]) < radius] = 60
    return np.clip(np.stack([pixels] * 3), 0, 255).astype(np.uint8)


def model(**options: Any) -> Any:
    return bundle(
        replace(
            card("proposals", options=options),
            bands=RGB,
            scaling=Scaling(offset=(120.0,) * 3, span=(40.0,) * 3),
            largest=60.0,
        )
    )


def ready(made: Any, chip: Chip) -> LearnedDetector:
    return proposals.build(proposals.Options(), SCENE, made).surveyed([chip])


def chip_of(pixels: Any) -> Chip:
    return Chip(pixels, None, RGB, Window(0, 0, SIDE, SIDE), Grid(SIDE, SIDE))


def test_individuals_are_what_is_proposed_with_the_classifiers_score() -> None:
    chip = chip_of(ground())
    detector = ready(model(), chip)
    (found,) = detector.detect([chip])
    assert found.kind == "polygon"
    nearest = np.linalg.norm(found.centres()[:, None] - DISCS, axis=2)
    assert sorted(nearest.argmin(axis=1).tolist()) == [0, 1, 2]
    assert nearest.min(axis=1).max() < 1.5
    image = detector.image_of(chip)
    made = model()
    network = window_networks.network(made.card).eval()
    torch_network.load(network, made.weights, name="shrubs")
    for (x, y), score in zip(found.centres(), found.score, strict=True):
        left, top = round(x) - 32, round(y) - 32
        padded = np.pad(image, [(0, 0), (32, 32), (32, 32)])
        window = padded[:, top + 32 : top + 96, left + 32 : left + 96]
        with torch.inference_mode():
            logits = network.classifier(torch.from_numpy(window)[None])[0, :, 0, 0].numpy()
        likely = sliding_window.probability(logits[:, None], detector.card)
        assert score == pytest.approx(float(likely.max()), abs=1e-4)


def test_what_is_not_proposed_is_not_found() -> None:
    level = {**PROPOSER, "level": 100, "objects": "dark"}
    chip, empty = chip_of(ground()), chip_of(ground(dark=[]))
    detector = ready(model(proposer=level), chip)
    assert [len(found) for found in detector.detect([chip, empty])] == [3, 0]


def sample(boxes: Any) -> Sample:
    box = np.asarray(boxes, np.float64).reshape(-1, 4)
    yes = np.ones((SIDE, SIDE), bool)
    image = (ground().astype(np.float32) - 120) / 40
    objects = Objects((box[:, :2] + box[:, 2:]) / 2, box, np.zeros(len(box), np.int64), np.zeros(len(box)))
    return Sample(image, yes, yes, ~yes, objects)


def test_the_card_says_what_share_is_proposed() -> None:
    around = np.concatenate([DISCS - 9, DISCS + 9], axis=1)
    nothing_there = [[130.0, 130.0, 150.0, 150.0]]
    told = proposals.measured(model(), [sample(np.concatenate([around, nothing_there]))])
    assert told["n"] == 4
    assert told["recall"] == 0.75


def test_sizes_of_proposals_come_from_the_annotations() -> None:
    options = proposals.card_options(np.linspace(20, 40, 50), np.full(50, 60.0))
    assert 9 < options["proposer"]["smallest_px"] < 12
    assert 70 < options["proposer"]["largest_px"] < 80
    with pytest.raises(UserError, match="proposals learns boxes"):
        proposals.card_options(np.full(9, np.nan), np.full(9, 60.0))


def test_no_learner_decides_about_proposals() -> None:
    with pytest.raises(UserError, match="leave out head=svm"):
        proposals.TrainingOptions(head="svm")


def test_selective_search_can_propose() -> None:
    wished = Wishes(training=proposals.TrainingOptions(proposer="selective_search"))
    options = proposals.card_options(np.full(9, 20.0), np.full(9, 60.0), wished)
    chip = chip_of(ground())
    (found,) = ready(model(proposer=options["proposer"]), chip).detect([chip])
    for centre in DISCS:
        assert np.linalg.norm(found.centres() - centre, axis=1).min() < 3


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "LEAST_STEPS", 40)
    monkeypatch.setattr(planning, "PASSES", 1)
    monkeypatch.setattr(planning, "EPOCHS", 2)
    monkeypatch.setattr(planning, "STEP_PX", 2 * 160 * 160)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_it_is_trained_on_shrubs_and_leaves_the_stones(ecodetect: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    side = 480
    y, x = np.mgrid[:side, :side] + 0.5
    pixels = rng.normal(170, 4, (3, side, side))
    rows = ["xmin,ymin,xmax,ymax,label"]
    places = [(i * 48 + 24.0, j * 48 + 24.0) for i in range(10) for j in range(10)]
    for number, (left, top) in enumerate(places):
        inside = np.hypot(x - left, y - top) < 9
        pixels[:, inside] = 60 + rng.normal(0, 3, (3, int(inside.sum())))
        if number % 2:  # shrubs are green, stones are not
            pixels[1, inside] += 50
            rows.append(f"{left - 9},{top - 9},{left + 9},{top + 9},shrub")
    image = write_raster(tmp_path / "plot.tif", np.clip(pixels, 0, 255).astype(np.uint8))
    (tmp_path / "shrubs.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "shrubs.safetensors"
    done = ecodetect("train", image, tmp_path / "shrubs.csv", "-m", "proposals", "-o", out, "-q")
    assert done.code == 0, done.err
    made = files.read_card(out)
    assert made.metrics[0]["f1"] > 0.8
    assert made.metrics[1]["recall"] > 0.9
    found = ecodetect("scan", image, "-m", out, "-o", tmp_path / "found.geojson")
    assert found.code == 0, found.err
    judged = ecodetect(
        "evaluate", tmp_path / "found.geojson", tmp_path / "shrubs.csv", "--image", image, "--json"
    )
    assert judged.code == 0, judged.err
