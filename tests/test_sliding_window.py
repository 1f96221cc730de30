"""Windows swept over images: exact where it is promised, one box an individual, and what windows learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from command_line import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from learned import SWEPT, VALID, bundle
from training_sets import noise, write_raster

torch = pytest.importorskip("torch")

from ecodetect.annotations.sample import Objects, Sample  # noqa: E402
from ecodetect.bundle import file as files  # noqa: E402
from ecodetect.bundle.card import Card, Scaling  # noqa: E402
from ecodetect.bundle.file import Bundle  # noqa: E402
from ecodetect.detectors import map_boxes, sliding_window  # noqa: E402
from ecodetect.detectors.learned import Wishes  # noqa: E402
from ecodetect.detectors.protocol import Scene  # noqa: E402
from ecodetect.errors import UserError  # noqa: E402
from ecodetect.networks import windows  # noqa: E402

RGB = ("red", "green", "blue")


def card(detector: str = "sliding_window", **options: Any) -> Card:
    return Card(
        name="shrubs",
        detector=detector,
        options={**SWEPT, "network": VALID, **options},
        bands=RGB,
        scaling=Scaling(offset=(0.0,) * 3, span=(1.0,) * 3),
        unit="m",
        gsd=0.25,
        largest=20.0,
        classes=("shrub", "tree"),
    )


def sample(box: Any, label: Any = None, side: int = 128, **masks: Any) -> Sample:
    edges = np.asarray(box, np.float64).reshape(-1, 4)
    everywhere = np.ones((side, side), bool)
    labels = np.zeros(len(edges), np.int64) if label is None else np.asarray(label, np.int64)
    return Sample(
        np.zeros((3, side, side), np.float32),
        masks.get("valid", everywhere),
        masks.get("known", everywhere),
        masks.get("ignored", ~everywhere),
        Objects((edges[:, :2] + edges[:, 2:]) / 2, edges, labels, np.zeros(len(edges))),
    )


def network(step: int, evaluation: str = "dense") -> Any:
    torch.manual_seed(3)
    made = windows.build({**VALID, "evaluation": evaluation, "step": step}, RGB, 3)
    return made.eval()


@pytest.mark.parametrize("step", [16, 8, 4, 2])
def test_shared_features_give_what_windows_one_by_one_give(step: int) -> None:
    dense, single = network(step), network(step, "windows")
    single.load_state_dict(dense.state_dict())
    x = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        one, other = dense(x), single(x)
    assert one.shape == (2, 3, 48 // step, 64 // step)
    assert (one - other).abs().max() < 1e-6
    assert one.std() > 1e-3


@pytest.mark.parametrize("step", [16, 8, 4])
def test_a_cell_says_what_the_window_about_its_middle_says(step: int) -> None:
    dense = network(step)
    x = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    row, column = 64 // step + 1, 64 // step - 2
    y, left = (int((cell + 0.5) * step) - 32 for cell in (row, column))
    with torch.inference_mode():
        alone = dense.classifier(x[:, :, y : y + 64, left : left + 64])[0, :, 0, 0]
        assert torch.allclose(dense(x)[0, :, row, column], alone, atol=1e-6)


@pytest.mark.parametrize(
    "kind",
    ["squeezenet1_1", *(pytest.param(k, marks=pytest.mark.slow) for k in ("googlenet", "mobilenet_v2"))],
)
def test_backbones_classify_windows_and_give_maps(kind: str) -> None:
    x = torch.zeros(1, 3, 64, 64)
    shape = {"kind": kind, "window": 64, "step": 16}
    for evaluation in ("dense", "windows"):
        made = windows.build({**shape, "evaluation": evaluation}, RGB, 5).eval()
        with torch.inference_mode():
            assert made(x).shape == (1, 5, 4, 4)
    whole = windows.build({**shape, "evaluation": "windows", "step": 64}, RGB, 5).eval()
    with torch.inference_mode():
        assert whole(x).shape == (1, 5, 1, 1)


@pytest.mark.parametrize("step", [0, -8, 65])
def test_a_step_that_cannot_be_is_refused(step: int) -> None:
    with pytest.raises(UserError, match="must be 1 to 64 px"):
        windows.build({**VALID, "evaluation": "windows", "step": step}, RGB, 3)
    with pytest.raises(UserError, match="every 16, 8, 4 or 2 px"):
        windows.build({**VALID, "step": step}, RGB, 3)


def test_a_window_is_an_individuals_if_its_middle_is_in_its_middle() -> None:
    made = sliding_window.targets(sample([[32, 40, 96, 88]], label=[1]), card())
    assert made["answer"].shape == (16, 16)
    centre = (np.arange(16) + 0.5) * 8
    away = np.hypot((centre[:, None] - 64) / 24, (centre[None] - 64) / 32)
    assert (made["answer"][away <= 0.7] == 2).all()
    assert (made["answer"][away > 0.9] == 0).all()
    assert (made["counted"][(away > 0.7) & (away <= 0.9)] == 0).all()
    assert (made["counted"][away > 0.9] == 1).all()


def test_an_individual_smaller_than_a_step_is_learned() -> None:
    made = sliding_window.targets(sample([[62, 62, 65, 65]]), card())
    assert (made["answer"] == 1).sum() == 1
    assert made["counted"][made["answer"] == 1].all()


def test_unknown_ground_teaches_nothing_but_what_is_marked_on_it() -> None:
    nowhere = np.zeros((128, 128), bool)
    made = sliding_window.targets(sample([[32, 32, 96, 96]], known=nowhere), card())
    assert (made["counted"] == (made["answer"] == 1)).all()
    assert made["counted"].any()
    ignored = sliding_window.targets(sample([[32, 32, 96, 96]], ignored=~nowhere), card())
    assert not ignored["counted"].any()


def bump(x: float, y: float, width: float, shape: tuple[int, int] = (40, 40)) -> Any:
    """A map that falls off from 1 and passes the half at so many cells from its middle."""
    rows, columns = (np.arange(side) + 0.5 for side in shape)
    off = np.hypot(rows[:, None] - y, columns[None] - x)
    return (1 / (1 + np.exp((off - width / 2) / 0.7))).astype(np.float32)


@given(x=st.floats(12, 28), y=st.floats(12, 28), width=st.floats(5, 16))  # in cells, away from the map's edge
@settings(max_examples=40, deadline=None)
def test_a_region_is_as_wide_as_the_map_is_high(x: float, y: float, width: float) -> None:
    box, score = map_boxes.regions(bump(x, y, width))
    assert len(box) == 1
    assert np.abs(box[0] - [x - width / 2, y - width / 2, x + width / 2, y + width / 2]).max() < 0.6
    assert 0.5 < score[0] <= 1


@given(gap=st.floats(3, 8), angle=st.floats(0, np.pi))
@settings(max_examples=30, deadline=None)
def test_neighbours_are_two_and_a_flat_top_is_one(gap: float, angle: float) -> None:
    half = (8 + gap) / 2
    away = np.array([np.cos(angle), np.sin(angle)]) * half
    two = np.maximum(bump(*(20 + away), 8), bump(*(20 - away), 8))
    box, _ = map_boxes.regions(two)
    assert len(box) == 2
    middles = (box[:, :2] + box[:, 2:]) / 2
    assert np.abs(np.linalg.norm(middles - 20, axis=1) - half).max() < 1.0
    flat = np.minimum(bump(20, 20, 16), np.float32(0.9))
    assert len(map_boxes.regions(flat)[0]) == 1


def test_nothing_stands_out_of_nothing() -> None:
    for blank in (np.zeros((9, 9)), np.zeros((1, 1)), np.full((9, 9), 0.01)):
        assert not len(map_boxes.regions(blank.astype(np.float32))[0])


def logits(*maps: Any) -> Any:
    """Network outputs whose probabilities are these maps, the background having the rest."""
    rest = np.clip(1 - sum(maps), 1e-6, 1)
    return np.log(np.clip(np.stack([rest, *maps]), 1e-6, 1)).astype(np.float32)[None]


def test_boxes_are_as_large_as_the_individuals_that_were_learned() -> None:
    # The map passes the half between 0.7 and 0.9 of an individual 10 cells wide.
    box, score, label, _ = sliding_window.decode([logits(bump(20, 20, 8), 0 * bump(9, 9, 3))], card())[0]
    assert label.tolist() == [0]
    assert np.abs(box[0] - [120, 120, 200, 200]).max() < 6
    assert 0.5 < score[0] < 1


def test_windows_of_two_sizes_find_an_individual_once() -> None:
    fine = logits(bump(20, 20, 8), 0 * bump(9, 9, 3))
    coarse = logits(bump(10, 10, 4, (20, 20)), 0 * bump(9, 9, 3, (20, 20)))
    box, *_ = sliding_window.decode([fine, coarse], card())[0]
    assert len(box) == 1


def test_a_temperature_makes_answers_as_sure_as_they_are_right() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 3, (4000, 3)).astype(np.float32)
    likely = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    y = np.array([rng.choice(3, p=each / each.sum()) for each in likely])
    assert sliding_window.temperature(x, y) == pytest.approx(1.0, abs=0.1)
    assert sliding_window.temperature(4 * x, y) == pytest.approx(4.0, abs=0.4)


SCENE = Scene(RGB, (0.1, 0.1), "uint8", (0.0, 255.0))


def made(**changes: Any) -> Bundle:
    return bundle(replace(card(), **changes))


def test_windows_of_other_sizes_are_read_at_another_gsd() -> None:
    model = made()
    build = sliding_window.build
    usual = build(sliding_window.Options(), SCENE, model).needs
    assert usual.gsd_m == 0.25
    wider = build(sliding_window.Options(windows="32m"), SCENE, model).needs
    assert wider.gsd_m == pytest.approx(0.5)
    both = build(sliding_window.Options(windows="16m,32m"), SCENE, model).needs
    assert both.gsd_m == pytest.approx(0.25)
    assert both.stride_px == 2 * usual.stride_px
    with pytest.raises(UserError, match="twice as wide"):
        build(sliding_window.Options(windows="16m,20m"), SCENE, model)
    with pytest.raises(UserError, match="length with a unit"):
        build(sliding_window.Options(windows="16"), SCENE, model)


def test_the_gsd_follows_the_window_that_is_asked_for() -> None:
    options = sliding_window.card_options(np.full(9, 30.0), np.full(9, 60.0))
    assert options["network"] == {**VALID, "width": 24}
    assert options["boxes"] == "regions"
    single = sliding_window.card_options(
        np.full(9, 30.0),
        np.full(9, 60.0),
        Wishes(training=sliding_window.TrainingOptions(evaluation="windows"), network={"kind": "resnet18"}),
    )
    assert single["network"]["evaluation"] == "windows"
    assert single["network"]["step"] == 16
    points = sliding_window.card_options(np.full(9, np.nan), np.full(9, 60.0))
    assert points["boxes"] == "peaks"


def test_rare_classes_weigh_more_where_it_is_asked() -> None:
    counts = {"shrub": 100, "tree": 25}
    plain = sliding_window.weighted(card(), counts, sliding_window.TrainingOptions())
    assert plain.options["class_weights"] == []
    weighed = sliding_window.weighted(
        card(), counts, sliding_window.TrainingOptions(class_weights="balanced")
    )
    background, shrub, tree = weighed.options["class_weights"]
    assert background == 1
    assert tree == pytest.approx(2 * shrub, rel=1e-3)


def test_windows_lie_as_far_apart_as_is_asked() -> None:
    usual = sliding_window.build(sliding_window.Options(), SCENE, made())
    finer = sliding_window.build(sliding_window.Options(stride=0.0625), SCENE, made())
    assert (usual.needs.map_px, finer.needs.map_px) == (8, 4)
    assert usual.settings != finer.settings
    with pytest.raises(UserError, match=r"only a stride of 0\.25, 0\.125, 0\.0625 or 0\.03125"):
        sliding_window.build(sliding_window.Options(stride=0.3), SCENE, made())
    for wrong in (0.0, -0.1, 1.5):
        with pytest.raises(UserError, match="stride must be above 0"):
            sliding_window.Options(stride=wrong)


def test_a_raster_smaller_than_a_window_is_refused(ecodetect: Run, tmp_path: Path) -> None:
    files.write(tmp_path / "swept.safetensors", made())
    for side, code in ((60, 2), (64, 0)):
        raster = write_raster(tmp_path / f"{side}.tif", noise(3, side, side), gsd_m=0.25)
        done = ecodetect("scan", raster, "-m", tmp_path / "swept.safetensors", "-o", tmp_path / f"{side}.csv")
        assert done.code == code, done.err
        assert ("smaller than one window of 64 px" in done.err) == (code == 2)


def test_other_bands_and_another_gsd_are_refused_in_a_sentence(ecodetect: Run, tmp_path: Path) -> None:
    files.write(tmp_path / "swept.safetensors", made())
    grey = write_raster(tmp_path / "grey.tif", noise(2, 128, 128), gsd_m=0.25)
    done = ecodetect("scan", grey, "-m", tmp_path / "swept.safetensors", "-o", tmp_path / "a.csv")
    assert done.code == 2
    assert "red, green, blue" in done.err
    bare = write_raster(tmp_path / "bare.tif", noise(3, 128, 128), gsd_m=None)
    done = ecodetect("scan", bare, "-m", tmp_path / "swept.safetensors", "-o", tmp_path / "b.csv")
    assert done.code == 2
    assert "--gsd" in done.err


def test_the_map_can_be_written(ecodetect: Run, tmp_path: Path) -> None:
    files.write(tmp_path / "swept.safetensors", made())
    raster = write_raster(tmp_path / "plot.tif", noise(3, 150, 200), gsd_m=0.25)
    flags = ("-o", tmp_path / "found.csv", "--score-map", tmp_path / "scores.tif", "--overwrite")
    done = ecodetect("scan", raster, "-m", tmp_path / "swept.safetensors", *flags)
    assert done.code == 0, done.err
    with rasterio.open(tmp_path / "scores.tif") as file:
        assert file.descriptions == ("shrub", "tree")
        assert file.res == pytest.approx((2.0, 2.0), rel=1e-3)
        assert (file.width, file.height) == (
            25,
            19,
        )  # the raster is read as it is: 200 x 150 px by 8, rounded up
        assert 0 <= np.nanmin(file.read()) <= np.nanmax(file.read()) <= 1
