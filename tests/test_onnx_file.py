"""ONNX is data: only what `export` writes is read, in one way, and its work is known beforehand."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import learned
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from ecodetect import exporting  # noqa: E402
from ecodetect.bundle import file as bundle  # noqa: E402
from ecodetect.detectors.protocol import Scene  # noqa: E402
from ecodetect.errors import BundleError  # noqa: E402
from ecodetect.models import choosing as models  # noqa: E402
from ecodetect.runtime import onnx_file, onnx_work  # noqa: E402

SCENE = Scene(("red", "green", "blue", "nir"), None, "uint8", (0.0, 255.0))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    bundle.write(folder / "a.safetensors", learned.bundle(learned.card()))
    exporting.export(folder / "a.safetensors", folder / "a.onnx")
    return folder / "a.onnx"


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, as protobuf writes it."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def _with_graph(content: bytes, more: bytes) -> bytes:
    """A file with more at the end of its graph."""
    model = onnx.load_from_string(content)
    graph = bytes(model.graph.SerializeToString()) + more
    model.ClearField("graph")
    return bytes(model.SerializeToString()) + field(7, graph)


def first_tensor(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """A file in which the first weight's bytes are changed."""

    def changed(content: bytes) -> bytes:
        model = onnx.load_from_string(content)
        made = change(model.graph.initializer[0].SerializeToString())
        del model.graph.initializer[0]
        return _with_graph(bytes(model.SerializeToString()), field(5, made))

    return changed


# Each is read in one way by protobuf, and might be in another by us.
AMBIGUOUS: dict[str, Callable[[bytes], bytes]] = {
    "a tag of 35 bits that ends like one we know": lambda c: c + varint((1 << 32) | (7 << 3) | 2) + b"\x00",
    "a tag longer than it need be": lambda c: c + b"\x88\x80\x00\x09",
    "a number longer than it need be": lambda c: c + b"\x28\x89\x00",
    "a number of 70 bits": lambda c: c + b"\x28" + b"\xff" * 9 + b"\x7f",
    "a field 0": lambda c: c + b"\x02\x00",
    "a group": lambda c: c + b"\x3b\x3c",
    "a field that nobody knows": lambda c: c + field(99, b"x"),
    "a known field of another type": lambda c: c + b"\x38\x01",
    "a second graph, which protobuf merges": lambda c: c + field(7, b""),
    "a second name of a weight": first_tensor(lambda t: t + field(8, b"other")),
    "second bytes of a weight": first_tensor(lambda t: t + field(9, b"1234")),
    "packed sides of a weight": first_tensor(lambda t: t + field(1, b"\x01")),
    "a negative side": first_tensor(lambda t: t + b"\x08" + b"\xff" * 9 + b"\x01"),
    "a side that the file has no bytes for": first_tensor(lambda t: t + b"\x08" + varint(10**9)),
    "floats beside the bytes": first_tensor(lambda t: t + field(4, struct.pack("<f", 1.0))),
    "another type of the same size": first_tensor(lambda t: t + b"\x10\x06"),
    "training": lambda c: c + field(20, b""),
    "functions": lambda c: c + field(25, b""),
    "bytes at the end": lambda c: c + b"\xff",
    "metadata that say it twice": lambda c: c + field(14, field(1, b"ecodetect") + field(2, b"{}")),
    "operators of others": lambda c: c + field(8, field(1, b"com.microsoft") + b"\x10\x01"),
    "sparse weights": lambda c: _with_graph(c, field(15, b"")),
    "numbers of weights": lambda c: _with_graph(c, field(14, b"")),
    "two inputs": lambda c: _with(c, lambda m: m.graph.input.append(m.graph.input[0])),
    "a weight twice": lambda c: _with(c, lambda m: m.graph.initializer.append(m.graph.initializer[0])),
}


def _with(content: bytes, change: Callable[[Any], Any]) -> bytes:
    model = onnx.load_from_string(content)
    change(model)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("name", sorted(AMBIGUOUS))
def test_what_could_be_read_in_two_ways_is_not_read(exported: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(AMBIGUOUS[name](exported.read_bytes()))
    with pytest.raises(BundleError, match="not an ONNX file") as refused:
        onnx_file.read(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("place", "value"), [("data_location", 1), ("external_data", None)])
def test_weights_in_other_files_are_never_opened(
    exported: Path, tmp_path: Path, place: str, value: Any
) -> None:
    def change(model: Any) -> None:
        for tensor in (model.graph.initializer[0], model.graph.node[-1].attribute.add().t):
            if value is None:
                tensor.external_data.add(key="location", value="/etc/passwd")
            else:
                setattr(tensor, place, value)

    path = tmp_path / "a.onnx"
    path.write_bytes(_with(exported.read_bytes(), change))
    with pytest.raises(BundleError, match="keeps weights in other files"):
        onnx_file.read(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_finite_numbers_are_refused(exported: Path, tmp_path: Path, value: float) -> None:
    def change(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.raw_data = struct.pack("<f", value) + tensor.raw_data[4:]

    path = tmp_path / "a.onnx"
    path.write_bytes(_with(exported.read_bytes(), change))
    with pytest.raises(BundleError, match="isn't finite"):
        onnx_file.read(path)


def test_answers_that_are_no_finite_numbers_are_refused(exported: Path, tmp_path: Path) -> None:
    def change(model: Any) -> None:
        for tensor in model.graph.initializer:
            tensor.raw_data = struct.pack("<f", 9e11) * (len(tensor.raw_data) // 4)

    path = tmp_path / "a.onnx"
    path.write_bytes(_with(exported.read_bytes(), change))
    with pytest.raises(BundleError, match="gives a value that isn't finite"):
        models.build(path, SCENE).detect([])  # its first run is on nothing but zeros


def before_the_end(*nodes: Any, weights: Any = ()) -> Callable[[Any], None]:
    """A model whose image goes through more steps, from "image" to "wide", which nothing uses."""

    def change(model: Any) -> None:
        model.graph.initializer.extend(weights)
        kept = list(model.graph.node)
        model.graph.ClearField("node")
        model.graph.node.extend([*nodes, *kept])

    return change


def numbers(name: str, *values: int) -> Any:
    return onnx.numpy_helper.from_array(np.array(values, np.int64), name)


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return onnx.helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def floats(name: str, *values: float) -> Any:
    return onnx.numpy_helper.from_array(np.array(values, np.float32), name)


def blank(name: str, *sides: int) -> Any:
    return onnx.numpy_helper.from_array(np.zeros(sides, np.float32), name)


LOOP = onnx.helper.make_graph([], "g", [], [])
WORK: dict[str, tuple[Callable[[Any], None], str]] = {
    "a loop": (before_the_end(node("Loop", "image", "wide", body=LOOP)), "has a field 6"),
    "a branch": (before_the_end(node("If", "image", "wide", then_branch=LOOP)), "has a field 6"),
    "a loop without a body": (before_the_end(node("Loop", "image", "wide")), "operator Loop"),
    "noise": (before_the_end(node("RandomNormal", "", "wide", shape=[10**6, 10**6])), "RandomNormal"),
    "a tensor of any size": (
        before_the_end(node("ConstantOfShape", "n", "wide"), weights=[numbers("n", 10**6, 10**6)]),
        "more than",
    ),
    "a rim": (
        before_the_end(
            node("Pad", "image n", "wide"), weights=[numbers("n", 0, 0, 4000, 4000, 0, 0, 4000, 4000)]
        ), "more than",
    ),
    "a wide rim": (
        before_the_end(node("Pad", "image n", "wide"), weights=[numbers("n", *[10**9] * 8)]), "rim",
    ),
    "repeating": (
        before_the_end(node("Tile", "image n", "wide"), weights=[numbers("n", 1, 1, 10**4, 10**4)]), "Tile"
    ),
    "enlarging again and again": (
        before_the_end(
            *[node("Resize", f"{'image' if not k else f'x{k}'}  r s".replace("  ", " "), f"x{k + 1}")
              for k in range(8)],
            weights=[floats("r"), floats("s", 1, 1, 4, 4)],
        ), "more than",
    ),
    "enlarging at once": (
        before_the_end(
            node("Resize", "image r s", "wide"), weights=[floats("r"), floats("s", 1, 1, 1e6, 1e6)]
        ),
        "64 times",
    ),
    "joining again and again": (
        before_the_end(
            *[node("Concat", f"{'image' if not k else f'x{k}'} {'image' if not k else f'x{k}'}", f"x{k + 1}",
                   axis=1) for k in range(40)]
        ), "more than",
    ),
    "an operator of others": (
        before_the_end(onnx.helper.make_node("Conv", ["image"], ["wide"], domain="com.evil")),
        "not an ONNX file",
    ),
    "strides that are none": (
        before_the_end(node("MaxPool", "image", "wide", kernel_shape=[2, 2], strides=[0, 0])), "windows"
    ),
    "windows by a number": (before_the_end(node("MaxPool", "image", "wide", kernel_shape=2)), "kernel_shape"),
    "an attribute that nobody needs": (before_the_end(node("Relu", "image", "wide", x=1)), "attribute x"),
    "a shape of other pixels": (
        before_the_end(node("Reshape", "image n", "wide"), weights=[numbers("n", 7, 7)]), "another size"
    ),
    "squares of an image": (
        before_the_end(
            node("Reshape", "image m", "one"), node("Reshape", "image k", "two"),
            node("MatMul", "one two", "wide"),
            weights=[numbers("m", -1, 1), numbers("k", 1, -1)],
        ), "more than",
    ),
    "a division that ends the process": (
        before_the_end(node("Div", "n m", "wide"), weights=[numbers("n", -(2**63)), numbers("m", -1)]),
        "division",
    ),
    "a division of pixels": (
        before_the_end(
            node("Cast", "image", "one", to=7), node("Div", "one m", "wide"), weights=[numbers("m", -1)]
        ), "division",
    ),
    "nothing, made large": (
        before_the_end(
            node("Slice", "image n m k", "one"), node("Resize", "one r s", "wide"),
            weights=[numbers("n", 0), numbers("m", 0), numbers("k", 2), floats("r"),
                     floats("s", 1, 1, 64, 1)],
        ), "empty tensor",
    ),
    "backwards from before the first": (
        before_the_end(
            node("Slice", "image n m k j", "one"), *[node("Resize", f"{one} r s", two) for one, two in
                                                     (("one", "two"), ("two", "three"), ("three", "wide"))],
            weights=[numbers("n", -(10**6)), numbers("m", -(10**9)), numbers("k", 2), numbers("j", -1),
                     floats("r"), floats("s", 1, 1, 64, 64)],
        ), "more than",
    ),
    "sizes that overflow": (
        before_the_end(
            node("Mul", "n n", "one"), node("Cast", "one", "two", to=7), node("Add", "two m", "three"),
            node("ConstantOfShape", "three", "wide"),
            weights=[onnx.numpy_helper.from_array(np.array([2**16], np.int32), "n"), numbers("m", 10**10)],
        ), "more than",
    ),
    "axes in another order": (
        before_the_end(
            node("Pad", "image n  k".replace("  ", " r "), "wide"),
            weights=[numbers("n", *[0] * 8), floats("r", 0), numbers("k", 3, 2, 1, 0)],
        ), "rim",
    ),
    "squares of an image, as a layer": (
        before_the_end(
            node("Reshape", "image m", "one"), node("Reshape", "image k", "two"),
            node("Gemm", "one two", "wide", alpha=1.0),
            weights=[numbers("m", -1, 1), numbers("k", 1, -1)],
        ), "more than",
    ),
    "a layer of other channels": (
        before_the_end(
            node("Flatten", "image", "one", axis=1), node("Gemm", "one r", "wide", transB=1),
            weights=[blank("r", 2, 3)],
        ), "layer of other channels",
    ),
    "a layer of images": (
        before_the_end(node("Gemm", "image r", "wide"), weights=[blank("r", 2, 3)]), "isn't one of rows"
    ),
    "flattening what isn't there": (before_the_end(node("Flatten", "image", "wide", axis=9)), "an axis"),
    "a mean over everything": (before_the_end(node("ReduceMean", "image", "wide")), "mean over axes"),
    "a mean over what isn't there": (
        before_the_end(node("ReduceMean", "image", "wide", axes=[7])), "an axis"
    ),
    "a normalisation of other channels": (
        before_the_end(
            node("InstanceNormalization", "image r r", "wide", epsilon=1e-5), weights=[blank("r", 3)]
        ), "normalisation of other channels",
    ),
    "enlarging by windows": (
        before_the_end(
            *[node("ConvTranspose", f"{one} r", two, kernel_shape=[32, 32], strides=[32, 32])
              for one, two in (("image", "one"), ("one", "wide"))],
            weights=[blank("r", 4, 4, 32, 32)],
        ), "more than",
    ),
    "enlarging by windows that overlap": (
        before_the_end(
            node("ConvTranspose", "image r", "wide", kernel_shape=[2, 2]), weights=[blank("r", 4, 4, 2, 2)]
        ), "side by side",
    ),
    "enlarging far apart": (
        before_the_end(
            node("ConvTranspose", "image r", "wide", strides=[2, 2], dilations=[999, 999]),
            weights=[blank("r", 4, 4, 2, 2)],
        ), "side by side",
    ),
    "enlarging to a size of its own": (
        before_the_end(
            node("ConvTranspose", "image r", "wide", strides=[2, 2], output_shape=[10**6, 10**6]),
            weights=[blank("r", 4, 4, 2, 2)],
        ), "attribute output_shape",
    ),
    "operators of another version": (
        lambda model: setattr(model.opset_import[0], "version", 18), "of version 17",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(WORK))
def test_a_graph_that_asks_for_more_than_a_network_needs_is_refused_before_a_session(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import onnxruntime

    change, says = WORK[name]
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *rest, **more: pytest.fail("it was opened"))
    path = tmp_path / "a.onnx"
    path.write_bytes(_with(exported.read_bytes(), change))
    with pytest.raises(BundleError, match=says) as refused:
        models.build(path, SCENE)
    assert "\n" not in str(refused.value)


def test_shapes_are_what_the_runtime_says(exported: Path) -> None:
    import onnxruntime

    found = onnx_file.read(exported)
    session = onnxruntime.InferenceSession(found.content, providers=["CPUExecutionProvider"])
    for shape in ((1, 4, 8, 12), (3, 4, 64, 32)):
        (answer,) = session.run(None, {"image": np.zeros(shape, np.float32)})
        assert onnx_work.shapes(found.graph, shape) == {"maps": answer.shape}
    assert found.parameters == sum(each.size for each in found.graph.weights.values())


LAYERS: dict[str, tuple[Any, Any]] = {
    "a mean": (node("ReduceMean", "image", "wide", axes=[2, 3], keepdims=0), []),
    "a mean that keeps its axes": (node("ReduceMean", "image", "wide", axes=[-1]), []),
    "rows": (node("Flatten", "image", "wide", axis=2), []),
    "a normalisation": (node("InstanceNormalization", "image r r", "wide"), [blank("r", 4)]),
    "enlarging": (node("ConvTranspose", "image r b", "wide", strides=[3, 2]),
                  [blank("r", 4, 5, 3, 2), blank("b", 5)]),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_what_a_layer_makes_is_what_the_runtime_makes(exported: Path, tmp_path: Path, name: str) -> None:
    import onnxruntime

    made, weights = LAYERS[name]

    def change(model: Any) -> None:
        before_the_end(made, weights=weights)(model)
        model.graph.output.append(onnx.helper.make_tensor_value_info("wide", 1, None))

    path = tmp_path / "a.onnx"
    path.write_bytes(_with(exported.read_bytes(), change))
    found = onnx_file.read(path)
    session = onnxruntime.InferenceSession(found.content, providers=["CPUExecutionProvider"])
    for shape in ((1, 4, 8, 12), (2, 4, 16, 20)):
        (answer,) = session.run(["wide"], {"image": np.zeros(shape, np.float32)})
        assert onnx_work.shapes(found.graph, shape)["wide"] == answer.shape


@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 1, 1)])
def test_windows_are_counted_as_the_runtime_does(
    exported: Path, tmp_path: Path, ceil_mode: int, pads: tuple[int, ...]
) -> None:
    import onnxruntime

    pool = node(
        "MaxPool", "image", "wide", kernel_shape=[3, 3], strides=[3, 2], pads=pads, ceil_mode=ceil_mode
    )

    def change(model: Any) -> None:
        before_the_end(pool)(model)
        model.graph.output.append(onnx.helper.make_tensor_value_info("wide", 1, None))

    path = tmp_path / "a.onnx"
    path.write_bytes(_with(exported.read_bytes(), change))
    found = onnx_file.read(path)
    session = onnxruntime.InferenceSession(found.content, providers=["CPUExecutionProvider"])
    for shape in ((1, 4, 8, 12), (1, 4, 16, 20)):
        (answer,) = session.run(["wide"], {"image": np.zeros(shape, np.float32)})
        assert onnx_work.shapes(found.graph, shape)["wide"] == answer.shape
