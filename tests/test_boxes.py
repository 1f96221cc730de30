"""What every detector of boxes must keep to, with its smallest network: it learns, and says what it can't."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import learned
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ecodetect.annotations.sample import Objects, Sample  # noqa: E402
from ecodetect.bundle import file as bundle  # noqa: E402
from ecodetect.bundle.card import Card, Scaling  # noqa: E402
from ecodetect.detectors import table as detectors  # noqa: E402
from ecodetect.detectors import torchvision_boxes  # noqa: E402
from ecodetect.detectors.learned import Answer, NetworkKind, Wishes  # noqa: E402
from ecodetect.errors import UserError  # noqa: E402
from ecodetect.grid import Window  # noqa: E402
from ecodetect.runtime import torch_network  # noqa: E402
from ecodetect.testing import chip_of, scene_of  # noqa: E402
from ecodetect.training import checkpoint, loop, selection  # noqa: E402
from ecodetect.training.augmentation import NONE  # noqa: E402
from ecodetect.training.loop import fit  # noqa: E402
from ecodetect.training.planning import Schedule  # noqa: E402

each = pytest.mark.parametrize("name", learned.BOXES)
FLOORED = ("ctrness", "edge")  # losses whose least value isn't 0
PYRAMIDS = [name for name in learned.BOXES if name != "yolo"]


@pytest.fixture(autouse=True)
def looks_at_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOOKED_AT", 4)
    monkeypatch.setattr(loop, "LIGHT_FROM", 4)


def rendered(seed: int, side: int = 96, count: int = 6, known: bool = True) -> Sample:
    """Bright ellipses, 12 to 20 px long, on noise, none on another."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0.2, 0.03, (side, side)).astype(np.float32)
    boxes: list[list[float]] = []
    taken = np.zeros((side, side), np.uint8)
    while len(boxes) < count:
        x, y = rng.integers(12, side - 12, 2)
        a, b = rng.integers(6, 11, 2)
        here = np.zeros_like(taken)
        cv2.ellipse(here, (int(x), int(y)), (int(a), int(b)), 0, 0, 360, 1, -1)
        if (cv2.dilate(here, np.ones((5, 5), np.uint8)) & taken).any():
            continue
        taken |= here
        image[here > 0] += 0.5
        boxes.append([x - a, y - b, x + a + 1.0, y + b + 1.0])
    box = np.array(boxes, np.float64).reshape(-1, 4)
    yes = np.ones((side, side), bool)
    n = len(box)
    objects = Objects((box[:, :2] + box[:, 2:]) / 2, box, np.zeros(n, np.int64), np.zeros(n))
    return Sample(image[None], yes, yes & known, ~yes, objects)


def card_of(name: str, **changes: Any) -> Card:
    """Of one band, for objects of 12 to 22 px; with a backbone that normalises, so that it can be folded."""
    backbone = {} if name == "yolo" else {"kind": "mobilenet_v2"}
    facts: dict[str, Any] = {
        "options": {"network": {**learned.NETWORKS[name], **backbone}},
        "bands": ("grey",),
        "scaling": Scaling(offset=(0.0,), span=(1.0,)),
        "largest": 40.0,
    }
    return learned.card(name, **(facts | changes))


def batch_of(name: str, card: Card, samples: list[Sample]) -> tuple[Any, dict[str, Any]]:
    made = [kind_of(name).targets(sample, card) for sample in samples]
    images = torch.from_numpy(np.stack([sample.image for sample in samples]))
    return images, {key: torch.from_numpy(loop.stacked([one[key] for one in made])) for key in made[0]}


def kind_of(name: str) -> NetworkKind:
    return detectors.network_kind(name)


def losses(name: str, card: Card, network: Any, images: Any, targets: Any) -> dict[str, Any]:
    outputs = network(images, targets) if network.takes_targets else network(images)
    return kind_of(name).losses(outputs, targets, card)


@pytest.mark.slow
@each
def test_loss_falls_to_a_tenth(name: str) -> None:
    """Within 30 s on one thread. That it falls at all is tested of every detector: test_detectors.py."""
    began, seen = time.process_time(), []
    for loss in learning_by_heart(name):
        seen.append(loss)
        if np.mean(seen[-3:]) < 0.1 * seen[0]:
            return
        if time.process_time() - began > 30:
            pytest.fail(f"{name}: from {seen[0]:.3f} to {np.mean(seen[-3:]):.3f} in {len(seen)} steps")


def learning_by_heart(name: str) -> Iterator[float]:
    """The loss of one image, step by step, without those losses that have a floor.

    The cross entropy of a target between 0 and 1 (FCOS's centreness, yolo's edges between two bins) doesn't
    fall below the target's own entropy.
    """
    torch.manual_seed(0)
    card = card_of(name)
    network = kind_of(name).network(card, None).train()
    images, targets = batch_of(name, card, [rendered(1)])
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    while True:
        found = losses(name, card, network, images, targets)
        loss = torch.stack(list(found.values())).sum()
        yield sum(float(each.detach()) for key, each in found.items() if not key.endswith(FLOORED))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()


@each
@pytest.mark.parametrize("known", [True, False])
def test_images_without_objects(name: str, known: bool) -> None:
    card = card_of(name)
    torch.manual_seed(0)
    network = kind_of(name).network(card, None).train()
    images, targets = batch_of(name, card, [rendered(1, 64, 0, known), rendered(2, 64, 0, known)])
    found = losses(name, card, network, images, targets)
    total = torch.stack(list(found.values())).sum()
    assert bool(torch.isfinite(total))
    assert (float(total.detach()) > 0) == known  # where nothing is known nothing is learned
    total.backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)


@each
def test_unknown_ground_gives_no_loss(name: str) -> None:
    """Where nothing is known and nothing annotated, nothing is learned; on empty ground something is."""
    card = card_of(name)
    torch.manual_seed(0)
    network = kind_of(name).network(card, None).train()
    images, targets = batch_of(name, card, [rendered(1, 96, 5)])
    targets |= {key: targets[key][:, :0] for key in ("boxes", "masks") if key in targets}
    empty = losses(name, card, network, images, targets)
    assert sum(float(each.detach()) for each in empty.values()) > 0
    targets["background"][:] = 0
    unknown = losses(name, card, network, images, targets)
    assert [float(each.detach()) for each in unknown.values()] == [0.0] * len(unknown)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "yolo" else pytest.mark.slow) for name in learned.BOXES]
)
def test_the_same_seed_gives_the_same(name: str, tmp_path: Path) -> None:
    made = [_trained(name, tmp_path / str(number), steps=2) for number in range(2)]
    assert made[0].bundle.hash == made[1].bundle.hash


@each
def test_five_bands_of_16_bits(name: str, tmp_path: Path) -> None:
    """A card for them gives a network for them, which scans from a file that holds the same."""
    bands = ("red", "green", "blue", "nir", "rededge")
    span = Scaling(offset=(0.0,) * 5, span=(4000.0,) * 5)
    made = learned.bundle(card_of(name, bands=bands, scaling=span))
    bundle.write(tmp_path / "it.safetensors", made)
    read = bundle.read(tmp_path / "it.safetensors")
    pixels = np.random.default_rng(0).integers(0, 4000, (5, 96, 80)).astype(np.uint16)
    chip = chip_of(pixels, None, bands, Window(0, 0, 80, 96))
    assert read.hash == made.hash
    detector = detectors.build(name, scene_of(pixels, bands), bundle=read, device="cpu")
    assert not detector.needs.is_local
    assert len(detector.detect([chip])[0])


@each
def test_points_without_a_size_are_refused(name: str) -> None:
    unknown = np.full(10, np.nan)
    with pytest.raises(UserError, match=f"{name} learns boxes, but 10 of 10 annotations are points"):
        kind_of(name).card_options(unknown, np.full(10, 9.0))


@each
def test_boxes_without_an_area_teach_nothing(name: str) -> None:
    card = card_of(name)
    flat = rendered(1, 64, 1)
    box = np.concatenate([flat.objects.box, [[20.0, 20.0, 20.0, 30.0]]])
    two = Objects((box[:, :2] + box[:, 2:]) / 2, box, np.zeros(2, np.int64), np.zeros(2))
    network = kind_of(name).network(card, None).train()
    images, targets = batch_of(name, card, [replace(flat, objects=two)])
    found = losses(name, card, network, images, targets)
    assert all(bool(torch.isfinite(each)) for each in found.values())


@pytest.mark.parametrize("name", PYRAMIDS)
def test_folded_parts_say_the_same(name: str) -> None:
    made = learned.bundle(card_of(name))
    eager = kind_of(name).network(made.card, None).eval()
    torch_network.load(eager, made.weights, name="it")
    opened = torch_network.open_network(made, lambda: kind_of(name).network(made.card, None), device="cpu")
    batch = np.random.default_rng(0).random((2, 1, 64, 96), dtype=np.float32)
    with torch.inference_mode():
        answer = eager(torch.from_numpy(batch))
    wanted = (answer[0] if isinstance(answer, list) else answer).numpy()
    found, *_ = opened.run(batch)
    assert np.abs(found[:, :10] - wanted[:, :10]).max() < 1e-3
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in opened.module.modules())
    assert opened.reach_px is None


def test_the_pyramid_fits_the_objects() -> None:
    rng = np.random.default_rng(0)
    for low, high, strides in ((6, 12, [4]), (20, 40, [8]), (6, 80, [4, 8, 16]), (60, 200, [16, 32])):
        sizes = rng.uniform(low, high, 300)
        wishes = Wishes(network={"kind": "resnet18", "depth": 4})
        shape = torchvision_boxes.RETINANET.card_options(sizes, np.empty(0), wishes)["network"]
        assert (shape["kind"], shape["strides"]) == ("resnet18", strides)
        assert len({len(level) for level in shape["anchors"]}) == 1
        nearest = np.abs(np.log(sizes[:, None] / np.concatenate(shape["anchors"]))).min(axis=1)
        assert np.exp(nearest).max() < 1.35
    same = torchvision_boxes.SSD.card_options(np.full(5, 30.0), np.empty(0))["network"]["anchors"]
    assert same[0][0] < 30 < same[-1][-1]


@pytest.mark.parametrize("kind", ["squeezenet1_1", "resnet18"])
def test_other_backbones(kind: str) -> None:
    from ecodetect.networks import pyramid

    shape = {"kind": kind, "strides": [8, 16, 32], "coarsest": 32, "width": 32}
    network = pyramid.build(shape, ("red", "nir"), None).eval()
    with torch.inference_mode():
        found = network(torch.zeros(1, 2, 64, 96))
    assert [tuple(each.shape) for each in found.values()] == [(1, 32, 8, 12), (1, 32, 4, 6), (1, 32, 2, 3)]
    assert network.stride == 32


def test_a_full_chip_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    card = replace(card_of("ssd"), thresholds={"f1": (0.3,)})
    rows = np.zeros((1, 4, 6), np.float32)
    rows[0, :, 4] = 0.4
    read = torchvision_boxes.Reader(card)
    with caplog.at_level(logging.WARNING, "ecodetect"):
        for _ in range(2):
            assert len(read([rows])[0].score) == 4
    (record,) = caplog.records
    assert "gives at most 4 objects for a tile" in record.getMessage()
    rows[0, -1, 4] = 0.2
    assert not caplog.clear()
    torchvision_boxes.Reader(card)([rows])
    assert not caplog.records


class _Rendered:
    """Four images, to be learned by heart."""

    def __init__(self) -> None:
        self.validation = [rendered(10 + number) for number in range(4)]

    def chip(self, rng: np.random.Generator) -> Sample:
        return self.validation[int(rng.integers(4))]


def _trained(name: str, folder: Path, *, steps: int, kind: NetworkKind | None = None) -> loop.Fitted:
    card = card_of(name)
    torch.manual_seed(7)
    plan = Schedule(
        size_px=96,
        batch=4,
        steps=steps,
        every=max(2, steps // 4),
        rate=2e-3,
        within_px=5.0,
        seed=3,
        workers=1,
        augmentations=NONE,
        mines=False,
    )
    return fit(
        kind or kind_of(name),
        kind_of(name).network(card, None),
        card,
        _Rendered(),
        plan,
        checkpoint.Folder(folder),
    )


@pytest.mark.parametrize("head", ["one", "many"])
def test_validation_chooses_the_head(head: str, tmp_path: Path) -> None:
    """The one that finds the objects becomes the model's; the other keeps thresholds of its own."""
    truths = np.concatenate([sample.objects.box for sample in _Rendered().validation])

    def decode(outputs: Any, card: Card, *rest: Any) -> Any:
        n = len(truths) if card.options.get("head", "one") == head else 0
        return [Answer(truths[:n], np.full(n, 0.5), np.zeros(n, np.int64))]

    card = _trained("yolo", tmp_path, steps=2, kind=replace(kind_of("yolo"), decode=decode)).bundle.card
    other = "many" if head == "one" else "one"
    assert card.options["head"] == head
    assert set(card.thresholds) == {"f1", "count", f"{other}_f1", f"{other}_count"}


@pytest.mark.slow
@each
def test_four_images_are_learned_by_heart(name: str, tmp_path: Path) -> None:
    began = time.process_time()
    fitted = _trained(name, tmp_path, steps=240)
    assert time.process_time() - began < 180
    card = fitted.bundle.card
    detector = detectors.build(
        name, scene_of(np.zeros((1, 96, 96)), card.bands), bundle=fitted.bundle, device="cpu"
    )
    judged = []
    for sample in _Rendered().validation:
        (found,) = detector.detect([chip_of(sample.image, None, card.bands, Window(0, 0, 96, 96))])
        judged.append(selection.judge(Answer(found.bounds(), found.score, found.label), sample, 5.0, 1))
    assert selection.pooled(judged, 1).rates(card.thresholds["f1"]).f1 >= 0.95
