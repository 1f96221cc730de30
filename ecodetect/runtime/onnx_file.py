"""A model in ONNX: the card in its metadata, and the checks before a runtime may open it.

Read without the packages `onnx` and `protobuf` (https://onnx.ai/onnx/repo-docs/IR.html,
https://protobuf.dev/programming-guides/encoding). A runtime may read a handmade file differently than we do:
repeated fields, numbers longer than necessary, unknown fields. So only files as `ecodetect export` writes
them are accepted: the fields of `_MESSAGES`, each of its type, in the shortest form, and once unless it is a
list. There are no nested graphs, no functions, no types except tensors, and nothing that names another file.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecodetect.bundle.card import Card
from ecodetect.bundle.file import KEY, Bundle, check_weights
from ecodetect.errors import BundleError

OPSET = 17  # which `export` writes: ONNX Runtime 1.12 (2022) reads it
STRIDE_KEY = "ecodetect.stride"
_LARGEST_BYTES = 2**31 - 1  # of a protobuf message
_MOST_SIDES = 8  # of a tensor
_MOST_NODES = 20_000  # the largest network that we know has 2,000
FLOAT, INT64 = 1, 7  # types of tensors
TYPES: Mapping[int, Any] = {FLOAT: np.dtype("<f4"), 6: np.dtype("<i4"), INT64: np.dtype("<i8"), 9: np.bool_}

# Message -> number of a field -> its name, its type (`_WIRE`, or a message) and whether it is a list.
_MESSAGES: Mapping[str, Mapping[int, tuple[str, str, bool]]] = {
    "model": {
        1: ("ir_version", "whole", False),
        2: ("producer_name", "text", False),
        3: ("producer_version", "text", False),
        5: ("model_version", "whole", False),
        6: ("doc_string", "text", False),
        7: ("graph", "graph", False),
        8: ("opset", "opset", True),
        14: ("metadata", "entry", True),
    },
    "opset": {1: ("domain", "text", False), 2: ("version", "whole", False)},
    "entry": {1: ("key", "text", False), 2: ("value", "text", False)},
    "graph": {
        1: ("node", "node", True),
        2: ("name", "text", False),
        5: ("weight", "tensor", True),
        10: ("doc_string", "text", False),
        11: ("input", "value", True),
        12: ("output", "value", True),
    },
    "node": {
        1: ("input", "text", True),
        2: ("output", "text", True),
        3: ("name", "text", False),
        4: ("kind", "text", False),
        5: ("attribute", "attribute", True),
        6: ("doc_string", "text", False),
    },
    "attribute": {
        1: ("name", "text", False),
        2: ("f", "float", False),
        3: ("i", "whole", False),
        4: ("s", "text", False),
        5: ("t", "tensor", False),
        7: ("floats", "float", True),
        8: ("ints", "whole", True),
        20: ("type", "whole", False),
    },
    "tensor": {
        1: ("dims", "whole", True),
        2: ("type", "whole", False),
        8: ("name", "text", False),
        9: ("raw", "bytes", False),
    },
    "value": {1: ("name", "text", False), 2: ("type", "type", False)},
    "type": {1: ("tensor", "tensor_type", False)},
    "tensor_type": {1: ("elem", "whole", False), 2: ("shape", "shape", False)},
    "shape": {1: ("dim", "dim", True)},
    "dim": {1: ("value", "whole", False), 2: ("name", "text", False)},
}
_WIRE = {"whole": 0, "float": 5, "text": 2, "bytes": 2}
_ATTRIBUTES = {
    1: "f",
    2: "i",
    3: "s",
    4: "t",
    6: "floats",
    7: "ints",
}  # which value an attribute of a type has
_EXTERNAL = (13, 14)  # fields of a tensor that name another file


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """A step of a graph.

    kind : name of the operator.  inputs, outputs : names of tensors, "" where there is none.
    attributes : name -> float, int, text, array, or tuple.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True, eq=False, slots=True)
class Graph:
    """A network.

    image : name of its only input.  outputs : names.
    shape : of the input, None where it may be of any length.
    weights : name -> array.
    nodes : in the order in which they can be done.
    """

    image: str
    shape: tuple[int | None, ...]
    outputs: tuple[str, ...]
    weights: Mapping[str, NDArray[Any]]
    nodes: tuple[Node, ...]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class OnnxModel(Bundle):
    """What stands for a bundle where a model was exported: its weights are inside `content`.

    content : the file.
    stride : of the network; sides of batches are multiples of it.
    parameters : how many numbers are learned.
    graph : what `content` says.
    """

    content: bytes
    stride: int
    parameters: int
    graph: Graph

    @property
    def hash(self) -> str:
        """A hash of the whole file: an output states it as what it was made with."""
        return hashlib.sha256(self.content).hexdigest()[:16]


class _External(ValueError):
    """A tensor lies in another file."""


def read_card(path: str | os.PathLike[str]) -> Card:
    """The card of a model in ONNX; raises BundleError as `read` does."""
    return read(path).card


def read(path: str | os.PathLike[str]) -> OnnxModel:
    """A model in ONNX that `ecodetect export` has written.

    Raises BundleError, in one sentence, for a file that is missing, damaged, something else, without our
    card, whose weights lie in other files (they could be any file of this machine), or aren't finite.
    """
    try:
        if not Path(path).is_file():
            raise BundleError(f"There is no file {path}.")
        if Path(path).stat().st_size > _LARGEST_BYTES:
            raise BundleError(f"{path} is larger than the 2 GB that a file in ONNX can have.")
        content = Path(path).read_bytes()
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror or error}.") from error
    try:
        model = _message(memoryview(content), "model")
        graph = _graph(model)
        entries = _entries(model)
    except _External as error:
        raise BundleError(
            f"{path} keeps weights in other files, which are never opened; export it as one."
        ) from error
    except (ValueError, IndexError, OverflowError) as error:
        raise BundleError(
            f"{path} is not an ONNX file as `ecodetect export` writes it, or it is damaged or cut short"
            f" ({str(error) or 'it ends too early'})."
        ) from error
    card, stride = entries.get(KEY), entries.get(STRIDE_KEY, "")
    if card is None:
        raise BundleError(f"{path} has no card of ecodetect; only what `ecodetect export` wrote can be used.")
    if not (stride.isascii() and stride.isdigit() and 1 <= int(stride[:6]) <= 1024):
        raise BundleError(f"The card of {path} is damaged (its stride can't be '{stride[:20]}').")
    check_weights(graph.weights, str(path))
    parameters = sum(values.size for values in graph.weights.values())
    return OnnxModel(
        Card.from_json(card, source=str(path)),
        {},
        content=content,
        stride=int(stride),
        parameters=parameters,
        graph=graph,
    )


def graph_in(content: bytes) -> Graph:
    """The network in a file's content; raises ValueError or IndexError unless it is one of ours."""
    return _graph(_message(memoryview(content), "model"))


# -- from messages to a graph ------------------------------------------------------------------------------


def _entries(model: Mapping[str, Any]) -> dict[str, str]:
    """The metadata; raises ValueError for a name that appears twice."""
    found: dict[str, str] = {}
    for entry in model["metadata"]:
        name = entry.get("key", "")
        if name in found:
            raise ValueError(f"its metadata say '{name[:40]}' twice")
        found[name] = entry.get("value", "")
    return found


def _graph(model: Mapping[str, Any]) -> Graph:
    """The network; raises ValueError where something in it can't be."""
    if [each.get("domain", "") for each in model["opset"]] != [""]:
        raise ValueError("it has operators of others")
    if model["opset"][0].get("version", 0) != OPSET:  # in another an operator may mean something else
        raise ValueError(f"its operators aren't those of version {OPSET}")
    graph = model.get("graph")
    if graph is None:
        raise ValueError("it has no graph")
    if len(graph["input"]) != 1 or not graph["output"] or len(graph["node"]) > _MOST_NODES:
        raise ValueError("its graph isn't a network for images")
    image = graph["input"][0].get("name", "")
    weights = {each.get("name", ""): _array(each) for each in graph["weight"]}
    nodes = tuple(_node(each) for each in graph["node"])
    made = [image, *(each.get("name", "") for each in graph["weight"])]
    made += [name for node in nodes for name in node.outputs if name]
    if "" in made[: 1 + len(graph["weight"])] or len(set(made)) != len(made):
        raise ValueError("a tensor appears twice, or has no name")
    shape = graph["input"][0].get("type", {}).get("tensor", {}).get("shape", {}).get("dim", [])
    sides = tuple(each.get("value") for each in shape)
    return Graph(image, sides, tuple(each.get("name", "") for each in graph["output"]), weights, nodes)


def _node(message: Mapping[str, Any]) -> Node:
    attributes = {}
    for each in message["attribute"]:
        name, value = each.get("name", ""), _ATTRIBUTES.get(each.get("type", 0))
        there = {key for key in each if key not in ("name", "type") and each[key] != []}
        if value is None or name in attributes or not there <= {value}:
            raise ValueError(f"the attribute {name[:40]} is not one that a network needs")
        found = each.get(value, {"f": 0.0, "i": 0, "s": ""}.get(value))
        if value == "t":
            found = None if found is None else _array(found)
        attributes[name] = tuple(found) if isinstance(found, list) else found
    outputs = tuple(message["output"])
    return Node(message.get("kind", ""), tuple(message["input"]), outputs, attributes)


def _array(tensor: Mapping[str, Any]) -> NDArray[Any]:
    """What a tensor holds; raises ValueError unless its bytes are all in the file."""
    sides, kind = tensor["dims"], TYPES.get(tensor.get("type", 0))
    if kind is None:
        raise ValueError("a tensor is of a type that no network has")
    if len(sides) > _MOST_SIDES or min(sides, default=0) < 0:
        raise ValueError("a tensor has too many dimensions, or a negative one")
    raw = tensor.get("raw", b"")
    if math.prod(sides) * np.dtype(kind).itemsize != len(raw):
        raise ValueError("a tensor has another size than its bytes")
    return np.frombuffer(raw, kind).reshape(sides)


# -- from bytes to messages --------------------------------------------------------------------------------


def _message(message: memoryview, kind: str) -> dict[str, Any]:
    """A message by the names of its fields, lists always there; raises ValueError or IndexError."""
    known = _MESSAGES[kind]
    found: dict[str, Any] = {name: [] for name, _, is_list in known.values() if is_list}
    for number, wire, value in fields(message):
        if kind == "tensor" and number in _EXTERNAL:
            raise _External
        if number not in known:
            raise ValueError(f"a {kind} has a field {number}")
        name, what, is_list = known[number]
        if wire != _WIRE.get(what, 2):
            raise ValueError(f"{name} of a {kind} is of another type")
        read: Any = value
        if what in _MESSAGES:
            read = _message(value, what)
        elif what == "text":
            read = str(value, "utf-8")
        elif what == "float":
            (read,) = struct.unpack("<f", value)
        if is_list:
            found[name].append(read)
        elif name in found:
            raise ValueError(f"{name} of a {kind} appears twice")
        else:
            found[name] = read
    return found


def fields(message: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of each field: a whole number, or bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number < 2**29:
            raise ValueError("a field without a number")
        if wire == 0:
            value, at = _varint(message, at)
            yield number, wire, value if value < 2**63 else value - 2**64
            continue
        if wire == 2:
            length, at = _varint(message, at)
        elif wire == 5:
            length = 4
        else:
            raise ValueError("an unknown kind of field")
        if at + length > len(message):
            raise ValueError("cut short")
        yield number, wire, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A whole number of 64 bits in its shortest form, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 2**64 or (not byte and shift):
                break
            return value, at
    raise ValueError("a number that is too long")
