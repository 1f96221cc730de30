"""The one-stage detector: what its places learn, and what is read off them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ecodetect.annotations.sample import Objects, Sample  # noqa: E402
from ecodetect.bundle.card import Card, Scaling  # noqa: E402
from ecodetect.detectors import boxes, yolo  # noqa: E402
from ecodetect.errors import UserError  # noqa: E402
from ecodetect.networks import yolo_losses  # noqa: E402

SIDE = 128
SHAPE = {"kind": "nano", "strides": [8, 16, 32], "size": "nano"}


def card(**options: Any) -> Card:
    return Card(
        name="cells",
        detector="yolo",
        options={"network": SHAPE, "typical_px": 40.0, **options},
        bands=("red", "green", "blue"),
        scaling=Scaling(offset=(0.0,) * 3, span=(1.0,) * 3),
        unit="px",
        largest=100.0,
        classes=("cell", "nucleus"),
    )


def sample(box: Any, label: Any = None, **masks: Any) -> Sample:
    edges = np.asarray(box, np.float64).reshape(-1, 4)
    number = len(edges)
    everywhere = np.ones((SIDE, SIDE), bool)
    labels = np.zeros(number, np.int64) if label is None else np.asarray(label, np.int64)
    middle = (edges[:, :2] + edges[:, 2:]) / 2
    return Sample(
        np.zeros((3, SIDE, SIDE), np.float32),
        masks.get("valid", everywhere),
        masks.get("known", everywhere),
        masks.get("ignored", ~everywhere),
        Objects(middle, edges, labels, np.zeros(number)),
    )


def answered(truths: Any, seed: int = 0) -> tuple[Any, Any]:
    """Owners and wanted scores of a head that begins at random, for one image with these truths."""
    torch.manual_seed(seed)
    shapes = [(SIDE // s, SIDE // s) for s in SHAPE["strides"]]
    places = yolo_losses.places_of(shapes, SHAPE["strides"], torch.zeros(1))
    reach = torch.rand(1, len(places.xy), 4) * 6 + 0.2
    score = torch.rand(1, len(places.xy), 2) * 0.2
    found = yolo_losses.boxes_of(reach, places)
    return yolo_losses.assigned(score, found, places, torch.tensor(truths)[None], 1)


def test_one_place_learns_one_object() -> None:
    rng = np.random.default_rng(0)
    middle, half = rng.uniform(20, 108, (30, 2)), rng.uniform(6, 30, (30, 2))
    truths = np.hstack([middle - half, middle + half, rng.integers(0, 2, (30, 1))]).astype(np.float32)
    owner, wanted = answered(truths)
    owners = owner[owner >= 0]
    assert len(owners) == len(torch.unique(owners)) >= 29
    assert ((wanted > 0).sum(-1) <= 1).all()
    assert (wanted.sum(-1) > 0).sum() == len(owners)
    label = wanted[owner >= 0].argmax(-1)
    assert (label == torch.tensor(truths[:, 4]).long()[owners]).all()


def test_a_truth_that_is_only_padding_is_learned_by_none() -> None:
    owner, wanted = answered(np.full((3, 5), np.nan, np.float32))
    assert (owner < 0).all()
    assert wanted.sum() == 0


def test_an_object_smaller_than_a_place_is_learned() -> None:
    owner, _ = answered(np.array([[61.0, 61.0, 63.0, 63.0, 0.0]], np.float32))
    assert (owner == 0).sum() == 1


@pytest.mark.parametrize("head", ["one", "many"])
def test_what_is_drawn_is_read(head: yolo.Head) -> None:
    wanted = np.array([[10.0, 12.0, 50.5, 40.25], [70.0, 60.0, 120.0, 126.0]])
    maps = [np.full((1, 4 * yolo.BINS + 2, SIDE // s, SIDE // s), -12.0, np.float32) for s in (8, 16, 32)]
    for box, label, level in zip(wanted, (1, 0), (0, 2), strict=True):
        stride = SHAPE["strides"][level]
        column, row = ((box[:2] + box[2:]) / 2 / stride).astype(int)
        x, y = (column + 0.5) * stride, (row + 0.5) * stride
        reach = np.array([x - box[0], y - box[1], box[2] - x, box[3] - y]) / stride
        bins = np.full((4, yolo.BINS), -30.0)
        for edge, far in zip(bins, reach, strict=True):
            low = int(far)
            edge[low], edge[low + 1] = math.log(1 - far + low + 1e-12), math.log(far - low + 1e-12)
        maps[level][0, : 4 * yolo.BINS, row, column] = bins.ravel()
        maps[level][0, 4 * yolo.BINS + label, row, column] = 3.0
    ((found, score, label, _),) = yolo.decode(maps, card(), head)
    order = np.argsort(found[:, 0])
    np.testing.assert_allclose(found[order], wanted, atol=1e-3)
    np.testing.assert_allclose(score, 1 / (1 + math.exp(-3)))
    assert label[order].tolist() == [1, 0]


def test_only_the_other_head_is_suppressed() -> None:
    box = np.array([[10.0, 10.0, 50.0, 50.0], [11.0, 10.0, 51.0, 50.0]])
    kept = boxes.suppressed(box, np.array([0.6, 0.9]), np.zeros(2, np.int64), 0.7)
    assert kept.tolist() == [False, True]
    of_two_classes = boxes.suppressed(box, np.array([0.6, 0.9]), np.array([0, 1]), 0.7)
    assert of_two_classes.all()


def loss(network: Any, samples: list[Sample], of: Card) -> dict[str, Any]:
    made = [yolo.targets(each, of) for each in samples]
    rows = max(len(each["boxes"]) for each in made)
    padded = np.full((len(made), rows, 5), np.nan, np.float32)
    for place, each in zip(padded, made, strict=True):
        place[: len(each["boxes"])] = each["boxes"]
    background = torch.from_numpy(np.stack([each["background"] for each in made]))
    targets = {"boxes": torch.from_numpy(padded), "background": background}
    images = torch.from_numpy(np.stack([each.image for each in samples]))
    return yolo.losses(network(images), targets, of)


def test_images_without_objects_train_without_nan() -> None:
    torch.manual_seed(0)
    network = yolo.network(card()).train()
    for samples in ([sample([])], [sample([]), sample([[20, 20, 60, 60]])]):
        total = sum(loss(network, samples, card()).values())
        assert torch.isfinite(total)
        total.backward()
    assert all(each.grad is None or torch.isfinite(each.grad).all() for each in network.parameters())


def test_nothing_is_learned_where_nothing_is_known() -> None:
    torch.manual_seed(0)
    network = yolo.network(card()).eval()
    nowhere = np.zeros((SIDE, SIDE), bool)
    found = loss(network, [sample([], known=nowhere)], card())
    assert all(float(each.detach()) == 0.0 for each in found.values())
    assert float(loss(network, [sample([])], card())["one_class"].detach()) > 0.0


def test_a_truth_on_ignored_ground_is_neither_box_nor_background() -> None:
    ignored = np.zeros((SIDE, SIDE), bool)
    ignored[:, :64] = True
    made = yolo.targets(sample([[10, 10, 50, 50], [70, 70, 110, 110]], ignored=ignored), card())
    assert made["boxes"][:, 0].tolist() == [70.0]
    assert not made["background"][0, :, :64].any()
    assert made["background"][0, :, 64:].all()


def test_around_a_point_without_size_nothing_is_background() -> None:
    lone = sample(np.full((1, 4), np.nan))
    lone.objects.xy[:] = (64.0, 40.0)
    made = yolo.targets(lone, card())
    assert not len(made["boxes"])
    assert not made["background"][0, 20:60, 44:84].any()
    assert made["background"].sum() == SIDE**2 - 40 * 40


@pytest.mark.parametrize(
    ("sizes", "strides"), [((8, 12, 20), [4, 8, 16]), ((20, 24, 30), [8, 16]), ((20, 40, 90), [8, 16, 32])]
)
def test_levels_follow_the_sizes_of_objects(sizes: tuple[int, ...], strides: list[int]) -> None:
    found = yolo.card_options(np.repeat(np.array(sizes, float), 20), np.empty(0))
    assert found["network"]["strides"] == strides


def test_points_without_a_size_are_answered() -> None:
    with pytest.raises(UserError, match="40 of 40 annotations are points without a size"):
        yolo.card_options(np.full(40, np.nan), np.empty(0))


def test_each_head_answers_alone_as_with_the_other() -> None:
    torch.manual_seed(0)
    both = yolo.network(card()).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        of_both = both(image)
        for answer, expected in (("one", of_both[:3]), ("many", of_both[3:])):
            both.answers = (answer,)
            for one, other in zip(both(image), expected, strict=True):
                torch.testing.assert_close(one, other)
