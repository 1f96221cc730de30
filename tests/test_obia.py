"""Object-based image analysis: segments and their numbers, what is learned, and what objects they make."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import learned
import numpy as np
import pytest
import shapely
import training_sets
from command_line import Run
from numpy.typing import NDArray

from ecodetect.annotations.sample import Objects, Sample
from ecodetect.bundle import file as bundle
from ecodetect.bundle.card import Card, Scaling
from ecodetect.bundle.file import Bundle
from ecodetect.detectors import learners, obia, segments
from ecodetect.detectors import table as detectors
from ecodetect.errors import BundleError, UserError
from ecodetect.grid import Window
from ecodetect.testing import chip_of, scene_of

RGB = ("red", "green", "blue")


def rough(height: int = 90, width: int = 110, bands: int = 3, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(bands, height // 10 + 1, width // 10 + 1)).repeat(10, 1).repeat(10, 2)
    return (coarse[:, :height, :width] + 0.2 * rng.normal(size=(bands, height, width))).astype(np.float32)


def holed(shape: tuple[int, int]) -> NDArray[np.bool_]:
    valid = np.ones(shape, np.bool_)
    valid[:7], valid[30:50, 40:60] = False, False
    return valid


@pytest.mark.parametrize("method", ["slic", "felzenszwalb"])
def test_segments_cover_what_is_valid_and_are_numbered_without_gaps(method: segments.Method) -> None:
    image = rough()
    valid = holed(image.shape[1:])
    labels = segments.cut(image, valid, method, 7)
    assert np.array_equal(labels > 0, valid)
    n = int(labels.max())
    assert set(np.unique(labels)) == set(range(n + 1))
    assert 0.2 < (valid.sum() / n) / 7**2 < 8  # about as large as asked


@pytest.mark.parametrize("method", ["slic", "felzenszwalb"])
def test_segments_end_where_colours_do(method: segments.Method) -> None:
    image = np.full((3, 60, 60), -1.0, np.float32)
    image[:, 20:44, 14:40] = 1.0
    labels = segments.cut(image, np.ones((60, 60), np.bool_), method, 6)
    inside = np.zeros((60, 60), np.bool_)
    inside[20:44, 14:40] = True
    share = np.bincount(labels.ravel(), inside.ravel()) / np.maximum(np.bincount(labels.ravel()), 1)
    mixed = (share[labels] > 0.1) & (share[labels] < 0.9)
    assert mixed.mean() < 0.02


def test_chips_on_the_lattice_of_seeds_are_cut_alike() -> None:
    image = rough(168, 182)
    yes = np.ones(image.shape[1:], np.bool_)
    whole = segments.cut(image, yes, "slic", 7)
    part = segments.cut(image[:, 21:, 14:], yes[21:, 14:], "slic", 7)
    inner = (slice(42, -42), slice(42, -42))
    a, b = whole[21:, 14:][inner].ravel(), part[inner].ravel()
    pairs = np.unique(a * 10_000 + b)
    # One to one: as many pairs as there are segments on either side.
    assert len(pairs) <= 1.03 * min(len(np.unique(a)), len(np.unique(b)))


def test_the_numbers_of_a_segment_are_what_their_names_say() -> None:
    image = rough(40, 48, bands=2)
    valid = holed((40, 48))
    labels = np.zeros((40, 48), np.int32)
    labels[10:20, 5:30], labels[20:25, 5:30], labels[26:40, 0:12] = 1, 2, 3
    labels[~valid] = 0
    scaling = Scaling(offset=(100.0, 60.0), span=(10.0, 20.0))
    rows = segments.described(image, labels > 0, labels, scaling, 12.0)
    names = segments.names(["red", "nir"])
    assert rows.shape == (3, len(names))
    for number, row in enumerate(rows, 1):
        said = dict(zip(names, row.tolist(), strict=True))
        mine = image[:, labels == number].astype(np.float64)
        assert said["mean red"] == pytest.approx(mine[0].mean(), abs=1e-4)
        assert said["sd nir"] == pytest.approx(mine[1].std(), abs=1e-4)
        for percent in (10, 50, 90):
            wanted = np.percentile(mine[1], percent)
            assert said[f"p{percent} nir"] == pytest.approx(wanted, abs=0.13)  # to a step of 1/8
        red, nir = mine[0].mean() * 10 + 100, mine[1].mean() * 20 + 60
        assert said["red against nir"] == pytest.approx((red - nir) / (red + nir), abs=1e-3)
        assert said["area"] == pytest.approx(np.log(mine.shape[1]), abs=1e-4)
    first, second, _ = (dict(zip(names, row.tolist(), strict=True)) for row in rows)
    # A rectangle of 25 x 10 px; a rectangle fills π / 3 of the ellipse with its moments.
    assert first["compactness"] == pytest.approx(4 * np.pi * 250 / 70**2, abs=1e-4)
    assert first["elongation"] == pytest.approx(2.5, abs=1e-3)
    assert first["fullness"] == pytest.approx(3 / np.pi, abs=1e-3)
    # Segment 1 and 2 have one neighbour each: each other.
    assert first["beside red"] == pytest.approx(first["mean red"] - second["mean red"], abs=1e-4)
    assert first["beside red"] == pytest.approx(-second["beside red"], abs=1e-5)


def test_what_is_not_valid_is_not_seen() -> None:
    image, other = rough(), rough()
    valid = holed(image.shape[1:])
    other[:, ~valid] = 77.0
    card = learned.card("obia", bands=RGB)
    one, two = (obia.features_of(each, valid, card) for each in (image, other))
    assert np.array_equal(one.labels, two.labels)
    assert np.allclose(one.features, two.features, atol=1e-5)


# -- what is learned from ----


def sample_of(objects: Objects, **masks: Any) -> Sample:
    yes = np.ones((80, 80), np.bool_)
    facts = {"valid": yes, "known": yes, "ignored": ~yes, **masks}
    return Sample(np.zeros((3, 80, 80), np.float32), objects=objects, **facts)


def squares(step: int = 4) -> obia.Segmented:
    """Segments that are squares of 4 px, in reading order."""
    rows, columns = np.indices((80, 80)) // step
    labels = (rows * (80 // step) + columns + 1).astype(np.int32)
    return obia.Segmented(labels, np.zeros((int(labels.max()), 1), np.float32))


def one_object(**changes: Any) -> Objects:
    box = np.array([[20.0, 20.0, 60.0, 44.0]])
    return replace(Objects((box[:, :2] + box[:, 2:]) / 2, box, np.zeros(1, np.int64), np.zeros(1)), **changes)


CARD = learned.card("obia", bands=RGB)


def at(label: NDArray[np.int64], x: int, y: int) -> int:
    return int(label[y // 4 * 20 + x // 4])


def test_segments_are_labelled_by_what_they_lie_in() -> None:
    label, where = obia.examples(sample_of(one_object()), squares(), CARD)
    assert at(label, 40, 32) == 0
    assert at(label, 21, 21) == obia.UNUSED  # a box's corner shows what is around
    assert at(label, 10, 32) == 1
    assert at(label, 70, 70) == 1
    assert np.array_equal(where[label == 0], np.tile([40.0, 32.0], ((label == 0).sum(), 1)))
    assert np.allclose(where[0], [2.0, 2.0])
    outline = np.array([shapely.box(20, 20, 60, 44).union(shapely.box(20, 20, 24, 60))], dtype=object)
    drawn = one_object(shape=outline, box=np.array([[20.0, 20.0, 60.0, 60.0]]))
    label, _ = obia.examples(sample_of(drawn), squares(), CARD)
    assert at(label, 21, 21) == 0
    assert at(label, 50, 54) == 1  # in the box, outside the outline


def test_unknown_ground_teaches_nothing_but_its_objects() -> None:
    known = np.zeros((80, 80), np.bool_)
    known[:, 64:] = True
    label, _ = obia.examples(sample_of(one_object(), known=known), squares(), CARD)
    assert at(label, 40, 32) == 0
    assert at(label, 10, 32) == obia.UNUSED
    assert at(label, 70, 32) == 1
    ignored = np.zeros((80, 80), np.bool_)
    ignored[60:] = True
    label, _ = obia.examples(sample_of(one_object(), ignored=ignored), squares(), CARD)
    assert at(label, 10, 70) == obia.UNUSED


def test_a_point_without_a_size_is_neither() -> None:
    point = one_object(box=np.full((1, 4), np.nan))
    label, _ = obia.examples(sample_of(point), squares(), CARD)
    assert at(label, 40, 32) == obia.UNUSED
    assert (label >= 0).sum() == (label == 1).sum() > 300
    with pytest.raises(UserError, match="obia learns boxes, but 10 of 10 annotations are points"):
        obia.card_options(np.full(10, np.nan), np.full(10, 9.0))


# -- what segments make ----


def made(mask: NDArray[np.bool_], sure: float = 0.8, classes: int = 1) -> tuple[obia.Segmented, NDArray[Any]]:
    """Each pixel a segment: `sure` of the last class but background where the mask says so."""
    labels = np.arange(1, mask.size + 1, dtype=np.int32).reshape(mask.shape)
    probability = np.zeros((mask.size, classes + 1))
    probability[:, -1] = np.where(mask.ravel(), 1 - sure, 1.0)
    probability[:, classes - 1] = 1 - probability[:, -1]
    return obia.Segmented(labels, np.zeros((mask.size, 1), np.float32)), probability


def disc(x: float, y: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.indices((60, 80)) + 0.5
    inside: NDArray[np.bool_] = np.hypot(columns - x, rows - y) < radius
    return inside


def test_touching_segments_are_one_object_and_a_neck_parts_two() -> None:
    card = learned.card("obia", bands=RGB, largest=40.0)
    mask = disc(20, 30, 9) | disc(36, 30, 9) | disc(64, 30, 8)
    shapes, score, label, _ = obia.decode(*made(mask), card)
    assert len(shapes) == 3
    assert shapely.union_all(shapes).area == pytest.approx(mask.sum(), rel=0.06)
    assert np.allclose(score, 0.8)
    assert not label.any()
    long = disc(20, 30, 9) | disc(24, 30, 9) | disc(28, 30, 9)
    assert len(obia.decode(*made(long), card).score) == 1


def test_what_is_too_small_too_large_or_unsure_is_no_object() -> None:
    card = learned.card("obia", bands=RGB, largest=24.0)
    assert len(obia.decode(*made(disc(20, 30, 6)), card).score) == 1
    assert len(obia.decode(*made(disc(20, 30, 2)), card).score) == 0
    assert len(obia.decode(*made(disc(30, 30, 14)), card).score) == 0
    assert len(obia.decode(*made(disc(20, 30, 6), sure=0.45), card).score) == 0
    assert len(obia.decode(*made(np.zeros((60, 80), np.bool_)), card).score) == 0


def test_classes_are_apart() -> None:
    card = learned.card("obia", bands=RGB, classes=("bush", "tree"), largest=40.0)
    look, one = made(disc(20, 30, 8), classes=1)
    _, two = made(disc(34, 30, 8), classes=2)
    both = two.copy()
    both[disc(20, 30, 8).ravel()] = [0.7, 0.1, 0.2]
    _, score, label, _ = obia.decode(look, both, card)
    assert label.tolist() == [0, 1]
    assert np.allclose(score, [0.7, 0.8])
    assert one.shape[1] == 2


def test_tiles_hardly_show() -> None:
    """What shifted chips agree on is measured at training: of seeds on a lattice it is nearly all."""
    it = learned.bundle(CARD)
    found = obia.measure_agreement(it, learned.discs(CARD, 3, 240).image)
    assert found["n"] > 40
    assert found["alone"] < 0.03
    assert found["shift_px"] < 4.0
    assert obia.measure_agreement(it) == {}


# -- the whole way ----


@pytest.fixture
def only_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The learner that needs no scikit-learn, and the quickest."""
    monkeypatch.setattr(learners, "ALGORITHMS", ("knn",))


@pytest.mark.usefixtures("only_neighbours")
def test_from_annotations_to_a_map(ecodetect: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    scene = learned.discs(CARD, 5, 190)
    pixels = (scene.image * 30 + 75).clip(1, 255).astype(np.uint8)
    image = training_sets.write_raster(tmp_path / "discs.tif", pixels, gsd_m=0.5)
    truth = training_sets.write_boxes(tmp_path / "discs.csv", scene.objects.box.tolist())
    out = "x.safetensors"
    words = ("train", image, truth)
    done = ecodetect(*words, "-m", "obia", "-o", tmp_path / out)
    assert done.code == 0, done.err
    assert "nearest neighbours" in done.out
    assert "cross-validated on training ground" in done.out
    assert "epochs" not in done.out
    assert not list(tmp_path.glob("*.png"))
    card = bundle.read_card(tmp_path / out)
    assert set(card.thresholds) == {"f1", "count"}
    assert card.metrics[0]["f1"] > 0.8
    assert card.trained_on[0]["objects"] > 15
    assert card.agreement["n"] > 0
    told = ecodetect("info", tmp_path / out)
    assert "an obia of" in told.out
    found = ecodetect("scan", image, "-m", tmp_path / out, "-o", tmp_path / "found.geojson")
    assert found.code == 0, found.err
    assert '"Polygon"' in (tmp_path / "found.geojson").read_text()
    judged = ecodetect("evaluate", tmp_path / "found.geojson", truth, "--image", image)
    assert judged.code == 0, judged.err
    for flag, value in (("--backbone", "resnet18"), ("--epochs", 3), ("--freeze", 1)):
        refused = ecodetect(*words, "-m", "obia", "-o", tmp_path / "y.safetensors", flag, value)
        assert refused.code == 2
        assert "obia trains no network here" in refused.err
        assert refused.err.endswith(f"leave it out ({flag}).\n")
    refused = ecodetect(*words, "-m", tmp_path / out, "-o", tmp_path / "y.safetensors")
    assert refused.code == 2
    assert "can't be trained further" in refused.err
    assert not (tmp_path / "y.safetensors").exists()


def test_scikit_learn_is_asked_for_in_one_sentence(
    ecodetect: Run, corners: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    for name in ("sklearn", "sklearn.ensemble", "sklearn.svm"):
        monkeypatch.setitem(sys.modules, name, None)
    refused = ecodetect(
        "train", corners / "dryland.tif", corners / "dryland_shrubs.geojson", "-m", "obia",
        "-o", tmp_path / "x.safetensors",
    )  # fmt: skip
    assert refused.code == 2
    assert "needs scikit-learn, which isn't installed" in refused.err


def test_scanning_imports_neither_torch_nor_scikit_learn(tmp_path: Path) -> None:
    bundle.write(tmp_path / "x.safetensors", learned.bundle(CARD))
    code = (
        "import sys, numpy as np\n"
        "from PIL import Image\n"
        "from ecodetect import scan\n"
        "rng = np.random.default_rng(0)\n"
        "Image.fromarray(rng.integers(20, 120, (90, 80, 3)).astype('uint8')).save(sys.argv[2])\n"
        "scan(sys.argv[2], model=sys.argv[1])\n"
        "print([name for name in ('torch', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.safetensors"), str(tmp_path / "x.png")],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.strip().endswith("[]")


def test_a_damaged_bundle_is_refused() -> None:
    it = learned.bundle(CARD)
    pixels = np.zeros((3, 40, 40), np.uint8)

    def opened(card: Card, weights: bundle.Weights) -> None:
        detectors.build("obia", scene_of(pixels, RGB), bundle=Bundle(card, weights))

    opened(it.card, it.weights)
    for name, value in (
        ("segment_px", 0), ("segment_px", "7"), ("typical_px", 1e9), ("level", None), ("segmentation", "x"),
        ("learner", 7), ("learner", {"kind": "knn"}),
    ):  # fmt: skip
        with pytest.raises(BundleError):
            opened(replace(it.card, options={**it.card.options, name: value}), it.weights)
    with pytest.raises(BundleError, match="it has no mean"):
        opened(it.card, {})
    with pytest.raises(BundleError, match="features and 2 classes, but its card says"):
        opened(replace(it.card, classes=("a", "b"), thresholds={}), it.weights)


@pytest.mark.parametrize("method", ["slic", "felzenszwalb"])
def test_it_finds_what_it_has_learned(method: str) -> None:
    card = learned.card("obia", bands=RGB, options={"segmentation": method})
    it = learned.bundle(card)
    unseen = learned.discs(card, 9)
    pixels = (unseen.image * 30 + 75).clip(0, 255).astype(np.uint8)
    detector = detectors.build("obia", scene_of(pixels, RGB), bundle=it)
    (found,) = detector.detect([chip_of(pixels, None, RGB, Window(0, 0, 160, 160))])
    truth = shapely.box(*unseen.objects.box.T)
    best = np.array([max(shapely.area(shapely.intersection(shapely.box(*b), truth))) for b in found.bounds()])
    assert len(found) == len(truth)
    assert (best > 0.5 * shapely.area(truth).min()).all()
