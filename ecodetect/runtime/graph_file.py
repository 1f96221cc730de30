"""A network's graph as a bundle holds it: in ONNX, without weights, which lie beside it under the same names.

The graph is that of the network as it was trained, with batch normalisation apart, so that its tensors are
the bundle's weights and nothing is stored twice; ONNX Runtime folds the normalisation when it opens the
graph. The outputs that are wanted are put together in memory, and checked as any file in ONNX is
(`onnx_file`, `onnx_work`). Format: https://onnx.ai/onnx/repo-docs/IR.html, https://protobuf.dev/programming-
guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecodetect.bundle.file import Weights
from ecodetect.errors import BundleError
from ecodetect.runtime.onnx_file import FLOAT, INT64, TYPES, Graph, fields, graph_in

_GRAPH, _NODE, _WEIGHT, _OUTPUT = 7, 1, 5, 12  # numbers of fields: of a model, and of a graph
_NODE_INPUT, _NODE_OUTPUT, _NODE_KIND, _NAME = 1, 2, 4, 1
_LAYERS = {  # operators whose answers may grow
    *(b"Add", b"BatchNormalization", b"Conv", b"ConvTranspose"),
    *(b"Gemm", b"InstanceNormalization", b"MatMul", b"Mul"),
}


def bare(content: bytes, names: Mapping[str, str]) -> bytes:
    """A file in ONNX without its weights.

    names : what each weight is called in the bundle.
    Raises ValueError for a weight that isn't among them.
    """
    graph = bytearray()
    renamed = {old.encode(): new.encode() for old, new in names.items()}
    for number, wire, value in fields(_graph(content)):
        if number == _WEIGHT:
            own = next(bytes(each) for field, _, each in fields(value) if field == 8)
            if own not in renamed:
                raise ValueError(f"the graph has a weight that isn't the network's ({own.decode()[:40]})")
        elif number == _NODE:
            graph += _field(_NODE, _with_inputs(value, renamed))
        else:
            graph += _field(number, value) if wire == 2 else _whole(number, value)
    return _with_graph(content, bytes(graph))


def with_weights(
    content: bytes, weights: Weights, outputs: Sequence[str], shown: str, *, has_layers: bool = False
) -> tuple[bytes, Graph]:
    """A file in ONNX of a stored graph, with the weights it asks for, and what it says.

    content : as `bare` gives it.
    outputs : those wanted; what only others need is left out.
    shown : the bundle, for messages.
    has_layers : whether what each layer gives is an output too.
    Raises BundleError where the graph isn't one that training stores, or a weight is missing.
    """
    try:
        whole = _whole_graph(content, weights, outputs, has_layers)
        return whole, graph_in(whole)
    except (ValueError, IndexError, OverflowError, UnicodeError) as error:
        raise BundleError(f"The graph of '{shown}' is damaged ({error or 'it ends too early'}).") from error


def _whole_graph(content: bytes, weights: Weights, outputs: Sequence[str], has_layers: bool) -> bytes:
    parts = list(fields(_graph(content)))
    if any(number == _WEIGHT for number, _, _ in parts):
        raise ValueError("it has weights of its own")
    nodes = [(value, *_ends(value)) for number, _, value in parts if number == _NODE]
    wanted = {name.encode() for name in outputs}
    kept = []
    for value, inputs, made in reversed(nodes):
        if not wanted.isdisjoint(made):
            kept.append(value)
            wanted.update(inputs)
    graph = bytearray()
    for value in reversed(kept):
        graph += _field(_NODE, value)
    there = {_name(value): value for number, _, value in parts if number == _OUTPUT}
    missing = [name for name in outputs if name.encode() not in there]
    if missing:
        raise ValueError(f"it has no output {missing[0]}")
    for name in outputs:
        graph += _field(_OUTPUT, there[name.encode()])
    layers = [_ends(value)[1][0] for value in reversed(kept) if has_layers and _kind(value) in _LAYERS]
    for each in layers:
        if each not in there:
            graph += _field(_OUTPUT, _field(1, each) + _field(2, _field(1, _whole(1, FLOAT))))
    for number, wire, value in parts:
        if number not in (_NODE, _OUTPUT):
            graph += _field(number, value) if wire == 2 else _whole(number, value)
    made_by = {name for _, _, made in nodes for name in made}
    for each in sorted(wanted - made_by):
        values = weights.get(each.decode())
        if values is not None:
            graph += _field(_WEIGHT, _tensor(each, values))
    return _with_graph(content, bytes(graph))


def _graph(content: bytes) -> memoryview:
    found = [value for number, _, value in fields(memoryview(content)) if number == _GRAPH]
    if len(found) != 1:
        raise ValueError("it has no graph")
    graph: memoryview = found[0]
    return graph


def _with_graph(content: bytes, graph: bytes) -> bytes:
    whole = bytearray()
    for number, wire, value in fields(memoryview(content)):
        if number == _GRAPH:
            whole += _field(_GRAPH, graph)
        else:
            whole += _field(number, value) if wire == 2 else _whole(number, value)
    return bytes(whole)


def _ends(node: memoryview) -> tuple[list[bytes], list[bytes]]:
    """Names of a node's inputs and outputs."""
    ends: tuple[list[bytes], list[bytes]] = ([], [])
    for number, wire, value in fields(node):
        if number in (_NODE_INPUT, _NODE_OUTPUT) and wire == 2 and len(value):
            ends[number - 1].append(bytes(value))
    return ends


def _kind(node: memoryview) -> bytes:
    """The operator of a node."""
    return next((bytes(each) for number, _, each in fields(node) if number == _NODE_KIND), b"")


def _name(value: memoryview) -> bytes:
    return next((bytes(each) for number, _, each in fields(value) if number == _NAME), b"")


def _with_inputs(node: memoryview, names: Mapping[bytes, bytes]) -> bytes:
    """A node whose inputs are renamed."""
    made = bytearray()
    for number, wire, value in fields(node):
        if number == _NODE_INPUT:
            made += _field(number, names.get(bytes(value), bytes(value)))
        else:
            made += _field(number, value) if wire == 2 else _whole(number, value)
    return bytes(made)


# -- writing messages --------------------------------------------------------------------------------------


def roi_align(side: int) -> bytes:
    """A model that takes features under boxes, as torchvision's `roi_align` with two samples a cell does.

    side : of what is taken, in cells.
    Inputs: features (1, C, h, w), boxes (n, 4) in cells of the features, image (n,), all 0.
    Output: pooled (n, C, side, side).
    """
    attributes: Iterable[tuple[str, bytes]] = (
        ("mode", _field(4, b"avg") + _whole(20, 3)),
        ("coordinate_transformation_mode", _field(4, b"output_half_pixel") + _whole(20, 3)),
        ("output_height", _whole(3, side) + _whole(20, 2)),
        ("output_width", _whole(3, side) + _whole(20, 2)),
        ("sampling_ratio", _whole(3, 2) + _whole(20, 2)),
    )
    names = ("features", "boxes", "image")
    node = (
        b"".join(_field(1, name.encode()) for name in names) + _field(2, b"pooled") + _field(4, b"RoiAlign")
    )
    node += b"".join(_field(5, _field(1, name.encode()) + value) for name, value in attributes)
    sides = ((b"n", b"c", b"h", b"w"), (b"m", 4), (b"m",))
    kinds = (FLOAT, FLOAT, INT64)
    given = zip(names, kinds, sides, strict=True)
    graph = _field(1, node) + _field(2, b"pooling")
    graph += b"".join(_field(11, _value(name.encode(), kind, shape)) for name, kind, shape in given)
    graph += _field(12, _value(b"pooled", FLOAT, (b"m", b"c", side, side)))
    return _whole(1, 8) + _field(7, graph) + _field(8, _field(1, b"") + _whole(2, 17))


def _value(name: bytes, kind: int, shape: Sequence[bytes | int]) -> bytes:
    sides = b"".join(
        _field(1, _whole(1, side) if isinstance(side, int) else _field(2, side)) for side in shape
    )
    return _field(1, name) + _field(2, _field(1, _whole(1, kind) + _field(2, sides)))


def _tensor(name: bytes, values: NDArray[Any]) -> bytes:
    """Weights as a tensor; of 16 bits in 32, in which networks compute."""
    whole = np.asarray(values, np.float32 if values.dtype.kind == "f" else values.dtype, order="C")
    kind = next((number for number, dtype in TYPES.items() if np.dtype(dtype) == whole.dtype), None)
    if kind is None:
        raise ValueError(f"its weights are of the type {whole.dtype}")
    dims = b"".join(_whole(1, side) for side in whole.shape)
    return dims + _whole(2, kind) + _field(8, name) + _field(9, whole.tobytes())


def _field(number: int, content: bytes | memoryview) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + bytes(content)


def _whole(number: int, value: int | memoryview) -> bytes:
    if isinstance(value, memoryview):  # a number of 32 bits, as it is
        return _varint(number << 3 | 5) + bytes(value)
    return _varint(number << 3) + _varint(value % 2**64)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
