"""Box networks without torch: graphs and numpy answer as torch and torchvision do, at any size."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import learned
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from torchvision.ops import MultiScaleRoIAlign  # noqa: E402

from ecodetect.bundle import file as bundle  # noqa: E402
from ecodetect.bundle.card import StoredGraph  # noqa: E402
from ecodetect.bundle.file import Bundle  # noqa: E402
from ecodetect.detectors import torchvision_boxes  # noqa: E402
from ecodetect.detectors.protocol import Scene  # noqa: E402
from ecodetect.detectors.table import network_kind  # noqa: E402
from ecodetect.errors import BundleError  # noqa: E402
from ecodetect.runtime import box_stages, torch_network, tracing  # noqa: E402
from ecodetect.runtime.pooling import open_pool  # noqa: E402

CLASSES = ("bull", "cow", "pup")
KINDS = ("faster_rcnn", "fcos", "retinanet", "ssd", pytest.param("mask_rcnn", marks=pytest.mark.slow))
each = pytest.mark.parametrize("name", KINDS)
SMALLEST_PX = 14.0
# Layers whose answers become scores: enlarged, hardly two are as sure as each other.
SCORED = (
    "cls_logits",
    "classification_head.module_list",
    "objectness",
    "cls_score",
    "bbox_ctrness",
    "conv.0.0",
)


@lru_cache(maxsize=8)
def whole(name: str) -> Bundle:
    """A model of two levels and three classes, at random, with its graphs."""
    shape: dict[str, Any] = {**learned.NETWORKS[name], "strides": [8, 16], "smallest_px": SMALLEST_PX}
    if "anchors" in shape:
        shape["anchors"] = [[12.0, 17.0], [25.0, 36.0]]
    card = learned.card(name, classes=CLASSES, options={"network": shape}, thresholds={"f1": (0.05,) * 3})
    made = learned.bundle(card, seed=3)
    more = 1.5 if name == "ssd" else 12
    weights = {key: values * more if is_scored(key) else values for key, values in made.weights.items()}
    return tracing.with_graphs(
        replace(made, weights=weights), lambda: network_kind(name).network(card, None)
    )[0]


def is_scored(key: str) -> bool:
    return key.endswith("weight") and any(name in key for name in SCORED)


@lru_cache(maxsize=8)
def pair(name: str) -> tuple[Any, Any]:
    """The network of a model in ONNX Runtime with numpy, and in torch."""
    made = whole(name)
    shape = asdict(torchvision_boxes.options_of(made.card).network)
    one = box_stages.open_network(made, shape, device="cpu")
    return one, torch_network.open_network(made, lambda: torchvision_boxes.network(made.card), device="cpu")


def noise(count: int, height: int, width: int) -> np.ndarray:
    """Images with objects of several sizes, none like another."""
    rng = np.random.default_rng(count + height)
    coarse = [
        np.kron(rng.normal(0, 0.5, (count, 4, height // side, width // side)), np.ones((side, side)))
        for side in (4, 16, 32)
    ]
    return sum(coarse).astype(np.float32)


def assert_same(one: list[np.ndarray], two: list[np.ndarray], least: int = 100) -> None:
    """As many boxes on each image, to 0.01 px and 1e-4; but for a few whose scores are within 1e-5."""
    assert [found.shape for found in one] == [found.shape for found in two]
    for number, (mine, wanted) in enumerate(zip(one[0], two[0], strict=True)):
        there = wanted[:, 4] > 0
        assert least < there.sum() == (mine[:, 4] > 0).sum()
        assert np.abs(mine[:, 4] - wanted[:, 4]).max() < 1e-4
        off = np.abs(mine[there, None, :4] - wanted[None, there, :4]).max(axis=2)
        off += 1e3 * (mine[there, None, 5] != wanted[None, there, 5])
        near = off.argmin(axis=1)
        is_there = off.min(axis=1) < 1e-2
        assert is_there.mean() > 0.99
        assert np.abs(mine[there, 4] - wanted[near, 4])[is_there].max() < 1e-4
        if len(one) > 1:
            assert np.abs(one[1][number][: there.sum()] - two[1][number][near])[is_there].max() < 1e-4


@each
@pytest.mark.parametrize("shape", [(1, 160, 96), (2, 96, 256)])
def test_answers_are_those_of_torch_at_any_size(name: str, shape: tuple[int, int, int]) -> None:
    one, two = pair(name)
    batch = noise(*shape)
    assert_same(one.run(batch), two.run(batch))


@pytest.mark.slow
def test_as_many_objects_are_found_as_a_large_tile_holds() -> None:
    one, two = pair("faster_rcnn")
    batch = noise(1, 1024, 1024)
    assert_same(one.run(batch), two.run(batch), least=1000)


def test_images_of_a_batch_answer_as_alone() -> None:
    one, _ = pair("retinanet")
    batch = noise(2, 96, 160)
    (both,) = one.run(batch)
    for image, wanted in zip(batch, both, strict=True):
        assert np.abs(one.run(image[None])[0][0] - wanted).max() < 1e-4


@pytest.mark.parametrize("strides", [(8, 16, 32), (16,)])
def test_features_under_boxes_are_those_of_torchvision(strides: tuple[int, ...]) -> None:
    """Also at the rim, beyond it, and of boxes narrower than a cell or as wide as two levels' limit."""
    rng = np.random.default_rng(0)
    height, width = 192, 256
    features = [rng.normal(size=(5, height // s, width // s)).astype(np.float32) for s in strides]
    corner, size = rng.uniform(-20, 250, (200, 2)), np.exp(rng.uniform(-6, 5, (200, 2)))
    odd = [
        [0, 0, width, height],
        [0, 0, 64, 64],
        [0, 0, 128, 128],
        [255.9, 191.9, 256, 192],
        [-9, -9, -1, -1],
    ]
    boxes = np.concatenate([np.hstack([corner, corner + size]), odd]).astype(np.float32)
    first = strides[0]
    torchs = MultiScaleRoIAlign(
        [str(k) for k in range(len(strides))], 7, 2,
        canonical_scale=8 * first, canonical_level=first.bit_length(),
    )  # fmt: skip
    given = {str(k): torch.from_numpy(each[None]) for k, each in enumerate(features)}
    wanted = torchs(given, [torch.from_numpy(boxes)], [(height, width)]).numpy()
    pool = open_pool("a", strides, 7, 10**5, device="cpu")
    seen = []
    for some, pooled in pool.portions(features, boxes):
        assert len(some) <= pool.at_once == 40
        assert np.abs(pooled - wanted[some]).max() < 1e-5
        seen += some.tolist()
    assert sorted(seen) == list(range(len(boxes)))


def test_nothing_found_is_an_empty_answer() -> None:
    one, two = pair("faster_rcnn")
    batch = np.zeros((1, 4, 64, 64), np.float32)
    assert_same(one.run(batch), two.run(batch), least=-1)


def test_boxes_are_scanned_for_without_torch(tmp_path: Path, corners: Path) -> None:
    bundle.write(tmp_path / "a.safetensors", whole("faster_rcnn"))
    (tmp_path / "torch.py").write_text("raise ImportError('torch is imported')")
    code = (
        "import sys, ecodetect\n"
        f"found = ecodetect.scan({str(corners / 'dryland.tif')!r}, model='a.safetensors', device='cpu')\n"
        "print(len(found), sorted(name for name in sys.modules if name.startswith('torch')))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[1]}"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    number, *loaded = done.stdout.split(maxsplit=1)
    assert int(number) > 10
    assert loaded == ["[]\n"]


def renamed(made: Bundle) -> Bundle:
    """The second stage where the masks should be."""
    return with_graphs(made, image=made.graphs["image"], boxes=made.graphs["image"])


def with_graphs(made: Bundle, **graphs: bytes) -> Bundle:
    facts = {
        name: StoredGraph.of(content, made.card.graphs[name].outputs) for name, content in graphs.items()
    }
    return replace(made, card=replace(made.card, graphs=facts), graphs=graphs)


CHANGES: dict[str, tuple[Callable[[Bundle], Bundle], str]] = {
    "other classes": (
        lambda made: replace(made, card=replace(made.card, classes=("a",), thresholds={})), "other maps"
    ),
    "another graph": (renamed, "has no output logits"),
    "one graph": (lambda made: with_graphs(made, image=made.graphs["image"]), "lacks the graph 'boxes'"),
    "other anchors": (
        lambda made: replace(
            made,
            card=replace(
                made.card,
                options={
                    **made.card.options, "network": {**made.card.options["network"], "ratios": (1.0, 2.0)}
                },
            ),
        ),
        "other maps",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_graphs_that_are_not_the_cards_are_refused(name: str) -> None:
    change, says = CHANGES[name]
    made = change(whole("faster_rcnn"))
    scene = Scene(made.card.bands, None, "uint8", (0.0, 255.0))
    with pytest.raises(BundleError, match=says) as refused:
        network_kind("faster_rcnn").build(torchvision_boxes.Options(), scene, made, device="cpu")
    assert "\n" not in str(refused.value)


@lru_cache(maxsize=1)
def of_thousands() -> Bundle:
    """A RetinaNet with 3,000 classes."""
    classes = tuple(f"class {number}" for number in range(3000))
    shape = {**learned.NETWORKS["retinanet"], "strides": [4]}
    card = learned.card("retinanet", classes=classes, options={"network": shape})
    return tracing.with_graphs(learned.bundle(card), lambda: torchvision_boxes.network(card))[0]


def test_a_model_of_thousands_of_classes_is_planned_for() -> None:
    def memory_of(made: Bundle) -> int:
        scene = Scene(made.card.bands, None, "uint8", (0.0, 255.0))
        options = torchvision_boxes.Options()
        return network_kind("retinanet").build(options, scene, made, device="cpu").needs.bytes_per_pixel

    assert memory_of(whole("retinanet")) < 300
    assert memory_of(of_thousands()) > 3000 * 6 * 4 / 16  # of six anchors at each 16 pixels, in 32 bits


def test_a_network_of_thousands_of_classes_runs_in_its_graph() -> None:
    made = of_thousands()
    shape = asdict(torchvision_boxes.options_of(made.card).network)
    (found,) = box_stages.open_network(made, shape, device="cpu").run(noise(1, 64, 64))
    assert found.shape == (1, 100, 6)
