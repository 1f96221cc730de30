"""A bundle's graphs: what ONNX Runtime answers is what torch answers, and a graph from elsewhere is data."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import learned
import numpy as np
import pytest
from command_line import Run

from ecodetect.bundle import file as bundle
from ecodetect.bundle.card import Card, StoredGraph
from ecodetect.bundle.file import Bundle
from ecodetect.detectors.table import network_kind
from ecodetect.detectors.window_networks import open_classifier, open_single
from ecodetect.errors import BundleError
from ecodetect.runtime import onnx_file, opening

torch = pytest.importorskip("torch")

from ecodetect.runtime import tracing  # noqa: E402 - it needs torch

KINDS = ("heatmap", "yolo", "sliding_window")


def graphed(card: Card) -> Bundle:
    kind = network_kind(card.detector)
    return tracing.with_graphs(learned.bundle(card), lambda: kind.network(card, None))[0]


@cache
def of_kind(kind: str) -> Bundle:
    return graphed(learned.card(kind))


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest) -> Bundle:
    return of_kind(request.param)


def without_graphs(made: Bundle) -> Bundle:
    """The same model as it was before bundles had graphs: torch runs it."""
    return Bundle(replace(made.card, graphs={}), made.weights)


def answers_alike(one: Any, two: Any, side: int, count: int = 2) -> None:
    batch = np.random.default_rng(1).normal(0.5, 0.3, (count, 4, side, side)).astype(np.float32)
    assert type(one).__module__ != type(two).__module__  # two runtimes
    assert one.stride == two.stride
    for found, wanted in zip(one.run(batch), two.run(batch), strict=True):
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= 1e-4 * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("step", [2, 4, 8, 16])
def test_windows_that_share_features_answer_as_in_torch(step: int) -> None:
    made = graphed(learned.card("sliding_window", options={"network": {**learned.VALID, "step": step}}))
    one, two = (open_classifier(each, "cpu", 1) for each in (made, without_graphs(made)))
    assert (one.reach_px, one.is_local) == (two.reach_px, two.is_local)
    answers_alike(one, two, 96)


def test_windows_given_one_by_one_answer_as_in_torch() -> None:
    network = {**learned.VALID, "evaluation": "windows", "step": 16}
    made = graphed(learned.card("sliding_window", options={"network": network}))
    one, two = (open_classifier(each, "cpu", 1) for each in (made, without_graphs(made)))
    assert (one.reach_px, one.is_local) == (two.reach_px, two.is_local)
    answers_alike(one, two, 96)
    (one, side), (two, _) = (open_single(each, "cpu", 1) for each in (made, without_graphs(made)))
    answers_alike(one, two, side, count=3)


def of_squeezenet(evaluation: str) -> Bundle:
    network = {"kind": "squeezenet1_1", "evaluation": evaluation, "window": 32, "step": 16}
    card, kind = learned.card("sliding_window", options={"network": network}), network_kind("sliding_window")
    torch.manual_seed(0)
    weights = {name: each.numpy() for name, each in kind.network(card, None).state_dict().items()}
    return tracing.with_graphs(Bundle(card, weights), lambda: kind.network(card, None))[0]


@pytest.mark.parametrize("evaluation", ["dense", "windows"])
def test_a_backbone_answers_as_in_torch(evaluation: str) -> None:
    made = of_squeezenet(evaluation)
    answers_alike(*(open_classifier(each, "cpu", 1) for each in (made, without_graphs(made))), 96)
    for has_head in (True, False):
        (one, side), (two, _) = (
            open_single(each, "cpu", 1, has_head=has_head) for each in (made, without_graphs(made))
        )
        answers_alike(one, two, side)


def test_a_bundle_with_graphs_comes_back_as_it_was_written(made: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    bundle.write(path, made)
    back = bundle.read(path)
    assert back.card.to_json() == made.card.to_json()
    assert back.hash == made.hash
    assert back.graphs == made.graphs
    assert set(back.weights) == set(made.weights)


def test_the_same_network_gives_the_same_graph() -> None:
    card = learned.card("heatmap")
    assert graphed(card).graphs == graphed(card).graphs


# One process scans with all kinds, for each would take seconds to begin.
SCANS = """
import contextlib, io, json, sys
import numpy as np
import rasterio
from ecodetect_cli.main import main
found = {}
for kind in sys.argv[1:]:
    pixels = np.load(f"{kind}.npy").clip(0, 255).astype(np.uint8)
    options = dict(driver="GTiff", width=128, height=128, count=4, dtype="uint8")
    with rasterio.open(f"{kind}.tif", "w", **options) as file:
        file.write(pixels)
        file.descriptions = ("red", "green", "blue", "nir")
    with contextlib.redirect_stdout(io.StringIO()):
        code = main(["scan", f"{kind}.tif", "-m", f"{kind}.safetensors", "-q"])
    found[kind] = code, sorted({"torch", "torchvision"} & set(sys.modules))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Of each kind the exit code of a scan, and which modules of torch were imported by then."""
    folder = tmp_path_factory.mktemp("scanned")
    for kind in KINDS:
        made = of_kind(kind)
        bundle.write(folder / f"{kind}.safetensors", made)
        np.save(folder / f"{kind}.npy", learned.discs(made.card, side=128).image * 120)
    done = subprocess.run(
        [sys.executable, "-c", SCANS, *KINDS], capture_output=True, text=True, encoding="utf-8", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_scan_with_a_graph_imports_no_torch(kind: str, scanned: dict[str, list[Any]]) -> None:
    assert scanned[kind] == [0, []]


def test_a_bundle_with_graphs_can_be_exported_to_onnx(
    heatmap: Bundle, tmp_path: Path, ecodetect: Run
) -> None:
    pytest.importorskip("onnx")
    bundle.write(tmp_path / "model.safetensors", heatmap)
    done = ecodetect("export", tmp_path / "model.safetensors", "-o", tmp_path / "model.onnx")
    assert done.code == 0, done.err
    assert onnx_file.read(tmp_path / "model.onnx").card.graphs == {}


def tampered(made: Bundle, content: bytes) -> Bundle:
    """The bundle with another graph, of which its card knows."""
    (name,) = made.graphs
    outputs = made.card.graphs[name].outputs
    card = replace(made.card, graphs={name: StoredGraph.of(content, outputs)})
    return Bundle(card, made.weights, graphs={name: content})


def opened(made: Bundle) -> opening.Network:
    outputs = {"maps": (1, 1.0)}
    return opening.open_network(
        made, lambda: pytest.fail("torch was asked"), outputs, device="cpu", threads=1
    )


@pytest.fixture(scope="module")
def heatmap() -> Bundle:
    return of_kind("heatmap")


def test_a_graph_that_its_card_does_not_know_is_refused(
    heatmap: Bundle, tmp_path: Path, ecodetect: Run
) -> None:
    path = tmp_path / "one.safetensors"
    bundle.write(path, replace(heatmap, graphs={"image": heatmap.graphs["image"] + b"\x00"}))
    with pytest.raises(BundleError, match="its graphs aren't those of its card"):
        bundle.read(path)
    assert ecodetect("info", path).code == 2


@pytest.mark.parametrize("what", ["empty", "cut short", "text", "a weight of its own", "a weight in a file"])
def test_a_graph_that_is_none_of_ours_is_one_sentence(heatmap: Bundle, what: str) -> None:
    content = heatmap.graphs["image"]
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(content)
    tensor = model.graph.initializer.add(name="x", data_type=1, dims=[1], raw_data=b"\0\0\0\0")
    own = model.SerializeToString()
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    spoilt = {
        "empty": b"",
        "cut short": content[: len(content) // 2],
        "text": b"no graph",
        "a weight of its own": own,
        "a weight in a file": model.SerializeToString(),
    }[what]
    with pytest.raises(BundleError, match="damaged"):
        opened(tampered(heatmap, spoilt))


def test_a_graph_with_an_operator_of_others_is_refused(heatmap: Bundle) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(heatmap.graphs["image"])
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "NonZero"
    with pytest.raises(BundleError, match="not one of a network that ecodetect exports"):
        opened(tampered(heatmap, model.SerializeToString()))


def test_a_graph_with_other_maps_than_its_card_is_refused(heatmap: Bundle) -> None:
    assert opened(heatmap).run(np.zeros((1, 4, 64, 64), np.float32))[0].shape == (1, 1, 64, 64)
    with pytest.raises(BundleError, match="other maps"):
        opening.open_network(
            heatmap, lambda: pytest.fail("torch was asked"), {"maps": (2, 1.0)}, device="cpu"
        )


def test_a_weight_that_a_graph_lacks_is_a_sentence(heatmap: Bundle) -> None:
    weights = dict(heatmap.weights)
    weights.pop("decoder.head.weight")
    with pytest.raises(BundleError, match="before it is made"):
        opened(replace(heatmap, weights=weights))


def test_what_overflows_within_a_network_is_refused(heatmap: Bundle) -> None:
    """What is too large may come out as 0 or 1, by clamps and gates: nothing would be found, in silence."""
    weights = dict(heatmap.weights)
    for name, values in weights.items():
        if values.ndim == 4 and not name.startswith("decoder.head"):
            weights[name] = np.full_like(values, 1e12)
    with pytest.raises(BundleError, match="isn't finite"):
        opened(replace(heatmap, weights=weights))


def test_the_hash_of_a_card_is_that_of_its_graph(heatmap: Bundle) -> None:
    content = heatmap.graphs["image"]
    assert heatmap.card.graphs["image"].sha256 == hashlib.sha256(content).hexdigest()
    assert len(content) < 100_000


def test_a_graph_for_windows_with_other_classes_than_its_card_is_refused() -> None:
    made = graphed(learned.card("sliding_window"))
    other = replace(made, card=replace(made.card, classes=("a", "b")))
    with pytest.raises(BundleError, match="other scores"):
        open_classifier(other, "cpu", 1)


def test_a_bundle_takes_no_tile_and_no_options_when_it_gets_its_graph(
    heatmap: Bundle, tmp_path: Path, ecodetect: Run
) -> None:
    bundle.write(tmp_path / "old.safetensors", without_graphs(heatmap))
    words = ("export", tmp_path / "old.safetensors", "-o", tmp_path / "new.safetensors")
    assert "holds the whole network" in ecodetect(*words, "--tile", 512).err
    assert ecodetect(*words).code == 0
    assert bundle.read(tmp_path / "new.safetensors").graphs == heatmap.graphs


def test_features_beyond_those_of_any_network_are_refused() -> None:
    """The limit of memory for a network grows with what its card says that it answers."""
    made = graphed(learned.card("heatmap"))
    (stored,) = made.card.graphs.values()
    for features, is_read in ((8192, True), (8193, False), (10**6, False)):
        graph = replace(stored, outputs={**stored.outputs, "features": features})
        text = replace(made.card, graphs={"image": graph}).to_json()
        if is_read:
            assert Card.from_json(text, source="x").graphs["image"].outputs["features"] == features
        else:
            with pytest.raises(BundleError, match="graphs can't be"):
                Card.from_json(text, source="x")


def test_scores_are_as_many_as_classes_whatever_the_card_says_of_its_graph() -> None:
    made = of_squeezenet("dense")
    (stored,) = made.card.graphs.values()
    lying = replace(stored, outputs={**stored.outputs, "scores": 10**6})
    batch = np.random.default_rng(1).normal(0.5, 0.3, (1, 4, 64, 64)).astype(np.float32)
    answers = [
        open_classifier(replace(made, card=replace(made.card, graphs={"image": each})), "cpu", 1).run(batch)
        for each in (stored, lying)
    ]
    np.testing.assert_array_equal(*(found for (found,) in answers))


def test_answers_do_not_depend_on_the_sizes_seen_before(heatmap: Bundle) -> None:
    """Between sizes memory is given back; that must change nothing."""
    network = opened(heatmap)
    images = [np.random.default_rng(side).random((1, 4, side, 96), np.float32) for side in (64, 160, 96)]
    alone = [opened(heatmap).run(image) for image in images]
    for image, (wanted,) in zip([*images, *images], [*alone, *alone], strict=True):
        (found,) = network.run(image)
        assert np.array_equal(found, wanted)


def test_windows_take_tiles_of_any_size_in_turn() -> None:
    """A network without padding takes no image smaller than its window."""
    made = of_kind("sliding_window")
    network = open_classifier(made, "cpu", None)
    for side in (64, 320, 72, 160):
        image = np.random.default_rng(side).random((1, 4, side, side), np.float32)
        alone = open_classifier(replace(made, weights=dict(made.weights)), "cpu", None)
        assert np.array_equal(network.run(image)[0], alone.run(image)[0])


def test_threads_that_share_a_network_get_their_own_answers(heatmap: Bundle) -> None:
    network = opened(heatmap)
    images = [
        np.random.default_rng(seed).random((1, 4, 64, 64 + 16 * (seed % 3)), np.float32) for seed in range(12)
    ]
    wanted = [network.run(image)[0] for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(network.run, images))
    assert all(np.array_equal(one, two) for (one,), two in zip(found, wanted, strict=True))


def test_the_memory_of_a_network_is_known_from_its_graph(heatmap: Bundle) -> None:
    """At least its input and its answer are held at once, and not a hundred times as much."""
    held = opened(heatmap).bytes_per_pixel
    assert held is not None
    assert 4 * 4 < held < 400 * 4
