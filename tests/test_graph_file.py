"""A graph in a bundle is trusted as little as an ONNX file: what training didn't store is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import learned
import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

import onnxruntime  # noqa: E402

from ecodetect.bundle import file as bundle  # noqa: E402
from ecodetect.bundle.card import StoredGraph  # noqa: E402
from ecodetect.bundle.file import Bundle  # noqa: E402
from ecodetect.detectors import heatmap  # noqa: E402
from ecodetect.detectors import table as detectors  # noqa: E402
from ecodetect.detectors.protocol import Scene  # noqa: E402
from ecodetect.errors import BundleError  # noqa: E402
from ecodetect.runtime import tracing  # noqa: E402


@pytest.fixture(scope="module")
def made() -> Bundle:
    plain = learned.bundle(learned.card(thresholds={"f1": (0.2,)}))
    return tracing.with_graphs(plain, lambda: heatmap.network(plain.card))[0]


def opened(model: Bundle) -> None:
    scene = Scene(model.card.bands, None, "uint8", None)
    detectors.build("heatmap", scene, {}, bundle=model, device="cpu")


def changed(model: Bundle, change: Callable[[Any], object]) -> Bundle:
    """The model with a graph that is changed, and named so by its card."""
    graph = onnx.load_from_string(model.graphs["image"])
    change(graph)
    content = bytes(graph.SerializeToString())
    said = StoredGraph.of(content, model.card.graphs["image"].outputs)
    return Bundle(replace(model.card, graphs={"image": said}), model.weights, graphs={"image": content})


def elsewhere(model: Any) -> None:
    at_the_end(("Add", ["x", "t"]))(model)
    tensor = onnx.numpy_helper.from_array(np.ones(1, np.float32), "t")
    tensor.external_data.add(key="location", value="/etc/passwd")
    tensor.data_location = 1
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["t"], value=tensor))


def at_the_end(*nodes: tuple[str, list[str]]) -> Callable[[Any], None]:
    """Steps between the network and its output.  nodes : operator, and inputs, "x" for what came before."""

    def change(model: Any) -> None:
        last = model.graph.output[0].name
        (maker,) = [node for node in model.graph.node if last in node.output]
        maker.output[list(maker.output).index(last)] = before = "before"
        for number, (kind, inputs) in enumerate(nodes, 1):
            after = last if number == len(nodes) else f"step{number}"
            names = [before if name == "x" else name for name in inputs]
            more = {"axis": 1} if kind == "Concat" else {}
            model.graph.node.append(onnx.helper.make_node(kind, names, [after], **more))
            before = after

    return change


HOSTILE: dict[str, Callable[[Any], object]] = {
    "weights of its own": lambda m: m.graph.initializer.add(name="w", data_type=1, dims=[1]),
    "weights in another file": elsewhere,
    "sparse weights": lambda m: m.graph.sparse_initializer.add(),
    "functions": lambda m: m.functions.add(name="f"),
    "operators of others": lambda m: m.opset_import.add(domain="com.microsoft", version=1),
    "an older set of operators": lambda m: setattr(m.opset_import[0], "version", 7),
    "an operator that no network has": at_the_end(("StringNormalizer", ["x"])),
    "a loop": at_the_end(("Loop", ["x"])),
    "memory without bounds": at_the_end(*[("Concat", ["x"] * 16)] * 8),
    "an input that is missing": at_the_end(("Add", ["x", "nowhere"])),
    "two images": lambda m: m.graph.input.append(m.graph.input[0]),
    "no output": lambda m: m.graph.ClearField("output"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_graph_that_training_did_not_store_is_refused_before_a_session(
    made: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    bundle.write(tmp_path / "m.safetensors", changed(made, HOSTILE[name]))
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *rest, **more: pytest.fail("it was opened"))
    with pytest.raises(BundleError) as refused:
        opened(bundle.read(tmp_path / "m.safetensors"))
    assert "\n" not in str(refused.value)
    assert name != "weights in another file" or "in other files" in str(refused.value)


def test_a_graph_that_is_not_the_cards_is_refused(made: Bundle, tmp_path: Path) -> None:
    other = {"image": made.graphs["image"] + b"\x00"}
    bundle.write(tmp_path / "m.safetensors", replace(made, graphs=other))
    with pytest.raises(BundleError, match="its graphs aren't those of its card"):
        bundle.read(tmp_path / "m.safetensors")


def test_weights_of_another_shape_are_refused(made: Bundle) -> None:
    name = next(name for name, values in made.weights.items() if values.ndim == 4)
    weights = {**made.weights, name: np.zeros((1, 1, 1, 1), np.float32)}
    with pytest.raises(BundleError):
        opened(replace(made, weights=weights))


def test_a_weight_that_is_missing_is_said(made: Bundle) -> None:
    name = next(name for name, values in made.weights.items() if values.ndim == 4)
    weights = {key: values for key, values in made.weights.items() if key != name}
    with pytest.raises(BundleError) as refused:
        opened(replace(made, weights=weights))
    assert "\n" not in str(refused.value)
